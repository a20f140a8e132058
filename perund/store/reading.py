"""What the store knows, as typed values. Reads run on the event loop: WAL readers wait for nobody."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import apsw
import structlog

from perund.keys import SHARE_BYTES
from perund.store.damage import unusable
from perund.store.errors import StoreDamaged
from perund.store.lives import recall_life
from perund.store.rows import (
    ChannelRow,
    CodeSeen,
    Cost,
    EventRow,
    PaymentRow,
    PeerAddress,
    RequestRow,
    TransferIntent,
    WithdrawalIntent,
)
from perund.store.schema import MIGRATIONS, known_version, migrate
from protocol.channel import SETTLED_WITHOUT_IT
from protocol.counting import Counted
from protocol.effects import Phase, SignatureRecord
from protocol.errors import Undecodable
from protocol.funding import DepositIntent, IntentStatus
from protocol.hearing import Heard
from protocol.memory import ChannelMemory
from protocol.messages import ChannelAccept, ChannelProposal, Update
from protocol.opening import Accepted, Dead, OpeningPhase, Proposed, Signing
from protocol.payments import EMPTY, Batch, Payment
from protocol.terms import Terms
from protocol.types import (
    ChannelId,
    Nanos,
    Params,
    ParticipantIndex,
    ParticipantKey,
    RegisteredState,
    SignedState,
    State,
)
from wire.address import BadAddress, NodeAddress
from wire.codec import decode
from wire.errors import BadMessage
from wire.nearness import Nearness

__all__ = ["UPDATED", "Reader", "open_reader"]

CACHE_KIB: Final = 32_768
BUSY_MS: Final = 5_000
UPDATED: Final = "channel.updated"
"""The one kind of which there is an event for each state."""

log = structlog.get_logger()
T = TypeVar("T")
_Value = int | str | bytes | None
_Column = Any
"""A column's value: its type is in the schema, which no type checker reads."""

_CHANNEL_COLUMNS = (
    "c.number, c.channel, c.proposal_id, c.peer, c.our_index, c.nonce, c.our_share, c.peer_share, "
    "c.participant_0, c.participant_1, c.allocation_0, c.allocation_1, c.challenge_ns, c.deadline_ns, c.opened_ns, "
    "s.phase, s.frozen, s.reason, s.since_ns, s.force_after_ns, s.version, s.allocation_0, s.allocation_1, "
    "s.finalized, s.signature_0, s.signature_1, s.peer_holds, s.counted, s.signed_version, s.signed_digest, "
    "s.signed_final, s.settled_version, s.declined_up_to, s.loss_end_version"
)


