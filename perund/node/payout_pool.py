"""The pool that a published canister pays from: no payout is asked for that it cannot pay.

The published code pays holdings out in full and the ledger's fee out of everybody's money, so the last ones find too
little. A payout that the ledger refuses can be lost (see `published`). So the pool is read first, certified; what is
missing is lent to it by a plain transfer, exactly, as long as it is small against the payout, and booked as a cost of
the channel together with the fee of that transfer. Source: DESIGN, section 4; ADR 0015.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

import structlog

from chain.ledger import IcpLedger
from perund.node.job import Progress
from perund.node.published import PUBLISHED_FEE_E8S, PublishedGuard
from perund.node.transfers import Transfers
from perund.store.jobs import book_cost, charge_channel
from perund.store.rows import TransferIntent
from perund.store.store import Store
from perund.store.writer import Statement
from protocol.effects import EventRecord
from protocol.encoding import encode_funding
from protocol.funding import IntentStatus
from protocol.terms import Terms

__all__ = ["CANISTER_FEE", "LENDING_FEE", "PayoutPool", "most_lent_e8s"]

log = structlog.get_logger()

CANISTER_FEE: Final = "canister fee"
LENDING_FEE: Final = "transfer fee"
LENT_OF_PAYOUT: Final = 100
"""At most this part of a large payout is lent for it."""
GIVES_WAY: Final = 5
"""How many looks participant 1 gives way to participant 0 when the pool cannot pay both: one of two would fail."""


def most_lent_e8s(payout_e8s: int, fee_e8s: int) -> int:
    """Return how much may be lent for one payout in all.

    A hundredth of it; or a tenth, as long as that is no more than ten fees; and the fees of both sides in any case.

    >>> most_lent_e8s(400_000_000, 10_000), most_lent_e8s(500_000, 10_000), most_lent_e8s(50_000, 10_000)
    (4000000, 50000, 20000)
    """
    few = min(10 * fee_e8s, payout_e8s // 10)
    return max(payout_e8s // LENT_OF_PAYOUT, few, 2 * fee_e8s)


class PayoutPool:
    """For the payouts of one channel. `number`: the channel's row; `account`: the canister's."""

    def __init__(
        self,
        number: int,
        terms: Terms,
        store: Store,
        transfers: Transfers,
        ledger: IcpLedger,
        account: bytes,
        guard: PublishedGuard,
        may_lend: Callable[[], bool],
    ) -> None:
        """`may_lend`: asked at the last moment before money leaves."""
        self._number = number
        self._terms = terms
        self._funding = terms.funding(terms.our_index)
        self._store = store
        self._transfers = transfers
        self._ledger = ledger
        self._account = account
        self._guard = guard
        self._may_lend = may_lend
        self._gave_way = 0

    async def obstacle(self, holdings_e8s: int, peer_e8s: int, fee_e8s: int) -> Progress | None:
        """Return why the canister must not be asked for our holdings now; None when it can pay them.

        `peer_e8s`: what the peer can take out at any moment. Asked within a turn of the guard. Raises `WalletTooLow`,
        `FeeTooHigh`, `ChainError`.
        """
        if fee_e8s != PUBLISHED_FEE_E8S:
            return Progress.stuck(
                f"the ledger takes a fee of {fee_e8s} e8s, and this canister pays out with {PUBLISHED_FEE_E8S} e8s: "
                f"it would be refused, so {holdings_e8s} e8s are not asked for"
            )
        running = self._guard.still_running(self._number)
        if running:
            return Progress.wait(running)
        for sent in self._sent():
            if sent.status is IntentStatus.OPEN:
                after = await self._transfers.drive(sent.number, may_ask=self._may_lend)
                if after.status is IntentStatus.OPEN:
                    return Progress.wait("the ledger to say whether the fee reached the canister")
        booked = self.unbooked()
        if booked:
            await self._store.write(booked)
        needed = holdings_e8s + fee_e8s
        for_both = needed + (peer_e8s + fee_e8s if peer_e8s > fee_e8s else 0)
        pool = (await self._ledger.balance(self._account)).value
        if pool < for_both:
            # It is tight: a payout that left the books of the canister a moment ago may not be on the ledger yet.
            pool = min(pool, (await self._ledger.balance(self._account)).value)
            if self._terms.our_index == 1 and for_both > needed and self._gave_way < GIVES_WAY:
                self._gave_way += 1
                return Progress.wait("the peer's payout: the canister cannot pay both sides at once")
        return await self._lend(needed - pool, holdings_e8s, fee_e8s) if pool < needed else None

    async def can_pay(self, holdings_e8s: int) -> bool:
        """Whether the pool can pay so much now, at the fee of the published code. Raises `ChainError`."""
        pool, fee = (await self._ledger.balance(self._account)).value, (await self._ledger.fee()).value
        return fee == PUBLISHED_FEE_E8S and pool >= holdings_e8s + fee

    async def _lend(self, missing_e8s: int, holdings_e8s: int, fee_e8s: int) -> Progress:
        lent = sum(s.amount_e8s for s in self._sent() if s.status is not IntentStatus.VOID)
        most = most_lent_e8s(holdings_e8s, fee_e8s)
        if lent + missing_e8s > most or lent + missing_e8s + fee_e8s >= holdings_e8s:
            return Progress.stuck(
                f"the canister cannot pay {holdings_e8s} e8s: its account on the ledger lacks {missing_e8s} e8s, and "
                f"at most {most} e8s are lent for this payout ({lent} e8s were); it is asked for when it can pay, so "
                f"others may fill it up, or you: perun wallet send {self._account.hex()} '{missing_e8s} e8s'"
            )
        facts: dict[str, str | int | bool] = {"amount_e8s": str(missing_e8s)}
        event = EventRecord("canister.fee_sent", self._funding.channel, facts)
        intent = await self._transfers.plan(self._account, missing_e8s, self._memo(), None, [event])
        log.info("canister.fee_sent", channel=self._funding.channel.hex()[:16], amount_e8s=missing_e8s)
        await self._transfers.drive(intent.number, may_ask=self._may_lend)
        return Progress.again()

    def unbooked(self) -> list[Statement]:
        """Return what is still to be booked of what was lent, with the fee of lending it."""
        payouts = range(self._payouts() + 1)
        paid = [s for payout in payouts for s in self._sent(payout) if s.status is IntentStatus.PAID]
        booked = sum(cost.what == CANISTER_FEE for cost in self._store.read.costs(self._number))
        return [
            statement
            for s in paid[booked:]
            for statement in (
                book_cost(self._number, CANISTER_FEE, s.amount_e8s),
                charge_channel(self._number, LENDING_FEE, s.fee_e8s),
            )
        ]

    def _payouts(self) -> int:
        return sum(w.status == "paid" for w in self._store.read.withdrawals(self._number))

    def _sent(self, payout: int | None = None) -> list[TransferIntent]:
        return self._store.read.sends_to(self._account, self._memo(payout))

    def _memo(self, payout: int | None = None) -> int:
        """Return what the transfer is known by: no funding's memo, so that nobody can have it credited."""
        ordinal = self._payouts() if payout is None else payout
        hashed = hashlib.sha512(b"perund canister fee" + ordinal.to_bytes(4, "big") + encode_funding(self._funding))
        return int.from_bytes(hashed.digest()[:8], "little")
