"""One writer thread and group commit: what waits at the same moment shares one transaction.

A unit of work is all or nothing, and its `then` is called on the event loop when it is on the disk, in the
order of the units. There is no timer: an idle store commits at once, a busy one takes what has gathered. And it is
in the files of the store's directory: a unit without statements asks for that alone.

Units are numbered from 1 in the order in which they are asked for, so two numbers tell the end of each: up to which
they are written, and up to which they may be.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import apsw
import structlog

from perund.store.errors import End, Fate, FilesReplaced, StorageFailed
from perund.store.own_files import OwnFiles, log_of
from protocol.errors import InvariantBroken

__all__ = ["Statement", "Writer"]

log = structlog.get_logger()

MAX_UNITS: Final = 4096
"""Units in one transaction: bounds how long the first of them waits."""

Value = None | int | float | str | bytes


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of SQL and its values."""

    sql: str
    values: tuple[Value, ...] | dict[str, Value] = ()


@dataclass(frozen=True, slots=True)
class _Unit:
    statements: Sequence[Statement]
    then: Callable[[], None] | None
    backed_up: Sequence[bytes]


class Writer:
    """Owns the writing connection. Used on the event loop, made anywhere; writes on its own thread."""

    def __init__(
        self,
        database: apsw.Connection,
        path: Path,
        failed: Callable[[StorageFailed], None],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Start the thread. `failed` is called once, on the event loop, when a write fails (rule 8).

        `path`: of the database, as the operator named it. Raises `FilesReplaced`, `OSError`, `apsw.Error`.
        """
        self._database = database
        self._files = OwnFiles(database, path)
        self._failed = failed
        self._loop = loop or asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Unit | None] = queue.SimpleQueue()
        self._error: StorageFailed | None = None
        self._broken = self._closed = False
        self.asked = 0
        """The number of the newest unit."""
        self._written_to = self._may_be_to = 0
        """Of units: all up to the first are written, none after the second is. Set by the writing thread."""
        self._kept = True
        """Whether what is written is what the next process finds."""
        self.transactions = 0
        self.back_up: Callable[[Sequence[bytes]], None] | None = None
        """Makes parts of the backup file durable; called on the writing thread, when what they tell is in the store."""
        self._thread = threading.Thread(target=self._run, name="perund-writer", daemon=True)
        self._thread.start()

    def commit(
        self,
        statements: Sequence[Statement],
        then: Callable[[], None] | None = None,
        backed_up: Sequence[bytes] = (),
    ) -> int:
        """Make the statements durable together, after them `backed_up` in the backup file, then call `then`.

        Returns the number of the unit, for `end_of`. Raises `StorageFailed` after a failure, and after `close`: nobody
        may wait for a write that never comes, and nothing of this one happens.
        """
        if self._error is not None:
            raise self._error
        self.asked += 1
        self._queue.put(_Unit(statements, then, backed_up))
        return self.asked

    def end_of(self, unit: int) -> End:
        """Return what became of a unit; 0 stands for what was written before this process, or what it read."""
        if unit > self._may_be_to and self._error is not None:
            return End.NOT_WRITTEN
        return End.WRITTEN if unit <= self._written_to and self._kept else End.UNKNOWN

    def close(self) -> None:
        """Write what is queued, and stop. The `then` of what is written now is called in a later turn of the loop."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._thread.join()
        if not self._broken:
            self._write_all_back()
        if self._error is None:
            self._error = StorageFailed("the store is closed; what was not written before is not kept")
        with contextlib.suppress(apsw.Error):
            self._database.close()
        self._files.close()

    def _write_all_back(self) -> None:
        """Leave a database that has everything, if the files are still ours."""
        why = "another program reads from it"
        try:
            if self._files.leave_whole():
                return
        except StorageFailed as error:
            self._fail(error)
            return
        except apsw.Error as error:
            why = str(error)
        log.warning("store.log_kept", log=str(log_of(self._files.path)), why=why)  # to be copied with the database

    def _run(self) -> None:
        while True:
            unit = self._queue.get()
            if unit is None:
                return
            units = [unit]
            last = False
            while len(units) < MAX_UNITS:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    last = True
                    break
                units.append(more)
            try:
                self._write(units, self._may_be_to + len(units))
                self._back_up([part for unit in units for part in unit.backed_up])
                done = [u.then for u in units if u.then is not None]
                if done:
                    self._tell(partial(self._call_all, done))
                self._files.write_back()
            except Exception as error:  # noqa: BLE001  (also a value that SQLite cannot hold)
                # Whatever it was, this thread ends: who waits must hear of it, or waits for ever.
                self._broken = True
                failed = StorageFailed(f"a write to the store failed: {error}")
                self._tell(partial(self._fail, error if isinstance(error, StorageFailed) else failed))
                return
            if last:
                return

    def _tell(self, what: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(what)

    def _write(self, units: list[_Unit], last: int) -> None:
        """Write these units. `last`: the number of the last of them."""
        database = self._database
        statements = [s for unit in units for s in unit.statements]
        if not statements:
            self._files.require()
            self._written_to = self._may_be_to = last
            return
        database.execute("BEGIN IMMEDIATE")
        self._files.begin()
        try:
            for statement in statements:
                database.execute(statement.sql, statement.values)
            self._may_be_to = last  # a COMMIT that fails may leave it in the log, or not
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise
        self._files.committed()
        self._written_to = last
        self.transactions += 1

    def _back_up(self, parts: list[bytes]) -> None:
        if parts:
            if self.back_up is None:
                raise InvariantBroken("something is to be backed up, and nobody said where")
            try:
                self.back_up(parts)
            except Exception as error:
                raise StorageFailed(f"the backup file cannot be written: {error}") from error

    def _fail(self, error: StorageFailed) -> None:
        self._error = error
        if isinstance(error, FilesReplaced):
            # Found in a transaction that is rolled back, or after one that another program's file has, or has not.
            self._written_to = self._may_be_to
            self._kept = error.fate is Fate.WHOLE
        self._failed(error)

    def _call_all(self, done: list[Callable[[], None]]) -> None:
        for then in done:
            try:
                then()
            except Exception as error:  # noqa: BLE001  (reported; what others wait for is durable all the same)
                self._loop.call_exception_handler(
                    {"message": "what follows a durable write failed", "exception": error}
                )