class Reader:
    """Reads the store through a connection of its own.

    Every method raises `StoreDamaged` for a page or a row that is not what was written, and `StorageFailed` when
    the disk does not answer: who cannot read its books signs nothing either (rule 8).
    """

    def __init__(self, database: apsw.Connection, path: Path | None = None) -> None:
        """Take a connection that nobody writes with. `path`: the store's, if the connection is to a copy of it."""
        self._database = database
        self.path = path or Path(database.filename)
        self._declines = False

    def _rows(self, sql: str, values: tuple[_Value, ...] = ()) -> list[tuple[_Column, ...]]:
        try:
            return self._database.execute(sql, values).fetchall()
        except apsw.Error as error:
            raise unusable(self.path, error, "read") from error

    def _row(self, sql: str, values: tuple[_Value, ...] = ()) -> tuple[_Column, ...] | None:
        try:
            return self._database.execute(sql, values).fetchone()
        except apsw.Error as error:
            raise unusable(self.path, error, "read") from error

    def close(self) -> None:
        """Close the connection: nothing is read any more."""
        self._database.close()

    # --- channels ----------------------------------------------------------------------------------------

    def live_channels(self) -> Iterator[ChannelRow]:
        """Yield every channel whose money is not out."""
        yield from self._channels("s.phase != 'closed'", ())

    def channel(self, number: int) -> ChannelRow | None:
        """Return one channel, closed or not."""
        return next(self._channels("c.number = ?", (number,)), None)

    def channel_number(self, channel: bytes) -> int | None:
        """Return the row of a channel id."""
        row = self._row("SELECT number FROM channel WHERE channel = ?", (channel,))
        return int(row[0]) if row else None

    def channels_page(self, phase: str | None, after: int, limit: int) -> list[ChannelRow]:
        """Return channels by row number, from `after` on."""
        where = "s.number > ?" + (" AND s.phase = ?" if phase else "")
        values = (after, phase) if phase else (after,)
        return list(self._channels(f"{where} ORDER BY s.number LIMIT {int(limit)}", values))

    def find_by_prefix(self, prefix: bytes, half: int | None) -> list[bytes]:
        """Return at most two channel ids that begin with these bytes (and this half byte)."""
        low = prefix + (bytes([half << 4]) if half is not None else b"")
        high = prefix + (bytes([half << 4 | 15]) if half is not None else b"") + b"\xff" * 64
        rows = self._rows("SELECT channel FROM channel WHERE channel BETWEEN ? AND ? LIMIT 2", (low, high))
        return [row[0] for row in rows]

    def phase_counts(self) -> dict[str, int]:
        """Return how many channels are in each phase."""
        rows = self._rows("SELECT phase, count(*) FROM channel_state GROUP BY phase")
        return {str(phase): int(count) for phase, count in rows}

    def _channels(self, where: str, values: tuple[int | str | None, ...]) -> Iterator[ChannelRow]:
        columns = _CHANNEL_COLUMNS if self._has_declines() else _CHANNEL_COLUMNS.replace("s.declined_up_to", "x''")
        query = f"SELECT {columns} FROM channel c JOIN channel_state s USING (number) WHERE {where}"
        for row in self._rows(query, values):
            try:
                found = self._channel_row(row)
            except (ValueError, TypeError, Undecodable) as error:  # a type or a word that nobody writes
                raise StoreDamaged(self.path, f"row {row[0]} of the channels: {error}") from error
            yield found

    def _has_declines(self) -> bool:
        """Whether the schema has that column. `perund check` and `perund backup` read older stores, too."""
        if not self._declines:
            found = self._row("SELECT 1 FROM pragma_table_info('channel_state') WHERE name = 'declined_up_to'")
            self._declines = found is not None
        return self._declines

    def _channel_row(self, row: tuple[_Column, ...]) -> ChannelRow:
        (
            number, channel, proposal_id, peer, our_index, nonce, our_share, peer_share, participant_0, participant_1,
            initial_0, initial_1, challenge_ns, deadline_ns, opened_ns, phase, frozen, reason, since_ns,
            force_after_ns, version, allocation_0, allocation_1, finalized, signature_0, signature_1, peer_holds,
            counted, signed_version, signed_digest, signed_final, settled_version, declined_up_to, loss_end_version,
        ) = row  # fmt: skip
        params = Params(nonce, (ParticipantKey(participant_0), ParticipantKey(participant_1)), Nanos(challenge_ns))
        params.__dict__["channel_id"] = ChannelId(channel)  # computed when it was opened
        ours: ParticipantIndex = 0 if our_index == 0 else 1
        if not len(our_share) == len(peer_share) == SHARE_BYTES:
            raise Undecodable(f"a nonce share has {SHARE_BYTES} bytes")
        terms = Terms(
            proposal_id, peer, ours, params, (initial_0, initial_1), Nanos(deadline_ns), our_share, peer_share
        )
        state = State(ChannelId(channel), version, (allocation_0, allocation_1), bool(finalized))
        uncounted = self._uncounted(number, counted, version) if counted < version else (EMPTY, EMPTY)
        memory = ChannelMemory(
            phase=Phase(phase),
            newest=SignedState(state, (signature_0, signature_1)),
            last_signature=SignatureRecord(ChannelId(channel), signed_version, signed_digest, bool(signed_final)),
            pending=self._outstanding(number) if ours == 0 else None,
            settled_version=settled_version,
            peer_holds=peer_holds,
            counted=counted,
            uncounted_sent=uncounted[ours],
            uncounted_received=uncounted[1 - ours],
            frozen=frozen,
            given_up=self._given_up(number) if ours == 0 and signed_final else (),
            loss_end_version=loss_end_version,
            queued=self._waiting(number, ours, "queued"),
            offered=self._waiting(number, ours, "offered"),
            highest_peer_id=self._highest_id(number, terms.peer_index),
            declined=self._declined(number, terms.peer_index) if ours == 0 else 0,
            declined_up_to=declined_up_to,
        )
        return ChannelRow(
            number, terms, memory, reason, Nanos(opened_ns), Nanos(since_ns), Nanos(force_after_ns),
            self.registered(number, ChannelId(channel)), settled_version,
        )  # fmt: skip

    def _outstanding(self, number: int) -> Update | None:
        row = self._row("SELECT message FROM outstanding WHERE number = ?", (number,))
        if row is None:
            return None
        return _update(row[0])

    def _given_up(self, number: int) -> tuple[Update, ...]:
        rows = self._rows("SELECT message FROM given_up WHERE number = ? ORDER BY version", (number,))
        return tuple(_update(row[0]) for row in rows)

    def _uncounted(self, number: int, counted: int, version: int) -> tuple[Batch, Batch]:
        """Return the payments of either side in the states above `counted`, up to `version`."""
        rows = self._rows(
            "SELECT sender, id, amount, memo FROM payment WHERE number = ? AND version > ? AND version <= ?",
            (number, counted, version),
        )
        return Batch.of([Payment(*row[1:]) for row in rows if row[0] == 0]), Batch.of(
            [Payment(*row[1:]) for row in rows if row[0] == 1]
        )

    def _waiting(self, number: int, sender: ParticipantIndex, status: str) -> Batch:
        rows = self._rows(
            "SELECT id, amount, memo FROM payment WHERE number = ? AND sender = ? AND status = ? ORDER BY id",
            (number, sender, status),
        )
        return Batch.of([Payment(*row) for row in rows])

    def _highest_id(self, number: int, sender: ParticipantIndex) -> bytes:
        row = self._row(
            "SELECT id FROM payment WHERE number = ? AND sender = ? ORDER BY id DESC LIMIT 1", (number, sender)
        )
        return row[0] if row else b""

    def _declined(self, number: int, sender: ParticipantIndex) -> int:
        row = self._row(
            "SELECT count(*) FROM payment WHERE number = ? AND sender = ? AND status = 'declined'", (number, sender)
        )
        assert row is not None
        return int(row[0])

    def registered(self, number: int, channel: ChannelId) -> RegisteredState | None:
        """Return what the newest look showed as registered."""
        row = self._row(
            "SELECT version, allocation_0, allocation_1, finalized, timeout_ns FROM registered WHERE number = ?",
            (number,),
        )
        if row is None:
            return None
        version, allocation_0, allocation_1, finalized, timeout_ns = row
        return RegisteredState(
            State(channel, version, (allocation_0, allocation_1), bool(finalized)), Nanos(timeout_ns)
        )

    # --- openings ----------------------------------------------------------------------------------------

    def live_openings(self) -> list[OpeningPhase]:
        """Return the openings that are neither dead nor done."""
        rows = self._rows(f"SELECT {_OPENING_COLUMNS} FROM opening WHERE phase NOT IN ('opened', 'dead')")
        return [phase for phase in _readable(rows, _opening, "opening") if phase is not None]

    def opening(self, proposal_id: bytes) -> OpeningPhase | None:
        """Return an opening that is not done, or None; for a done one the channel speaks."""
        row = self._row(
            f"SELECT {_OPENING_COLUMNS} FROM opening WHERE proposal_id = ?",
            (proposal_id,),
        )
        return _opening(row) if row else None

    def channel_of_proposal(self, proposal_id: bytes) -> int | None:
        """Return the row of the channel that a proposal led to."""
        row = self._row("SELECT number FROM channel WHERE proposal_id = ?", (proposal_id,))
        return int(row[0]) if row else None

    def our_signature_0(self, number: int) -> bytes:
        """Return our signature on state 0 (64 bytes)."""
        row = self._row("SELECT iif(our_index = 0, signature_0, signature_1) FROM channel WHERE number = ?", (number,))
        assert row is not None
        return bytes(row[0])

    def signatures_0(self, number: int) -> tuple[bytes, bytes]:
        """Return both signatures on state 0 (64 bytes each)."""
        row = self._row("SELECT signature_0, signature_1 FROM channel WHERE number = ?", (number,))
        assert row is not None
        return bytes(row[0]), bytes(row[1])

    def live_terms(self) -> list[tuple[_Column, ...]]:
        """Return, as they stand there, the columns that the backup file has of each channel whose money is not out."""
        return self._rows(
            "SELECT c.proposal_id, c.peer, c.our_index, c.nonce, c.participant_0, c.participant_1, c.challenge_ns, "
            "c.allocation_0, c.allocation_1, c.deadline_ns, c.our_share, c.peer_share, c.signature_0, c.signature_1, "
            "c.opened_ns FROM channel c JOIN channel_state s USING (number) WHERE s.phase != 'closed'"
        )

    def half_open(self) -> list[tuple[bytes, bytes]]:
        """Return peer and our share of the openings in which we signed and the peer did not, as far as we know."""
        return [
            (row[0], row[1] if row[3] else row[2])
            for row in self._rows("SELECT peer, share_0, share_1, we_proposed FROM opening WHERE phase = 'signing'")
        ]

    def net_e8s(self, number: int, sender: ParticipantIndex, version: int) -> int:
        """Return what a participant received less what it sent, in the states up to a version."""
        row = self._row(
            "SELECT coalesce(sum(iif(sender = ?2, -amount, amount)), 0) FROM payment "
            "WHERE number = ?1 AND version <= ?3",
            (number, sender, version),
        )
        assert row is not None
        return int(row[0])

    # --- jobs --------------------------------------------------------------------------------------------

    def deposits(self, number: int) -> tuple[DepositIntent, ...]:
        """Return the deposits of a channel, in order."""
        rows = self._rows(
            "SELECT id, amount, fee, memo, created_at_ns, status, block FROM transfer WHERE number = ? ORDER BY id",
            (number,),
        )
        return tuple(
            DepositIntent(i, amount, fee, int.from_bytes(memo, "little"), Nanos(at), IntentStatus(status), block)
            for i, amount, fee, memo, at, status, block in rows
        )

    def transfer(self, number: int) -> TransferIntent | None:
        """Return one transfer of the wallet."""
        row = self._row(f"SELECT {_TRANSFER_COLUMNS} FROM transfer WHERE id = ?", (number,))
        return _transfer(row) if row else None

    def open_sends(self) -> list[TransferIntent]:
        """Return the plain transfers of the wallet whose end is not known."""
        rows = self._rows(f"SELECT {_TRANSFER_COLUMNS} FROM transfer WHERE status = 'open' AND number IS NULL")
        return _readable(rows, _transfer, "transfer")

    def is_booked(self, block: int) -> bool:
        """Whether a block of the ledger is in the books, as a transfer of ours or as a payout to us."""
        return self._row("SELECT 1 FROM booked_block WHERE block = ? LIMIT 1", (block,)) is not None

    def committed_to_channels(self) -> int:
        """Return the e8s that open transfers may still take from the wallet, fees included."""
        row = self._row("SELECT coalesce(sum(amount + fee), 0) FROM transfer WHERE status = 'open'")
        assert row is not None
        return int(row[0])

    def withdrawals(self, number: int) -> tuple[WithdrawalIntent, ...]:
        """Return the withdrawals of a channel, in order."""
        rows = self._rows(
            "SELECT id, holdings, envelope, status, block, received, from_block FROM withdrawal WHERE number = ? "
            "ORDER BY id",
            (number,),
        )
        return tuple(WithdrawalIntent(*row) for row in rows)

    def open_withdrawals(self) -> list[tuple[int, bytes]]:
        """Return the channels' rows and signed calls of all withdrawals whose end is not known."""
        rows = self._rows("SELECT number, envelope FROM withdrawal WHERE status = 'open' AND envelope IS NOT NULL")
        return [(number, envelope) for number, envelope in rows]

    def has_uncredited(self) -> bool:
        """Whether a deposit is paid and not known to be credited: the canister may be told of it at any moment."""
        return self._row("SELECT 1 FROM transfer WHERE status = 'paid' AND number IS NOT NULL LIMIT 1") is not None

    def costs(self, number: int) -> list[Cost]:
        """Return what a channel cost."""
        rows = self._rows("SELECT what, amount FROM cost WHERE number = ? ORDER BY id", (number,))
        return [Cost(*row) for row in rows]

    def credits(self, number: int) -> list[Cost]:
        """Return what a channel brought that this node did not pay for."""
        rows = self._rows("SELECT what, amount FROM credit WHERE number = ? ORDER BY id", (number,))
        return [Cost(*row) for row in rows]

    def highest(self, table: str) -> int:
        """Return the largest row number of a table of ours."""
        column = {"event": "cursor", "channel": "number"}.get(table, "id")
        row = self._row(f"SELECT coalesce(max({column}), 0) FROM {table}")
        assert row is not None
        return int(row[0])

    def code_seen(self) -> CodeSeen | None:
        """Return what was last certified of the Perun canister's code, None before the first time."""
        row = self._row("SELECT module_hash, controllers, changed, installed_ns, reinstalled FROM canister_code")
        if row is None:
            return None
        return CodeSeen(
            row[0], tuple(bytes.fromhex(text) for text in json.loads(row[1])), bool(row[2]), row[3], bool(row[4])
        )

    def sends_to(self, receiver: bytes, memo: int) -> list[TransferIntent]:
        """Return the plain transfers of the wallet to an account with this memo, oldest first."""
        rows = self._rows(
            f"SELECT {_TRANSFER_COLUMNS} FROM transfer WHERE number IS NULL AND receiver = ? AND memo = ? ORDER BY id",
            (receiver, memo.to_bytes(8, "little")),
        )
        return [_transfer(row) for row in rows]

    def addresses(self) -> dict[bytes, list[PeerAddress]]:
        """Return where peers can be dialed. A row that is no address is left out: `unusable_addresses` has it."""
        found: dict[bytes, list[PeerAddress]] = {}
        for peer, row in self._addresses():
            if isinstance(row, PeerAddress):
                found.setdefault(peer, []).append(row)
        return found

    def unusable_addresses(self) -> dict[bytes, str]:
        """Return the peers with a row that is no address, and what is wrong with it: an older version took any port."""
        return {peer: row for peer, row in self._addresses() if isinstance(row, str)}

    def _addresses(self) -> Iterator[tuple[bytes, PeerAddress | str]]:
        for row in self._rows("SELECT peer, host, port, source, since_ms, proven_ms, nearest FROM peer_address"):
            try:
                yield row[0], _address(row)
            except (BadAddress, ValueError, TypeError) as error:
                yield row[0], str(error)

    def held(self) -> dict[int, tuple[int, int]]:
        """Return what certified looks showed the canister to hold for the channels that are not closed, by row."""
        rows = self._rows(
            "SELECT number, participant_0, participant_1 FROM held JOIN channel_state USING (number) "
            "WHERE phase != 'closed'"
        )
        return {int(row[0]): (int(row[1]), int(row[2])) for row in rows}

    def seen_at(self) -> dict[bytes, str]:
        """Return where peers that had money proved their keys."""
        return {row[0]: row[1] for row in self._rows("SELECT peer, origin FROM seen_at")}

    def problems(self) -> dict[tuple[str, str], int]:
        """Return since when problems last, by code and subject, in ns of the machine's clock."""
        return {(row[0], row[1]): int(row[2]) for row in self._rows("SELECT code, subject, since_ns FROM problem")}

    def request(self, key: str) -> RequestRow | None:
        """Return what was asked for under an idempotency key."""
        row = self._row("SELECT method, arguments, result FROM request WHERE key = ?", (key,))
        return RequestRow(*row) if row else None

    def heard_life(self, node: bytes) -> Heard | None:
        """Return what was heard of the lives of a node (33 bytes), if it is kept."""
        try:
            return recall_life(self._database, node)
        except apsw.Error as error:
            raise unusable(self.path, error, "read") from error
        except (AssertionError, BadMessage) as error:
            raise StoreDamaged(self.path, f"the lives of node {node.hex()}: {error}") from error

    def tower_life(self, tower: bytes) -> tuple[bytes, int] | None:
        """Return which life of its store a watchtower (33 bytes) named last, and its writes."""
        row = self._row("SELECT life, writes FROM tower_life WHERE tower = ?", (tower,))
        return (row[0], row[1]) if row is not None else None

    def tower_receipts(self, tower: bytes) -> list[tuple[bytes, int, bytes, Nanos, Nanos]]:
        """Return a tower's receipts: channel id, version, digest, chain time and expiry of each."""
        rows = self._rows(
            "SELECT c.channel, r.version, r.digest, r.chain_time_ns, r.expires_ns "
            "FROM tower_receipt r JOIN channel c USING (number) WHERE r.tower = ?",
            (tower,),
        )
        return _readable(rows, _receipt, "tower_receipt")

    # --- payments and events -----------------------------------------------------------------------------

    def known_payments(self, number: int, sender: int, ids: Batch) -> dict[bytes, str]:
        """Return, of these ids, those that were in an update or declined, with their status."""
        if not ids:
            return {}
        rows = self._rows(
            "WITH RECURSIVE place(at) AS (SELECT 1 UNION ALL SELECT at + 16 FROM place WHERE at + 16 < length(?3)) "
            "SELECT id, coalesce(status, 'included') FROM place CROSS JOIN payment ON id = substr(?3, at, 16) "
            "WHERE number = ?1 AND sender = ?2",
            (number, sender, ids.ids),
        )
        return {bytes(payment_id): str(status) for payment_id, status in rows}

    def waiting_count(self, number: int, sender: ParticipantIndex) -> int:
        """Return how many of a sender's payments are queued or offered."""
        row = self._row(
            "SELECT count(*) FROM payment WHERE number = ? AND sender = ? AND status IN ('queued', 'offered')",
            (number, sender),
        )
        assert row is not None
        return int(row[0])

    def oldest_waiting_ms(self, number: int, sender: ParticipantIndex, *, offered: bool = False) -> int | None:
        """Return when the oldest payment was recorded that is queued or offered (local clock, ms), or None.

        `offered`: of those that are offered alone.
        """
        statuses = "('offered')" if offered else "('queued', 'offered')"  # literal, as the partial index has them
        row = self._row(
            f"SELECT min(recorded_ms) FROM payment WHERE number = ? AND sender = ? AND status IN {statuses}",
            (number, sender),
        )
        return int(row[0]) if row is not None and row[0] is not None else None

    def payment(self, number: int, sender: ParticipantIndex, payment_id: bytes) -> PaymentRow | None:
        """Return one payment."""
        before = payment_id[:-1] + bytes([payment_id[-1] - 1]) if payment_id[-1] else payment_id[:-1]
        found = self.payments(number, (number, sender, before), 1)
        return found[0][1] if found and found[0][1].payment.id == payment_id else None

    def payments(
        self, number: int | None, after: tuple[int, int, bytes], limit: int
    ) -> list[tuple[tuple[int, int, bytes], PaymentRow]]:
        """Return payments in the order (channel row, sender, id), after a place, each with its own place."""
        # One channel is read by its part of the key: a row condition alone would read all the channels before it.
        where = "(p.number, p.sender, p.id) > (?1, ?2, ?3)"
        if number is not None:
            if after[0] > number:
                return []
            after = after if after[0] == number else (number, -1, b"")
            where = "p.number = ?1 AND (p.sender, p.id) > (?2, ?3)"
        rows = self._rows(
            f"SELECT p.number, c.channel, p.sender, p.sender = c.our_index, p.id, p.amount, p.memo, p.version, "
            "p.status, coalesce(p.code, ''), p.recorded_ms, s.counted, s.peer_holds, s.settled_version "
            "FROM payment p JOIN channel c USING (number) JOIN channel_state s "
            f"USING (number) WHERE {where} AND p.amount > 0 ORDER BY p.number, p.sender, p.id LIMIT ?4",
            (*after, limit),
        )
        return [
            (
                (row_number, sender, payment_id),
                _payment(
                    PaymentRow(
                        ChannelId(channel), sender, bool(ours), Payment(payment_id, amount, memo), version,
                        status or "", code, at,
                    ),
                    Counted(*counted),
                ),
            )
            for row_number, channel, sender, ours, payment_id, amount, memo, version, status, code, at, *counted in rows
        ]  # fmt: skip

    def events(self, after: int, limit: int) -> list[EventRow]:
        """Return events from a cursor on (exclusive)."""
        return self._events("e.cursor > ? ORDER BY e.cursor LIMIT ?", (after, limit))

    def events_of(self, kinds: Iterable[str], after: int, up_to: int, limit: int) -> list[EventRow]:
        """Return the first events of some kinds after a cursor (exclusive), none above `up_to`.

        It costs what is found, and a look for each kind, whatever else is there: `channel.updated` is found by its
        place, so `up_to` has to bound how far is looked for it.
        """
        found: list[EventRow] = []
        for kind in kinds:
            index = "" if kind == UPDATED else " AND e.kind <> 'channel.updated'"
            source = "event e NOT INDEXED" if kind == UPDATED else "event e INDEXED BY event_kind"
            where = f"e.kind = ? AND e.cursor > ? AND e.cursor <= ?{index} ORDER BY e.cursor LIMIT ?"
            found += self._events(where, (kind, after, up_to, limit), source)
        return sorted(found, key=lambda event: event.cursor)[:limit]

    def _events(self, where: str, values: tuple[_Value, ...], source: str = "event e") -> list[EventRow]:
        rows = self._rows(
            f"SELECT e.cursor, e.at_ms, e.kind, c.channel, e.data FROM {source} "
            f"LEFT JOIN channel c ON c.number = e.number WHERE {where}",
            values,
        )
        return [EventRow(cursor, at, kind, channel, json.loads(data)) for cursor, at, kind, channel, data in rows]


