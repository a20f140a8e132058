"""Participant 1: offers its payments, checks every update, and acknowledges."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.channel import SETTLED_WITHOUT_IT, UPDATE_ROOM, Channel
from protocol.effects import (
    NOTHING,
    Delivered,
    Moment,
    PaymentsOfferedRecord,
    PaymentsQueuedRecord,
    PeerHoldsRecord,
    Phase,
    Send,
    Step,
)
from protocol.errors import PeerViolation
from protocol.messages import (
    Ack,
    ChannelMessage,
    CloseRequest,
    Confirm,
    Decline,
    Offer,
    Resume,
    Update,
)
from protocol.payments import Batch, Payment
from protocol.queue import PaymentQueue
from protocol.signing import verify
from protocol.types import MAX_VERSION, SignedState, State

__all__ = ["Follower"]


@dataclass
class Follower(Channel):
    """The side that accepted the channel. See `protocol.channel.Channel`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._offered: dict[bytes, Payment] = {p.id: p for p in self.memory.offered}
        self._offered_e8s = self.memory.offered.total_e8s
        self._unconfirmed: list[tuple[Batch, int]] = []
        self._held: Update | None = None

    @property
    def pending(self) -> Update | None:
        return None

    @property
    def proposed_end(self) -> State | None:
        held = self._held
        return self._state_of(held) if held is not None and held.finalized and self.recovering else None

    @property
    def committed_e8s(self) -> int:
        return self.queue.total_e8s + self._offered_e8s

    @property
    def offered(self) -> int:
        """How many of our payments wait for participant 0."""
        return len(self._offered)

    # --- our user ----------------------------------------------------------------------------------------

    def pay(self, payments: Batch, now: Moment) -> Step:
        if not self.connected or self.peer_stopped:
            self.queue.append(payments)
            return Step((PaymentsQueuedRecord(self.id, self.ours, payments, offered=False),))
        # From the offer on the peer may include it, so that it cannot be cancelled is durable first.
        self._remember_offered(payments)
        return Step(
            (PaymentsQueuedRecord(self.id, self.ours, payments, offered=True),),
            tuple(Send(Offer(self.id, part)) for part in _frames(payments)),
        )

    def _remember_offered(self, payments: Batch) -> None:
        self._offered.update((p.id, p) for p in payments)
        self._offered_e8s += payments.total_e8s

    def cancel(self, payment_id: bytes) -> Step:
        return self._cancel_queued(payment_id)

    def advance(self, now: Moment) -> Step:
        """Offer what is queued, and ask for the final state when we close."""
        if not self.connected or self._stopped:
            return NOTHING
        step = NOTHING
        if self.queue and self.phase is Phase.OPEN and not self.peer_stopped and not self.frozen:
            batch, self.queue = self.queue.peek(), PaymentQueue()
            self._remember_offered(batch)
            step += Step(
                (PaymentsOfferedRecord(self.id, self.ours),),
                tuple(Send(Offer(self.id, part)) for part in _frames(batch)),
            )
        if self.phase is Phase.CLOSING and self.final is None:
            step += Step(outgoing=(Send(CloseRequest(self.id)),))
        return step

    # --- the peer ----------------------------------------------------------------------------------------

    def _receive_updating(self, message: ChannelMessage, now: Moment) -> Step:
        match message:
            case Update():
                return self._update(message, now)
            case Decline():
                return self._declined(message)
            case Confirm():
                return self._confirmed(message.version)
            case _:
                raise PeerViolation("wrong_role", f"participant 0 cannot send {type(message).__name__}")

    def _update(self, update: Update, now: Moment) -> Step:
        same_version = update.version == self.version
        if same_version and self._state_of(update) == self.newest.state:
            return self._ack_again()  # our acknowledgement was lost
        if same_version and not self.frozen:
            raise PeerViolation("state_conflict", f"another state of version {update.version} came")
        if self.frozen and not (self.recovering and update.finalized):
            return NOTHING
        if self.phase in (Phase.LEAVING, Phase.CLOSED):
            return NOTHING
        if self.signer.signed_final or self.final is not None:
            # Rule 1: nothing after a final state, also when it was lost and came back from the peer or a tower.
            raise PeerViolation("after_final", "an update came after the final state")
        if self._stopped:
            # Rule 7: signed when the towers were asked too, if it still fits what we have then.
            self._held = update
            return NOTHING
        if self.phase is Phase.FUNDING:
            # No state above version 0 before both are ready, not even a final one: it could not be enforced.
            self._held = update
            return NOTHING
        if not update.finalized and not self.may_update(now):
            # Rule 4: not acknowledged before a fresh look shows that nothing is registered.
            self._held = update
            return self._ask_look()
        self._held = None
        state = self._check(update)
        signature, signed = self.signer.sign(state)
        before = self._confirmed(self.version)  # the next update shows that participant 0 holds this one
        agreed = self._agree(SignedState(state, (update.signature, signature)), update.from_0, update.from_1, now)
        for payment_id in update.from_1.each_id():
            self._offered_e8s -= self._offered.pop(payment_id).amount_e8s
        if update.from_1:
            self._unconfirmed.append((update.from_1, state.version))
        step = before + Step(
            (signed, *agreed.durable),
            (Send(Ack(self.id, state.version, signature)), *agreed.outgoing),
        )
        if not state.finalized:
            return step
        if self.phase is Phase.OPEN:
            step += self._enter(Phase.CLOSING, now, "the peer closed it")
        return step + self._end_undelivered("channel_closed")

    def _check(self, update: Update) -> State:
        """Check everything before anything is signed. Raises `PeerViolation` that names what is wrong."""
        old = self.newest.state
        far = self._far_above
        # After a loss we may have signed another state of the next version: only far above it can we sign (rule 1).
        allowed = (far,) if self.recovering else (old.version + 1, far) if update.finalized else (old.version + 1,)
        if update.version not in allowed:
            raise PeerViolation("wrong_version", f"version {update.version} came after {old.version}")
        if update.version > MAX_VERSION:
            raise PeerViolation("wrong_version", f"version {update.version} is above 2^63-1")
        sent, received = update.from_1, update.from_0
        if update.finalized and (sent or received):
            raise PeerViolation("final_with_payments", "the final state carries payments")
        if not update.finalized and not (sent or received):
            raise PeerViolation("empty_update", f"version {update.version} carries no payment")
        moved = received.total_e8s - sent.total_e8s
        expected = (old.allocation[0] - moved, old.allocation[1] + moved)
        if update.allocation != expected or min(expected) < 0:
            raise PeerViolation(
                "wrong_allocation",
                f"version {update.version} allocates {update.allocation} e8s; its payments lead to {expected}",
            )
        for payment in sent:
            if self._offered.get(payment.id) != payment:
                raise PeerViolation("not_offered", f"payment {payment.id.hex()} was not offered like that")
        known = self._new_ids(received)
        if known:
            raise PeerViolation("replayed_payment", f"payment {next(iter(known)).hex()} is in the channel already")
        state = self._state_of(update)
        if not verify(self.terms.params.participants[0], state.encoded, update.signature):
            raise PeerViolation("bad_signature", f"the signature on version {update.version} is not the peer's")
        return state

    def _declined(self, message: Decline) -> Step:
        gone = [self._offered.pop(i) for i in _ids(message.ids) if i in self._offered]
        self._offered_e8s -= sum(p.amount_e8s for p in gone)
        return self._end(b"".join(p.id for p in gone), "declined", message.code)

    def _confirmed(self, version: int) -> Step:
        """Participant 0 has shown that it holds this version: what we paid in it is delivered."""
        if version > self.version:
            raise PeerViolation("wrong_version", f"version {version} is confirmed; the newest is {self.version}")
        version = self._not_left_out(version)
        if version <= self.peer_holds:
            return NOTHING
        return self._peer_holds(version)

    def _peer_holds(self, version: int) -> Step:
        self.peer_holds = version
        done = [(batch, v) for batch, v in self._unconfirmed if v <= version]
        self._unconfirmed = [(batch, v) for batch, v in self._unconfirmed if v > version]
        return Step((PeerHoldsRecord(self.id, version),), tuple(Delivered(batch, v) for batch, v in done))

    def _ack_again(self) -> Step:
        if self.outlived:
            return NOTHING  # not even again: the other copy may have signed otherwise
        return Step(outgoing=(Send(Ack(self.id, self.version, self.newest.signatures[1])),))

    # --- resume ------------------------------------------------------------------------------------------

    def _say_again(self) -> Step:
        self._held = None
        return Step(outgoing=self._ready_again())

    def _resumed(self, theirs: Resume, now: Moment) -> Step:
        self._check_same(theirs)
        self.connected = True
        step = NOTHING
        far_above = theirs.pending_version == self._far_above  # the end of a loss, which was lost with the session
        if theirs.version > self.version or (theirs.pending_version > self.version + 1 and not far_above):
            return self._claims_newer(theirs)
        if theirs.pending_version and theirs.pending_version == self.version:
            if theirs.pending_hash != self.newest.state.digest:
                raise PeerViolation("state_conflict", f"the peer has another state of version {self.version} pending")
            step += self._ack_again()
        elif theirs.version < self.version:
            step += Step(outgoing=(self._newest_message(),))  # the peer's store is older than the channel
        step += self._confirmed(theirs.version)
        if self.phase is Phase.OPEN and self._offered and not self.frozen:
            again = Batch.of(list(self._offered.values()))
            step += Step(outgoing=tuple(Send(Offer(self.id, part)) for part in _frames(again)))
        return step + self.advance(now)

    # --- ends --------------------------------------------------------------------------------------------

    def settled(self, version: int, digest: bytes) -> Step:
        if self._settled:
            return NOTHING
        held = min(version, self.version)
        step = self._peer_holds(held) if held > self.peer_holds else NOTHING
        # Settled below what we have: what we paid above it is ours again.
        undone, self._unconfirmed = b"".join(batch.ids for batch, v in self._unconfirmed if v > version), []
        return step + self._end(undone, "failed", SETTLED_WITHOUT_IT) + super().settled(version, digest)

    def _end_undelivered(self, code: str, status: str = "failed") -> Step:
        waiting, self.queue = self.queue.peek(), PaymentQueue()
        ids = b"".join(self._offered) + waiting.ids
        self._offered, self._offered_e8s = {}, 0
        return self._end(ids, status, code)

    def _retry(self, now: Moment) -> Step:
        held, self._held = self._held, None
        step = NOTHING
        if held is not None:
            try:
                step = self._update(held, now)
            except PeerViolation as violation:
                step = self.freeze(violation.code, str(violation), now)
        return step + self.advance(now)

    def _abandon_pending(self, status: str, code: str) -> Step:
        self._held = None
        undone, self._unconfirmed = b"".join(batch.ids for batch, _ in self._unconfirmed), []
        return self._end(undone, status, code)

    def _forget_pending(self) -> Step:
        self._held = None
        return NOTHING


def _ids(joined: bytes) -> list[bytes]:
    return [joined[i : i + 16] for i in range(0, len(joined), 16)]


def _frames(batch: Batch) -> list[Batch]:
    """Cut payments into parts that fit a message each."""
    queue = PaymentQueue()
    queue.append(batch)
    parts = []
    while queue:
        parts.append(queue.take(UPDATE_ROOM))
    return parts
