"""What peers say to each other, as typed values. docs/protocol.md is the specification; `wire` has the bytes.

Field order is the order on the wire. Lengths are in bytes, amounts in e8s, times in nanoseconds of chain time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Final

from protocol.payments import Batch
from protocol.types import ChannelId, Nanos, ParticipantKey

__all__ = [
    "FEATURE_ADDRESSES",
    "FEATURE_LIVES",
    "FEATURE_RECALL",
    "FEATURE_STANDING",
    "FEATURE_TOWER",
    "Ack",
    "Addresses",
    "ChannelAccept",
    "ChannelMessage",
    "ChannelProposal",
    "ChannelReady",
    "ChannelReject",
    "CloseRequest",
    "Confirm",
    "Decline",
    "ErrorMessage",
    "Hello",
    "Life",
    "LifeHeard",
    "LifeMessage",
    "LifeStopped",
    "Message",
    "Offer",
    "OpeningMessage",
    "PeerMessage",
    "Ping",
    "Pong",
    "Resume",
    "ResumePhase",
    "SessionMessage",
    "SignedStateMessage",
    "StandingMessage",
    "StateSignature",
    "TowerForget",
    "TowerHeld",
    "TowerInquiry",
    "TowerList",
    "TowerListRequest",
    "TowerMessage",
    "TowerRecall",
    "TowerReceipt",
    "TowerRefusal",
    "TowerStanding",
    "TowerState",
    "Update",
]

FEATURE_TOWER: Final = 1
"""Bit 0 of `Hello.features`: its sender is a watchtower."""
FEATURE_RECALL: Final = 2
"""Bit 1: it gives clients back what it holds for them. A tower without it would end the session over the question."""
FEATURE_STANDING: Final = 4
"""Bit 2: it says which life of its store this is, and a digest of what it holds for the client."""
FEATURE_LIVES: Final = 8
"""Bit 3: its sender takes the lives of others, and tells a node of a newer life of it."""
FEATURE_ADDRESSES: Final = 16
"""Bit 4: its sender says where it can be dialed, and takes what the other side says of itself."""


@dataclass(frozen=True, slots=True)
class Hello:
    """First message of each side. `network`: 32 bytes, see `protocol.opening.network_hash`."""

    TYPE: ClassVar[int] = 1
    protocol_version: int
    network: bytes
    features: int
    agent: str
    """Name and version of the software, at most 64 bytes of printable text."""
    minimum_payment_e8s: int
    """Smaller payments to this node are declined."""


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """What was wrong. `code`: a word of at most 32 bytes; `text`: at most 256; `channel`: 64 bytes or empty."""

    TYPE: ClassVar[int] = 2
    code: str
    text: str
    channel: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a `Pong` with the same number."""

    TYPE: ClassVar[int] = 3
    nonce: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Answers a `Ping`."""

    TYPE: ClassVar[int] = 4
    nonce: int


@dataclass(frozen=True, slots=True)
class Life:
    """Which life of a node this is, signed: of two that run at once the one with the lower number stops signing."""

    TYPE: ClassVar[int] = 5
    number: int
    """Rises with every start: 1 to 2^63-1."""
    nonce: bytes
    """32 random bytes: two copies that start from one store have the same number."""
    signature: bytes
    """64 bytes, ECDSA by the node's key. What is signed: `protocol.lives`."""


