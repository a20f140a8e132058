"""What a node does beside a canister of the published code: it asks for nothing that this code is known to lose.

The published code takes a withdrawal off the books, asks the ledger, and puts it back when the ledger refuses. It
cannot put it back while any notification waits for the ledger: that holds the lock of everything, the call traps, and
the holdings are gone. So a payout that may be refused is not asked for (see `payout_pool`), and nothing of this node's
own is under way meanwhile. It is recognised by what its certified interface lacks. Source: DESIGN, section 4; ADR 0015.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import structlog

from chain.errors import CallExpired, CallRejected, ChainError
from chain.perun import CanisterError
from chain.request import SignedCall
from chain.state_reader import INGRESS_TTL_NS

if TYPE_CHECKING:
    from chain.ledger import IcpLedger
    from chain.perun import PerunCanister
    from perund.node.chain_time import ChainTime
    from perund.store.store import Store

__all__ = ["PUBLISHED_FEE_E8S", "PublishedGuard"]

log = structlog.get_logger()

PUBLISHED_FEE_E8S: Final = 10_000
"""A constant of the published code, whatever the ledger takes: at any other fee the ledger refuses every payout."""


BLOCKS_TRIED: Final = 3


class PublishedGuard:
    """One for all jobs of a node: their calls of a published canister, one after the other."""

    def __init__(self, perun: PerunCanister, ledger: IcpLedger, store: Store, time: ChainTime) -> None:
        self._perun = perun
        self._ledger = ledger
        self._store = store
        self._time = time
        self._lock = asyncio.Lock()
        self._quiet_at_ns: int | None = None
        """No call of ours that is not known to have ended runs after this chain time; None: not known yet."""
        self._reads_our_ledger = False

    async def applies(self) -> bool:
        """Whether the canister is one of the published code. Raises `ChainError`."""
        return not await self._perun.supports_disputes_since()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """Have nothing else of this node under way inside the block. Yields whether the canister is published.

        A call that ends unknown may run on after the block: see `still_running`.
        """
        if not await self.applies():
            yield False
            return
        async with self._lock:
            yield True

    async def notify(self, block: int) -> int | CanisterError:
        """Tell the canister of a block of the ledger, within a turn; see `PerunCanister.transaction_notification`."""
        try:
            return (await self._perun.transaction_notification(block)).value
        except (CallRejected, CallExpired):
            raise  # it has ended
        except ChainError:
            self._quiet_at_ns = max(self._quiet_at_ns or 0, self._time.chain_ns() + INGRESS_TTL_NS)
            raise

    def still_running(self, number: int) -> str:
        """Return which call of ours may still run in the canister, besides those for the channel in row `number`."""
        now_ns = self._time.chain_ns()
        if self._quiet_at_ns is None:
            # A life before this one may have notified a deposit a moment ago.
            self._quiet_at_ns = now_ns + INGRESS_TTL_NS if self._store.read.has_uncredited() else 0
        if now_ns <= self._quiet_at_ns:
            return "a call of this node to the canister to end: its answer was lost"
        for row, envelope in self._store.read.open_withdrawals():
            if row != number and now_ns <= SignedCall.from_bytes(envelope).ingress_expiry_ns:
                return "another withdrawal of this node to end: its answer was lost"
        return ""

    async def reads_our_ledger(self) -> bool:
        """Whether the canister can read the ledger that deposits go to: its id is a constant of the published code.

        Asked by the newest blocks, whoever they pay: that it can read one is proof. Raises `ChainError`.
        """
        if self._reads_our_ledger:
            return True
        length = (await self._ledger.chain_length()).value
        for block in range(length - 1, max(-1, length - 1 - BLOCKS_TRIED), -1):
            try:
                async with self.turn():
                    answer = await self.notify(block)
            except CallRejected:
                return True  # it trapped: that says nothing about its ledger
            if answer is not CanisterError.FAILED_TO_QUERY:
                self._reads_our_ledger = True
                return True
        log.error("canister.reads_another_ledger", blocks=length)
        return False
