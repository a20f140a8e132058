"""The Perun canister, method by method: this can be read as the specification of the contract.

It has the interface of the published canister without its holes (tests/unit/devnet/test_perun_rows.py has a test
for each). Money comes in with a memo (`transaction_notification`), is credited to a participant of a channel
(`deposit`), is shared out by a state that all participants signed (`dispute`, `conclude`) and is paid out on a
participant's signature (`withdraw`).

Nothing here reads a clock: chain time comes with each call, in ns since 1970. Methods change something only when
they succeed, except that a channel whose time has run out is written down as settled by whoever touches it first.
"""

from __future__ import annotations

import msgspec

from devnet.ledger.accounts import account_identifier
from devnet.perun.deposits import Deposits, NoDeposit
from devnet.perun.examination import as_registered, examine_state, examine_withdrawal, is_funding, timeout_of
from devnet.perun.interface import (
    Concluded,
    Disputed,
    DisputeEntry,
    Disputes,
    Error,
    Event,
    FullySignedState,
    Funded,
    Funding,
    Params,
    RegisteredState,
    WithdrawalRequest,
)
from devnet.perun.journal import DisputeLog, EventLog
from devnet.perun.ledger_port import LedgerPort, LedgerUnreachable
from devnet.perun.payouts import Fate, Payout, Payouts
from devnet.perun.phases import Credit, Phase, Registered, Settled, Unregistered
from devnet.perun.saved import SavedState, decode_state, encode_state

__all__ = ["PerunCanister"]


