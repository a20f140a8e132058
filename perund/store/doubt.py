"""What a store whose files were replaced leaves for the next start: whether the one found then can be believed.

Without it, a node whose log was cut off, or whose database was renamed over by an older copy, would stop well and
start again on what it finds: it would sign other states of versions that it has signed (rules 1 and 7).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec
import structlog

from perund.private_file import sync_directory
from perund.store.errors import FilesReplaced
from perund.store.own_files import Stamp

__all__ = ["Doubt", "doubt_of", "forget_doubt", "record_doubt"]

log = structlog.get_logger()


class Doubt(msgspec.Struct, frozen=True):
    """`what`: what happened, for people; `whole`: the database that has all that was written, None when none may."""

    what: str
    whole: Stamp | None

    def about(self, database: Path) -> bool:
        """Whether this database may lack what was written."""
        if self.whole is None:
            return True
        found = Stamp.of(database)  # a device may have another number after the machine started anew
        return (found.file.inode, found.size, found.written_ns) != (
            self.whole.file.inode, self.whole.size, self.whole.written_ns,
        )  # fmt: skip


def _path(database: Path) -> Path:
    return database.with_name(f"{database.name}.in-doubt")


def record_doubt(error: FilesReplaced) -> None:
    """Write down, beside the database, that the next start must not simply believe it."""
    path = _path(error.path)
    doubt = Doubt(str(error), error.whole)
    try:
        # Not made anew when it is there: what was found first counts.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(doubt) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        sync_directory(path.parent)
    except FileExistsError:
        return
    except OSError as failed:  # the whole directory is gone: whatever is put there later brings its own files
        log.error("store.doubt_not_recorded", path=str(path), error=failed.strerror)


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
        doubt = msgspec.json.decode(content, type=Doubt)
    except msgspec.MsgspecError:
        return Doubt(f"{_path(database)} does not say what happened", None)
    return doubt


def forget_doubt(database: Path) -> None:
    """The doubt is settled: what follows from it is durable."""
    with contextlib.suppress(FileNotFoundError):
        _path(database).unlink()
        sync_directory(database.parent)
