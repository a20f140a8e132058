"""Copies of the store. Every copy is marked as one when it is made: who runs on it only recovers (rule 7)."""

from __future__ import annotations

from pathlib import Path

import apsw

from perund.recovery.backup import BackupError
from protocol.channel import DATA_LOSS

__all__ = ["copy_store", "mark_as_copy"]


def mark_as_copy(database: apsw.Connection, why: str) -> int:
    """Freeze every channel that is not closed as one whose data may be old. Returns how many."""
    database.execute(
        "UPDATE channel_state SET frozen = iif(frozen LIKE ?, frozen, ?) WHERE phase != 'closed'",
        (f"{DATA_LOSS}%", f"{DATA_LOSS}: {why}"),
    )
    marked = database.changes()
    if database.execute("SELECT 1 FROM pragma_table_info('channel_state') WHERE name = 'loss_end_version'").fetchone():
        # What was proven, or declared the newest, before the copy was made says nothing of what came after it. A store
        # of an older perund has nothing of the kind.
        database.execute("UPDATE channel_state SET loss_end_version = NULL WHERE phase != 'closed'")
    # Nothing that was under way is sent again: nobody can tell what became of it.
    database.execute(
        "UPDATE payment SET status = 'unknown', code = ? WHERE version IS NULL AND status IN ('queued', 'offered')",
        (DATA_LOSS,),
    )
    database.execute("UPDATE opening SET phase = 'dead', code = ? WHERE phase NOT IN ('opened', 'dead')", (DATA_LOSS,))
    return marked


def copy_store(source: Path, target: Path) -> int:
    """Copy a store, also while a node runs on it, check the copy, and mark it. Returns how many channels it marked.

    Raises `BackupError`: the target exists, the disk refuses, or the copy is not consistent.
    """
    if target.exists():
        raise BackupError(f"{target} exists already", "nothing was overwritten; choose another file")
    try:
        database = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READWRITE)
        database.set_busy_timeout(10_000)
        database.execute("VACUUM INTO ?", (str(target),))
        database.close()
        copy = apsw.Connection(str(target), flags=apsw.SQLITE_OPEN_READWRITE)
        target.chmod(0o600)
        verdict = str(copy.pragma("integrity_check"))
        if verdict != "ok":
            raise BackupError(f"the copy {target} is not consistent: {verdict}", "check the disk; use `perund check`")
        copy.execute("BEGIN IMMEDIATE")
        marked = mark_as_copy(copy, "this store is a copy")
        copy.execute("COMMIT")
        copy.close()
    except apsw.Error as error:
        target.unlink(missing_ok=True)
        raise BackupError(f"{source} cannot be copied to {target}: {error}", "check the path and the disk") from error
    return marked
