"""Channels that break a rule on purpose: the checks of the rules are only worth something if they catch these."""

from __future__ import annotations

from dataclasses import replace

from protocol.channel import Channel
from protocol.effects import (
    Moment,
    PaymentsEndedRecord,
    PaymentsQueuedRecord,
    Record,
    SignatureRecord,
    StateRecord,
    Step,
    UpdateRecord,
)
from protocol.following import Follower
from protocol.messages import ChannelMessage, Update
from protocol.ordering import Orderer
from protocol.payments import Batch
from protocol.signer import StateSigner
from protocol.terms import Terms
from protocol.types import State
from tests.unit.protocol.disk import Disk
from tests.unit.protocol.scene import KEYS, MakeChannel, real_channel


class ForgetfulSigner(StateSigner):
    """Signs whatever it is given."""

    __slots__ = ()

    def sign(self, state: State) -> tuple[bytes, SignatureRecord]:
        fresh = StateSigner(KEYS[0] if self.public == KEYS[0].public else KEYS[1], None)
        return fresh.sign(state)

    @property
    def signed_final(self) -> bool:
        return False


class DropsTheUnanswered(Orderer):
    """Takes an update for dead when its session is (rule 1)."""

    def session_ended(self) -> None:
        super().session_ended()
        self._pending = None


class AlwaysFresh(Channel):
    """Takes any look for a fresh and clean one (rule 4)."""

    def may_update(self, now: Moment) -> bool:
        return True


class FreshOrderer(AlwaysFresh, Orderer):
    pass


class FreshFollower(AlwaysFresh, Follower):
    pass


class Mints(Orderer):
    """Gives bob one e8 more than alice pays (rule 6)."""

    def _propose(self, finalized: bool, from_0: Batch, from_1: Batch) -> Step:
        first, second = self.newest.state.allocation
        state = State(
            self.id, self.version + 1,
            (first - from_0.total_e8s + from_1.total_e8s, second + from_0.total_e8s - from_1.total_e8s + 1), finalized,
        )  # fmt: skip
        signature, signed = self.signer.sign(state)
        update = Update(self.id, state.version, state.allocation, finalized, from_0, from_1, signature)
        self._pending = update
        return Step((signed, UpdateRecord(update))) + self._say_again_pending()

    def _say_again_pending(self) -> Step:
        from protocol.effects import Send

        assert self._pending is not None
        return Step(outgoing=(Send(self._pending),))


class Trusting(Follower):
    """Signs what it gets (rule 6)."""

    def _check(self, update: Update) -> State:
        return self._state_of(update)


class TakesReplays(Follower):
    """Knows of no payment that it has seen it."""

    def _new_ids(self, payments: Batch) -> dict[bytes, str]:
        return {}


def forgetful(kind: type[Channel]) -> MakeChannel:
    """A side of that kind whose signer forgets."""

    def make(terms: Terms, disk: Disk) -> Channel:
        if issubclass(kind, Orderer) != (terms.our_index == 0):
            return real_channel(terms, disk)
        memory = disk.memory()
        return kind(terms, ForgetfulSigner(KEYS[terms.our_index], memory.last_signature), disk, memory)

    return make


def instead(kind: type[Channel]) -> MakeChannel:
    """That kind, in the place of the real one."""

    def make(terms: Terms, disk: Disk) -> Channel:
        if issubclass(kind, Orderer) != (terms.our_index == 0):
            return real_channel(terms, disk)
        memory = disk.memory()
        return kind(terms, StateSigner(KEYS[terms.our_index], memory.last_signature), disk, memory)

    return make


def without_writing(lost: type[Record]) -> MakeChannel:
    """Sides that do not make one kind of record durable, but send what depends on it (rule 2)."""

    def strip(step: Step) -> Step:
        return replace(step, durable=tuple(r for r in step.durable if not isinstance(r, lost)))

    class CarelessOrderer(Orderer):
        def receive(self, message: ChannelMessage, now: Moment) -> Step:
            return strip(super().receive(message, now))

        def pay(self, payments: Batch, now: Moment) -> Step:
            return strip(super().pay(payments, now))

    class CarelessFollower(Follower):
        def receive(self, message: ChannelMessage, now: Moment) -> Step:
            return strip(super().receive(message, now))

        def pay(self, payments: Batch, now: Moment) -> Step:
            return strip(super().pay(payments, now))

    def make(terms: Terms, disk: Disk) -> Channel:
        return instead(CarelessOrderer if terms.our_index == 0 else CarelessFollower)(terms, disk)

    return make


__all__ = [
    "DropsTheUnanswered", "FreshFollower", "FreshOrderer", "Mints", "PaymentsEndedRecord", "PaymentsQueuedRecord",
    "SignatureRecord", "StateRecord", "TakesReplays", "Trusting", "UpdateRecord", "forgetful", "instead",
    "without_writing",
]  # fmt: skip
