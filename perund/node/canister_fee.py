"""The fee that a published canister lacks: it pays holdings out in full, and the ledger's fee out of its pool.

When the pool does not have it, nobody is paid. Then the fee is sent to it by a plain transfer, once for each
payout, and booked as a cost of the channel. Source: DESIGN, section 4.
"""

from __future__ import annotations

import hashlib
from typing import Final

import structlog

from chain.ledger import IcpLedger
from chain.perun import PerunCanister
from perund.node.job import Progress
from perund.node.transfers import Transfers
from perund.store.jobs import book_cost
from perund.store.rows import TransferIntent
from perund.store.store import Store
from perund.store.writer import Statement
from protocol.effects import EventRecord
from protocol.encoding import encode_funding
from protocol.funding import IntentStatus
from protocol.types import Funding

__all__ = ["CANISTER_FEE", "CanisterFee"]

log = structlog.get_logger()

CANISTER_FEE: Final = "canister fee"


class CanisterFee:
    """Sends the fee for the payouts of one funding. `number`: the channel's row; `account`: the canister's."""

    def __init__(
        self,
        number: int,
        funding: Funding,
        store: Store,
        transfers: Transfers,
        perun: PerunCanister,
        ledger: IcpLedger,
        account: bytes,
    ) -> None:
        self._number = number
        self._funding = funding
        self._store = store
        self._transfers = transfers
        self._perun = perun
        self._ledger = ledger
        self._account = account

    async def send_if_missing(self, holdings_e8s: int, fee_e8s: int) -> Progress | None:
        """See to it that the fee of the next payout is there, after the canister said that the ledger failed.

        Returns None when nothing more can be done here: ask the canister again. Raises `WalletTooLow`, `FeeTooHigh`,
        `ChainError`.
        """
        sent = next((s for s in self._sent() if s.status is not IntentStatus.VOID), None)
        if sent is not None:  # once for this payout, whatever the canister says
            after = await self._transfers.drive(sent.number)
            if after.status is IntentStatus.OPEN:
                return Progress.wait("the ledger to say whether the fee reached the canister")
            if after.status is IntentStatus.VOID:
                return Progress.again()
            await self._store.write(self.unbooked())
            return None
        if await self._perun.supports_disputes_since():
            return None  # not the published canister: there the fee comes out of the payout
        missing_e8s = holdings_e8s + fee_e8s - (await self._ledger.balance(self._account)).value
        if not 0 < missing_e8s <= fee_e8s:
            # Either the ledger failed for another reason, or more is gone than a fee: that is not ours to fill up.
            log.warning("canister.cannot_pay", channel=self._funding.channel.hex()[:16], missing_e8s=missing_e8s)
            return None
        facts: dict[str, str | int | bool] = {"amount_e8s": str(missing_e8s)}
        intent = await self._transfers.plan(
            self._account,
            missing_e8s,
            self._memo(),
            None,
            [EventRecord("canister.fee_sent", self._funding.channel, facts)],
        )
        log.info("canister.fee_sent", channel=self._funding.channel.hex()[:16], amount_e8s=missing_e8s)
        await self._transfers.drive(intent.number)
        return Progress.again()

    def unbooked(self) -> list[Statement]:
        """Return what is still to be booked of the fees that were paid."""
        payouts = range(self._payouts() + 1)
        paid = [s for payout in payouts for s in self._sent(payout) if s.status is IntentStatus.PAID]
        booked = sum(cost.what == CANISTER_FEE for cost in self._store.read.costs(self._number))
        return [book_cost(self._number, CANISTER_FEE, s.amount_e8s) for s in paid[booked:]]

    def _payouts(self) -> int:
        return sum(w.status == "paid" for w in self._store.read.withdrawals(self._number))

    def _sent(self, payout: int | None = None) -> list[TransferIntent]:
        return self._store.read.sends_to(self._account, self._memo(payout))

    def _memo(self, payout: int | None = None) -> int:
        """Return what the transfer is known by: no funding's memo, so that nobody can have it credited."""
        ordinal = self._payouts() if payout is None else payout
        hashed = hashlib.sha512(b"perund canister fee" + ordinal.to_bytes(4, "big") + encode_funding(self._funding))
        return int.from_bytes(hashed.digest()[:8], "little")
