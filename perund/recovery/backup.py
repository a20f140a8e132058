"""The backup file: what the 24 words do not give, encrypted with a key that they do.

It has the terms and the signed state 0 of every channel that is not closed, where peers were reached, and the
configuration. Each opening appends to it, and is on the disk before our signature on a state 0 leaves: a channel that
can be funded can be found again. What is written is read back with the reader of `perund restore`. The file holds no
secret beyond what the phrase derives, and it does harm to nobody at any age, because what is restored from it only
refutes, adopts and closes (rule 7).
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

from perund.config import Config
from perund.config_file import render_config
from perund.file_id import FileId
from perund.keys import Keys
from perund.private_file import require_writable, sync_directory
from perund.recovery.backup_format import BackupError, Sealer, read_backup
from perund.recovery.backup_writing import (
    append_sealed,
    put_aside,
    target_of,
    write_temporary,
)
from perund.recovery.saved import Backup, SavedChannel, SavedPeer
from perund.store.reading import Reader, open_reader
from perund.store.rows import proven
from protocol.errors import PerundError
from wire.address import MOST_PROVEN

__all__ = ["BACKUP_NAME", "Backup", "BackupError", "BackupFile", "SavedChannel", "SavedPeer", "read_backup"]

BACKUP_NAME: Final = "backup.perund"
SLACK_BYTES: Final = 1024 * 1024
"""Appended to a file before it is written anew, or as much as it had when it was: what is closed goes then."""

TEND_S: Final = 30.0
READ_WHOLE_S: Final = 3_600.0

log = structlog.get_logger()


class _Written:
    """A file as it was last written: what must be found when it is appended to."""

    def __init__(self, sealer: Sealer, file: FileId, size: int, modified_ns: int) -> None:
        self.sealer = sealer
        self.file = file
        self.size = size
        self.size_when_new = size
        self.modified_ns = modified_ns


class BackupFile:
    """Keeps `backup.perund` of a data directory. `append` is for the store's writer thread; all of it is thread-safe.

    A file that is a link is written where it leads to. `problem`: what is wrong with the file, for `perun health`.
    """

    def __init__(self, data_dir: Path, keys: Keys, network: bytes, config: Config, read: Reader) -> None:
        self.path = data_dir / BACKUP_NAME
        self.problem: str | None = None
        self.left_out: list[str] = []
        """Rows of the store that no reader of a backup would take, and why."""
        self._keys = keys
        self._network = network
        self._config = config
        self._read = read
        self._lock = threading.Lock()
        self._written: _Written | None = None
        self._meanwhile: list[bytes] | None = None  # appended while the file is being written anew
        self._closed = False

    def collect(self, made_ms: int, read: Reader | None = None) -> Backup:
        """Return what the store has now. `read`: for another thread than the loop's, which needs one of its own."""
        read = read or self._read
        return Backup(
            node_id=self._keys.node_id,
            network=self._network,
            made_ms=made_ms,
            config=render_config(self._config),
            channels=[SavedChannel.of_row(row) for row in read.live_terms()],
            peers=[
                SavedPeer(peer, row.address.host, row.address.port)
                for peer, rows in read.addresses().items()
                for row in proven(rows)[-MOST_PROVEN:]
            ],
            half_open=read.half_open(),
        )

    def write(self, made_ms: int) -> None:
        """Write the file anew from the store, durably, in the place of the one that is there.

        Raises `OSError` when the disk refuses, `BackupError` when it does not read back: nothing may be signed then
        (rule 8), and the file before is still there.
        """
        with self._lock:
            self._replace(self.collect(made_ms))

    def append(self, parts: Sequence[bytes]) -> None:
        """Add to the file, durably. Called when the store has it: what the store lacks, it has lost.

        Raises `OSError`, `BackupError`, as `write` does.
        """
        with self._lock:
            if self._meanwhile is not None:
                self._meanwhile += parts
            if not self._append(parts):
                self._replace_from_another_thread()

    def _append(self, parts: Sequence[bytes]) -> bool:
        """Return whether it was appended; False when the file there is not the one that was written."""
        written, target = self._written, target_of(self.path)
        if written is None:
            return False
        # Who cannot make the file anew must not go on until that is needed.
        require_writable(target.parent)
        try:
            descriptor = os.open(target, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        try:
            if not self._is_as_left(os.fstat(descriptor)):
                return False
            append_sealed(descriptor, written.size, written.sealer, parts, self._keys)
            after = os.fstat(descriptor)
            written.size, written.modified_ns = after.st_size, after.st_mtime_ns
        finally:
            os.close(descriptor)
        try:
            return FileId.of(target) == written.file  # nobody put another file in its place meanwhile
        except FileNotFoundError:
            return False

    def _replace_from_another_thread(self) -> None:
        self._replace(self.collect(time.time_ns() // 1_000_000, open_reader(self._read.path)))
        log.warning("backup.made_anew", path=str(self.path), why="the file was not as this node left it")

    def _replace(self, backup: Backup) -> None:
        temporary, sealer, self.left_out = write_temporary(target_of(self.path), self._keys, backup)
        self._put_in_place(temporary, sealer, ())

    def _put_in_place(self, temporary: Path, sealer: Sealer, meanwhile: Sequence[bytes]) -> None:
        target = target_of(self.path)
        try:
            if meanwhile:
                descriptor = os.open(temporary, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
                try:
                    append_sealed(descriptor, os.fstat(descriptor).st_size, sealer, meanwhile, self._keys)
                finally:
                    os.close(descriptor)
            if self._written is not None:
                self._put_aside_if_foreign(target)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(target.parent)
        found = target.stat()
        self._written = _Written(sealer, FileId.of_stat(found), found.st_size, found.st_mtime_ns)
        self.problem = None

    # --- in the background -------------------------------------------------------------------------------

    async def tend(self, tell: Callable[[str, dict[str, str | int | bool]], None]) -> None:
        """Keep the file good for as long as the node runs, off its event loop. `tell`: takes an event's name and facts.

        It is read as a whole at intervals, and whenever it is not as this node left it; it is written anew when it is
        not good, or when much of it is of channels that are closed.
        """
        read_at = time.monotonic()
        while True:
            await asyncio.sleep(TEND_S)
            touched = await asyncio.to_thread(self.touched)
            if touched or time.monotonic() - read_at >= READ_WHOLE_S:
                read_at = time.monotonic()
                if not await asyncio.to_thread(self.check):
                    tell("backup.unreadable", {"error": self.problem or "", "alarm": True})
                    touched = True
            if touched or self.bloated:
                await self._make_anew(tell)

    async def _make_anew(self, tell: Callable[[str, dict[str, str | int | bool]], None]) -> None:
        problem = self.problem
        try:
            await asyncio.to_thread(self.compact, time.time_ns() // 1_000_000)
        except (OSError, PerundError) as error:
            self.problem = f"{self.path} cannot be written anew: {error}"
            log.error("backup.not_made_anew", error=str(error))
        else:
            if problem is not None:
                tell("backup.readable", {"path": str(self.path)})

    @property
    def bloated(self) -> bool:
        """Whether enough was appended that the file is worth writing anew."""
        written = self._written
        return written is not None and written.size - written.size_when_new > max(SLACK_BYTES, written.size_when_new)

    def compact(self, made_ms: int) -> None:
        """Write the file anew from the store, in a thread of its own; what is appended meanwhile goes into both.

        Raises `OSError`, `BackupError`, `StoreError`: the file before is still there, and good.
        """
        with self._lock:
            if self._is_closed() or self._meanwhile is not None:
                return
            self._meanwhile = []
        try:
            backup = self.collect(made_ms, open_reader(self._read.path))
            temporary, sealer, left_out = write_temporary(target_of(self.path), self._keys, backup)
            with self._lock:
                if self._is_closed():
                    temporary.unlink(missing_ok=True)
                    return
                self._put_in_place(temporary, sealer, self._meanwhile)
                self.left_out = left_out
        finally:
            with self._lock:
                self._meanwhile = None

    def touched(self) -> bool:
        """Whether the file is not as this node left it, as the directory tells: gone, another one, or changed."""
        with self._lock:
            try:
                return not self._is_as_left(target_of(self.path).stat())
            except OSError:
                return True

    def _is_as_left(self, found: os.stat_result) -> bool:
        written = self._written
        return written is not None and (FileId.of_stat(found), found.st_size, found.st_mtime_ns) == (
            written.file, written.size, written.modified_ns
        )  # fmt: skip

    def _put_aside_if_foreign(self, target: Path) -> None:
        """Put away what somebody laid in the place of our file, or wrote into it: nothing is written over."""
        try:
            found = target.lstat()
        except FileNotFoundError:
            return
        if not self._is_as_left(found):
            put_aside(target, "it is not as this node left it")

    def check(self) -> bool:
        """Read the whole file as `perund restore` would. Returns whether it is good; `problem` says why it is not."""
        try:
            backup = read_backup(self.path, self._keys)
        except BackupError as error:
            self.problem = str(error)
        else:
            torn = backup.torn and self._is_still_torn()
            faults = [*backup.faults, *(["its last record is incomplete"] if torn else [])]
            self.problem = f"{self.path}: {faults[0]} ({len(faults)} faults in all)" if faults else None
        return self.problem is None

    def _is_still_torn(self) -> bool:
        """Whether the end of the file is incomplete also while nobody appends to it."""
        with self._lock:
            try:
                return read_backup(self.path, self._keys).torn
            except BackupError:
                return True

    def _is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Return when nothing is under way any more: who runs next on the directory has the file for itself."""
        with self._lock:
            self._closed = True
