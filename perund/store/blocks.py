"""Which blocks of the ledger are spoken for: each is booked once, as one transfer or one payout of this node.

The key is in the store. What is on its way to the disk is known here, so that two who search at the same moment do not
both take the same block: the second write would fail, and end the node.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from perund.store.reading import Reader
from protocol.errors import InvariantBroken

__all__ = ["BookedBlocks"]


class BookedBlocks:
    """The register. Used on the event loop."""

    def __init__(self, read: Reader) -> None:
        self._read = read
        self._on_their_way: set[int] = set()

    def __contains__(self, block: int) -> bool:
        return block in self._on_their_way or self._read.is_booked(block)

    @contextmanager
    def taken(self, block: int) -> Iterator[None]:
        """Hold a block that is not spoken for while it is written down. Ask and take it in one turn of the loop."""
        if block in self:
            raise InvariantBroken(f"block {block} of the ledger was to be booked a second time")
        self._on_their_way.add(block)
        yield
        self._on_their_way.discard(block)  # not when the wait was given up: it is written all the same