@dataclass(frozen=True, slots=True)
class LifeHeard:
    """Shows a node another life of itself, signed by its own key: one that its sender has heard."""

    TYPE: ClassVar[int] = 7
    number: int
    nonce: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class LifeStopped:
    """A life of a node has stopped signing because of another, signed: by its sender, or by whom it is shown to."""

    TYPE: ClassVar[int] = 9
    number: int
    nonce: bytes
    by_number: int
    by_nonce: bytes
    signature: bytes
    """64 bytes, ECDSA by the node's key. What is signed: `protocol.lives`."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """All places at which its sender wants to be dialed, once in a session. What it said before is void."""

    TYPE: ClassVar[int] = 15
    places: tuple[tuple[str, int], ...]
    """Host (a name or an IP address, at most 253 characters of ASCII) and port of each, at most 8, none twice."""


@dataclass(frozen=True, slots=True)
class ChannelProposal:
    """Proposes a channel. Its sender is participant 0 and pays first."""

    TYPE: ClassVar[int] = 10
    proposal_id: bytes
    """32 random bytes."""
    nonce_share: bytes
    """32 random bytes, fresh for each proposal."""
    participant: ParticipantKey
    allocation: tuple[int, int]
    challenge_duration_ns: Nanos
    funding_deadline_ns: Nanos


@dataclass(frozen=True, slots=True)
class ChannelAccept:
    """Accepts a proposal."""

    TYPE: ClassVar[int] = 11
    proposal_id: bytes
    nonce_share: bytes
    participant: ParticipantKey


@dataclass(frozen=True, slots=True)
class ChannelReject:
    """Rejects a proposal, or gives up an opening that is not signed yet."""

    TYPE: ClassVar[int] = 12
    proposal_id: bytes
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class StateSignature:
    """The sender's signature on state 0."""

    TYPE: ClassVar[int] = 13
    proposal_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class ChannelReady:
    """The sender's looks show both deposits and no registered state."""

    TYPE: ClassVar[int] = 14
    channel: ChannelId


@dataclass(frozen=True, slots=True)
class Offer:
    """Participant 1 asks for these payments to participant 0 to be included. Idempotent by id."""

    TYPE: ClassVar[int] = 20
    channel: ChannelId
    payments: Batch


@dataclass(frozen=True, slots=True)
class Decline:
    """Participant 0 will never include these offers. Final on both sides. `ids`: 16 bytes each, joined."""

    TYPE: ClassVar[int] = 21
    channel: ChannelId
    ids: bytes
    code: str


@dataclass(frozen=True, slots=True)
class Update:
    """Participant 0's next state, with its signature and the payments that lead to it."""

    TYPE: ClassVar[int] = 22
    channel: ChannelId
    version: int
    allocation: tuple[int, int]
    finalized: bool
    from_0: Batch
    from_1: Batch
    signature: bytes


@dataclass(frozen=True, slots=True)
class Ack:
    """Participant 1's signature on the update of that version: it holds the fully signed state."""

    TYPE: ClassVar[int] = 23
    channel: ChannelId
    version: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Confirm:
    """Participant 0 holds the fully signed state of that version."""

    TYPE: ClassVar[int] = 24
    channel: ChannelId
    version: int


@dataclass(frozen=True, slots=True)
class CloseRequest:
    """Participant 1 asks for the final state."""

    TYPE: ClassVar[int] = 25
    channel: ChannelId


class ResumePhase(IntEnum):
    """Where the sender of a `Resume` stands."""

    SIGNING = 0
    FUNDING = 1
    OPEN = 2
    CLOSING = 3
    """A final state is signed by the sender, or it no longer updates because it settles alone."""


@dataclass(frozen=True, slots=True)
class Resume:
    """First message about a channel in each session: what the sender holds."""

    TYPE: ClassVar[int] = 30
    channel: ChannelId
    phase: ResumePhase
    version: int
    """Newest fully signed version."""
    state_hash: bytes
    """SHA-256 of that state's signed bytes (32 bytes)."""
    pending_version: int
    """Version that the sender signed and the peer did not, as far as it knows; 0 when there is none."""
    pending_hash: bytes
    """SHA-256 of that state's signed bytes, or empty."""
    recovering: bool
    """The sender may have lost data (rule 7)."""


@dataclass(frozen=True, slots=True)
class SignedStateMessage:
    """A fully signed state, for a peer that does not have it."""

    TYPE: ClassVar[int] = 31
    channel: ChannelId
    version: int
    allocation: tuple[int, int]
    finalized: bool
    signature_0: bytes
    signature_1: bytes


@dataclass(frozen=True, slots=True)
class TowerState:
    """Asks a watchtower to guard a channel with this fully signed state: params, state, both signatures."""

    TYPE: ClassVar[int] = 40
    nonce: bytes
    """64 bytes."""
    participant_0: ParticipantKey
    participant_1: ParticipantKey
    challenge_duration_ns: Nanos
    version: int
    allocation: tuple[int, int]
    finalized: bool
    signature_0: bytes
    signature_1: bytes


