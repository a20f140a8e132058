"""`perund backup`: a backup file where the operator wants it, and nothing of anybody else is written over."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from perund.config import Config
from perund.keys import Keys
from perund.private_file import place_new, sync_directory
from perund.recovery.backup import BACKUP_NAME, Backup, BackupError, BackupFile, read_backup
from perund.recovery.backup_writing import write_temporary
from perund.store.errors import DirectoryInUse
from perund.store.lock import DirectoryLock
from perund.store.reading import Reader, open_reader
from perund.store.schema import STORE_NAME

__all__ = ["Made", "back_up"]

TRIES: Final = 5
PAUSE_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Made:
    """What was written. `left_out`: rows of the store that no reader would take; `ignored`: rows that say nothing, as
    an address that none can be; `kept_by_node`: a running node keeps that file by itself, so it was only read.
    """

    path: Path
    channels: int
    left_out: tuple[str, ...]
    ignored: tuple[str, ...]
    kept_by_node: bool = False


def back_up(data_dir: Path, keys: Keys, network: bytes, config: Config, out: Path | None) -> Made:
    """Write the backup of the node in a directory to `out`, or to its own file in the directory. A node may be running.

    A file that exists is replaced only when it is an older backup of this very node. Raises `BackupError`.
    """
    read = open_reader(data_dir / STORE_NAME)
    own = data_dir / BACKUP_NAME
    if out is not None and not _same(out, own):
        return _write(BackupFile(data_dir, keys, network, config, read), keys, read, out)
    try:
        with DirectoryLock(data_dir):
            return _write(BackupFile(data_dir, keys, network, config, read), keys, read, own)
    except DirectoryInUse:
        return _kept_by_node(own, keys, read)


def _ignored(read: Reader) -> tuple[str, ...]:
    return tuple(f"where the peer {peer.hex()[:16]} is: {why}" for peer, why in read.unusable_addresses().items())


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _kept_by_node(own: Path, keys: Keys, read: Reader) -> Made:
    """Read the file that a running node appends to: two writers of one file would lose what one of them wrote."""
    for tried in range(TRIES):
        wanted = {row[0] for row in read.live_terms()}
        found = read_backup(own, keys)
        lacking = wanted - {channel.proposal_id for channel in found.channels}
        if not lacking and not found.faults:
            return Made(own, len(found.channels), (), _ignored(read), kept_by_node=True)
        if tried + 1 < TRIES:
            time.sleep(PAUSE_S)  # a channel is in the store a moment before it is in the file
    why = found.faults[0] if found.faults else f"it lacks {len(lacking)} channels of the store"
    raise BackupError(f"{own} is not good: {why}", "the running node writes it anew; look at `perun health`")


def _write(file: BackupFile, keys: Keys, read: Reader, out: Path) -> Made:
    target = _target(out)
    backup = file.collect(time.time_ns() // 1_000_000)
    exists = os.path.lexists(target)
    if exists:
        _require_ours(out, target, keys, backup, read)
    try:
        temporary, _, left_out = write_temporary(target, keys, backup)
        try:
            if exists:
                temporary.replace(target)
                sync_directory(target.parent)
            else:
                place_new(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError:
        raise BackupError(f"{out} exists already", "nothing was overwritten; choose another file") from None
    except OSError as error:
        raise BackupError(
            f"{out} cannot be written ({error.strerror or error})", "nothing was changed; check the path and the disk"
        ) from error
    found = read_backup(target, keys)
    if found.faults or found.torn:
        raise BackupError(f"{out} does not read back: {found.faults[:1] or 'its end is missing'}", "check the disk")
    return Made(out, len(found.channels), tuple(left_out), _ignored(read))


def _target(out: Path) -> Path:
    """Return the file that is written: a link is followed, so that it goes on leading to the backup."""
    try:
        return Path(os.path.realpath(out, strict=False)) if out.is_symlink() else out
    except OSError as error:
        raise BackupError(f"{out} is a link that leads nowhere ({error.strerror})", "choose another file") from error


def _require_ours(out: Path, target: Path, keys: Keys, backup: Backup, read: Reader) -> None:
    """Refuse to replace what is not a backup of this node, or has what this store does not know."""
    if not stat.S_ISREG(target.lstat().st_mode):
        raise BackupError(f"{out} is no regular file", "nothing was written; choose another file")
    try:
        there = read_backup(target, keys)
    except BackupError as error:
        raise BackupError(
            f"{out} exists, and is no backup of this node ({error.message})",
            "nothing was overwritten; choose another file",
        ) from error
    if there.faults:
        raise BackupError(
            f"{out} is a damaged backup of this node: {there.faults[0]}",
            "nothing was overwritten; move it away, it may have what is lost elsewhere",
        )
    if there.network != backup.network and there.channels:
        raise BackupError(f"{out} is of another network", "nothing was overwritten; choose another file")
    unknown = sum(read.channel_of_proposal(channel.proposal_id) is None for channel in there.channels)
    if unknown:
        raise BackupError(
            f"{out} has {unknown} channels that the store of this node does not know: the store is an older one",
            "nothing was overwritten; as backup.perund in the data directory it gives them to the node at its start",
        )
