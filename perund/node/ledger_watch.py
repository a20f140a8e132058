"""What the ledger decides, and may change: its fee, its decimals, where a transfer is a burn.

None of it is a constant of this node. Each transfer and each payout reads the fee anew; this reads all of it now and
then besides, so that a change is known before money waits for it, and a node that cannot work with it opens nothing.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import structlog

from chain.errors import ChainError
from perund.amounts import DECIMALS
from perund.node.published import PUBLISHED_FEE_E8S

if TYPE_CHECKING:
    from chain.ledger import IcpLedger
    from chain.perun import PerunCanister
    from perund.node.transfers import Transfers

__all__ = ["LedgerWatch"]

log = structlog.get_logger()

RETRY_S: Final = 5.0
AGAIN_S: Final = 60.0


class LedgerWatch:
    """Reads, certified, what the ledger decides. `fee_e8s`: as last read; `since_ns`: of what is wrong, wall clock."""

    def __init__(self, ledger: IcpLedger, perun: PerunCanister, transfers: Transfers) -> None:
        self._ledger = ledger
        self._perun = perun
        self._transfers = transfers
        self._decimals: int | None = None
        self.fee_e8s: int | None = None
        self.minting_account: bytes | None = None
        """Account identifier, 32 bytes: what is sent there is burned."""
        self._problem = ""
        self.since_ns = 0

    def problem(self) -> str:
        """Return why money cannot be paid in or out by this ledger now, or nothing."""
        return self._problem

    async def check(self) -> None:
        """Read everything once. Raises `ChainError`."""
        fee = (await self._ledger.fee()).value
        if self._decimals is None:
            # Both or none: who asks meanwhile must not find the one and miss the other.
            decimals = (await self._ledger.decimals()).value
            self._decimals, self.minting_account = decimals, (await self._ledger.minting_account()).value
        if self.fee_e8s not in (None, fee):
            log.warning("ledger.fee_changed", was_e8s=self.fee_e8s, is_e8s=fee)
        self.fee_e8s = fee
        problem = await self._judged(fee, self._decimals)
        if problem and problem != self._problem:
            log.error("ledger.unusable", problem=problem)
        if problem and not self._problem:
            self.since_ns = time.time_ns()
        self._problem = problem

    async def _judged(self, fee_e8s: int, decimals: int) -> str:
        if decimals != DECIMALS:
            return f"the ledger counts with {decimals} decimals, this node with {DECIMALS}: correct ic.icp_ledger"
        too_high = self._transfers.too_high(fee_e8s)
        if too_high:
            return f"{too_high}; nothing is paid in or out meanwhile"
        if fee_e8s != PUBLISHED_FEE_E8S and not await self._perun.supports_disputes_since():
            return (
                f"the ledger takes a fee of {fee_e8s} e8s, and this canister pays out with {PUBLISHED_FEE_E8S} e8s: "
                "the ledger refuses its payouts, so none is asked for, and no channel is opened"
            )
        return ""

    async def watch(self) -> None:
        """Check again and again: without an answer soon, else now and then."""
        while True:
            try:
                await self.check()
                pause = AGAIN_S
            except ChainError as error:
                log.warning("ledger.not_checked", error=str(error))
                pause = RETRY_S
            await asyncio.sleep(pause)