def open_reader(path: Path) -> Reader:
    """Return a reader of a store, also while a node runs on it. Raises `StorageFailed`, `StoreDamaged`, and
    `UnknownSchema` for a store of a newer perund.

    A store of an older schema is not changed: what is read is a copy in memory, as it is now, brought to the newest.
    """
    try:
        database = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        database.set_busy_timeout(BUSY_MS)
        database.pragma("query_only", 1)
        # Who reads writes nothing back, not even as the last one: the log may have been cut off under it.
        database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        database.pragma("cache_size", -CACHE_KIB)
        if 0 < known_version(database) < len(MIGRATIONS):
            return Reader(_of_today(database), path)
    except apsw.Error as error:
        raise unusable(path, error, "read") from error
    return Reader(database)


def _of_today(old: apsw.Connection) -> apsw.Connection:
    """Return a copy in memory with the newest schema. Nobody has started a node of now on that store yet."""
    copy = apsw.Connection(":memory:")
    with copy.backup("main", old, "main") as backup:
        backup.step()
    old.close()
    migrate(copy)
    copy.pragma("query_only", 1)
    return copy


def _readable(rows: list[tuple[_Column, ...]], build: Callable[[tuple[_Column, ...]], T], table: str) -> list[T]:
    """Build what rows say. One that nobody here wrote is said and left out: it concerns one peer, tower or transfer,
    and the others must not stand still for it. (A channel is another matter: `live_channels`.)
    """
    found = []
    for row in rows:
        try:
            found.append(build(row))
        except (ValueError, TypeError, AttributeError, Undecodable) as error:
            log.error("store.row_unreadable", table=table, error=str(error), alarm=True)
    return found


