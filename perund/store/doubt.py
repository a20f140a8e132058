"""What a store whose files were replaced leaves for the next start: whether the one found then can be believed.

Without it, a node whose log was cut off, or whose database was renamed over by an older copy, would stop well and
start again on what it finds: it would sign other states of versions that it has signed (rules 1 and 7).

Two things must agree: a file beside the database names a mark, and the database that has everything bears it (as
SQLite's `application_id`, which nothing else uses). An older copy does not bear it. And a database that comes back
after a node was started without it, and has gone on from its backup file, finds no such file any more.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import apsw
import msgspec
import structlog

from perund.private_file import sync_directory
from perund.store.errors import FilesReplaced

__all__ = ["Doubt", "doubt_of", "forget_doubt", "mark_of", "record_doubt"]

log = structlog.get_logger()


class Doubt(msgspec.Struct, frozen=True):
    """`what`: what happened, for people; `mark`: that of the database that has everything, None when none may."""

    what: str
    mark: int | None


def _path(database: Path) -> Path:
    return database.with_name(f"{database.name}.in-doubt")


def record_doubt(error: FilesReplaced) -> None:
    """Write down that the next start must not simply believe what it finds: beside the name of the database, and in
    the directory in which it was opened, wherever that is now.
    """
    name = _path(error.path).name
    content = msgspec.json.encode(Doubt(str(error), error.mark)) + b"\n"
    places = [error.directory] if error.directory is not None else []
    with contextlib.suppress(OSError):  # nothing is there any more: then nothing can be believed there either
        places.append(os.open(error.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    for place in places:
        try:
            # Not made anew when it is there: what was found first counts.
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=place)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.fsync(place)
        except FileExistsError:
            continue
        except OSError as failed:
            log.error("store.doubt_not_recorded", path=str(_path(error.path)), error=failed.strerror)
    if places and places[-1] != error.directory:
        os.close(places[-1])


def doubt_of(database: Path) -> Doubt | None:
    """Return what an earlier run left about a database that it does not trust, or None.

    What cannot be read counts as a doubt: it was left by a run that ended badly.
    """
    try:
        content = _path(database).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        return Doubt(f"{_path(database)} cannot be read ({error.strerror})", None)
    try:
        return msgspec.json.decode(content, type=Doubt)
    except msgspec.MsgspecError:
        return Doubt(f"{_path(database)} does not say what happened", None)


def mark_of(database: apsw.Connection) -> int:
    """Return the mark that a database bears, 0 for none. Raises `apsw.Error`."""
    return int(str(database.pragma("application_id")))


def forget_doubt(database: Path) -> None:
    """The doubt is settled: what follows from it is durable."""
    with contextlib.suppress(FileNotFoundError):
        _path(database).unlink()
        sync_directory(database.parent)
