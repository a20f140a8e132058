"""The backup file: what the 24 words do not give, encrypted with a key that they do.

It has the terms and the signed state 0 of every channel that is not closed, where peers were reached, and the
configuration. Each opening appends to it, and is on the disk before our signature on a state 0 leaves: a channel that
can be funded can be found again. What is written is read back with the reader of `perund restore`. The file holds no
secret beyond what the phrase derives, and it does harm to nobody at any age, because what is restored from it only
refutes, adopts and closes (rule 7).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from perund.config import Config
from perund.config_file import render_config
from perund.keys import Keys
from perund.private_file import sync_directory
from perund.recovery.backup_format import MAGIC, BackupError, Sealer, open_records, read_backup
from perund.recovery.saved import (
    Backup,
    Gathering,
    SavedChannel,
    SavedPeer,
    parts_of,
)
from perund.store.reading import Reader, open_reader
from protocol.errors import PerundError

__all__ = [
    "BACKUP_NAME", "Backup", "BackupError", "BackupFile", "SavedChannel", "SavedPeer", "put_aside", "read_backup",
    "write_temporary",
]  # fmt: skip

BACKUP_NAME: Final = "backup.perund"
SLACK_BYTES: Final = 1024 * 1024
"""Appended to a file before it is written anew, or as much as it had when it was: what is closed goes then."""

TEND_S: Final = 30.0
READ_WHOLE_S: Final = 3_600.0

log = structlog.get_logger()


class _Written:
    """A file as it was last written: what must be found when it is appended to."""

    def __init__(self, sealer: Sealer, inode: tuple[int, int], size: int, modified_ns: int) -> None:
        self.sealer = sealer
        self.inode = inode
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
            peers=[SavedPeer(peer, place.host, place.port) for peer, place in read.peers().items()],
            half_open=read.half_open(),
        )

    def write(self, made_ms: int) -> None:
        """Write the file anew from the store, durably, in the place of the one that is there.

        Raises `OSError` when the disk refuses, `BackupError` when it does not read back: nothing may be signed then
        (rule 8), and the file before is still there.
        """
        with self._lock:
            self._replace(self.collect(made_ms), ())

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
        written, target = self._written, _target(self.path)
        if written is None:
            return False
        # Who cannot make the file anew must not go on until that is needed.
        _require_writable(target.parent)
        try:
            descriptor = os.open(target, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        try:
            if not self._is_as_left(os.fstat(descriptor)):
                return False
            sealer = written.sealer
            place = sealer.place
            data = b"".join(map(sealer.seal, parts))
            try:
                _write_all(descriptor, data)
                os.fsync(descriptor)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, written.size)
                raise
            _read_back(os.pread(descriptor, len(data) + 1, written.size), parts, self._keys, sealer.file_id, place)
            after = os.fstat(descriptor)
            written.size, written.modified_ns = after.st_size, after.st_mtime_ns
        finally:
            os.close(descriptor)
        try:
            return _inode(target.stat()) == written.inode  # nobody put another file in its place meanwhile
        except FileNotFoundError:
            return False

    def _replace_from_another_thread(self) -> None:
        self._put_aside_if_foreign()
        self._replace(self.collect(time.time_ns() // 1_000_000, open_reader(self._read.path)), ())
        log.warning("backup.made_anew", path=str(self.path), why="the file was not the one that was written")

    def _replace(self, backup: Backup, meanwhile: Sequence[bytes]) -> None:
        temporary, sealer, self.left_out = write_temporary(_target(self.path), self._keys, backup)
        self._put_in_place(temporary, sealer, meanwhile)

    def _put_in_place(self, temporary: Path, sealer: Sealer, meanwhile: Sequence[bytes]) -> None:
        target = _target(self.path)
        try:
            if meanwhile:
                _append_to(temporary, sealer, meanwhile, self._keys)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(target.parent)
        found = target.stat()
        self._written = _Written(sealer, _inode(found), found.st_size, found.st_mtime_ns)
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
            touched = self.touched()
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
            temporary, sealer, left_out = write_temporary(_target(self.path), self._keys, backup)
            with self._lock:
                if self._is_closed():
                    temporary.unlink(missing_ok=True)
                    return
                self._put_aside_if_foreign()
                self._put_in_place(temporary, sealer, self._meanwhile)
                self.left_out = left_out
        finally:
            with self._lock:
                self._meanwhile = None

    def touched(self) -> bool:
        """Whether the file is not as this node left it, as the directory tells: gone, another one, or changed."""
        with self._lock:
            try:
                return not self._is_as_left(_target(self.path).stat())
            except OSError:
                return True

    def _is_as_left(self, found: os.stat_result) -> bool:
        written = self._written
        return written is not None and (_inode(found), found.st_size, found.st_mtime_ns) == (
            written.inode, written.size, written.modified_ns
        )  # fmt: skip

    def _put_aside_if_foreign(self) -> None:
        """Put away what somebody laid in the place of our file, or wrote into it: nothing is written over."""
        target = _target(self.path)
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


def _target(path: Path) -> Path:
    """Return the file that a path leads to: a link is written through, not replaced."""
    try:
        return path.resolve() if path.is_symlink() else path
    except (OSError, RuntimeError) as error:
        raise OSError(f"{path} is a link that leads nowhere: {error}") from error


def _inode(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _require_writable(directory: Path) -> None:
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(f"the directory {directory} cannot be written")


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _read_back(data: bytes, parts: Sequence[bytes], keys: Keys, file_id: bytes, place: int) -> None:
    """Raise `BackupError` unless these bytes, from the disk, are what the reader takes for these parts."""
    records = open_records(data, keys, 0, file_id, place)
    gathering = Gathering()
    for part in records.parts:
        gathering.take(part)
    faults = records.faults + gathering.faults
    if faults or records.torn or records.parts != list(parts):
        said = faults[0] if faults else "other bytes are there"
        raise BackupError(f"what was added to the backup does not read back: {said}", "check the disk")


def write_temporary(target: Path, keys: Keys, backup: Backup) -> tuple[Path, Sealer, list[str]]:
    """Write a backup beside `target`, mode 0600, durably, and read it back.

    Returns the file, who sealed it, and what was left out because no reader would take it. Raises `OSError`,
    `BackupError`; there is no file then.
    """
    backup, left_out = _readable(backup)
    sealer = Sealer(keys)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(MAGIC)
            file.writelines(map(sealer.seal, parts_of(backup)))
            file.flush()
            os.fsync(file.fileno())
        _require_same(read_backup(temporary, keys), backup)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary, sealer, left_out


def _require_same(found: Backup, written: Backup) -> None:
    if found.faults or found.torn or (found.channels, found.peers) != (written.channels, written.peers):
        said = found.faults[0] if found.faults else "other rows are there than were written"
        raise BackupError(f"the backup does not read back: {said}", "check the disk")


def _readable(backup: Backup) -> tuple[Backup, list[str]]:
    """Return the backup without the rows that the reader would not take, and what is wrong with those."""
    gathering = Gathering()
    for part in parts_of(backup):
        gathering.take(part)
    found = gathering.backup()
    if found is None or not gathering.faults:
        return backup, []
    for fault in gathering.faults:
        log.error("backup.row_left_out", error=fault, alarm=True)
    return msgspec.structs.replace(found, faults=[]), gathering.faults


def _append_to(path: Path, sealer: Sealer, parts: Sequence[bytes], keys: Keys) -> None:
    place = sealer.place
    data = b"".join(map(sealer.seal, parts))
    with path.open("ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    _read_back(path.read_bytes()[-len(data) :], parts, keys, sealer.file_id, place)


def put_aside(path: Path, why: str) -> Path:
    """Rename a file (where a link leads to) to a name that nobody has. Returns the new name."""
    target = _target(path)
    at = time.time_ns() // 1_000_000
    while os.path.lexists(aside := target.with_name(f"{target.name}.unreadable-{at}")):
        at += 1
    target.rename(aside)
    log.error("backup.unreadable", error=why, put_aside=str(aside), alarm=True)
    return aside
