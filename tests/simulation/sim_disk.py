"""A disk that loses what was not synced, and a stand-in for the store's writer on it.

The database is a real one, in memory: it holds exactly what was committed. The writer keeps the contract of
`perund.store.writer.Writer`: units are all or nothing, in order, in groups; `then` follows on the event loop.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import apsw

from perund.recovery import copying
from perund.store.errors import End, StorageFailed
from perund.store.lives import mark_restored
from perund.store.reading import Reader
from perund.store.schema import migrate
from perund.store.writer import Statement
from tests.simulation.power import LIFE, Life

if TYPE_CHECKING:
    from tests.simulation.faults import Faults

__all__ = ["SimDisk", "SimWriter"]


class SimDisk:
    """What survives a crash. Takes the place of the path of a store."""

    def __init__(self, rng: random.Random, faults: Faults) -> None:
        self.rng = rng
        self.faults = faults
        self.copies: list[bytes] = []
        """Copies of the store that were put away, each marked as one."""
        self._use(apsw.Connection(":memory:"))

    def _use(self, database: apsw.Connection) -> None:
        database.pragma("foreign_keys", 0)
        self.database = database
        self.read = Reader(database)

    def copy(self) -> None:
        """Put a copy away, as `perund backup --store` does."""
        copy = _opened(self.database.serialize("main"))
        copying.mark_as_copy(copy, "this store is a copy")
        self.copies.append(copy.serialize("main"))

    def lose(self, copy: bytes | None, *, restores: bool) -> None:
        """The disk is gone; on the new one is a copy or nothing. `restores`: there is a backup file to restore from."""
        self._use(_opened(copy) if copy is not None else apsw.Connection(":memory:"))
        migrate(self.database)
        if restores:
            mark_restored(self.database)

    def chmod(self, mode: int) -> None:
        assert mode == 0o600

    def one(self, sql: str, *values: Value) -> tuple[Any, ...] | None:
        """Return the first row of what is on the disk."""
        return self.database.execute(sql, values).fetchone()

    def all(self, sql: str, *values: Value) -> list[tuple[Any, ...]]:
        """Return all rows of what is on the disk."""
        return self.database.execute(sql, values).fetchall()


def _opened(copy: bytes) -> apsw.Connection:
    database = apsw.Connection(":memory:")
    database.deserialize("main", copy)
    return database


Value = None | int | float | str | bytes
_Unit = tuple[Sequence[Statement], Callable[[], None] | None, Sequence[bytes]]


class SimWriter:
    """Writes on the virtual loop."""

    def __init__(
        self,
        database: apsw.Connection,
        path: object,
        failed: Callable[[StorageFailed], None],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        assert loop is None
        life = LIFE.get()
        assert life is not None
        self._life: Life = life
        self._disk = life.house.disk
        assert self._disk.database is database
        assert self._disk is path
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._queue: list[_Unit] = []
        self._due = False
        self._error: StorageFailed | None = None
        self._report_at = 0.0
        self.transactions = self.asked = 0
        self.back_up: Callable[[Sequence[bytes]], None] | None = None

    def commit(
        self,
        statements: Sequence[Statement],
        then: Callable[[], None] | None = None,
        backed_up: Sequence[bytes] = (),
    ) -> int:
        """Take a unit; it is written in a later turn."""
        self._life.effect("disk.ask")
        if self._error is not None:
            raise self._error
        self._queue.append((statements, then, backed_up))
        if not self._due:
            self._due = True
            self._loop.call_later(self._disk.faults.write_s(), self._write)
        self.asked += 1
        return self.asked

    def end_of(self, unit: int) -> End:
        """Nobody knows: a simulated node that stops has lost its power."""
        del unit
        return End.UNKNOWN

    def close(self) -> None:
        """Nothing is owed: the process of a simulated node ends by losing its power."""

    def _write(self) -> None:
        self._life.effect("disk.write")
        self._due = False
        units, self._queue = self._queue, []
        fault = self._disk.faults.write_fault()
        if fault != "fails":
            self._execute([statement for unit in units for statement in unit[0]])
        if fault:
            # Whether it is on the disk nobody knows: the process may believe neither.
            self._error = StorageFailed("the simulated disk failed")
            self._failed(self._error)
            return
        self.transactions += 1
        self._life.effect("disk.written")
        parts = [part for unit in units for part in unit[2]]
        if parts:
            assert self.back_up is not None
            self.back_up(parts)
        self._report_at = max(self._report_at + 1e-6, self._loop.time() + self._disk.faults.report_s())
        self._loop.call_at(self._report_at, self._report, [then for _, then, _ in units if then is not None])

    def _execute(self, statements: list[Statement]) -> None:
        database = self._disk.database
        if not statements:
            return
        database.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                database.execute(statement.sql, statement.values)
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")

    def _report(self, done: list[Callable[[], None]]) -> None:
        for then in done:
            self._life.effect("disk.then")
            try:
                then()
            except Exception as error:
                self._loop.call_exception_handler(
                    {"message": "what follows a durable write failed", "exception": error}
                )
