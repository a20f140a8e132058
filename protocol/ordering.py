"""Participant 0: orders the updates of both sides.

One update is outstanding at a time. What arrives meanwhile goes into the next: that is the batching.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.channel import DATA_LOSS, UPDATE_ROOM, Channel
from protocol.effects import (
    NOTHING,
    DeclinesRecord,
    Delivered,
    EventRecord,
    GivenUpRecord,
    Moment,
    PaymentsEndedRecord,
    PaymentsQueuedRecord,
    PeerHoldsRecord,
    Phase,
    Send,
    Step,
    UpdateRecord,
)
from protocol.errors import PeerViolation
from protocol.messages import (
    Ack,
    ChannelMessage,
    CloseRequest,
    Confirm,
    Decline,
    ErrorMessage,
    Offer,
    Resume,
    Update,
)
from protocol.payments import EMPTY, PAYMENT_ID_BYTES, Batch, Payment
from protocol.queue import PaymentQueue, room_of
from protocol.signing import verify
from protocol.types import MAX_VERSION, SignedState, State

__all__ = ["Orderer"]

MAX_OFFERS = 100_000
"""Offers of the peer that wait for an update; more are declined."""
MAX_OFFERED_BYTES = 8 * 2**20
"""The same in bytes of a message: memos count."""
MAX_DECLINED = 4_000
"""Declined ids of a channel that are remembered one by one. Then one id stands for all up to it."""


@dataclass
class Orderer(Channel):
    """The side that proposed the channel. See `protocol.channel.Channel`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._pending = self.memory.pending
        self._offers = PaymentQueue()
        self._offered_ids: set[bytes] = set()
        self._offered_bytes = 0
        self._declined = self.memory.declined
        self._declined_up_to = self.memory.declined_up_to
        self.highest_peer_id = max(self.highest_peer_id, self._declined_up_to)
        self._ack_comes = False
        """Whether the peer has shown in this session that it holds the outstanding update fully signed."""

    @property
    def pending(self) -> Update | None:
        return self._pending

    @property
    def committed_e8s(self) -> int:
        pending = self._pending.from_0.total_e8s if self._pending else 0
        return self.queue.total_e8s + pending

    # --- our user ----------------------------------------------------------------------------------------

    def pay(self, payments: Batch, now: Moment) -> Step:
        self.queue.append(payments)
        step = self.advance(now)
        # What did not go straight into an update is queued, and queued is durable. What did go is in the
        # update's own record, so an idle channel pays with one write before it sends.
        still = self._still_queued(payments)
        if not still:
            return step
        return Step((PaymentsQueuedRecord(self.id, self.ours, still, offered=False),)) + step

    def _still_queued(self, payments: Batch) -> Batch:
        waiting = len(self.queue)
        if waiting == 0:
            return EMPTY
        if waiting >= len(payments):
            return payments
        taken = len(payments) - waiting
        return Batch(
            payments.ids[taken * PAYMENT_ID_BYTES :],
            payments.amounts_e8s[taken:],
            {p - taken: memo for p, memo in payments.memos.items() if p >= taken},
        )

    def cancel(self, payment_id: bytes) -> Step:
        return self._cancel_queued(payment_id)

    # --- updates -----------------------------------------------------------------------------------------

    def advance(self, now: Moment) -> Step:
        """Make the next update, if one is due and allowed."""
        # Rule 1: nothing after a final state, also when it was lost and came back from the peer or a tower.
        if not self.connected or self.signer.signed_final or self.final is not None or self.version >= MAX_VERSION:
            return NOTHING
        if self._stopped:
            return NOTHING
        lost = self.recovering or self.peer_recovering
        if self.phase is Phase.CLOSING and (self._pending is None or (lost and not self._ack_comes)):
            # A peer that lost data cannot acknowledge what is outstanding: it may have signed that version before.
            # If we lost data, what our store has outstanding may be long over.
            code = DATA_LOSS if self.recovering else "peer_lost_data"
            return self._give_up_pending("unknown", code) + self._propose(True, EMPTY, EMPTY)
        if self._pending is not None or self.frozen:
            return NOTHING
        if self.phase is not Phase.OPEN or self.peer_stopped or not (self.queue or self._offers):
            return NOTHING
        if not self.may_update(now):
            return self._ask_look()
        step, from_1 = self._take_offers()
        while not from_1 and self._offers and not self.queue:  # a frame of offers was declined; the rest is due too
            more, from_1 = self._take_offers()
            step += more
        from_0 = self.queue.take(UPDATE_ROOM - room_of(from_1))
        if not from_0 and not from_1:
            return step
        return step + self._propose(False, from_0, from_1)

    def _take_offers(self) -> tuple[Step, Batch]:
        """Take the peer's offers that fit its balance; decline the others for good."""
        if not self._offers:
            return NOTHING, EMPTY
        batch = self._offers.take(UPDATE_ROOM // 2 if self.queue else UPDATE_ROOM)
        self._offered_ids.difference_update(batch.each_id())
        self._offered_bytes -= room_of(batch)
        balance = self.newest.state.allocation[1]
        if batch.total_e8s <= balance:
            return NOTHING, batch
        fits: list[Payment] = []
        declined = bytearray()
        for payment in batch:
            if payment.amount_e8s <= balance:
                balance -= payment.amount_e8s
                fits.append(payment)
            else:
                declined += payment.id
        return self._decline(bytes(declined), "insufficient_balance"), Batch.of(fits)

    def _decline(self, ids: bytes, code: str) -> Step:
        # A decline is final on both sides, so it is durable before it is said.
        step = Step(
            (PaymentsEndedRecord(self.id, self.terms.peer_index, ids, "declined", code),),
            (Send(Decline(self.id, ids, code)),),
        )
        self._declined += len(ids) // PAYMENT_ID_BYTES
        return step + self._declines_in_one() if self._declined > MAX_DECLINED else step

    def _declines_in_one(self) -> Step:
        """Remember one id in the place of many: a peer may have any number of offers declined, at no cost.

        Honest ids rise, so what is below was offered before. Offers that wait are judged already and stay good.
        """
        self._declined, self._declined_up_to = 0, self.highest_peer_id
        return Step((DeclinesRecord(self.id, self.terms.peer_index, self._declined_up_to),))

    def _new_ids(self, payments: Batch) -> dict[bytes, str]:
        known = super()._new_ids(payments)
        if payments and self._declined_up_to:
            below = (i for i in payments.each_id() if i <= self._declined_up_to and i not in known)
            known.update(dict.fromkeys(below, "declined"))
        return known

    def _propose(self, finalized: bool, from_0: Batch, from_1: Batch) -> Step:  # noqa: FBT001
        old = self.newest.state
        moved = from_0.total_e8s - from_1.total_e8s
        version = self._final_version() if finalized else old.version + 1
        state = State(self.id, version, (old.allocation[0] - moved, old.allocation[1] + moved), finalized)
        signature, signed = self.signer.sign(state)
        update = Update(self.id, state.version, state.allocation, finalized, from_0, from_1, signature)
        self._pending = update
        self._proposed = (update, state)
        return Step((signed, UpdateRecord(update)), (Send(update),))

    # --- the peer ----------------------------------------------------------------------------------------

    def _receive_updating(self, message: ChannelMessage, now: Moment) -> Step:
        match message:
            case Offer():
                return self._offer(message, now)
            case Ack() if message.version in self._given_up:
                return self._ack_given_up(message)
            case Ack():
                return self._ack(message, now)
            case CloseRequest():
                if self.phase is Phase.CLOSING:
                    return self.advance(now)
                if (self.frozen and not self.recovering) or self.phase is not Phase.OPEN:
                    return NOTHING
                return self._enter(Phase.CLOSING, now, "the peer asked for it") + self.advance(now)
            case _:
                raise PeerViolation("wrong_role", f"participant 1 cannot send {type(message).__name__}")

    def _offer(self, message: Offer, now: Moment) -> Step:
        if self.frozen or self.phase not in (Phase.FUNDING, Phase.OPEN):
            return NOTHING  # open offers fail when the channel settles
        # The peer opens before us when a restart made us forget our `ready`: its offers wait until we open too.
        offers = [p for p in message.payments if p.id not in self._offered_ids]
        if self._pending is not None and self._pending.from_1:
            outstanding = set(self._pending.from_1.each_id())
            offers = [p for p in offers if p.id not in outstanding]
        step = NOTHING
        fresh = Batch.of(offers)
        known = self._new_ids(fresh)
        if known:
            declined = b"".join(i for i, status in known.items() if status == "declined")
            if declined:
                step += Step(outgoing=(Send(Decline(self.id, declined, "declined_before")),))
            replayed = [i for i, status in known.items() if status != "declined"]
            if replayed:
                text = f"payment {replayed[0].hex()} is in the channel already"
                step += Step(
                    (EventRecord("channel.replayed_payment", self.id, {"payment": replayed[0].hex()}),),
                    (Send(ErrorMessage("replayed_payment", text, self.id)),),
                )
            fresh = Batch.of([p for p in offers if p.id not in known])
        small = [p for p in fresh if p.amount_e8s < self.minimum_e8s]
        if small:
            step += self._decline(b"".join(p.id for p in small), "amount_too_small")
            fresh = Batch.of([p for p in fresh if p.amount_e8s >= self.minimum_e8s])
        room = max(0, MAX_OFFERS - len(self._offers))
        if self._offered_bytes + room_of(fresh) > MAX_OFFERED_BYTES:
            room = 0
        if len(fresh) > room:
            surplus = list(fresh)
            step += self._decline(b"".join(p.id for p in surplus[room:]), "too_many_offers")
            fresh = Batch.of(surplus[:room])
        self._offers.append(fresh)
        self._offered_bytes += room_of(fresh)
        self._offered_ids.update(fresh.each_id())
        return step + self.advance(now)

    def _ack(self, message: Ack, now: Moment) -> Step:
        update = self._pending
        if update is None or message.version != update.version:
            if message.version == self.version and message.signature == self.newest.signatures[1]:
                return NOTHING  # the same acknowledgement again
            raise PeerViolation("unexpected_ack", f"version {message.version} is acknowledged, but is not outstanding")
        state = self._state_of(update)
        if not verify(self.terms.params.participants[1], state.encoded, message.signature):
            raise PeerViolation("bad_signature", f"the signature on version {message.version} is not the peer's")
        self._pending = None
        signed = SignedState(state, (update.signature, message.signature))
        step = self._agree(signed, update.from_0, update.from_1, now, recorded=True)
        if self._not_left_out(state.version) == state.version:
            self.peer_holds = state.version
            told = (Delivered(update.from_0, state.version),) if update.from_0 else ()
            step += Step((PeerHoldsRecord(self.id, state.version),), told)
        elif update.from_0:
            self._undecided.append((update.from_0, state.version))
        if state.finalized:
            return step + self._end_undelivered("channel_closed")
        after = self.advance(now)
        if update.from_1 and not any(isinstance(e, Send) and isinstance(e.message, Update) for e in after.outgoing):
            step += Step(outgoing=(Send(Confirm(self.id, state.version)),))
        return step + after

    def _ack_given_up(self, message: Ack) -> Step:
        """Take the acknowledgement of an update that was given up: its signature is out, so it may come."""
        update = self._given_up[message.version]
        state = self._state_of(update)
        if not verify(self.terms.params.participants[1], state.encoded, message.signature):
            raise PeerViolation("bad_signature", f"the signature on version {message.version} is not the peer's")
        if message.version <= self.version:
            return NOTHING  # the same acknowledgement again
        return self._acknowledged_late(SignedState(state, (update.signature, message.signature)))

    # --- resume ------------------------------------------------------------------------------------------

    def _say_again(self) -> Step:
        self._ack_comes = False
        self._offers, self._offered_ids = PaymentQueue(), set()  # the peer offers again what it still wants
        self._offered_bytes = 0
        return Step(outgoing=self._ready_again())

    def _resumed(self, theirs: Resume, now: Moment) -> Step:
        self._check_same(theirs)
        self.connected = True
        pending = self._pending
        if theirs.version == self.version:
            if pending is not None and not self.outlived and self._still_holds(pending):
                return Step(outgoing=(Send(pending),))
            if self.frozen:
                return self.advance(now)  # only a loss is still to be ended, by the final state far above
            return Step(outgoing=(Send(Confirm(self.id, self.version)),)) + self.advance(now)
        if pending is not None and theirs.version == pending.version:
            if theirs.state_hash != self._state_of(pending).digest:
                raise PeerViolation("state_conflict", f"the peer holds another state of version {theirs.version}")
            self._ack_comes = True
            return NOTHING  # its acknowledgement was lost; it comes again
        if theirs.version > self.version:
            if self.signed_here(theirs.version, theirs.state_hash):
                return NOTHING  # we gave it up, and the peer has it: it shows it now
            return self._claims_newer(theirs)
        self.peer_recovering = True  # it acknowledged more than it has: it lost data, and may not know it yet
        return Step(
            (EventRecord("channel.peer_is_behind", self.id, {"theirs": theirs.version, "ours": self.version}),),
            (self._newest_message(),),
        )

    def _still_holds(self, pending: Update) -> bool:
        """Whether what is outstanding is said again: a final state only while it has the shares of the newest one."""
        if pending.finalized and pending.allocation != self.newest.state.allocation:
            return False
        return not self.frozen or (self.recovering and pending.finalized)

    # --- ends --------------------------------------------------------------------------------------------

    def _end_undelivered(self, code: str, status: str = "failed") -> Step:
        waiting, self.queue = self.queue.peek(), PaymentQueue()
        self._offers, self._offered_ids, self._offered_bytes = PaymentQueue(), set(), 0
        return self._end(waiting.ids, status, code)

    def _retry(self, now: Moment) -> Step:
        return self.advance(now)

    def _give_up_pending(self, status: str, code: str) -> Step:
        """Give up what is outstanding for a final state far above it. The peer may still complete it."""
        update = self._pending
        if update is None:
            return NOTHING
        self._given_up[update.version] = update
        return Step((GivenUpRecord(update),)) + self._abandon_pending(status, code)

    def _abandon_pending(self, status: str, code: str) -> Step:
        update, self._pending = self._pending, None
        if update is None:
            return NOTHING
        step = self._end(update.from_0.ids, status, code)
        if update.from_1:
            step += Step((PaymentsEndedRecord(self.id, self.terms.peer_index, update.from_1.ids, status, code),))
        return step

    def _forget_pending(self) -> Step:
        self._pending = None
        return NOTHING
