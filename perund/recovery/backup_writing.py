"""Writing a backup: beside its place and as a whole, or at the end of a file. What is written is read back."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

from perund.keys import Keys
from perund.recovery.backup_format import MAGIC, BackupError, Sealer, open_records, read_backup
from perund.recovery.saved import Backup, Gathering, parts_of

__all__ = ["append_sealed", "put_aside", "target_of", "write_temporary"]

log = structlog.get_logger()


def target_of(path: Path) -> Path:
    """Return the file that a path leads to: a link is written through, not replaced."""
    try:
        return path.resolve() if path.is_symlink() else path
    except (OSError, RuntimeError) as error:
        raise OSError(f"{path} is a link that leads nowhere: {error}") from error


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


def append_sealed(descriptor: int, size: int, sealer: Sealer, parts: Sequence[bytes], keys: Keys) -> None:
    """Append to an open file of `size` bytes, durably, and read it back. Raises `OSError`, `BackupError`."""
    place = sealer.place
    data = b"".join(map(sealer.seal, parts))
    try:
        _write_all(descriptor, data)
        os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)
        raise
    _read_back(os.pread(descriptor, len(data) + 1, size), parts, keys, sealer.file_id, place)


def put_aside(path: Path, why: str) -> Path:
    """Rename a file (where a link leads to) to a name that nobody has. Returns the new name."""
    target = target_of(path)
    at = time.time_ns() // 1_000_000
    while os.path.lexists(aside := target.with_name(f"{target.name}.unreadable-{at}")):
        at += 1
    target.rename(aside)
    log.error("backup.unreadable", error=why, put_aside=str(aside), alarm=True)
    return aside