@dataclass(frozen=True, slots=True)
class TowerReceipt:
    """A watchtower's promise, signed: until `expires_ns` it refutes what is registered below this version."""

    TYPE: ClassVar[int] = 42
    channel: ChannelId
    version: int
    """The newest that it holds for this client: above what was sent when that was an older one."""
    state_hash: bytes
    """SHA-256 of that state's signed bytes (32 bytes)."""
    chain_time_ns: Nanos
    expires_ns: Nanos
    signature: bytes
    """64 bytes, ECDSA by the tower's node key. What is signed: `watcher.tower.receipts`."""


@dataclass(frozen=True, slots=True)
class TowerRefusal:
    """A watchtower does not guard this channel with this version, or holds nothing of it (`no_slot`)."""

    TYPE: ClassVar[int] = 44
    channel: ChannelId
    version: int
    """The one that was sent; 0 in the answer to a `TowerRecall`."""
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class TowerForget:
    """The client needs its slot for this channel no more: it is settled."""

    TYPE: ClassVar[int] = 46
    channel: ChannelId


@dataclass(frozen=True, slots=True)
class TowerRecall:
    """Asks a watchtower for the newest state in the client's own slot for this channel: the client may have lost it."""

    TYPE: ClassVar[int] = 48
    channel: ChannelId


@dataclass(frozen=True, slots=True)
class TowerHeld:
    """Answers a `TowerRecall`: the fully signed state in the client's slot."""

    TYPE: ClassVar[int] = 50
    channel: ChannelId
    version: int
    allocation: tuple[int, int]
    finalized: bool
    signature_0: bytes
    signature_1: bytes


@dataclass(frozen=True, slots=True)
class TowerInquiry:
    """Asks a watchtower which life of its store this is, and what it holds for its client, as digests."""

    TYPE: ClassVar[int] = 51
    nonce: int


@dataclass(frozen=True, slots=True)
class TowerStanding:
    """Answers a `TowerInquiry`."""

    TYPE: ClassVar[int] = 53
    nonce: int
    life: bytes
    """32 bytes, random, made with the tower's store."""
    writes: int
    """Rises with every start and every state that is kept: an older copy of the store has a lower one."""
    slots: int
    """How many channels it guards for the client."""
    buckets: bytes
    """33 bytes for each bucket that is not empty, rising: its number, and its digest. See `protocol.tower_digest`."""


@dataclass(frozen=True, slots=True)
class TowerListRequest:
    """Asks a watchtower which states it holds for its client in one bucket, from a channel id on."""

    TYPE: ClassVar[int] = 55
    bucket: int
    after: bytes
    """A channel id, or empty: from the first one on."""


@dataclass(frozen=True, slots=True)
class TowerList:
    """Answers a `TowerListRequest`."""

    TYPE: ClassVar[int] = 57
    bucket: int
    after: bytes
    """As it was asked."""
    entries: bytes
    """104 bytes for each channel, rising: channel id, version (8 bytes, big endian), state hash. At most 256."""
    complete: bool
    """Whether nothing follows."""


SessionMessage = Hello | ErrorMessage | Ping | Pong
OpeningMessage = ChannelProposal | ChannelAccept | ChannelReject | StateSignature
ChannelMessage = ChannelReady | Offer | Decline | Update | Ack | Confirm | CloseRequest | Resume | SignedStateMessage
TowerMessage = TowerState | TowerReceipt | TowerRefusal | TowerForget | TowerRecall | TowerHeld
StandingMessage = TowerInquiry | TowerStanding | TowerListRequest | TowerList
LifeMessage = Life | LifeHeard | LifeStopped
PeerMessage = OpeningMessage | ChannelMessage | TowerMessage | StandingMessage | LifeMessage | Addresses
"""What a session brings to its handler."""
Message = SessionMessage | OpeningMessage | ChannelMessage | TowerMessage | StandingMessage | LifeMessage | Addresses
