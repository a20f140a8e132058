"""Whether the files under a store are still the ones in its directory.

A program goes on writing to a file that was moved, unlinked or renamed over, and SQLite does not notice that its log
was cut off or that somebody wrote into the database: everything looks durable, and is gone with the process. So each
transaction asks, before it and before anybody hears of it: do the names lead to the files that were opened, is the
log as this store left it, and did nobody else write? Otherwise nothing may leave (rule 8).
"""

from __future__ import annotations

import ctypes
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw

from perund.file_id import FileId
from perund.store.errors import Fate, FilesReplaced
from perund.store.lock import LOCK_NAME

__all__ = ["OwnFiles", "Stamp", "log_of", "shared_memory_of"]

LOG_HEADER_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 24
MAGIC: Final = (bytes.fromhex("377f0682"), bytes.fromhex("377f0683"))
"""How a log begins. Source: https://www.sqlite.org/fileformat2.html#the_write_ahead_log"""
SALTS: Final = slice(16, 24)
"""Where the header of the log has what each frame of it repeats (in the place `FRAME_SALTS`)."""
FRAME_SALTS: Final = slice(8, 16)
LAST_BUSY_MS: Final = 1_000
"""So long a stop waits for who reads from the log: `perund watch` does it in moments."""
TICK_NS: Final = 100_000_000
"""Longer than the clock of any file system stands still."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which file, and when it was last written to (ns, the file system's clock). `size` in bytes."""

    file: FileId
    size: int
    written_ns: int

    @classmethod
    def of(cls, path: Path | int) -> Stamp:
        """Return what a name, or a descriptor, leads to now. Raises `OSError`."""
        found = os.stat(path)  # noqa: PTH116  (of a descriptor too)
        return cls(FileId.of_stat(found), found.st_size, found.st_mtime_ns)


def log_of(database: Path) -> Path:
    """Return where SQLite keeps the log of a database."""
    return database.with_name(f"{database.name}-wal")


def shared_memory_of(database: Path) -> Path:
    """Return where SQLite keeps what the connections of a database share."""
    return database.with_name(f"{database.name}-shm")