def _receipt(row: tuple[_Column, ...]) -> tuple[bytes, int, bytes, Nanos, Nanos]:
    channel, version, digest, chain_time_ns, expires_ns = row
    numbers = (version, chain_time_ns, expires_ns)
    if not all(isinstance(number, int) and number >= 0 for number in numbers) or not isinstance(digest, bytes):
        raise ValueError(f"the receipt for channel {channel.hex()[:16]} is none: {numbers}")
    return channel, version, digest, Nanos(chain_time_ns), Nanos(expires_ns)


_OPENING_COLUMNS = (
    "proposal_id, peer, phase, share_0, participant_0, share_1, participant_1, allocation_0, allocation_1, "
    "challenge_ns, deadline_ns, signature, code, text"
)


_TRANSFER_COLUMNS = (
    "id, number, receiver, amount, fee, memo, created_at_ns, status, block, last_expiry_ns, unproven, from_block"
)


def _payment(row: PaymentRow, counted: Counted) -> PaymentRow:
    """Return a payment with the status that `protocol.counting` gives it, if it is in a state."""
    if row.version is None:
        return row
    status = counted.status(row.version, ours=row.ours)
    return replace(row, status=status, code=SETTLED_WITHOUT_IT if status == "failed" else row.code)


def _address(row: tuple[_Column, ...]) -> PeerAddress:
    peer, host, port, source, since_ms, proven_ms, nearest = row
    if source not in ("given", "announced") or not isinstance(since_ms, int) or not isinstance(proven_ms, int | None):
        raise ValueError(f"{source!a} since {since_ms!a} is nothing that is known of an address")
    return PeerAddress(
        NodeAddress(peer, host, port).place,
        given=source == "given",
        since_ms=since_ms,
        proven_ms=proven_ms,
        nearest=Nearness(nearest) if nearest is not None else None,
    )


