"""The store: everything the node must not forget."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw

from perund.store.blocks import BookedBlocks
from perund.store.damage import require_sound_file, unusable
from perund.store.doubt import record_doubt
from perund.store.errors import End, Fate, FilesReplaced, StorageFailed, StoreError, UnknownSchema, WrongNetwork
from perund.store.lives import begin_life
from perund.store.reading import BUSY_MS, CACHE_KIB, open_reader
from perund.store.rows import EventRow
from perund.store.schema import migrate
from perund.store.statements import statements_of
from perund.store.writer import Statement, Writer
from protocol.effects import EventRecord, PaymentsEndedRecord, Record, StateRecord, UpdateRecord
from protocol.payments import PAYMENT_ID_BYTES, Batch
from protocol.types import ChannelId, ParticipantIndex

__all__ = ["Store", "connect"]

CHECKPOINT_PAGES = 4_000
KEPT_EVENTS = 1_000_000
"""Of `channel.updated` those among so many newest events; of the rest, which no stream of payments makes, as many again
of their own.
"""
FORGET_EVERY = 1_000
"""Events between two times that old ones are forgotten."""
KEPT_REQUESTS = 1_000_000
KEPT_REQUESTS_MS = 60 * 86_400 * 1_000

_NEWEST_EVENT: Final = "SELECT coalesce(max(cursor), 0) FROM event"
_FORGET_OTHERS: Final = (
    "DELETE FROM event WHERE kind <> 'channel.updated' AND cursor <= (SELECT cursor FROM event "
    "INDEXED BY event_kind WHERE kind <> 'channel.updated' ORDER BY cursor DESC LIMIT 1 OFFSET ?)"
)

_SIDES: Final[tuple[ParticipantIndex, ParticipantIndex]] = (0, 1)


@dataclass(frozen=True, slots=True)
class _Unwritten:
    """Payments of one sender whose record is on its way to the disk. `ids`: 16 bytes each, joined."""

    channel: ChannelId
    sender: ParticipantIndex
    ids: bytes
    status: str

    def each_id(self) -> Iterator[bytes]:
        return (self.ids[start : start + PAYMENT_ID_BYTES] for start in range(0, len(self.ids), PAYMENT_ID_BYTES))


def connect(path: Path) -> apsw.Connection:
    """Return a connection that writes as a store does. Raises `UnknownSchema` for a database of another program."""
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    database = apsw.Connection(str(path), flags=flags)
    database.set_busy_timeout(BUSY_MS)
    if database.pragma("user_version") == 0 and database.execute("SELECT 1 FROM sqlite_master").fetchone() is not None:
        database.close()
        raise UnknownSchema(f"{path} is a database of another program; nothing was changed, move it away")
    database.pragma("journal_mode", "wal")
    # FULL: a commit returns when the log is on the disk, not when the system has heard of it (rule 2).
    database.pragma("synchronous", 2)
    database.pragma("foreign_keys", 0)
    database.pragma("cache_size", -CACHE_KIB)
    database.pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
    # A log that is not the database's own may stand beside it: closing writes nothing back.
    database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    return database


class Store:
    """Reads at once, writes durably in groups. One per data directory, under its lock."""

    def __init__(
        self,
        path: Path,
        network: bytes,
        failed: Callable[[StorageFailed], None],
        *,
        take_over: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Open or create the store, check its file, bring its schema up to date, and begin a life.

        `network`: 32 bytes; `failed` is called once when a write fails; `take_over`: see `begin_life`;
        `loop`: on which it is used, where it is made in another thread (checking a large file takes long).
        Raises `WrongNetwork`, `UnknownSchema`, `StorageFailed`, `StoreDamaged`.
        """
        self._waiters: set[asyncio.Future[None]] = set()
        self._failed = failed
        self._path = path
        try:
            database = connect(path)
        except apsw.Error as error:
            raise unusable(path, error) from error
        try:
            path.chmod(0o600)
            require_sound_file(database)
            migrate(database)
            row = database.execute("SELECT network FROM about").fetchone()
            if row is not None and row[0] != network:
                raise WrongNetwork(
                    f"the store is of network {row[0].hex()[:16]}…, the configuration names {network.hex()[:16]}…: "
                    "root key, canister and ledger must be those of its channels"
                )
            database.execute("INSERT INTO about VALUES (1, ?, 1) ON CONFLICT DO UPDATE SET runs = runs + 1", (network,))
            self.life = begin_life(database, time.time_ns() // 1_000_000, take_over=take_over)
            # History is bounded: of events the newest; of idempotency keys the newest and those of the last weeks. By
            # age alone, one start with a wrong clock would forget them all, and who repeats a call would pay twice.
            self._forgotten = 0
            self._cursor = int(str(database.execute(_NEWEST_EVENT).get))
            for statement in self._forget_events():
                database.execute(statement.sql, statement.values)
            database.execute(_FORGET_OTHERS, (KEPT_EVENTS,))
            database.execute(
                "DELETE FROM request WHERE recorded_ms < min(?, "
                "(SELECT recorded_ms FROM request ORDER BY recorded_ms DESC LIMIT 1 OFFSET ?))",
                (time.time_ns() // 1_000_000 - KEPT_REQUESTS_MS, KEPT_REQUESTS - 1),
            )
            self.read = open_reader(path)
            self.blocks = BookedBlocks(self.read)
            self._writer = Writer(database, path, self._on_failure, loop)
        except (apsw.Error, OSError) as error:
            database.close()
            raise unusable(path, error) from error
        except StoreError:
            database.close()
            raise
        self._numbers: dict[ChannelId, int] = {}
        self._unwritten: list[_Unwritten] = []
        self._listeners: list[Callable[[list[EventRow]], None]] = []

    # --- writing -----------------------------------------------------------------------------------------

    def back_up_with(self, append: Callable[[Sequence[bytes]], None]) -> None:
        """Say who makes parts of the backup file durable; it is called on the writer's thread."""
        self._writer.back_up = append

    def commit(
        self,
        records: Iterable[Record | Statement],
        then: Callable[[], None] | None = None,
        backed_up: Sequence[bytes] = (),
    ) -> int:
        """Make the records durable together, and `backed_up` in the backup file; then call `then`, in the order of
        the commits: what is said after an opening waits for the file, too.

        Returns the number of this unit of work, for `end_of`. Raises `StorageFailed` when an earlier write failed:
        nothing of this one happens.
        """
        now_ms = time.time_ns() // 1_000_000
        statements: list[Statement] = []
        events: list[EventRow] = []
        payments = 0

        def number_event(record: EventRecord) -> int:
            self._cursor += 1
            events.append(EventRow(self._cursor, now_ms, record.kind, record.channel, record.data))
            return self._cursor

        before = self._cursor
        for record in records:
            if isinstance(record, Statement):
                statements.append(record)
                continue
            statements.extend(statements_of(record, self.number, now_ms, number_event))
            payments += self._note_unwritten(record)

        if self._cursor // FORGET_EVERY != before // FORGET_EVERY:
            statements += self._forget_events()

        def durable() -> None:
            del self._unwritten[:payments]
            if then is not None:
                then()
            if events:
                for listener in self._listeners:
                    listener(events)

        return self._writer.commit(statements, durable, backed_up)

    async def write(self, records: Iterable[Record | Statement], asked: Callable[[int], None] | None = None) -> None:
        """Return when the records are durable. `asked` is told the number of their unit. Raises `StorageFailed`."""
        done = asyncio.get_running_loop().create_future()
        unit = self.commit(records, lambda: None if done.done() else done.set_result(None))
        if asked is not None:
            asked(unit)
        self._waiters.add(done)
        done.add_done_callback(self._waiters.discard)
        await done

    def end_of(self, unit: int) -> End:
        """Return what became of a unit of work by its number; 0 stands for what is read from the store."""
        return self._writer.end_of(unit)

    @property
    def asked(self) -> int:
        """How many units of work this store was asked for: the number of the newest."""
        return self._writer.asked

    def require_own_files(self) -> None:
        """Ask, without waiting, that the files are still this store's: an idle node hears of it too."""
        self._writer.commit(())

    def _on_failure(self, error: StorageFailed) -> None:
        if isinstance(error, FilesReplaced) and error.fate is Fate.UNKNOWN:
            record_doubt(error)
        self._failed(error)
        for waiter in list(self._waiters):
            if not waiter.done():
                waiter.set_exception(error)

    def listen(self, listener: Callable[[list[EventRow]], None]) -> None:
        """Call `listener` with events as soon as they are durable."""
        self._listeners.append(listener)

    def number(self, channel: ChannelId) -> int:
        """Return the row of a channel that is, or is about to be, in the store."""
        number = self._numbers.get(channel)
        if number is None:
            found = self.read.channel_number(channel)
            assert found is not None, f"channel {channel.hex()[:16]} is not in the store"
            number = self._numbers[channel] = found
        return number

    def name(self, channel: ChannelId, number: int) -> None:
        """Tell the row of a channel that is about to be written."""
        self._numbers[channel] = number

    @property
    def transactions(self) -> int:
        """How many transactions were committed since the start."""
        return self._writer.transactions

    def close(self) -> None:
        """Write what is queued, and close: then the database file has everything, and the log nothing."""
        self.read.close()
        self._writer.close()

    def _forget_events(self) -> list[Statement]:
        """Return what bounds the history of states: a stream of payments pushes out its own old events, no others."""
        start, self._forgotten = self._forgotten, max(self._forgotten, self._cursor - KEPT_EVENTS)
        if self._forgotten == start:
            return []
        values = (start, self._forgotten)
        return [Statement("DELETE FROM event WHERE cursor > ? AND cursor <= ? AND kind = 'channel.updated'", values)]

    # --- the books, as `protocol.channel.Books` asks -----------------------------------------------------

    def known(self, channel: ChannelId, sender: ParticipantIndex, ids: Batch) -> dict[bytes, str]:
        """Return, of these ids, those that were in an update or declined, on disk or on the way to it."""
        found = self.read.known_payments(self.number(channel), sender, ids)
        wanted = set(ids.each_id())
        for on_its_way in self._unwritten:
            if on_its_way.channel == channel and on_its_way.sender == sender:
                found.update(dict.fromkeys(wanted.intersection(on_its_way.each_id()), on_its_way.status))
        return found

    def _note_unwritten(self, record: Record) -> int:
        match record:
            case StateRecord():
                channel, batches = record.signed.state.channel, (record.from_0, record.from_1)
            case UpdateRecord():
                channel, batches = record.update.channel, (record.update.from_0, record.update.from_1)
            case PaymentsEndedRecord(status="declined"):
                # A decline is final from the moment it is decided: the same offer again must not be included.
                self._unwritten.append(_Unwritten(record.channel, record.sender, record.ids, "declined"))
                return 1
            case _:
                return 0
        on_their_way = [
            _Unwritten(channel, _SIDES[i], batch.ids, "included") for i, batch in enumerate(batches) if batch
        ]
        self._unwritten += on_their_way
        return len(on_their_way)
