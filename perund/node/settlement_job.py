"""The job that gets the money out: conclude or dispute, wait, withdraw. What is next: `protocol.settlement`.

A withdrawal is done when a certified reply or a ledger block shows the payout; empty holdings prove nothing.
Its signed call is durable before it is sent, and repeated under the same request id.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, assert_never

import structlog

from chain.errors import CallExpired, CallRejected, ChainError
from chain.ledger import Block, IcpLedger, Transfer
from chain.perun import CanisterError, PerunCanister
from chain.request import SignedCall
from perund.node.chain_time import ChainTime
from perund.node.driver import ChannelDriver
from perund.node.job import ChannelJob, Progress
from perund.node.ledger_scan import EARLIER_NS, find_block, first_block_since
from perund.node.paid_by_others import records_of_gifts
from perund.node.payout_pool import PayoutPool
from perund.node.published import PublishedGuard
from perund.node.transfers import Transfers
from perund.store.jobs import book_cost, insert_withdrawal, withdrawal_ended
from perund.store.rows import WithdrawalIntent
from perund.store.store import Store
from protocol.effects import EventRecord, Phase
from protocol.funding import IntentStatus
from protocol.settlement import (
    AwaitOperator,
    AwaitTimeout,
    Conclude,
    Dispute,
    Finished,
    FollowWithdrawal,
    ForceOut,
    WaitForPeer,
    Withdraw,
    next_settlement_action,
)
from protocol.signing import ChannelKey
from protocol.types import Nanos, RegisteredState, WithdrawalRequest
from watcher.watch import Watcher

__all__ = ["SettlementJob"]

log = structlog.get_logger()

LONGEST_NAP_S: Final = 60.0
"""A step asks the canister four times: days of a challenge period are not spent asking."""


class SettlementJob(ChannelJob):
    """Runs from the moment a channel closes or leaves until our money is out."""

    def __init__(
        self,
        driver: ChannelDriver,
        key: ChannelKey,
        store: Store,
        perun: PerunCanister,
        ledger: IcpLedger,
        watcher: Watcher,
        time: ChainTime,
        accounts: tuple[bytes, bytes],
        receiver: bytes,
        deposits_settled: Callable[[], bool],
        next_withdrawal: Callable[[], int],
        transfers: Transfers,
        guard: PublishedGuard,
    ) -> None:
        """`accounts`: the canister's and the wallet's, 32 bytes each; `receiver`: the wallet's principal;
        `deposits_settled`: whether no deposit of ours is in flight; `next_withdrawal`: a fresh row number;
        `guard`: the one of all jobs.
        """
        super().__init__(driver, "settlement")
        self._key = key
        self._store = store
        self._perun = perun
        self._ledger = ledger
        self._watcher = watcher
        self._time = time
        self._canister_account, self._wallet_account = accounts
        self._receiver = receiver
        self._deposits_settled = deposits_settled
        self._next_withdrawal = next_withdrawal
        terms = driver.channel.terms
        self._transfers = transfers
        self._guard = guard
        self._pool = PayoutPool(
            driver.number,
            terms,
            store,
            transfers,
            ledger,
            self._canister_account,
            self._guard,
            lambda: not self._outlived(),
        )
        self._rejected = 0
        """The withdrawal whose call is certified to have ended in a reject."""
        self._books_closed = False
        self.holdings: tuple[int, int] | None = None

    @property
    def needed(self) -> bool:
        """Whether the channel is on its way out."""
        return self.driver.channel.phase in (Phase.CLOSING, Phase.LEAVING)

    async def step(self) -> Progress:
        """Look, then do the next thing."""
        channel, terms = self.driver.channel, self.driver.channel.terms
        look = await self._watcher.look(channel.id)
        settled = look.registered is not None and look.registered.settled(look.chain_ns)
        if settled and look.registered is not None and not self._books_closed:
            self._books_closed = True
            self.driver.settled(look.registered)
        # Asked before the holdings: a deposit that is credited while they are read would be in neither.
        deposits_settled = self._deposits_settled()
        self.holdings = (await self._held(0), await self._held(1))
        self.driver.holdings_seen(self.holdings)
        fee = (await self._ledger.fee()).value
        too_high = self._transfers.too_high(fee)
        withdrawals = self._store.read.withdrawals(self.driver.number)
        row = self._store.read.channel(self.driver.number)
        assert row is not None
        action = next_settlement_action(
            phase=channel.phase,
            newest=self.driver.durable_newest,
            registered=look.registered,
            chain_ns=look.chain_ns,
            holdings_e8s=self.holdings[terms.our_index],
            owed_e8s=self._owed(look.registered),
            paid_out=any(w.status == "paid" for w in withdrawals),
            anything_held=sum(self.holdings) > 0 or not deposits_settled,
            withdrawal_open=any(w.status == "open" for w in withdrawals),
            # An absurd fee decides nothing: what is below it is not given up for that.
            fee_e8s=min(fee, self._transfers.max_fee_e8s),
            force_at_ns=Nanos(row.since_ns + row.force_after_ns),
            recovering=channel.recovering,
        )
        match action:
            case Withdraw() | FollowWithdrawal() if self._outlived():
                return Progress.wait("the newer life of this node, which takes the money out")
            case Conclude():
                answer = (await self._perun.conclude(terms.params, action.signed)).value
                log.info("channel.concluding", channel=self.driver.short, answer=answer.value if answer else "done")
                return self._unless(answer, "the canister to conclude")
            case Dispute():
                answer = (await self._perun.dispute(terms.params, action.signed)).value
                log.info(
                    "channel.disputing",
                    channel=self.driver.short,
                    version=action.signed.state.version,
                    answer=answer.value if answer else "done",
                )
                return self._unless(answer, "the canister to register our state")
            case AwaitTimeout():
                return self._until(action.timeout_ns, "the challenge period to end")
            case WaitForPeer():
                return self._until(action.until_ns, "the peer to sign the final state")
            case AwaitOperator():
                return Progress.wait(
                    "the peer to settle, or its operator to decide: this node may have lost data and opens no dispute"
                )
            case ForceOut():
                self.driver.perform(channel.leave(self._time.now(), "the peer did not close together in time"))
                return Progress.again()
            case Withdraw() if too_high:
                return Progress.stuck(too_high)
            case Withdraw():
                return await self._withdraw_in_turn(action.holdings_e8s, fee)
            case FollowWithdrawal():
                return await self._follow(withdrawals, look.registered)
            case Finished() if too_high and action.dust_e8s:
                return Progress.stuck(too_high)
            case Finished():
                return await self._finish(action.dust_e8s, look.registered)
            case _:
                assert_never(action)

    def _outlived(self) -> bool:
        """Whether a newer life of this node takes the money out: two would lend twice, and book half of it each."""
        return self.driver.channel.outlived and self.driver.channel.recovering

    def _owed(self, registered: RegisteredState | None) -> int:
        """Return what the canister pays us for the registered state."""
        if registered is None:
            return 0
        share = registered.state.allocation[self.driver.channel.terms.our_index]
        if registered.state.version > 0:
            return share
        # State 0 may be under-funded; then each side gets back what it put in itself, and nobody more than that.
        # What is not credited yet is in no payout either, and the ledger is not searched for it.
        deposits = self._store.read.deposits(self.driver.number)
        return min(share, sum(d.amount_e8s for d in deposits if d.status is IntentStatus.CREDITED))

    async def _held(self, index: int) -> int:
        funding = self.driver.channel.terms.funding(0 if index == 0 else 1)
        return (await self._perun.query_holdings(funding)).value or 0

    def _unless(self, answer: CanisterError | None, what: str) -> Progress:
        """Go on when it was done; else look again: an error may mean that it is so already."""
        return Progress.again() if answer is None else Progress.wait(f"{what} ({answer.value})")

    def _until(self, moment_ns: Nanos, what: str) -> Progress:
        left_s = max(0.0, (moment_ns - self._time.chain_ns()) / 1e9)
        nap = min(left_s + 0.05, LONGEST_NAP_S, self.driver.channel.terms.params.challenge_duration_ns / 6e9)
        return Progress.wait(what, max(0.05, nap))

    # --- withdrawing -------------------------------------------------------------------------------------

    async def _withdraw_in_turn(self, holdings_e8s: int, fee_e8s: int) -> Progress:
        """Withdraw; from a published canister only what it can pay for certain."""
        assert self.holdings is not None
        async with self._guard.turn() as published:
            if published:
                peer = self.holdings[self.driver.channel.terms.peer_index]
                obstacle = await self._pool.obstacle(holdings_e8s, peer, fee_e8s)
                if obstacle is not None:
                    return obstacle
            return await self._withdraw(holdings_e8s)

    async def _withdraw(self, holdings_e8s: int) -> Progress:
        terms = self.driver.channel.terms
        request = WithdrawalRequest(terms.funding(terms.our_index), self._receiver)
        call = self._perun.sign_withdraw(request, self._key.sign_withdrawal(request))
        intent = WithdrawalIntent(
            number=self._next_withdrawal(),
            holdings_e8s=holdings_e8s,
            envelope=call.to_bytes(),
            status="open",
            block=None,
            received_e8s=None,
            from_block=(await self._ledger.chain_length()).value,
        )
        await self._store.write(
            [
                insert_withdrawal(self.driver.number, intent),
                EventRecord("channel.withdrawing", terms.channel, {"holdings_e8s": str(holdings_e8s)}),
            ]
        )
        log.info("channel.withdrawing", channel=self.driver.short, holdings_e8s=holdings_e8s)
        return await self._submit(intent, call)

    async def _submit(self, intent: WithdrawalIntent, call: SignedCall) -> Progress:
        try:
            answer = (await self._perun.submit_withdraw(call)).value
        except CallExpired:
            # Proven: it was never executed and never will be.
            await self._store.write([withdrawal_ended(intent.number, "void", None, None)])
            return Progress.again()
        except (CallRejected, ChainError) as error:
            if isinstance(error, CallRejected):
                self._rejected = intent.number
            log.warning("withdrawal.unknown", channel=self.driver.short, error=str(error))
            return Progress.wait("to learn what became of the withdrawal")
        if isinstance(answer, CanisterError):
            # The reply of this very request: it paid nothing. Look again before anything else. `LedgerError` says
            # that a payout may be open, its money in no holdings: the canister goes on with it when asked again.
            log.warning("withdrawal.refused", channel=self.driver.short, answer=answer.value)
            status = "undecided" if answer is CanisterError.LEDGER_ERROR else "void"
            earlier = self._store.read.withdrawals(self.driver.number)[:-1]
            await self._store.write([withdrawal_ended(intent.number, status, None, None)])
            what = f"the canister to pay out ({answer.value})"
            refused_before = bool(earlier) and earlier[-1].status == "undecided"
            return Progress(what, problem=f"{what}: it refused again" if refused_before else "")
        return await self._paid(intent, answer)

    async def _paid(self, intent: WithdrawalIntent, block: int) -> Progress:
        page = (await self._ledger.blocks(block, 1)).value
        if not page.blocks or page.blocks[0].index != block:
            return Progress.wait(f"the ledger to show block {block}")
        operation = page.blocks[0].operation
        if not isinstance(operation, Transfer) or operation.to != self._wallet_account:
            return Progress.wait(f"a payout to this wallet: block {block} is none")
        received = operation.amount_e8s
        nothing = received + operation.fee_e8s < intent.holdings_e8s and await self._guard.applies()
        if nothing or block in self._store.blocks:
            # The published code pays nothing out as well: somebody else sent our withdrawal, and it was paid before.
            # And a block that is booked stands for another withdrawal, whoever names it.
            log.warning("withdrawal.paid_before", channel=self.driver.short, block=block, amount_e8s=received)
            await self._store.write([withdrawal_ended(intent.number, "void", None, None)])
            return Progress.again()
        with self._store.blocks.taken(block):
            await self._store.write(
                [
                    withdrawal_ended(intent.number, "paid", block, received),
                    book_cost(self.driver.number, "withdrawal fee", max(0, intent.holdings_e8s - received)),
                    *self._pool.unbooked(),
                    EventRecord(
                        "channel.withdrawn", self.driver.channel.id, {"received_e8s": str(received), "block": block}
                    ),
                ]
            )
        log.info("channel.withdrawn", channel=self.driver.short, received_e8s=received, block=block)
        return Progress.again()

    async def _follow(self, withdrawals: tuple[WithdrawalIntent, ...], registered: RegisteredState | None) -> Progress:
        """Find out what became of a withdrawal whose reply we do not have."""
        intent = next((w for w in withdrawals if w.status == "open"), None)
        undecided = next((w for w in withdrawals if w.status == "undecided"), None)
        published = await self._guard.applies()
        ended = intent is not None and intent.number == self._rejected
        if intent is not None and intent.envelope is not None and not ended:
            call = SignedCall.from_bytes(intent.envelope)
            if self._time.chain_ns() <= call.ingress_expiry_ns:
                return await self._submit_again(intent, call)
        last = withdrawals[-1] if withdrawals and published else None
        block = await self._search(intent or undecided or last, registered)
        if block is not None:
            return await self._paid(intent or undecided or await self._record_found(registered, block), block)
        if intent is None and undecided is not None and not published:
            return await self._withdraw(undecided.holdings_e8s)
        if intent is not None and self.holdings is not None:
            # The call has expired, and no block shows a payout. What is still held can be asked for again.
            terms = self.driver.channel.terms
            if self.holdings[terms.our_index] >= intent.holdings_e8s:
                await self._store.write([withdrawal_ended(intent.number, "void", None, None)])
                return Progress.again()
        if published:
            e8s = last.holdings_e8s if last is not None else self._owed(registered)
            return Progress.stuck(
                f"a ledger block that shows the payout: the canister took {e8s} e8s off the holdings of "
                "this node, and has paid them to nobody that is known"
            )
        return Progress.wait("a ledger block that shows the payout")

    async def _submit_again(self, intent: WithdrawalIntent, call: SignedCall) -> Progress:
        """Send the same call again: its first copy may never have arrived, or its reply was lost."""
        async with self._guard.turn() as published:
            if published and not await self._pool.can_pay(intent.holdings_e8s):
                # It was paid, or would be refused: the ledger's blocks tell, for certain when the call has expired.
                block = await self._search(intent, None)
                if block is not None:
                    return await self._paid(intent, block)
                return Progress.wait("the withdrawal's call to expire: the canister cannot pay it now")
            return await self._submit(intent, call)

    async def _record_found(self, registered: RegisteredState | None, block: int) -> WithdrawalIntent:
        intent = WithdrawalIntent(self._next_withdrawal(), self._owed(registered), None, "open", None, None, block)
        await self._store.write([insert_withdrawal(self.driver.number, intent)])
        return intent

    async def _search(self, intent: WithdrawalIntent | None, registered: RegisteredState | None) -> int | None:
        """Return the ledger block of a payout to us that no other withdrawal stands for.

        Without an intent it was asked for by a life whose records are lost, or by a copy of this node.
        """
        terms = self.driver.channel.terms
        memo = terms.funding(terms.our_index).memo
        paid_e8s = intent.holdings_e8s if intent is not None else self._owed(registered)

        def is_it(block: Block) -> bool:
            operation = block.operation
            return (
                isinstance(operation, Transfer)
                and (operation.from_, operation.to) == (self._canister_account, self._wallet_account)
                and block.index not in self._store.blocks
                # The published code gives its payouts no memo: the amount tells them from others of this node.
                and (block.memo == memo or (block.memo == 0 and operation.amount_e8s == paid_e8s))
            )

        start = intent.from_block if intent is not None else await self._first_possible(registered)
        block, _ = await find_block(self._ledger, start, is_it)
        return block.index if block is not None else None

    async def _first_possible(self, registered: RegisteredState | None) -> int:
        """Return where on the ledger a payout of this channel can be at the earliest."""
        row = self._store.read.channel(self.driver.number)
        assert row is not None
        since_ns = row.opened_ns
        if registered is not None and not registered.state.finalized:
            since_ns = max(since_ns, registered.timeout_ns)  # before that the canister pays nothing out
        return await first_block_since(self._ledger, since_ns - EARLIER_NS)

    async def _finish(self, dust_e8s: int, registered: RegisteredState | None) -> Progress:
        if not self._deposits_settled():
            return Progress.wait("a deposit of ours in flight, to withdraw it as well", LONGEST_NAP_S)
        number, terms, read = self.driver.number, self.driver.channel.terms, self._store.read
        records = [*([book_cost(number, "dust", dust_e8s)] if dust_e8s else []), *self._pool.unbooked()]
        gross_e8s = dust_e8s + sum(w.holdings_e8s for w in read.withdrawals(number) if w.status == "paid")
        share_e8s = (registered.state if registered is not None else terms.state_0()).allocation[terms.our_index]
        gifts = records_of_gifts(read, self.driver.channel, number, gross_e8s, share_e8s)
        self.driver.perform(self.driver.channel.closed(self._time.now(), ""), records=(*records, *gifts))
        await self.driver.settle_writes()
        log.info("channel.closed", channel=self.driver.short, dust_e8s=dust_e8s)
        return Progress.again()
