"""The protocol's records as statements of SQL."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Final, assert_never

import msgspec

from perund.store.writer import Statement
from protocol.effects import (
    CountedRecord,
    DeclinesRecord,
    EventRecord,
    GivenUpRecord,
    IncludedRecord,
    LossEndRecord,
    PaymentsEndedRecord,
    PaymentsOfferedRecord,
    PaymentsQueuedRecord,
    PeerHoldsRecord,
    PhaseRecord,
    Record,
    RegisteredRecord,
    SignatureRecord,
    StateRecord,
    UpdateRecord,
)
from protocol.payments import Batch
from protocol.types import ChannelId
from wire.codec import encode

__all__ = ["statements_of"]

COLUMNS_FROM: Final = 8
"""From this many payments on, one statement inserts a batch from its columns, without the interpreter."""

_IN_UPDATE: Final = "DO UPDATE SET version = excluded.version, status = NULL, code = NULL"
_QUEUED: Final = "DO UPDATE SET status = excluded.status WHERE payment.version IS NULL"
"""A payment that went straight into an update is in it already."""


def statements_of(
    record: Record, number: Callable[[ChannelId], int], now_ms: int, cursor: Callable[[EventRecord], int]
) -> Iterable[Statement]:
    """Yield what writes a record. `number` finds a channel's row; `cursor` numbers an event."""
    match record:
        case SignatureRecord():
            yield Statement(
                "UPDATE channel_state SET signed_version = ?, signed_digest = ?, signed_final = ? WHERE number = ?",
                (record.version, record.digest, record.finalized, number(record.channel)),
            )
        case UpdateRecord():
            update, row = record.update, number(record.update.channel)
            yield Statement(
                "INSERT OR REPLACE INTO outstanding VALUES (?, ?, ?)", (row, update.version, encode(update))
            )
            yield from _payments(row, 0, update.from_0, update.version, None, now_ms)
            yield from _payments(row, 1, update.from_1, update.version, None, now_ms)
        case GivenUpRecord():
            update = record.update
            yield Statement(
                "INSERT OR REPLACE INTO given_up VALUES (?, ?, ?)",
                (number(update.channel), update.version, encode(update)),
            )
        case IncludedRecord():
            row = number(record.channel)
            yield from _payments(row, 0, record.from_0, record.version, None, now_ms)
            yield from _payments(row, 1, record.from_1, record.version, None, now_ms)
        case LossEndRecord():
            yield Statement(
                "UPDATE channel_state SET loss_end_version = ? WHERE number = ?",
                (record.version, number(record.channel)),
            )
        case StateRecord():
            state, signatures = record.signed.state, record.signed.signatures
            row = number(state.channel)
            yield Statement(
                "UPDATE channel_state SET version = ?1, allocation_0 = ?2, allocation_1 = ?3, finalized = ?4, "
                "signature_0 = ?5, signature_1 = ?6, counted = iif(?7, ?1, counted) WHERE number = ?8",
                (state.version, *state.allocation, state.finalized, *signatures, record.counts, row),
            )
            yield Statement("DELETE FROM outstanding WHERE number = ? AND version <= ?", (row, state.version))
            yield from _payments(row, 0, record.from_0, state.version, None, now_ms)
            yield from _payments(row, 1, record.from_1, state.version, None, now_ms)
        case CountedRecord():
            yield Statement(
                "UPDATE channel_state SET counted = max(counted, ?) WHERE number = ?",
                (record.version, number(record.channel)),
            )
        case PaymentsQueuedRecord():
            status = "offered" if record.offered else "queued"
            yield from _payments(number(record.channel), record.sender, record.payments, None, status, now_ms)
        case PaymentsOfferedRecord():
            yield Statement(
                "UPDATE payment SET status = 'offered' WHERE number = ? AND sender = ? AND status = 'queued'",
                (number(record.channel), record.sender),
            )
        case PaymentsEndedRecord():
            # A declined offer of the peer has no row yet: its id is remembered, because a decline is final.
            yield Statement(
                "WITH RECURSIVE place(at) AS (SELECT 1 UNION ALL SELECT at + 16 FROM place WHERE at + 16 < length(?3)) "
                "INSERT INTO payment SELECT ?1, ?2, substr(?3, at, 16), 0, x'', NULL, ?4, ?5, ?6 FROM place WHERE true "
                "ON CONFLICT DO UPDATE SET version = NULL, status = excluded.status, code = excluded.code",
                (number(record.channel), record.sender, record.ids, record.status, record.code, now_ms),
            )
        case DeclinesRecord():
            row = number(record.channel)
            yield Statement(
                "UPDATE channel_state SET declined_up_to = max(declined_up_to, ?) WHERE number = ?",
                (record.up_to, row),
            )
            yield Statement(  # rows of our own payments have amounts; these are ids and nothing else
                "DELETE FROM payment "
                "WHERE number = ? AND sender = ? AND status = 'declined' AND amount = 0 AND id <= ?",
                (row, record.sender, record.up_to),
            )
        case PeerHoldsRecord():
            yield Statement(
                "UPDATE channel_state SET peer_holds = max(peer_holds, ?) WHERE number = ?",
                (record.version, number(record.channel)),
            )
        case PhaseRecord():
            yield Statement(
                "UPDATE channel_state SET phase = ?, frozen = ?, reason = iif(? = '', reason, ?), "
                "since_ns = iif(phase = ?, since_ns, ?) WHERE number = ?",
                (
                    record.phase,
                    record.frozen,
                    record.reason,
                    record.reason,
                    record.phase,
                    record.since_ns,
                    number(record.channel),
                ),
            )
        case RegisteredRecord():
            state = record.state
            yield Statement(
                "INSERT OR REPLACE INTO registered VALUES (?, ?, ?, ?, ?, ?)",
                (number(record.channel), state.version, *state.allocation, state.finalized, record.timeout_ns),
            )
        case EventRecord():
            row_or_none = number(record.channel) if record.channel is not None else None
            yield Statement(
                "INSERT INTO event VALUES (?, ?, ?, ?, ?)",
                (cursor(record), now_ms, record.kind, row_or_none, msgspec.json.encode(record.data).decode()),
            )
        case _:
            assert_never(record)


def _payments(
    row: int, sender: int, batch: Batch, version: int | None, status: str | None, now_ms: int
) -> Iterable[Statement]:
    """Insert or update payments. A batch without memos goes in by one statement, from its columns."""
    if not batch:
        return
    on_conflict = _QUEUED if version is None else _IN_UPDATE
    if len(batch) >= COLUMNS_FROM and not batch.memos:
        yield Statement(
            "INSERT INTO payment SELECT ?1, ?2, substr(?3, j.key * 16 + 1, 16), j.value, x'', ?5, ?6, NULL, ?7 "
            f"FROM json_each(?4) AS j WHERE true ON CONFLICT {on_conflict}",
            (row, sender, batch.ids, json.dumps(batch.amounts_e8s), version, status, now_ms),
        )
        return
    for payment in batch:
        yield Statement(
            f"INSERT INTO payment VALUES (?, ?, ?, ?, ?, ?, ?, NULL, ?) ON CONFLICT {on_conflict}",
            (row, sender, payment.id, payment.amount_e8s, payment.memo, version, status, now_ms),
        )
