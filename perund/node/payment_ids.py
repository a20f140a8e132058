"""Payment ids: 16 bytes that sort in the order in which they are made. See docs/adr/0002."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

__all__ = ["PaymentIds", "bounds"]

_COUNTERS = 1 << 24
_PREFIX_BYTES = 9


def bounds(first: bytes, count: int) -> tuple[bytes, bytes]:
    """Return two prefixes: the ids of one `make(count)` that began with `first` sort from the one, below the other."""
    prefix = int.from_bytes(first[:_PREFIX_BYTES], "big")
    return prefix.to_bytes(_PREFIX_BYTES, "big"), (prefix + count).to_bytes(_PREFIX_BYTES, "big")


class PaymentIds:
    """Makes ids: 6 bytes of milliseconds since 1970, a counter of 3 bytes, 7 random bytes.

    Random ids scatter over the index of the store, and every payment then costs a page of its own; ids that
    rise are appended. Unique for ever is what the protocol needs, and 56 random bits per counter give it even
    to a restored copy of a node.
    """

    def __init__(self, now_ns: Callable[[], int] = time.time_ns, random: Callable[[int], bytes] = os.urandom) -> None:
        self._now_ns = now_ns
        self._random = random
        self._ms = 0
        self._counter = 0

    def make(self, count: int) -> bytes:
        """Return `count` ids, joined: each larger than all before, also when the clock steps back."""
        ms = max(self._now_ns() // 1_000_000, self._ms)
        first = self._counter if ms == self._ms else 0
        if first + count > _COUNTERS:
            ms, first = ms + 1, 0
        self._ms, self._counter = ms, first + count
        prefix, noise = ms.to_bytes(6, "big"), self._random(7 * count)
        if count == 1:
            return prefix + first.to_bytes(3, "big") + noise
        return b"".join(
            [
                prefix + counter.to_bytes(3, "big") + noise[start : start + 7]
                for counter, start in zip(range(first, first + count), range(0, 7 * count, 7), strict=True)
            ]
        )
