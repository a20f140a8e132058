"""A store that is not there, where a node ran before, is a loss and no beginning: the operator is asked.

A node that began empty would be healthy to look at and watch none of its channels. That it ran is known by a mark
beside the key store, durable before the node does anything; and, of a node of before that mark, by what it left.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

import apsw
import structlog

from perund.private_file import write_new
from perund.recovery.backup import BACKUP_NAME
from perund.setup_errors import SetupError
from perund.store.damage import unusable
from perund.store.lives import mark_restored
from perund.store.own_files import log_of
from perund.store.schema import STORE_NAME, migrate
from perund.store.store import connect

__all__ = ["MARK_NAME", "StoreIsMissing", "note_run", "require_store", "trace_of_a_run"]

log = structlog.get_logger()

MARK_NAME: Final = "perund.ran"
"""In the data directory of a node that has started."""


class StoreIsMissing(SetupError):
    """A node ran here, and nothing of it is in the store."""


def trace_of_a_run(data_dir: Path) -> str | None:
    """Return the name of a file that only a node which ran leaves, or None in a directory that `init` has just made."""
    names = (MARK_NAME, BACKUP_NAME, STORE_NAME, log_of(Path(STORE_NAME)).name)
    return next((name for name in names if os.path.lexists(data_dir / name)), None)


def note_run(data_dir: Path) -> None:
    """Leave the mark, durable when this returns. Raises `DirectoryError`."""
    mark = data_dir / MARK_NAME
    if not os.path.lexists(mark):
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        write_new(
            mark, f"The node of this directory has run since {since} UTC. What it knows is in {STORE_NAME}.\n".encode()
        )


def require_store(data_dir: Path, trace: str | None, *, begin_empty: bool) -> None:
    """Before a node starts, under its lock: return when its store has a life of it, or may begin without one.

    `trace`: what says that a node ran here; `begin_empty`: its operator says that no channel of it is open. Raises
    `StoreIsMissing`; `SetupError` when it is not missing, and is to be begun all the same.
    """
    path = data_dir / STORE_NAME
    try:
        if _has_life(path):
            if begin_empty:
                raise SetupError(f"{path} is there, and has what this node was", "start it without --begin-empty")
            return
        if begin_empty:
            _begin(path)
            log.warning("node.begins_empty", store=str(path))
            return
    except (apsw.Error, OSError) as error:
        raise unusable(path, error) from error
    if trace is not None:
        raise StoreIsMissing(
            f"the store {path} is {'empty' if path.exists() else 'missing'}, and a node ran in this directory before "
            f"({trace} is there)",
            f"put {STORE_NAME} back as it was last, with {log_of(path).name} if there is one, or make the node with "
            f"its channels from its backup: `perund restore --dir NEW --backup {BACKUP_NAME} --phrase-file FILE`. Only "
            "if no channel of it is open: `perund run --begin-empty` begins without any, once",
        )


def _has_life(path: Path) -> bool:
    """Whether a node was started on a store, or restored into it."""
    if not path.exists():
        return False
    database = connect(path)
    try:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        started = "about" in tables and database.execute("SELECT 1 FROM about").fetchone()
        restored = "own_life" in tables and database.execute("SELECT 1 FROM own_life").fetchone()
        return bool(started or restored)
    finally:
        database.close()


def _begin(path: Path) -> None:
    """Make an empty store whose first life is above those that others have heard of."""
    database = connect(path)
    try:
        path.chmod(0o600)
        migrate(database)
        mark_restored(database)
    finally:
        database.close()
