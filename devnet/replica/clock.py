"""Chain time: the wall clock plus an offset that tests may advance. It never stands still or runs back."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["ChainClock"]


class ChainClock:
    """The one time of the network: `/time`, node signatures and canisters all read it.

    `wall_ns`: tells nanoseconds since 1970.
    """

    def __init__(self, wall_ns: Callable[[], int] = time.time_ns) -> None:
        self._wall_ns = wall_ns
        self._last_ns = 0
        self._offset_ns = 0

    def restore(self, last_ns: int, offset_ns: int) -> None:
        """Go on after a restart: later than `last_ns`, ahead of the wall clock by `offset_ns`."""
        self._last_ns = max(self._last_ns, last_ns)
        self._offset_ns = offset_ns

    @property
    def offset_ns(self) -> int:
        """By how much chain time is ahead of the wall clock, in nanoseconds."""
        return self._offset_ns

    def now_ns(self) -> int:
        """Return chain time in nanoseconds since 1970, later than any that was returned before."""
        self._last_ns = max(self._last_ns + 1, self._wall_ns() + self._offset_ns)
        return self._last_ns

    def advance(self, nanoseconds: int) -> int:
        """Move time ahead by a positive number of nanoseconds and return the new time."""
        if nanoseconds <= 0:
            raise ValueError(f"time can only be advanced, not by {nanoseconds} ns")
        self._offset_ns += nanoseconds
        return self.now_ns()
