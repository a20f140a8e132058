"""Copies of the store. Every copy is marked as one when it is made: who runs on it only recovers (rule 7)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import apsw

from perund.private_file import place_new, sync_file
from perund.recovery.backup import BackupError
from perund.store.lives import mark_restored
from perund.store.schema import migrate
from protocol.channel import DATA_LOSS

__all__ = ["copy_store", "mark_as_copy"]


def mark_as_copy(database: apsw.Connection, why: str) -> int:
    """Freeze every channel that is not closed as one whose data may be old. Returns how many."""
    # What was proven, or declared the newest, before the copy was made says nothing of what came after it.
    database.execute(
        "UPDATE channel_state SET frozen = iif(frozen LIKE ?, frozen, ?), loss_end_version = NULL "
        "WHERE phase != 'closed'",
        (f"{DATA_LOSS}%", f"{DATA_LOSS}: {why}"),
    )
    marked = database.changes()
    # Nothing that was under way is sent again: nobody can tell what became of it.
    database.execute(
        "UPDATE payment SET status = 'unknown', code = ? WHERE version IS NULL AND status IN ('queued', 'offered')",
        (DATA_LOSS,),
    )
    database.execute("UPDATE opening SET phase = 'dead', code = ? WHERE phase NOT IN ('opened', 'dead')", (DATA_LOSS,))
    mark_restored(database)
    return marked


def copy_store(source: Path, target: Path) -> int:
    """Copy a store, also while a node runs on it, check the copy, and mark it. Returns how many channels it marked.

    The copy appears under its name when it is complete, marked and durable; it replaces nothing.
    Raises `BackupError`: the target exists, the disk refuses, or the copy is not consistent.
    """
    _require_free(target)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name[:100]}.", dir=target.parent) as private:
            copy = Path(private) / "copy.db"
            marked = _copy_marked(source, copy, target)
            sync_file(copy)
            place_new(copy, target)
    except FileExistsError:
        raise BackupError(f"{target} exists already", "nothing was overwritten; choose another file") from None
    except (apsw.Error, OSError) as error:
        raise BackupError(f"{source} cannot be copied to {target}: {error}", "check the path and the disk") from error
    return marked


def _require_free(target: Path) -> None:
    # What SQLite keeps beside a database belongs to that database: a log of another one would be played into the copy.
    for taken in (target, *(target.with_name(target.name + suffix) for suffix in ("-journal", "-wal", "-shm"))):
        if os.path.lexists(taken):
            raise BackupError(f"{taken} exists already", "nothing was overwritten; choose another file")


def _copy_marked(source: Path, copy: Path, target: Path) -> int:
    database = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        database.set_busy_timeout(10_000)
        database.execute("VACUUM INTO ?", (str(copy),))
    finally:
        database.close()
    made = apsw.Connection(str(copy), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        copy.chmod(0o600)
        verdict = str(made.pragma("integrity_check"))
        if verdict != "ok":
            raise BackupError(f"the copy {target} is not consistent: {verdict}", "check the disk; use `perund check`")
        migrate(made)  # the marks have their places in the newest schema only
        made.execute("BEGIN IMMEDIATE")
        marked = mark_as_copy(made, "this store is a copy")
        made.execute("COMMIT")
        return marked
    finally:
        made.close()
