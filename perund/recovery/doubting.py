"""A store that an earlier run does not trust any more: its channels recover (rule 7)."""

from __future__ import annotations

from pathlib import Path

import apsw

from perund.recovery.copying import mark_as_copy
from perund.store.damage import require_sound_file, unusable
from perund.store.doubt import doubt_of, forget_doubt
from perund.store.own_files import shared_memory_of
from perund.store.schema import migrate
from perund.store.store import connect

__all__ = ["settle_doubt"]


def settle_doubt(store_path: Path) -> tuple[str, int] | None:
    """Before a node starts, under its lock: mark the store as a copy if the last run left word that it may be one.

    Returns what had happened and how many channels were marked, or None when the store can be believed. Raises
    `StorageFailed`, `StoreDamaged`.
    """
    doubt = doubt_of(store_path)
    if doubt is None:
        return None
    if not store_path.exists():  # a new store has nothing that could be believed
        forget_doubt(store_path)
        return None
    marked: int | None = None
    try:
        # Kept alive by `perund watch`, it would speak of a log that is another one now.
        shared_memory_of(store_path).unlink(missing_ok=True)
        if doubt.about(store_path):
            database = connect(store_path)
            try:
                require_sound_file(database)
                migrate(database)
                database.execute("BEGIN IMMEDIATE")
                marked = mark_as_copy(database, "the files of the store were replaced while the node ran")
                database.execute("COMMIT")
            finally:
                database.close()
    except (apsw.Error, OSError) as error:
        raise unusable(store_path, error) from error
    forget_doubt(store_path)
    return None if marked is None else (doubt.what, marked)
