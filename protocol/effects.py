"""What the state machines ask for: records to make durable, then effects to perform.

`Step.durable` is committed in one transaction before anything of `Step.outgoing` happens: rule 2 is the shape
of the value, not the care of its user. A failed commit ends the process (rule 8), so a machine may be ahead of
the disk in memory, never on the wire.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from protocol.messages import Message, Update
from protocol.payments import Batch
from protocol.types import ChannelId, Nanos, ParticipantIndex, SignedState, State

__all__ = [
    "NOTHING",
    "CountedRecord",
    "DeclinesRecord",
    "Delivered",
    "Effect",
    "EventRecord",
    "GivenUpRecord",
    "IncludedRecord",
    "Look",
    "LookNow",
    "LossEndRecord",
    "Moment",
    "PaymentsEnded",
    "PaymentsEndedRecord",
    "PaymentsOfferedRecord",
    "PaymentsQueuedRecord",
    "PeerHoldsRecord",
    "Phase",
    "PhaseRecord",
    "Received",
    "Record",
    "RegisteredRecord",
    "Send",
    "SignatureRecord",
    "StateRecord",
    "Step",
    "UpdateRecord",
]


class Phase(StrEnum):
    """Where a channel is, from its signed state 0 on."""

    FUNDING = "funding"
    """Deposits are on their way."""
    OPEN = "open"
    """Both sides are ready; payments flow."""
    CLOSING = "closing"
    """A final state is asked for or signed."""
    LEAVING = "leaving"
    """Settling alone: a state is, or is to be, registered."""
    CLOSED = "closed"
    """Settled, and our money is out."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Now. `elapsed_ns`: the local clock that never goes back; `chain_ns`: time of the Internet Computer."""

    elapsed_ns: int
    chain_ns: Nanos


@dataclass(frozen=True, slots=True)
class Look:
    """A certified read of what is registered for a channel.

    `asked_ns`: local elapsed time when its request was signed. Its age counts from there, whatever the
    certificate says: a replica can withhold an answer and deliver it under a new certificate (rule 5).
    `chain_ns`: the certificate's time.
    """

    asked_ns: int
    chain_ns: Nanos
    version: int | None
    """Version of the registered state, or None when nothing is registered."""
    digest: bytes
    """Its digest, or empty."""
    settled: bool
    """Whether it can no longer be replaced at `chain_ns`."""

    def shows_more_than(self, other: Look) -> bool:
        """Whether a state is registered here, and none or one of a lower version there."""
        return self.version is not None and (other.version is None or self.version > other.version)


# --- records: durable before anything is sent -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SignatureRecord:
    """We sign this content for this version, and never another (rule 1; the store refuses it too)."""

    channel: ChannelId
    version: int
    digest: bytes
    finalized: bool


@dataclass(frozen=True, slots=True)
class UpdateRecord:
    """Participant 0's outstanding update. It is sent again byte for byte until it is acknowledged."""

    update: Update


@dataclass(frozen=True, slots=True)
class GivenUpRecord:
    """Participant 0's update that was given up before it was acknowledged. Its signature is out: the peer may complete
    it at any time, so what it contains is kept until a fully signed state of a higher version makes it void.
    """

    update: Update


@dataclass(frozen=True, slots=True)
class IncludedRecord:
    """These payments turned out to be in the state of this version, which the canister settled on."""

    channel: ChannelId
    version: int
    from_0: Batch
    from_1: Batch


@dataclass(frozen=True, slots=True)
class LossEndRecord:
    """On the shares of this version a loss of data may be ended (rule 7): it was adopted, or its operator declared it
    the newest. None: on none any more.
    """

    channel: ChannelId
    version: int | None


@dataclass(frozen=True, slots=True)
class StateRecord:
    """The newest fully signed state, with the payments that lead to it (empty for what is recorded already)."""

    signed: SignedState
    from_0: Batch
    from_1: Batch
    counts: bool = False
    """Whether what the peer paid up to this version counts as received at once (rule 4)."""