class OwnFiles:
    """The files of one writing connection. Made on the event loop, then used by the thread that writes.

    The descriptor of the log is our own: SQLite takes no lock on that file. The database is never opened a second
    time: closing it again would drop the locks that SQLite has for the whole process.
    """

    def __init__(self, database: apsw.Connection, path: Path) -> None:
        """Take note of the files as they are: `database` has just written to them. `path`: as the operator named it.

        Raises `FilesReplaced`, `OSError`, `apsw.Error`.
        """
        self.path = path.absolute()
        self._database = database
        self._log_path = log_of(self.path)
        self._log = _open_unnoticed(self._log_path)
        # Only looked at, and so without effect on the locks: what became of a database whose name is gone.
        self._file = os.open(self.path, os.O_PATH | os.O_CLOEXEC) if hasattr(os, "O_PATH") else None
        self._log_bytes = self._log_size()
        self._pages = 0
        self._frame_bytes = FRAME_HEADER_BYTES + int(str(database.pragma("page_size")))
        self._pages_written_back = int(str(database.pragma("wal_autocheckpoint")))
        # Written back by `write_back` alone, so that the database changes at no other time (not at the last close
        # either): a log that was cut off must never be written over it.
        database.set_wal_hook(self._committed)
        database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._others_wrote = self._count_of_others()
        self._changes = database.data_version()
        """As `_others_wrote`, but each commit changes it, also ours, and a transaction that begins finds it out."""
        self._name = str(self.path)
        self._take_stamp()
        self._lock_path = self.path.with_name(LOCK_NAME)
        self._lock = FileId.if_there(self._lock_path)
        self._names = {name: FileId.of(name) for name in (self._log_path, shared_memory_of(self.path))}
        others = [*self._names.items(), *([(self._lock_path, self._lock)] if self._lock is not None else [])]
        self._seen = [(str(name), (file.device, file.inode)) for name, file in others]
        self._parent = str(self.path.parent)
        self._linked = any(name.is_symlink() for name in (self.path, *self._names))
        self._names_seen: tuple[int, int, int] | None = None
        """The directory, and when its names changed last, at a look at all of them that found them right."""
        self._directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if _has_moved(database):
            raise FilesReplaced(self.path, " is another file than the one that was opened", Fate.UNKNOWN)

    def close(self) -> None:
        """Let the files go."""
        os.close(self._log)
        os.close(self._directory)
        if self._file is not None:
            os.close(self._file)

    def require(self) -> None:
        """Return when all is as this store left it. Raises `FilesReplaced`, after saving what can be saved."""
        self._names_seen = None
        if self._as_left() and self._count_of_others() == self._others_wrote:
            return
        self._examine()

    def begin(self) -> None:
        """Return when nobody else has written. To be called where a transaction has begun: then it costs next to
        nothing, and nobody can write until the transaction ends. Raises as `require`; the transaction is rolled back.
        """
        cut_off = self._log_size() < self._log_bytes
        if cut_off or self._database.data_version() != self._changes:
            if cut_off or self._count_of_others() != self._others_wrote:
                self._database.execute("ROLLBACK")
                self._examine()
            self._changes = self._database.data_version()

    def committed(self) -> None:
        """Return when what was just committed is in this store's files. Raises as `require`."""
        self._changes = self._database.data_version()
        if not self._as_left():
            self._examine()

    def _as_left(self) -> bool:
        """Whether names and log lead to what this store left. In the way of each transaction: a few microseconds.

        The names are looked at when the directory has changed, or is another one; else one look at that is enough.
        """
        try:
            parent = os.stat(self._parent)  # noqa: PTH116  (no path is made here)
            directory = parent.st_dev, parent.st_ino, parent.st_mtime_ns
            if self._linked or directory != self._names_seen:
                if not self._names_lead_here():
                    return False
                # What changes in the same tick of the clock would not show: such a look is not relied on.
                ticked = time.time_ns() - parent.st_mtime_ns > TICK_NS
                self._names_seen = directory if ticked else None
            found = os.fstat(self._file) if self._file is not None else os.stat(self._name)  # noqa: PTH116
            at = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
            size = self._log_size()
            if at != self._at or size < self._log_bytes or (self._pages and not self._log_is_one()):
                return False
            self._log_bytes = size
        except OSError:
            return False
        return True

    def _names_lead_here(self) -> bool:
        for name, seen in (*self._seen, (self._name, self._at[:2])):
            found = os.stat(name)  # noqa: PTH116
            if (found.st_dev, found.st_ino) != seen:
                return False
        return True

    def _examine(self) -> None:
        """Say what is wrong. Raises `FilesReplaced`."""
        try:
            wrong = self._elsewhere() or self._log_damaged() or self._overwritten()
            harmless = "" if wrong else self._shared()
        except OSError as error:
            wrong, harmless = f" cannot be looked at ({error.strerror})", ""
        except apsw.Error as error:
            wrong, harmless = f" cannot be read ({error})", ""
        if wrong:
            raise FilesReplaced(self.path, wrong, Fate.UNKNOWN, self._saved(), self._directory)
        if harmless:
            raise FilesReplaced(self.path, harmless, Fate.WHOLE)

    def write_back(self) -> None:
        """Bring a long log into the database, so that it is used again from its beginning. Raises `apsw.Error`."""
        if self._pages >= self._pages_written_back > 0:
            self._database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            self._take_stamp()
            self._changes = self._database.data_version()
            self._pages = 0  # asked again after the next commit

    def leave_whole(self) -> bool:
        """Bring everything into the database and empty the log, so that the one file is all there is to copy.

        Returns whether that was done: somebody who reads from the log may keep it, and then it belongs to the copy.
        Raises as `require`, and `apsw.Error`; everything is in the log then, which the next start reads.
        """
        self.require()
        self._database.set_busy_timeout(LAST_BUSY_MS)
        try:
            self._database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            return False
        return True

    def _committed(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._pages = pages
        return apsw.SQLITE_OK

    def _take_stamp(self) -> None:
        self._stamp = stamp = Stamp.of(self.path)
        self._at = stamp.file.device, stamp.file.inode, stamp.size, stamp.written_ns

    # --- what can be wrong -------------------------------------------------------------------------------

    def _elsewhere(self) -> str:
        """Return which name leads elsewhere now, if any."""
        for name, file in ((self.path, self._stamp.file), *self._names.items()):
            about = "" if name == self.path else f"'s companion {name.name}"
            try:
                if FileId.of(name) != file:
                    return f"{about} is another file now"
            except FileNotFoundError:
                return f"{about} is not there any more"
        return ""

    def _log_damaged(self) -> str:
        """Return what happened to the log since the last commit, if anything did."""
        if self._log_size() < self._log_bytes:
            return f"'s log {self._log_path.name} was cut off"
        if self._pages and not self._log_is_one():
            return f"'s log {self._log_path.name} was overwritten"
        return ""

    def _log_size(self) -> int:
        # Not by `fstat`: of a file whose times were looked at, Linux (6.13 and newer) makes the next write tell a
        # time of its own, and each commit then takes a quarter longer.
        return os.lseek(self._log, 0, os.SEEK_END)

    def _log_is_one(self) -> bool:
        """Whether the last frame of ours belongs to the log's header."""
        header = os.pread(self._log, LOG_HEADER_BYTES, 0)
        last = LOG_HEADER_BYTES + (self._pages - 1) * self._frame_bytes
        frame = os.pread(self._log, FRAME_HEADER_BYTES, last)
        return header[:4] in MAGIC and header[SALTS] == frame[FRAME_SALTS]

    def _overwritten(self) -> str:
        """Return whether somebody wrote into the database past SQLite, or wrote the log back, as far as is known."""
        return " was written to by another program" if Stamp.of(self.path) != self._stamp else ""

    def _shared(self) -> str:
        """Return how another program works on the same files, if one does or may. What was written is in them."""
        if self._count_of_others() != self._others_wrote:
            return " got a transaction of another program"
        if self._lock is not None and FileId.if_there(self._lock_path) != self._lock:
            return f"'s lock {self._lock_path.name} was replaced (another node may have been started)"
        return ""

    def _count_of_others(self) -> int:
        """Return a number that changes when another connection commits, and at no other time."""
        return int(str(self._database.pragma("data_version")))

    # --- what can be saved -------------------------------------------------------------------------------

    def _saved(self) -> int | None:
        """Bring what the log has into the database, wherever both are now. Returns the mark of the one that has all.

        The mark is set in the database itself: whatever name it gets, the next start can tell it from a copy of
        before, and whether a node was started without it meanwhile. None when it is not sure that it has all: the log
        or the database is not as this store left it.
        """
        file = self._file if self._file is not None else self.path
        mark = secrets.randbelow(2**31 - 1) + 1
        try:
            if self._log_damaged() or self._database.in_transaction or Stamp.of(file) != self._stamp:
                return None
            self._database.pragma("application_id", mark)
            found, done = self._database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_FULL)
            if found != done or self._log_damaged():
                return None
            if self.path.exists() and FileId.of(self.path) == self._stamp.file:
                self._put_foreign_log_aside()
        except (OSError, apsw.Error):
            return None
        return mark

    def _put_foreign_log_aside(self) -> None:
        # The next start would read it as the database's own, and bring back what was before.
        log = self._log_path
        if log.exists() and FileId.of(log) != self._names.get(log):
            log.rename(log.with_name(f"{log.name}.foreign"))


def _open_unnoticed(path: Path) -> int:
    """Open for reading without telling the time of it, where that is possible. Raises `OSError`.

    What is read after each commit would have its time of access written with the next one, which then takes a fifth
    longer.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC
    try:
        return os.open(path, flags | getattr(os, "O_NOATIME", 0))
    except PermissionError:  # only to the owner of the file
        return os.open(path, flags)


def _has_moved(database: apsw.Connection) -> bool:
    """Whether the name leads to another file than the one that SQLite has open."""
    moved = ctypes.c_int(0)
    database.file_control("main", apsw.SQLITE_FCNTL_HAS_MOVED, ctypes.addressof(moved))
    return bool(moved.value)
