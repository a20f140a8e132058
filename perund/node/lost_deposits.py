"""Deposits of ours that this node's records may lack: only the ledger's blocks know of them.

A node that lost its disk between a transfer and its credit has no record of it, and nobody else tells the canister.
Nothing is paid here (rule 7): what left the wallet under the funding's memo is found, and then credited as usual.
"""

from __future__ import annotations

from typing import Final

import structlog

from chain.ledger import Block, IcpLedger, Transfer
from perund.node.ledger_scan import EARLIER_NS, find_block, first_block_since
from perund.node.transfers import Transfers
from perund.store.jobs import book_cost, insert_transfer
from perund.store.rows import TransferIntent
from perund.store.store import Store
from protocol.effects import EventRecord
from protocol.funding import IntentStatus
from protocol.terms import Terms
from protocol.types import Nanos

__all__ = ["LostDeposits"]

log = structlog.get_logger()

LATER_NS: Final = 360 * 1_000_000_000
"""Searched after the funding deadline: a transfer that was asked for in time is executed until its call expires."""


class LostDeposits:
    """Looks for one channel's deposit. `done`: whether none can be missing any more."""

    def __init__(
        self, number: int, terms: Terms, store: Store, ledger: IcpLedger, transfers: Transfers, receiver: bytes
    ) -> None:
        """`number`: the channel's place in the store; `receiver`: the canister's account, 32 bytes."""
        self.done = False
        self._number = number
        self._terms = terms
        self._store = store
        self._ledger = ledger
        self._transfers = transfers
        self._receiver = receiver
        self._position: int | None = None

    async def search(self) -> None:
        """Write down the deposits that are found; `done` when the blocks reach beyond every possible one.

        Raises `ChainError`.
        """
        terms = self._terms
        memo = terms.funding(terms.our_index).memo
        if self._position is None:
            row = self._store.read.channel(self._number)
            assert row is not None
            self._position = await first_block_since(self._ledger, row.opened_ns - EARLIER_NS)
        length = (await self._ledger.chain_length()).value

        def is_ours(block: Block) -> bool:
            operation = block.operation
            return (
                isinstance(operation, Transfer)
                and (operation.from_, operation.to) == (self._transfers.account, self._receiver)
                and block.memo == memo
                and block.index not in self._store.blocks
            )

        while True:
            block, tip_ns = await find_block(self._ledger, self._position, is_ours)
            if block is None:
                if tip_ns:  # read to the tip: the next search begins at what comes after it
                    self._position = max(self._position, length)
                self.done = tip_ns > terms.funding_deadline_ns + LATER_NS
                return
            await self._record(block)
            self._position = block.index + 1

    async def _record(self, block: Block) -> None:
        operation, terms = block.operation, self._terms
        assert isinstance(operation, Transfer)
        event = EventRecord(
            "channel.deposit_found", terms.channel, {"amount_e8s": str(operation.amount_e8s), "block": block.index}
        )
        log.warning("deposit.found", block=block.index, amount_e8s=operation.amount_e8s)
        content = (operation.amount_e8s, operation.fee_e8s, block.created_at_time_ns)
        for known in self._store.read.deposits(self._number):
            if (known.amount_e8s, known.fee_e8s, known.created_at_ns) == content and known.block is None:
                # It is on record, and its end was not, or was another one: a later life of this copy asked for it.
                await self._transfers.found(known.number, block.index, event)
                return
        intent = TransferIntent(
            number=self._transfers.reserve_number(),
            channel_number=self._number,
            receiver=self._receiver,
            amount_e8s=operation.amount_e8s,
            fee_e8s=operation.fee_e8s,
            memo=block.memo,
            created_at_ns=Nanos(block.created_at_time_ns),
            status=IntentStatus.PAID,
            block=block.index,
            last_expiry_ns=Nanos(0),
            unproven=0,
            from_block=block.index,
        )
        with self._store.blocks.taken(block.index):
            await self._store.write(
                [insert_transfer(intent), book_cost(self._number, "deposit fee", operation.fee_e8s), event]
            )
