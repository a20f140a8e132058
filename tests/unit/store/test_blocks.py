"""Each block of the ledger is spoken for once, also while its booking is on the way to the disk."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from perund.store.jobs import insert_transfer
from protocol.errors import InvariantBroken
from protocol.funding import IntentStatus
from tests.unit.store.books import Books
from tests.unit.store.test_rows import TRANSFER


async def test_a_block_is_taken_from_the_moment_it_is_decided_on(books: Books) -> None:
    blocks = books.store.blocks
    assert 77 not in blocks
    with blocks.taken(77):
        assert 77 in blocks
        with pytest.raises(InvariantBroken, match="block 77"), blocks.taken(77):
            pass
        await books.store.write([insert_transfer(replace(TRANSFER, status=IntentStatus.PAID, block=77))])
    assert 77 in blocks
    books.reopen()
    assert 77 in books.store.blocks


async def test_one_whose_booking_nobody_waits_for_any_more_stays_taken(books: Books) -> None:
    """Who waited was cancelled; what was to be written is written all the same."""
    blocks = books.store.blocks

    async def book() -> None:
        with blocks.taken(77):
            await asyncio.Event().wait()

    booking = asyncio.ensure_future(book())
    await asyncio.sleep(0)
    booking.cancel()
    await asyncio.wait([booking])
    assert 77 in blocks
