"""Looking for one block of the ledger, page by page, the archived ones included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from chain.ledger import Block, IcpLedger

__all__ = ["EARLIER_NS", "find_block", "first_block_since"]

BLOCKS_PER_PAGE: Final = 50
"""More are not certified in one answer."""
EARLIER_NS: Final = 600 * 1_000_000_000
"""Searched before a moment that is known here: clocks of nodes and subnets differ, and ours estimates the chain's."""


async def find_block(ledger: IcpLedger, start: int, wanted: Callable[[Block], bool]) -> tuple[Block | None, int]:
    """Return the first block from `start` on that is wanted, or None when there is none up to the tip.

    With it the chain time (ns) of the certificate that showed the tip: what came later was not seen.
    Raises `ChainError`.
    """
    tip_ns = 0
    position = start
    while True:
        page = await ledger.blocks(position, BLOCKS_PER_PAGE)
        tip_ns = page.chain_time_ns
        seen = position
        for place in page.value.archived:
            first = place.start
            while first < place.start + place.length:
                part = type(place)(first, place.start + place.length - first, place.canister, place.method)
                blocks = (await ledger.archived(part)).value
                for block in blocks:
                    if wanted(block):
                        return block, tip_ns
                first += max(1, len(blocks))
            seen = max(seen, first)
        for block in page.value.blocks:
            if wanted(block):
                return block, tip_ns
            seen = max(seen, block.index + 1)
        if seen >= page.value.chain_length or seen == position:
            return None, tip_ns if seen >= page.value.chain_length else 0
        position = seen


async def first_block_since(ledger: IcpLedger, since_ns: int) -> int:
    """Return the index of the first block of that ledger time (ns) or later; the chain's length if there is none.

    Raises `ChainError`.
    """
    low, high = 0, (await ledger.chain_length()).value
    while low < high:
        middle = (low + high) // 2
        page = (await ledger.blocks(middle, 1)).value
        blocks = page.blocks or (await ledger.archived(page.archived[0])).value
        if blocks[0].timestamp_ns < since_ns:
            low = middle + 1
        else:
            high = middle
    return low