@dataclass(frozen=True, slots=True)
class CountedRecord:
    """What the peer paid up to this version counts as received: a fresh look showed nothing registered (rule 4)."""

    channel: ChannelId
    version: int


@dataclass(frozen=True, slots=True)
class PaymentsQueuedRecord:
    """Our own payments, not in any update yet. `offered`: the peer may include them from now on."""

    channel: ChannelId
    sender: ParticipantIndex
    payments: Batch
    offered: bool


@dataclass(frozen=True, slots=True)
class PaymentsOfferedRecord:
    """All our queued payments are offered from now on: none of them can be cancelled."""

    channel: ChannelId
    sender: ParticipantIndex


@dataclass(frozen=True, slots=True)
class PaymentsEndedRecord:
    """These payments will never be in a state. `status`: declined, failed or cancelled; `ids`: 16 bytes each."""

    channel: ChannelId
    sender: ParticipantIndex
    ids: bytes
    status: str
    code: str


@dataclass(frozen=True, slots=True)
class DeclinesRecord:
    """Every id of this sender up to `up_to` (16 bytes) that is in no state counts as declined from now on.

    It stands for the declined ids themselves, which need not be remembered one by one any more.
    """

    channel: ChannelId
    sender: ParticipantIndex
    up_to: bytes


@dataclass(frozen=True, slots=True)
class PeerHoldsRecord:
    """The peer has shown that it holds this fully signed version."""

    channel: ChannelId
    version: int


@dataclass(frozen=True, slots=True)
class PhaseRecord:
    """The channel's phase, and why it is frozen (empty when it is not)."""

    channel: ChannelId
    phase: Phase
    frozen: str
    reason: str
    """Why it closes or leaves: stored and shown for every close."""
    since_ns: Nanos
    """Chain time of the change."""


@dataclass(frozen=True, slots=True)
class RegisteredRecord:
    """What the newest look showed as registered."""

    channel: ChannelId
    state: State
    timeout_ns: Nanos


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One fact for users, kept and numbered. `kind`: noun.past-verb."""

    kind: str
    channel: ChannelId | None
    data: dict[str, str | int | bool] = field(default_factory=dict)


Record = (
    SignatureRecord
    | UpdateRecord
    | GivenUpRecord
    | IncludedRecord
    | LossEndRecord
    | StateRecord
    | CountedRecord
    | PaymentsQueuedRecord
    | PaymentsOfferedRecord
    | PaymentsEndedRecord
    | DeclinesRecord
    | PeerHoldsRecord
    | PhaseRecord
    | RegisteredRecord
    | EventRecord
)

# --- effects: after the records are durable ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Send to the channel's peer, if it is connected. What matters is sent again on resume."""

    message: Message


@dataclass(frozen=True, slots=True)
class LookNow:
    """Make a certified look as soon as possible."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The peer holds our payments in a fully signed state, and nothing is registered that leaves them out."""

    payments: Batch
    version: int


@dataclass(frozen=True, slots=True)
class Received:
    """The peer's payments are in a fully signed state that the canister would accept (rule 4): they count."""

    payments: Batch
    version: int


@dataclass(frozen=True, slots=True)
class PaymentsEnded:
    """Our payments will never be delivered. `ids`: 16 bytes each."""

    ids: bytes
    status: str
    code: str


Effect = Send | LookNow | Delivered | Received | PaymentsEnded


@dataclass(frozen=True, slots=True)
class Step:
    """What one input asks of the driver: commit `durable` together, then perform `outgoing` in order."""

    durable: tuple[Record, ...] = ()
    outgoing: tuple[Effect, ...] = ()

    def __add__(self, then: Step) -> Step:
        if not then.durable and not then.outgoing:
            return self
        if not self.durable and not self.outgoing:
            return then
        return Step(self.durable + then.durable, self.outgoing + then.outgoing)


NOTHING = Step()
