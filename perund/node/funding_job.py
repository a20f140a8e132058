"""The job that pays our deposit and finds out when the channel is funded.

It goes on after a restart from what is durable and what is certified; what to do next is decided by
`protocol.funding`. Rule 3 holds by construction: a channel exists only with its signed state 0 on the disk, and
it is watched from then on.
"""

from __future__ import annotations

from typing import Final, assert_never

import structlog

from chain.ledger import IcpLedger
from chain.perun import CanisterError, PerunCanister
from perund.node.chain_time import ChainTime
from perund.node.driver import ChannelDriver
from perund.node.job import LAST_WAIT_S, ChannelJob, Progress
from perund.node.lost_deposits import LostDeposits
from perund.node.paid_by_others import records_of_gifts
from perund.node.proven_deposit import ProvenDeposit
from perund.node.published import PUBLISHED_FEE_E8S, PublishedGuard
from perund.node.transfers import Transfers
from perund.store.jobs import transfer_ended
from perund.store.store import Store
from protocol.effects import EventRecord, Phase
from protocol.funding import (
    Abort,
    Complete,
    Credit,
    DepositIntent,
    IntentStatus,
    Pay,
    PayNew,
    Wait,
    next_funding_action,
)
from protocol.signing import is_usable_key
from protocol.types import Funding
from watcher.watch import Watcher

__all__ = ["FundingJob"]

log = structlog.get_logger()

LOST_NAP_S: Final = 60.0
"""Between two searches for a deposit that may have been lost sight of: it can come until the funding deadline."""
RARE_NAP_S: Final = 300.0
"""Between two looks at a channel that has given its place up, unless its peer says something."""
BUSY_NAP_S: Final = 1.0
SETTLED_INTENTS: Final = (IntentStatus.CREDITED, IntentStatus.VOID)


