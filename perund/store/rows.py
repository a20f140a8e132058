"""What the store's rows are as values. `perund.store.reading` reads them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from protocol.funding import IntentStatus
from protocol.memory import ChannelMemory
from protocol.payments import Payment
from protocol.terms import Terms
from protocol.types import ChannelId, Nanos, ParticipantIndex, RegisteredState
from wire.address import Address
from wire.nearness import Nearness

__all__ = [
    "ChannelRow",
    "CodeSeen",
    "Cost",
    "EventRow",
    "PaymentRow",
    "PeerAddress",
    "RequestRow",
    "TransferIntent",
    "WithdrawalIntent",
    "proven",
]


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """A channel as it was left. `number`: its row; `opened_ns`, `since_ns`: chain time."""

    number: int
    terms: Terms
    memory: ChannelMemory
    reason: str
    opened_ns: Nanos
    since_ns: Nanos
    force_after_ns: Nanos
    registered: RegisteredState | None
    settled_version: int | None


@dataclass(frozen=True, slots=True)
class PaymentRow:
    """A payment for listing. `version` is None while no update contains it."""

    channel: ChannelId
    sender: ParticipantIndex
    ours: bool
    payment: Payment
    version: int | None
    status: str
    """queued, offered, signed, delivered, declined, failed or cancelled."""
    code: str
    recorded_ms: int


@dataclass(frozen=True, slots=True)
class EventRow:
    """One fact for users."""

    cursor: int
    at_ms: int
    kind: str
    channel: ChannelId | None
    data: dict[str, str | int | bool]


@dataclass(frozen=True, slots=True)
class WithdrawalIntent:
    """A withdrawal that we asked for. `envelope`: the signed call, repeated under the same request id."""

    number: int
    holdings_e8s: int
    envelope: bytes | None
    status: str
    block: int | None
    received_e8s: int | None
    from_block: int


@dataclass(frozen=True, slots=True)
class TransferIntent:
    """A transfer of the wallet: a deposit, or a plain one. `receiver`: account identifier, 32 bytes."""

    number: int
    channel_number: int | None
    receiver: bytes
    amount_e8s: int
    fee_e8s: int
    memo: int
    created_at_ns: Nanos
    status: IntentStatus
    block: int | None
    last_expiry_ns: Nanos
    unproven: int
    """Requests for it whose end no certificate has shown."""
    from_block: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a channel cost, or brought, in e8s."""

    what: str
    amount_e8s: int


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a peer can be dialed, and how that is known. Times: local clock, ms.

    `given`: by our operator (else the peer announced it); `proven_ms`: when the peer last proved by a handshake to be
    there, None when it never did; `nearest`: how near a place an announced one may lead to, None: anywhere.
    """

    address: Address
    given: bool
    since_ms: int
    proven_ms: int | None
    nearest: Nearness | None


def proven(rows: Iterable[PeerAddress]) -> list[PeerAddress]:
    """Return those at which the peer proved to be, the newest proof last."""
    return sorted((row for row in rows if row.proven_ms is not None), key=lambda row: row.proven_ms or 0)


@dataclass(frozen=True, slots=True)
class CodeSeen:
    """What was last certified of the Perun canister. `module_hash`: 32 bytes; `controllers`: raw principals, sorted.

    `changed`: whether it was ever another one since this node first saw it; `installed_ns`: chain time of its newest
    installation, None if none was ever shown; `reinstalled`: whether that installation brought no other code.
    """

    module_hash: bytes | None
    controllers: tuple[bytes, ...]
    changed: bool
    installed_ns: int | None = None
    reinstalled: bool = False


@dataclass(frozen=True, slots=True)
class RequestRow:
    """An action that was asked for under an idempotency key."""

    method: str
    arguments: bytes
    result: str
