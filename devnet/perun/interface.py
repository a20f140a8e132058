"""The words of the canister's interface, `perun.did`, as values and as Candid types.

Arguments come from strangers: these classes hold whatever the wire can carry (no participants, thousands of them,
amounts of any size, keys of any length). What the canister makes of it is in `examination`.
"""

from __future__ import annotations

import hashlib
from enum import Enum
from typing import Final

import msgspec

from devnet.candid import (
    BLOB,
    BOOL,
    NAT,
    NAT64,
    NULL,
    PRINCIPAL,
    Case,
    Shape,
    encode,
    record,
    variant,
    vec,
)

__all__ = [
    "DISPUTES",
    "ERROR",
    "EVENTS",
    "FULLY_SIGNED_STATE",
    "FUNDING",
    "NOTIFIED",
    "PARAMS",
    "REGISTERED_STATE",
    "WITHDRAWAL_REQUEST",
    "Concluded",
    "DisputeEntry",
    "Disputed",
    "Disputes",
    "Error",
    "Event",
    "FullySignedState",
    "Funded",
    "Funding",
    "Params",
    "RegisteredState",
    "State",
    "WithdrawalRequest",
    "error_case",
]


class Params(msgspec.Struct, frozen=True):
    """What never changes in a channel. `challenge_duration`: ns in which a registered state can be refuted."""

    nonce: bytes
    participants: tuple[bytes, ...]
    challenge_duration: int

    def channel_id(self) -> bytes:
        """Return SHA-512 (64 bytes) of the Candid encoding."""
        return hashlib.sha512(encode((PARAMS,), self)).digest()


class State(msgspec.Struct, frozen=True, array_like=True):
    """Who owns what at a version. `allocation`: e8s per participant, in the order of the params."""

    channel: bytes
    version: int
    allocation: tuple[int, ...]
    finalized: bool

    def signed_bytes(self) -> bytes:
        """Return what participants sign: the Candid encoding."""
        return encode((_STATE,), self)


class FullySignedState(msgspec.Struct, frozen=True):
    """A state with one Ed25519 signature per participant, in the order of the params."""

    state: State
    sigs: tuple[bytes, ...]


class RegisteredState(msgspec.Struct, frozen=True, array_like=True):
    """The state that the canister holds for a channel. `timeout`: chain time in ns from which it stands."""

    state: State
    timeout: int

    def settled(self, now_ns: int) -> bool:
        """Whether nothing can replace it any more at chain time `now_ns`."""
        return self.state.finalized or now_ns >= self.timeout


class Funding(msgspec.Struct, frozen=True, array_like=True):
    """Whose money in which channel."""

    channel: bytes
    participant: bytes

    def memo(self) -> int:
        """Return the memo of its deposits: first 8 bytes, little endian, of SHA-512 of the Candid encoding."""
        return int.from_bytes(hashlib.sha512(encode((FUNDING,), self)).digest()[:8], "little")


class WithdrawalRequest(msgspec.Struct, frozen=True):
    """Pay what is held for `funding` to the default account of `receiver` (raw principal)."""

    funding: Funding
    receiver: bytes

    def signed_bytes(self) -> bytes:
        """Return what the participant signs: the Candid encoding."""
        return encode((WITHDRAWAL_REQUEST,), self)


class Error(Enum):
    """Why a call changed nothing. The values are the alternatives of the interface, nested ones after a dot."""

    AUTHENTICATION = "Authentication"
    NOT_FINALIZED = "NotFinalized"
    ALREADY_CONCLUDED = "AlreadyConcluded"
    INVALID_INPUT = "InvalidInput"
    INSUFFICIENT_FUNDING = "InsufficientFunding"
    OUTDATED_STATE = "OutdatedState"
    LEDGER_ERROR = "LedgerError"
    TRANSACTION_TYPE = "ReceiverError.TransactionType"
    RECIPIENT = "ReceiverError.Recipient"
    DUPLICATE_TRANSACTION = "ReceiverError.DuplicateTransaction"
    FAILED_TO_QUERY = "ReceiverError.FailedToQuery"


class Funded(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Money was credited. `who`: participant's key; `total`: e8s that are now held for it in the channel."""

    who: bytes
    total: int


class Disputed(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A state was registered, the first one or a newer one. The fields are those of `RegisteredState`."""

    state: State
    timeout: int


class Concluded(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The channel is settled: nothing replaces its state any more."""


Event = Funded | Disputed | Concluded


class DisputeEntry(msgspec.Struct, frozen=True):
    """Where a channel stands in the log of disputes, and the state registered for it."""

    index: int
    channel: bytes
    state: RegisteredState


class Disputes(msgspec.Struct, frozen=True):
    """A page of the log of disputes. `head`: the index that the next registration or settlement gets."""

    entries: tuple[DisputeEntry, ...]
    head: int


def error_case(error: Error) -> Case:
    """Return the alternative of the interface that an error is."""
    outer, _, inner = error.value.partition(".")
    return Case(outer, Case(inner) if inner else None)


PARAMS: Final[Shape[Params]] = record(Params, nonce=BLOB, participants=vec(BLOB), challenge_duration=NAT64)
_STATE: Final[Shape[State]] = record(State, channel=BLOB, version=NAT64, allocation=vec(NAT), finalized=BOOL)
FULLY_SIGNED_STATE: Final[Shape[FullySignedState]] = record(FullySignedState, state=_STATE, sigs=vec(BLOB))
REGISTERED_STATE: Final[Shape[RegisteredState]] = record(RegisteredState, state=_STATE, timeout=NAT64)
FUNDING: Final[Shape[Funding]] = record(Funding, channel=BLOB, participant=BLOB)
WITHDRAWAL_REQUEST: Final[Shape[WithdrawalRequest]] = record(WithdrawalRequest, funding=FUNDING, receiver=PRINCIPAL)
ERROR: Final = variant(
    Authentication=NULL,
    NotFinalized=NULL,
    AlreadyConcluded=NULL,
    InvalidInput=NULL,
    InsufficientFunding=NULL,
    OutdatedState=NULL,
    LedgerError=NULL,
    ReceiverError=variant(TransactionType=NULL, Recipient=NULL, DuplicateTransaction=NULL, FailedToQuery=NULL),
)
NOTIFIED: Final = variant(Ok=NAT, Err=ERROR)
EVENTS: Final = vec(
    variant(
        Funded=record(Funded, who=BLOB, total=NAT),
        Disputed=record(Disputed, state=_STATE, timeout=NAT64),
        Concluded=NULL,
    )
)
DISPUTES: Final[Shape[Disputes]] = record(
    Disputes,
    entries=vec(record(DisputeEntry, index=NAT64, channel=BLOB, state=REGISTERED_STATE)),
    head=NAT64,
)
