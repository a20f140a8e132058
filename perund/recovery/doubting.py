"""A store that an earlier run does not trust any more: its channels recover (rule 7)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import apsw

from perund.recovery.copying import mark_as_copy
from perund.store.damage import require_sound_file, unusable
from perund.store.doubt import doubt_of, forget_doubt, mark_of
from perund.store.own_files import shared_memory_of
from perund.store.schema import migrate
from perund.store.store import connect

__all__ = ["settle_doubt"]

CAME_BACK: Final = "this database was taken from a running node, and a node was started without it since"
WHY: Final = "the files of the store were replaced while the node ran"


def settle_doubt(store_path: Path) -> tuple[str, int] | None:
    """Before a node starts, under its lock: mark the store as a copy if the last run left word that it may be one.

    Returns what had happened and how many channels were marked, or None when the store can be believed. Raises
    `StorageFailed`, `StoreDamaged`.
    """
    doubt = doubt_of(store_path)
    if not store_path.exists():  # a new store has nothing that could be believed
        forget_doubt(store_path)
        return None
    marked: int | None = None
    try:
        if doubt is not None:
            # Kept alive by `perund watch`, it would speak of a log that is another one now.
            shared_memory_of(store_path).unlink(missing_ok=True)
        database = connect(store_path)
        try:
            mark = mark_of(database)
            if doubt is None and mark == 0:
                return None
            require_sound_file(database)
            migrate(database)
            database.execute("BEGIN IMMEDIATE")
            if doubt is None or doubt.mark is None or doubt.mark != mark:
                marked = mark_as_copy(database, WHY)
            database.execute("PRAGMA application_id = 0")
            database.execute("COMMIT")
        finally:
            database.close()
    except (apsw.Error, OSError) as error:
        raise unusable(store_path, error) from error
    forget_doubt(store_path)
    if marked is None:
        return None
    return (doubt.what if doubt is not None else CAME_BACK), marked