class PerunCanister:
    """The contract. `own_principal`, `ledger_principal`: raw; `ledger`: how the latter is called.

    What holds between calls: the canister's account on the ledger holds `owed_e8s`, plus what was paid to it and
    not yet notified. At most the holdings of a settled channel leave it, each to whom its own key names.
    """

    def __init__(self, own_principal: bytes, ledger_principal: bytes, ledger: LedgerPort) -> None:
        self._own_principal = own_principal
        self._ledger_principal = ledger_principal
        self._ledger = ledger
        self._channels: dict[bytes, Phase] = {}
        self._deposits = Deposits(account_identifier(own_principal))
        self._payouts = Payouts(ledger)
        self._withdrawals: dict[Funding, Payout] = {}
        self._refunds: dict[int, Payout] = {}
        self._events: dict[bytes, EventLog] = {}
        self._disputes = DisputeLog()

    @property
    def account(self) -> bytes:
        """The canister's account on the ledger (32 bytes), where deposits go."""
        return self._deposits.account

    @property
    def owed_e8s(self) -> int:
        """Everything the canister owes to somebody, also what is on its way out."""
        return (
            self._deposits.total_e8s
            + sum(channel.total_e8s for channel in self._channels.values())
            + sum(payout.e8s for payout in (*self._withdrawals.values(), *self._refunds.values()))
        )

    async def transaction_notification(self, block: int, now_ns: int) -> int | Error:
        """Take note that a block of the ledger pays the canister; return its amount in e8s.

        The money waits under its memo until `deposit` credits it. A payment without a memo that could be a
        funding's is sent back, less the ledger's fee, and answered with `TRANSACTION_TYPE`.

        `FAILED_TO_QUERY`: the ledger has no such block, or no answer; `TRANSACTION_TYPE`: the block is no transfer;
        `RECIPIENT`: it pays somebody else; `DUPLICATE_TRANSACTION`: it is known; `LEDGER_ERROR`: it is being sent
        back, notify again. Blocks of other people are not remembered: anybody could fill the memory with them.
        """
        if not self._deposits.knows(block):
            try:
                found = await self._ledger.query_block(block)
                terms = await self._payouts.terms(now_ns)
            except LedgerUnreachable:
                return Error.FAILED_TO_QUERY
            if found is None:
                return Error.FAILED_TO_QUERY
            if found.payment is None:
                return Error.TRANSACTION_TYPE
            if found.payment.to != self.account:
                return Error.RECIPIENT
            # While the ledger was asked, another notification of this block may have come through.
            if not self._deposits.knows(block):
                taken = self._deposits.take(block, found.payment)
                if not isinstance(taken, NoDeposit):
                    return taken
                if taken.e8s <= terms.fee_e8s or taken.sender == terms.minting_account:
                    return Error.TRANSACTION_TYPE
                self._deposits.release(taken)
                created_at_ns = self._payouts.next_created_at(now_ns)
                self._refunds[block] = Payout(
                    taken.sender, taken.e8s, block, created_at_ns, b"", terms.fee_e8s, terms.chain_length
                )
        return await self._send_back(block, now_ns)

    async def _send_back(self, block: int, now_ns: int) -> Error:
        """Refund a known block whose payment had no memo; one that is a deposit, or is refunded, is a duplicate."""
        refund = self._refunds.get(block)
        if refund is None:
            return Error.DUPLICATE_TRANSACTION
        if self._payouts.is_in_flight(refund):
            return Error.LEDGER_ERROR
        answer = await self._payouts.send(refund, now_ns)
        if answer is Fate.WRONG_FEE:
            anew = await self._with_the_true_fee(refund, now_ns)
            if anew is not None:
                self._refunds[block] = anew
                answer = await self._payouts.send(anew, now_ns)
        if isinstance(answer, Fate):
            return Error.LEDGER_ERROR  # the refund stays open
        del self._refunds[block]
        return Error.TRANSACTION_TYPE

    def deposit(self, funding: Funding, now_ns: int) -> Error | None:
        """Credit what was paid with the funding's memo to its participant.

        `INVALID_INPUT`: the funding cannot exist; `INSUFFICIENT_FUNDING`: nothing waits under its memo.
        """
        if not is_funding(funding):
            return Error.INVALID_INPUT
        e8s = self._deposits.claim(funding.memo())
        if e8s == 0:
            return Error.INSUFFICIENT_FUNDING
        self._settle_if_due(funding.channel, now_ns)
        before = self._channels.get(funding.channel, Unregistered())
        after = before.credited(Credit(funding.participant, e8s))
        self._channels[funding.channel] = after
        self._record(funding.channel, Funded(funding.participant, after.holdings(funding.participant)))
        return None

    def query_holdings(self, funding: Funding, now_ns: int) -> int | None:
        """Return what is held for a participant in e8s, None if nothing is.

        Before the channel is settled that is what he paid in; afterwards what he may withdraw.
        """
        channel = self._channel_at(funding.channel, now_ns)
        return (channel.holdings(funding.participant) or None) if channel is not None else None

    def dispute(self, params: Params, signed: FullySignedState, now_ns: int) -> Error | None:
        """Register a state, or refute the registered one with a higher version. The challenge period begins anew.

        A finalized state settles the channel at once. State 0 may lack money, see `phases`. A duration that is out of
        bounds bends the timer, not the right to settle: see `examination`.

        `INVALID_INPUT`, `AUTHENTICATION`: see `examination`; `ALREADY_CONCLUDED`: the channel is settled;
        `OUTDATED_STATE`: the registered version is not lower; `INSUFFICIENT_FUNDING`: what the participants paid in
        does not cover the allocation, or nobody paid in anything.
        """
        refused = self._examine(params, signed)
        if refused is not None:
            return refused
        state = as_registered(signed.state)
        self._settle_if_due(state.channel, now_ns)
        channel = self._channels.get(state.channel, Unregistered())
        if isinstance(channel, Settled):
            return Error.ALREADY_CONCLUDED
        if isinstance(channel, Registered) and state.version <= channel.state.state.version:
            return Error.OUTDATED_STATE
        timeout_ns = now_ns if state.finalized else timeout_of(params, now_ns)
        registered = channel.registered(params.participants, RegisteredState(state, timeout_ns))
        if registered is None:
            return _not_covered(params)
        self._channels[state.channel] = registered
        self._record(state.channel, Disputed(state, timeout_ns))
        self._disputes.move_to_end(state.channel)
        self._settle_if_due(state.channel, now_ns)
        return None

    def conclude(self, params: Params, signed: FullySignedState, now_ns: int) -> Error | None:
        """Settle: with a finalized state at once, with the registered one after its timeout, and again ever after.

        `INVALID_INPUT`, `AUTHENTICATION`, `INSUFFICIENT_FUNDING`: as in `dispute`; `NOT_FINALIZED`: the state is not
        final and has not stood its challenge period; `OUTDATED_STATE`: a higher version is registered;
        `ALREADY_CONCLUDED`: the channel is settled on another state.
        """
        refused = self._examine(params, signed)
        if refused is not None:
            return refused
        state = as_registered(signed.state)
        self._settle_if_due(state.channel, now_ns)
        channel = self._channels.get(state.channel, Unregistered())
        if isinstance(channel, Settled):
            return None if channel.state.state == state else Error.ALREADY_CONCLUDED
        if not state.finalized:
            return Error.NOT_FINALIZED
        # A final state of the registered version is let through: above version 2^64-1 there is none.
        if isinstance(channel, Registered) and state.version < channel.state.state.version:
            return Error.OUTDATED_STATE
        registered = channel.registered(params.participants, RegisteredState(state, now_ns))
        if registered is None:
            return _not_covered(params)
        self._settle(state.channel, registered)
        return None

    def query_state(self, channel: bytes) -> RegisteredState | None:
        """Return the state that is registered for a channel or that it settled on, None if there is none."""
        phase = self._channels.get(channel)
        return phase.state if isinstance(phase, Registered | Settled) else None

    async def withdraw(self, request: WithdrawalRequest, signature: bytes, now_ns: int) -> int | Error:
        """Pay a participant's holdings of a settled channel out; return the ledger's block.

        The ledger's fee comes out of the payout. No call holds anything while the ledger is asked: the money is
        off the books and in a payout, of which there is one at a time per funding.

        `INVALID_INPUT`: the funding cannot exist, or the receiver is this canister or the ledger's minting account,
        where it would be burned; `AUTHENTICATION`: the participant did not sign the request; `NOT_FINALIZED`: the
        channel is not settled, or unknown; `INSUFFICIENT_FUNDING`: no more than the ledger's fee is held;
        `LEDGER_ERROR`: a payout is open. Ask again: it is paid at most once, and its
        money is back in the holdings as soon as it is certain that it was not.
        """
        refused = examine_withdrawal(request, signature)
        if refused is not None:
            return refused
        funding, to = request.funding, account_identifier(request.receiver)
        try:
            terms = await self._payouts.terms(now_ns)
            if (self.query_holdings(funding, now_ns) or 0) <= terms.fee_e8s:
                terms = await self._payouts.terms(now_ns, anew=True)  # it may have fallen since
        except LedgerUnreachable:
            return Error.LEDGER_ERROR
        if request.receiver == self._own_principal or to == terms.minting_account:
            return Error.INVALID_INPUT  # it would strand in our own account, or be burned
        self._settle_if_due(funding.channel, now_ns)
        undecided = self._withdrawals.get(funding)
        if undecided is not None:
            # Who is not sure whether the ledger paid must not pay again: the old payout first, to its receiver.
            paid = await self._pay_out(funding, undecided, now_ns)
            if undecided.receiver == request.receiver or isinstance(paid, Error):
                return paid
        channel = self._channels.get(funding.channel)
        if not isinstance(channel, Settled):
            return Error.NOT_FINALIZED
        assert funding not in self._withdrawals, "nothing ran since the old payout was struck out"
        held = channel.holdings(funding.participant)
        if held <= terms.fee_e8s:
            return Error.INSUFFICIENT_FUNDING
        created_at_ns = self._payouts.next_created_at(now_ns)
        memo = funding.memo()
        payout = Payout(to, held, memo, created_at_ns, request.receiver, terms.fee_e8s, terms.chain_length)
        self._channels[funding.channel] = channel.without(funding.participant)
        self._withdrawals[funding] = payout
        return await self._pay_out(funding, payout, now_ns)

    async def _pay_out(self, funding: Funding, payout: Payout, now_ns: int) -> int | Error:
        if self._payouts.is_in_flight(payout):
            return Error.LEDGER_ERROR
        answer = await self._payouts.send(payout, now_ns)
        if answer is Fate.WRONG_FEE:
            anew = await self._with_the_true_fee(payout, now_ns)
            if anew is not None:
                payout = self._withdrawals[funding] = anew
                answer = await self._payouts.send(anew, now_ns)
        if answer is Fate.UNKNOWN:
            return Error.LEDGER_ERROR
        del self._withdrawals[funding]
        if isinstance(answer, Fate):
            # Not paid and never to be: the money goes back to where it was.
            settled = self._channels[funding.channel]
            self._channels[funding.channel] = settled.credited(Credit(funding.participant, payout.e8s))
            return Error.LEDGER_ERROR
        self._shrink_if_emptied(funding.channel)
        return answer

    async def _with_the_true_fee(self, payout: Payout, now_ns: int) -> Payout | None:
        """Return a payout that was refused for its fee as it is to be made now; None if it cannot be."""
        with self._payouts.holding(payout):  # nobody else takes it up while the ledger is asked for its fee
            try:
                terms = await self._payouts.terms(now_ns, anew=True)
            except LedgerUnreachable:
                return None
        if terms.fee_e8s == payout.fee_e8s or payout.e8s <= terms.fee_e8s:
            return None
        created_at_ns = self._payouts.next_created_at(now_ns)
        return msgspec.structs.replace(
            payout, created_at_ns=created_at_ns, fee_e8s=terms.fee_e8s, from_block=terms.chain_length
        )

    def _examine(self, params: Params, signed: FullySignedState) -> Error | None:
        phase = self._channels.get(signed.state.channel)
        return examine_state(params, signed, has_money=phase is not None)

    def query_events(self, channel: bytes, start: int, now_ns: int) -> tuple[Event, ...]:
        """Return what happened to a channel, from the event with index `start` on; a page at a time.

        Events are counted from 0, so a reader asks next from `start` plus what he got, until he gets none. A channel
        that settled by its timeout shows `Concluded` from that moment on. See `journal` for what is kept.
        """
        log = self._events.get(channel, EventLog())
        due = self._channels.get(channel)
        if isinstance(due, Registered) and due.state.settled(now_ns):
            log = log.appended(Concluded())
        return log.page(start)

    def disputes_since(self, start: int, limit: int) -> Disputes:
        """Return up to `limit` channels with a registered state whose entry has index `start` or more.

        One entry per channel: a registration or settlement moves it to the end, under a new index. A page that is
        shorter than `limit` (or than `MAX_DISPUTES_PAGE`) reaches up to `head`. A settlement by timeout that nobody
        has acted on yet moves nothing: the entry tells the timeout.
        """
        entries: list[DisputeEntry] = []
        for index, channel in self._disputes.page(start, limit):
            state = self.query_state(channel)
            assert state is not None, "only registered channels are in the log"
            entries.append(DisputeEntry(index, channel, state))
        return Disputes(tuple(entries), self._disputes.head)

    def save(self) -> bytes:
        """Return everything that must outlive an upgrade; equal states give equal bytes."""
        return encode_state(
            SavedState(
                own_principal=self._own_principal,
                ledger_principal=self._ledger_principal,
                channels=sorted(self._channels.items()),
                deposits=self._deposits.saved(),
                withdrawals=sorted(self._withdrawals.items(), key=lambda item: (item[0].channel, item[0].participant)),
                refunds=sorted(self._refunds.items()),
                sent=sorted(self._payouts.sent),
                last_payout_ns=self._payouts.last_ns,
                events=sorted(self._events.items()),
                disputes=self._disputes.entries(),
                disputes_head=self._disputes.head,
            )
        )

    def load(self, saved: bytes) -> None:
        """Take over what `save` returned. A payout that was in flight is open from now on.

        Raises `Trap` when the bytes do not decode, or are of another canister or another ledger: money that one
        ledger holds must not be paid from another.
        """
        state = decode_state(saved, self._own_principal, self._ledger_principal)
        self._channels = dict(state.channels)
        self._deposits = Deposits.of(self.account, state.deposits)
        self._withdrawals = dict(state.withdrawals)
        self._refunds = dict(state.refunds)
        self._payouts = Payouts(self._ledger, state.last_payout_ns, frozenset(state.sent))
        self._events = dict(state.events)
        self._disputes = DisputeLog(state.disputes, state.disputes_head)

    def _channel_at(self, channel: bytes, now_ns: int) -> Phase | None:
        """Return a channel as it is at a moment, without writing anything down."""
        phase = self._channels.get(channel)
        if isinstance(phase, Registered) and phase.state.settled(now_ns):
            return phase.settled()
        return phase

    def _settle_if_due(self, channel: bytes, now_ns: int) -> None:
        phase = self._channels.get(channel)
        if isinstance(phase, Registered) and phase.state.settled(now_ns):
            self._settle(channel, phase)

    def _settle(self, channel: bytes, registered: Registered) -> None:
        self._channels[channel] = registered.settled()
        self._record(channel, Concluded())
        self._disputes.move_to_end(channel)

    def _record(self, channel: bytes, event: Event) -> None:
        self._events[channel] = self._events.get(channel, EventLog()).appended(event)

    def _shrink_if_emptied(self, channel: bytes) -> None:
        """Let go of a settled channel's past once there is nothing left in it that the ledger could pay out."""
        phase = self._channels[channel]
        open_payout = any(funding.channel == channel for funding in self._withdrawals)
        if phase.total_e8s <= self._payouts.fee_e8s and not open_payout:
            self._events[channel] = self._events[channel].since_conclusion()


def _not_covered(params: Params) -> Error:
    """Return how a state is refused for which the money is not there: a multiplied deposit is no input at all."""
    return (
        Error.INSUFFICIENT_FUNDING if len(set(params.participants)) == len(params.participants) else Error.INVALID_INPUT
    )
