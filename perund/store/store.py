"""The store: everything the node must not forget."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import apsw

from perund.store.errors import StorageFailed, WrongNetwork
from perund.store.reading import BUSY_MS, CACHE_KIB, EventRow, open_reader
from perund.store.schema import migrate
from perund.store.statements import statements_of
from perund.store.writer import Statement, Writer
from protocol.effects import EventRecord, PaymentsQueuedRecord, Record, StateRecord, UpdateRecord
from protocol.payments import Batch
from protocol.types import ChannelId, ParticipantIndex

__all__ = ["Store", "connect"]

CHECKPOINT_PAGES = 4_000
KEPT_EVENTS = 1_000_000
KEPT_REQUESTS_MS = 60 * 86_400 * 1_000


def connect(path: Path) -> apsw.Connection:
    """Return a connection that writes as a store does."""
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    database = apsw.Connection(str(path), flags=flags)
    database.set_busy_timeout(BUSY_MS)
    database.pragma("journal_mode", "wal")
    # FULL: a commit returns when the log is on the disk, not when the system has heard of it (rule 2).
    database.pragma("synchronous", 2)
    database.pragma("foreign_keys", 0)
    database.pragma("cache_size", -CACHE_KIB)
    database.pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
    return database


class Store:
    """Reads at once, writes durably in groups. One per data directory, under its lock."""

    def __init__(self, path: Path, network: bytes, failed: Callable[[StorageFailed], None]) -> None:
        """Open or create the store, bring its schema up to date, and count this run.

        `network`: 32 bytes; `failed` is called once when a write fails.
        Raises `WrongNetwork`, `UnknownSchema`, `StorageFailed`.
        """
        try:
            database = connect(path)
            path.chmod(0o600)
            migrate(database)
            row = database.execute("SELECT network FROM about").fetchone()
            if row is not None and row[0] != network:
                raise WrongNetwork(
                    f"the store is of network {row[0].hex()[:16]}…, the configuration names {network.hex()[:16]}…: "
                    "root key, canister and ledger must be those of its channels"
                )
            database.execute("INSERT INTO about VALUES (1, ?, 1) ON CONFLICT DO UPDATE SET runs = runs + 1", (network,))
            # History is bounded: of events the newest, of idempotency keys those of the last weeks.
            database.execute("DELETE FROM event WHERE cursor <= (SELECT max(cursor) FROM event) - ?", (KEPT_EVENTS,))
            database.execute(
                "DELETE FROM request WHERE recorded_ms < ?", (time.time_ns() // 1_000_000 - KEPT_REQUESTS_MS,)
            )
            self.read = open_reader(path)
        except apsw.Error as error:
            raise StorageFailed(
                f"the store {path} cannot be opened: {error}; check the disk, or restore a backup"
            ) from error
        self._waiters: set[asyncio.Future[None]] = set()
        self._failed = failed
        self._writer = Writer(database, self._on_failure)
        self._numbers: dict[ChannelId, int] = {}
        self._cursor = self.read.highest("event")
        self._unwritten: list[tuple[ChannelId, ParticipantIndex, Batch]] = []
        self._listeners: list[Callable[[list[EventRow]], None]] = []

    # --- writing -----------------------------------------------------------------------------------------

    def commit(self, records: Iterable[Record | Statement], then: Callable[[], None] | None = None) -> None:
        """Make the records durable together; then call `then`, in the order of the commits.

        Raises `StorageFailed` when an earlier write failed.
        """
        now_ms = time.time_ns() // 1_000_000
        statements: list[Statement] = []
        events: list[EventRow] = []
        payments = 0

        def number_event(record: EventRecord) -> int:
            self._cursor += 1
            events.append(EventRow(self._cursor, now_ms, record.kind, record.channel, record.data))
            return self._cursor

        for record in records:
            if isinstance(record, Statement):
                statements.append(record)
                continue
            statements.extend(statements_of(record, self.number, now_ms, number_event))
            payments += self._note_unwritten(record)

        def durable() -> None:
            del self._unwritten[:payments]
            if then is not None:
                then()
            if events:
                for listener in self._listeners:
                    listener(events)

        self._writer.commit(statements, durable)

    async def write(self, records: Iterable[Record | Statement]) -> None:
        """Return when the records are durable. Raises `StorageFailed`."""
        done = asyncio.get_running_loop().create_future()
        self.commit(records, lambda: None if done.done() else done.set_result(None))
        self._waiters.add(done)
        done.add_done_callback(self._waiters.discard)
        await done

    def _on_failure(self, error: StorageFailed) -> None:
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
        """Write what is queued, and close."""
        self._writer.close()

    # --- the books, as `protocol.channel.Books` asks -----------------------------------------------------

    def known(self, channel: ChannelId, sender: ParticipantIndex, ids: Batch) -> dict[bytes, str]:
        """Return, of these ids, those that were in an update or declined, on disk or on the way to it."""
        found = self.read.known_payments(self.number(channel), sender, ids)
        wanted = set(ids.each_id())
        for other, who, batch in self._unwritten:
            if other == channel and who == sender:
                found.update(dict.fromkeys(wanted.intersection(batch.each_id()), "included"))
        return found

    def _note_unwritten(self, record: Record) -> int:
        match record:
            case StateRecord():
                channel, batches = record.signed.state.channel, (record.from_0, record.from_1)
            case UpdateRecord():
                channel, batches = record.update.channel, (record.update.from_0, record.update.from_1)
            case PaymentsQueuedRecord() | _:
                return 0
        noted = 0
        for sender, batch in enumerate(batches):
            if batch:
                self._unwritten.append((channel, 0 if sender == 0 else 1, batch))
                noted += 1
        return noted