def _transfer(row: tuple[_Column, ...]) -> TransferIntent:
    number, channel, receiver, amount, fee, memo, at, status, block, expiry, unproven, from_block = row
    if not all(isinstance(value, int) for value in (amount, fee, at, expiry, unproven, from_block)):
        raise ValueError(f"transfer {number} has numbers that are none")
    return TransferIntent(
        number, channel, receiver, amount, fee, int.from_bytes(memo, "little"), Nanos(at), IntentStatus(status),
        block, Nanos(expiry), unproven, from_block,
    )  # fmt: skip


def _update(message: bytes) -> Update:
    """Return an update that was kept as it goes on the wire. Raises `Undecodable`."""
    try:
        update = decode(message)
    except BadMessage as error:
        raise Undecodable(f"an update of ours: {error}") from error
    if not isinstance(update, Update):
        raise Undecodable("an update of ours is another message")
    return update


def _opening(row: tuple[_Column, ...]) -> OpeningPhase | None:
    (
        proposal_id, peer, phase, share_0, participant_0, share_1, participant_1, allocation_0, allocation_1,
        challenge_ns, deadline_ns, signature, code, text,
    ) = row  # fmt: skip
    if not all(isinstance(number, int) for number in (allocation_0, allocation_1, challenge_ns, deadline_ns)):
        raise ValueError(f"opening {proposal_id.hex()[:16]} has numbers that are none")
    proposal = ChannelProposal(
        proposal_id, share_0, participant_0, (allocation_0, allocation_1), Nanos(challenge_ns), Nanos(deadline_ns)
    )
    match phase:
        case "proposed":
            return Proposed(peer, proposal)
        case "accepted":
            return Accepted(peer, proposal, ChannelAccept(proposal_id, share_1, participant_1))
        case "signing":
            return Signing(peer, proposal, ChannelAccept(proposal_id, share_1, participant_1), signature)
        case "dead":
            return Dead(peer, proposal, code, text)
        case _:
            return None
