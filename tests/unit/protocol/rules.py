"""The safety rules (DESIGN, section 3) as checks on what two sides do: whoever breaks one is caught here.

Nothing here trusts a machine's own idea of itself: rule 1 and 6 read the messages that left, rule 2 compares
them with the disk at that moment, rule 4 computes the age of the look anew, and payments are counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from protocol.effects import (
    Delivered,
    Effect,
    Look,
    Moment,
    PaymentsEnded,
    Received,
    Record,
    SignatureRecord,
    StateRecord,
    UpdateRecord,
)
from protocol.messages import Ack, Confirm, Decline, Message, Offer, Resume, SignedStateMessage, Update
from protocol.signing import verify_signed_state
from protocol.terms import Terms
from protocol.types import ChannelId, State
from tests.unit.protocol.disk import Disk, ids_of


@dataclass
class Rules:
    """Watches one side."""

    terms: Terms
    complete: bool = True
    """Whether the disk has the whole history: it has not when it is an old copy."""
    left: dict[int, bytes] = field(default_factory=dict)
    """Digest by version of every state of which our signature left."""
    final: bytes = b""
    told: Counter[tuple[str, bytes]] = field(default_factory=Counter)
    """How often each payment was said to be received, delivered or ended."""

    def decided(
        self,
        records: tuple[Record, ...],
        effects: tuple[Effect, ...],
        look: Look | None,
        now: Moment,
        settled: int | None = None,
    ) -> None:
        """Check a step when the machine asks for it. `settled`: what it knows that the canister settled on."""
        fresh = (
            look is not None
            and look.version is None
            and (now.elapsed_ns - look.asked_ns) * 3 < self.terms.params.challenge_duration_ns
        )
        for record in records:
            match record:
                case SignatureRecord():
                    assert record.version == 0 or record.finalized or fresh, "rule 4: signed without a fresh clean look"
                case StateRecord():
                    assert record.signed.state.total == self.terms.total, "rule 6: a state changes the total"
                    assert verify_signed_state(self.terms.params, record.signed), "rule 4: not enforceable"
                case UpdateRecord():
                    assert sum(record.update.allocation) == self.terms.total, "rule 6: an update changes the total"
                case _:
                    pass
        for effect in effects:
            if isinstance(effect, Received):
                paid_out = settled is not None and effect.version <= settled
                assert fresh or paid_out, "rule 4: counted as received without a fresh clean look"
            if isinstance(effect, Delivered):
                left_out = look is not None and look.version is not None and effect.version > look.version
                assert not left_out or settled is not None, "delivered, although a state is registered that lacks it"
                assert settled is None or effect.version <= settled, "delivered, although it settled without it"

    def sent(self, message: Message, disk: Disk) -> None:
        """Check a message at the moment when it leaves."""
        match message:
            case Update():
                self._signature(message.channel, message.version, message.allocation, finalized=message.finalized)
                assert disk.signed.get(message.version) is not None, "rule 2: the signature is not durable"
                assert disk.outstanding == message or disk.newest.state.version >= message.version, (
                    "rule 2: the update is not durable"
                )
            case Ack():
                state = disk.newest.state
                assert state.version >= message.version, "rule 2: the state that is acknowledged is not durable"
                if state.version == message.version:
                    self._signature(message.channel, state.version, state.allocation, finalized=state.finalized)
            case SignedStateMessage():
                assert disk.newest.state.version >= message.version, "rule 2: a state is shown that is not durable"
            case Offer():
                for payment in message.payments:
                    row = disk.rows.get((self.terms.our_index, payment.id))
                    assert row is not None and row.status != "queued", "rule 2: an offer is not durable"
            case Decline():
                for payment_id in ids_of(message.ids):
                    assert disk.status(self.terms.peer_index, payment_id) == "declined", "rule 2: a decline not durable"
            case Confirm() | Resume():
                assert disk.newest.state.version >= message.version, "rule 2: a version is claimed, not durable"
            case _:
                pass

    def _signature(self, channel: ChannelId, version: int, allocation: tuple[int, int], *, finalized: bool) -> None:
        state = State(channel, version, allocation, finalized)
        assert state.total == self.terms.total, "rule 6: a state changes the total"
        earlier = self.left.setdefault(version, state.digest)
        assert earlier == state.digest, f"rule 1: two states of version {version} left"
        assert not self.final or self.final == state.digest, "rule 1: a signature left after the final one"
        if finalized:
            self.final = state.digest

    def told_user(self, effect: Effect) -> None:
        """Count what users are told of payments: each at most once."""
        match effect:
            case Delivered() | Received():
                kind = "received" if isinstance(effect, Received) else "sent"
                for payment_id in effect.payments.each_id():
                    self._once(kind, payment_id)
            case PaymentsEnded():
                for payment_id in ids_of(effect.ids):
                    self._once("sent", payment_id)
            case _:
                pass

    def _once(self, kind: str, payment_id: bytes) -> None:
        self.told[(kind, payment_id)] += 1
        assert self.told[(kind, payment_id)] == 1, f"payment {payment_id.hex()} is counted twice as {kind}"

    def books(self, disk: Disk) -> None:
        """Balances equal the sums of what is in the newest fully signed state (rule 6)."""
        # Settled on another state: what is only in the newest one is undone.
        elsewhere = disk.settled_version is not None and disk.settled_version != disk.newest.state.version
        if not self.complete or elsewhere:
            return
        version = disk.newest.state.version
        moved = 0
        for (sender, _), row in disk.rows.items():
            if row.version is not None and row.version <= version:
                moved += row.payment.amount_e8s if sender == 1 else -row.payment.amount_e8s
        first = self.terms.allocation
        assert disk.newest.state.allocation == (first[0] + moved, first[1] - moved), "rule 6: the books do not add up"