class FundingJob(ChannelJob):
    """Runs while a channel is funded, and afterwards while a deposit of ours is in flight."""

    def __init__(
        self,
        driver: ChannelDriver,
        store: Store,
        transfers: Transfers,
        perun: PerunCanister,
        ledger: IcpLedger,
        watcher: Watcher,
        time: ChainTime,
        canister_account: bytes,
        guard: PublishedGuard,
    ) -> None:
        """`canister_account`: 32 bytes; `guard`: the one of all jobs."""
        super().__init__(driver, "funding")
        self._store = store
        self._transfers = transfers
        self._perun = perun
        self._watcher = watcher
        self._time = time
        self._canister_account = canister_account
        self.holdings: tuple[int, int] | None = None
        self._lost = LostDeposits(driver.number, driver.channel.terms, store, ledger, transfers, canister_account)
        self._guard = guard
        self._ledger = ledger
        self._proven: ProvenDeposit | None = None
        self._planning = False
        """Whether a deposit is decided on and not durable yet: the channel must not be forgotten meanwhile."""
        self._idle = False
        """Whether the last step found nothing to do but to wait for who proposed this channel, and no money in it."""

    @property
    def needed(self) -> bool:
        """Whether there is anything left to do."""
        return self.driver.channel.phase is Phase.FUNDING or self.in_flight

    @property
    def in_flight(self) -> bool:
        """Whether a deposit of ours is neither credited nor proven void, or one may be that we have no record of."""
        return (
            self._planning
            or self._may_lack_deposits
            or any(i.status not in SETTLED_INTENTS for i in self._store.read.deposits(self.driver.number))
        )

    @property
    def _may_lack_deposits(self) -> bool:
        channel = self.driver.channel  # above version 0 it was funded, and what was put in is in its states
        return channel.version == 0 and channel.may_lack_records and not self._lost.done

    async def step(self) -> Progress:
        """Do the next thing."""
        channel, terms = self.driver.channel, self.driver.channel.terms
        if channel.phase is Phase.FUNDING and channel.we_are_ready:
            if channel.recovering or self._time.chain_ns() < terms.funding_deadline_ns:
                return Progress.wait("the peer to see both deposits")
            reason = "the funding deadline passed before the peer was ready"
            self.driver.perform(channel.leave(self._time.now(), reason))
            return Progress.again()
        if self._idle and not self.driver.may_look():
            # Whoever proposed it can wake this job by any message, and has paid for nothing yet.
            return Progress.wait("the peer's deposit", BUSY_NAP_S)
        theirs = await self._held(terms.peer_index)
        # Whoever proposes pays first, and what we have no share in is not asked about before: any number may wait.
        nothing = terms.our_index == 1 and not theirs and not terms.allocation[1] and not channel.may_lack_records
        ours = 0 if nothing else await self._held(terms.our_index)
        holdings = (theirs, ours) if terms.our_index == 1 else (ours, theirs)
        self.holdings = holdings
        self.driver.holdings_seen(holdings)
        self._idle = False
        if self._may_lack_deposits:
            await self._find_lost(holdings[terms.our_index])
        if channel.phase is Phase.FUNDING:
            holdings = await self._proven_of(holdings)
        action = next_funding_action(
            ours=terms.our_index,
            shares=terms.allocation,
            holdings=holdings,
            intents=self._store.read.deposits(self.driver.number),
            registered=self.driver.registered is not None,
            aborting=channel.phase is not Phase.FUNDING,
            recovering=channel.recovering,
            chain_ns=self._time.chain_ns(),
            deadline_ns=terms.funding_deadline_ns,
        )
        match action:
            case PayNew() if not self.driver.peer_resumed:
                return Progress.wait("the peer to be there, before money leaves")
            case PayNew():
                return await self._pay_new(action.amount_e8s)
            case Pay():
                return await self._pay(action.intent)
            case Credit():
                return await self._credit(action.intent)
            case Complete():
                # A request signed after the holdings were seen: nothing was registered meanwhile.
                look = await self._watcher.look(channel.id)
                if look.registered is None:
                    ours = terms.our_index
                    gifts = records_of_gifts(
                        self._store.read, channel, self.driver.number, holdings[ours], terms.allocation[ours]
                    )
                    self.driver.perform(channel.fund_complete(self._time.now()), records=gifts)
                    log.info("channel.funded", channel=self.driver.short, holdings=list(holdings))
                return Progress.again()
            case Abort():
                self.driver.perform(channel.leave(self._time.now(), action.reason))
                return Progress.again()
            case Wait() if self._may_lack_deposits:
                return Progress.wait(action.what, LOST_NAP_S)
            case Wait() if terms.our_index == 1 and not any(holdings) and channel.phase is Phase.FUNDING:
                self._idle = True
                return Progress.wait(action.what, LAST_WAIT_S if self.driver.looks_often() else RARE_NAP_S)
            case Wait():
                return Progress.wait(action.what)
            case _:
                assert_never(action)

    async def _find_lost(self, held_e8s: int) -> None:
        """Look for our deposit on the ledger, unless the canister shows that it was credited."""
        terms, registered = self.driver.channel.terms, self.driver.registered
        funded = registered is not None and registered.state.version > 0
        if funded or held_e8s >= terms.allocation[terms.our_index]:
            self._lost.done = True
        else:
            await self._lost.search()

    async def _proven_of(self, holdings: tuple[int, int]) -> tuple[int, int]:
        """Return the holdings, the peer's only as far as money is behind them (see `proven_deposit`)."""
        terms = self.driver.channel.terms
        held = holdings[terms.peer_index]
        if not held or not await self._guard.applies():
            return holdings
        if self._proven is None:
            row = self._store.read.channel(self.driver.number)
            assert row is not None
            funding = terms.funding(terms.peer_index)
            self._proven = ProvenDeposit(self._ledger, funding, self._canister_account, row.opened_ns)
        proven = await self._proven.up_to(held)
        if proven < held:
            log.warning("deposit.without_money", channel=self.driver.short, held_e8s=held, proven_e8s=proven)
        return (proven, holdings[1]) if terms.peer_index == 0 else (holdings[0], proven)

    async def _refusal(self) -> str:
        """Return why nothing may be paid in on these terms, or nothing: said once more before money leaves."""
        terms = self.driver.channel.terms
        if not all(is_usable_key(key) for key in terms.params.participants):
            return "a participant key is none that the canister accepts signatures of: nothing is paid"
        if await self._guard.applies():
            fee = await self._transfers.fee()
            if fee != PUBLISHED_FEE_E8S:
                return (
                    f"the ledger takes a fee of {fee} e8s, and this canister pays out with {PUBLISHED_FEE_E8S} e8s: "
                    "that would be refused, so nothing is paid in"
                )
            if not await self._guard.reads_our_ledger():
                return (
                    "the canister cannot read the newest block of the ledger: it may be made for another ledger, where "
                    "deposits would be lost, so nothing is paid in; compare ic.icp_ledger with that of the canister"
                )
        return ""

    async def _held(self, index: int) -> int:
        funding = self.driver.channel.terms.funding(0 if index == 0 else 1)
        return (await self._perun.query_holdings(funding)).value or 0

    async def _pay_new(self, amount_e8s: int) -> Progress:
        terms = self.driver.channel.terms
        funding = terms.funding(terms.our_index)
        refusal = await self._refusal()
        if refusal:
            return Progress.stuck(refusal)
        self._planning = True
        try:
            # Rule 3, said once more where the money leaves: state 0 is on the disk, and a look was made.
            if self.driver.channel.look is None:
                await self._watcher.look(terms.channel)
            intent = await self._transfers.plan(
                self._canister_account,
                amount_e8s,
                funding.memo,
                self.driver.number,
                [EventRecord("channel.depositing", terms.channel, {"amount_e8s": str(amount_e8s)})],
            )
        finally:
            self._planning = False
        if not self._may_pay():
            # It failed meanwhile, or this node may have lost data or has a newer life: the ledger was never asked, so
            # nothing was paid, and nothing is paid any more.
            await self._store.write([transfer_ended(intent.number, IntentStatus.VOID, None)])
            return Progress.again()
        log.info("channel.depositing", channel=self.driver.short, amount_e8s=amount_e8s, fee_e8s=intent.fee_e8s)
        await self._transfers.drive(intent.number, may_ask=self._may_pay)
        return Progress.again()

    def _may_pay(self) -> bool:
        """Whether money may leave at this moment: between a decision and the request there are looks and writes, or the
        machine slept and the deadline has passed.

        A copy of this node that was paid for before it is told of the newer life would leave a deposit that nobody
        has a record of.
        """
        channel = self.driver.channel
        in_time = self._time.chain_ns() < channel.terms.funding_deadline_ns
        return in_time and channel.phase is Phase.FUNDING and not channel.recovering and self.driver.peer_resumed

    async def _pay(self, intent: DepositIntent) -> Progress:
        # After a failed opening nothing more is paid; what is in flight is followed to its end.
        after = await self._transfers.drive(intent.number, may_ask=self._may_pay)
        if after.status is IntentStatus.OPEN:
            return Progress.wait("the ledger to say whether our deposit was paid")
        return Progress.again()

    async def _credit(self, intent: DepositIntent) -> Progress:
        terms = self.driver.channel.terms
        funding = terms.funding(terms.our_index)
        assert intent.block is not None
        async with self._guard.turn():  # a withdrawal of ours that is refused meanwhile would be lost
            return await self._credit_in_turn(intent, intent.block, funding)

    async def _credit_in_turn(self, intent: DepositIntent, block: int, funding: Funding) -> Progress:
        terms = self.driver.channel.terms
        told = await self._guard.notify(block)
        if isinstance(told, CanisterError) and told is not CanisterError.DUPLICATE_TRANSACTION:
            log.warning("deposit.not_taken", channel=self.driver.short, block=block, answer=told.value)
            return Progress.wait(f"the canister to take the deposit in block {block} ({told.value})")
        answer = (await self._perun.deposit(funding)).value
        # A block that the canister knows and nothing that waits under its memo: it is credited already, by a call
        # of ours whose reply was lost or by anybody else. Holdings prove less: they may be withdrawn meanwhile.
        already = told is CanisterError.DUPLICATE_TRANSACTION and answer is CanisterError.INSUFFICIENT_FUNDING
        if answer is not None and not already:
            return Progress.wait(f"the canister to credit the deposit in block {block} ({answer.value})")
        await self._store.write(
            [
                transfer_ended(intent.number, IntentStatus.CREDITED, block),
                EventRecord("channel.deposited", terms.channel, {"amount_e8s": str(intent.amount_e8s), "block": block}),
            ]
        )
        log.info("channel.deposited", channel=self.driver.short, amount_e8s=intent.amount_e8s, block=block)
        return Progress.again()
