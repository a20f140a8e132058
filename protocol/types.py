"""The words of the Perun canister as values: params, state, signed state, funding, withdrawal.

Amounts are integers of e8s (10^-8 ICP), times and durations integers of nanoseconds.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, NewType

from protocol.errors import Undecodable
from protocol.limits import MAX_E8S, MAX_INT64, MAX_NAT64

__all__ = [
    "MAX_CHALLENGE_NS",
    "MAX_E8S",
    "MAX_INT64",
    "MAX_NAT64",
    "MAX_VERSION",
    "MIN_CHALLENGE_NS",
    "ChannelId",
    "Funding",
    "Nanos",
    "Params",
    "ParticipantIndex",
    "ParticipantKey",
    "RegisteredState",
    "SignedState",
    "State",
    "WithdrawalRequest",
    "channel_nonce",
    "other",
]

Nanos = NewType("Nanos", int)
"""Nanoseconds: a duration, or a moment since 1970 in the time of the Internet Computer."""
ChannelId = NewType("ChannelId", bytes)
"""64 bytes: SHA-512 of the Candid encoding of the params."""
ParticipantKey = NewType("ParticipantKey", bytes)
"""32 bytes: a participant's Ed25519 public key."""
ParticipantIndex = Literal[0, 1]
"""Place in `Params.participants`. Participant 0 is the proposer and orders the updates."""

MAX_VERSION: Final = MAX_INT64
"""No version above it is signed or taken: a state at 2^64-1 could never be refuted."""
MIN_CHALLENGE_NS: Final = Nanos(1_000_000_000)
MAX_CHALLENGE_NS: Final = Nanos(365 * 24 * 3600 * 1_000_000_000)
"""Bounds of the canister here on a challenge duration; a node's policy is narrower."""


def other(index: ParticipantIndex) -> ParticipantIndex:
    """Return the peer's place for ours."""
    return 1 if index == 0 else 0


def channel_nonce(share_0: bytes, share_1: bytes) -> bytes:
    """Return the 64-byte nonce of two 32-byte shares, the proposer's first. Source: DESIGN, opening, 2."""
    return hashlib.sha512(share_0 + share_1).digest()


def _need(value: bytes, length: int, what: str) -> None:
    if len(value) != length:
        raise Undecodable(f"{what} must have {length} bytes, not {len(value)}")


@dataclass(frozen=True)
class Params:
    """What never changes in a channel.

    `nonce`: 64 bytes; `participants`: two different keys of 32 bytes, the proposer's first;
    `challenge_duration_ns`: how long a registered state can be refuted.
    Raises `Undecodable` for anything else: params that the canister would refuse cannot be built.
    """

    nonce: bytes
    participants: tuple[ParticipantKey, ParticipantKey]
    challenge_duration_ns: Nanos

    def __post_init__(self) -> None:
        _need(self.nonce, 64, "a nonce")
        for key in self.participants:
            _need(key, 32, "a participant key")
        if self.participants[0] == self.participants[1]:
            raise Undecodable("the two participants have the same key; each needs its own")
        if not MIN_CHALLENGE_NS <= self.challenge_duration_ns <= MAX_CHALLENGE_NS:
            raise Undecodable(
                f"a challenge duration of {self.challenge_duration_ns} ns is outside "
                f"{MIN_CHALLENGE_NS} to {MAX_CHALLENGE_NS} ns"
            )

    @cached_property
    def channel_id(self) -> ChannelId:
        """SHA-512 of the Candid encoding. Source: Perun canister, `Params::id`."""
        from protocol.encoding import encode_params  # noqa: PLC0415  (encoding is written in terms of types)

        return ChannelId(hashlib.sha512(encode_params(self)).digest())


@dataclass(frozen=True)
class State:
    """One state of a channel: who owns what at a version.

    `allocation`: e8s per participant, in the order of the params.
    Raises `Undecodable` when a field cannot be what the canister would register.
    """

    channel: ChannelId
    version: int
    allocation: tuple[int, int]
    finalized: bool

    def __post_init__(self) -> None:
        _need(self.channel, 64, "a channel id")
        if not 0 <= self.version <= MAX_NAT64:
            raise Undecodable(f"version {self.version} is not a nat64")
        a, b = self.allocation
        if a < 0 or b < 0 or a + b > MAX_E8S:
            raise Undecodable(f"the allocation {self.allocation} e8s is negative or above 2^64-1 in total")

    @property
    def total(self) -> int:
        """The sum of the allocation in e8s: the same in every state of a channel (rule 6)."""
        return self.allocation[0] + self.allocation[1]

    @cached_property
    def encoded(self) -> bytes:
        """The bytes that are signed."""
        from protocol.encoding import encode_state  # noqa: PLC0415  (encoding is written in terms of types)

        return encode_state(self)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the signed bytes (32 bytes): how peers, towers and the store compare states."""
        return hashlib.sha256(self.encoded).digest()


@dataclass(frozen=True)
class SignedState:
    """A state with one 64-byte Ed25519 signature per participant.

    Building one does not verify it: `protocol.signing.verify_signed_state` does, and whoever adopts a
    state from outside calls it first (rule 4).
    """

    state: State
    signatures: tuple[bytes, bytes]

    def __post_init__(self) -> None:
        for signature in self.signatures:
            _need(signature, 64, "a signature")


@dataclass(frozen=True)
class RegisteredState:
    """What the canister holds for a disputed or concluded channel. `timeout_ns`: when it settles."""

    state: State
    timeout_ns: Nanos

    def settled(self, now_ns: int) -> bool:
        """Whether the state can no longer be replaced at chain time `now_ns`. Source: canister, `settled`."""
        return self.state.finalized or now_ns >= self.timeout_ns


@dataclass(frozen=True)
class Funding:
    """Whose money in which channel."""

    channel: ChannelId
    participant: ParticipantKey

    def __post_init__(self) -> None:
        _need(self.channel, 64, "a channel id")
        _need(self.participant, 32, "a participant key")

    @cached_property
    def memo(self) -> int:
        """The memo of its deposits: first 8 bytes, little endian, of SHA-512 of the Candid encoding."""
        from protocol.encoding import encode_funding  # noqa: PLC0415  (encoding is written in terms of types)

        return int.from_bytes(hashlib.sha512(encode_funding(self)).digest()[:8], "little")


@dataclass(frozen=True)
class WithdrawalRequest:
    """Take the holdings of `funding` out to the default account of `receiver` (raw principal bytes)."""

    funding: Funding
    receiver: bytes

    def __post_init__(self) -> None:
        if len(self.receiver) > 29:
            raise Undecodable(f"a principal has at most 29 bytes, not {len(self.receiver)}")
