"""A node from its 24 words and its backup file, on an empty machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import apsw

from perund.config import FILE_NAME
from perund.config_file import load_config
from perund.keys import Keys
from perund.keystore import KeyStore
from perund.passphrase import check_passphrase
from perund.private_file import make_private_dir, write_new
from perund.recovery.backup import Backup, BackupError, read_backup
from perund.recovery.ran_before import MARK_NAME, note_run
from perund.recovery.taking_up import genuine_channels, take_up_missing
from perund.setup_errors import ConfigError
from perund.store.lives import mark_restored
from perund.store.own_files import log_of, shared_memory_of
from perund.store.schema import STORE_NAME, migrate
from perund.store.store import connect
from protocol.types import ChannelId

__all__ = ["Restored", "restore_node"]


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored. `channels`: ids in hex; `faults`: what is wrong with the backup and was left out."""

    node_id: str
    made_ms: int
    channels: tuple[str, ...]
    faults: tuple[str, ...]
    torn: bool
    """Whether the last record of the file is incomplete: the machine stopped while it was written."""


def restore_node(data_dir: Path, backup_path: Path, entropy: bytes, passphrase: str) -> Restored:
    """Make a data directory from phrase and backup. Its channels recover: they ask peers for the newest states.

    What is good in the backup is taken, and what is not is said. Raises `BackupError`, `DirectoryError` (nothing is
    overwritten), `PassphraseError`: nothing is made then.
    """
    keys = Keys(entropy)
    check_passphrase(passphrase)
    backup = read_backup(backup_path, keys)
    _, faults = genuine_channels(backup)
    faults = [*backup.faults, *faults]
    make_private_dir(data_dir)
    try:
        write_new(data_dir / FILE_NAME, backup.config.encode())
        try:
            load_config(data_dir)
        except ConfigError as error:
            faults.append(f"the configuration in the backup is to be repaired before the node starts: {error}")
        channels = _fill(data_dir / STORE_NAME, backup)
        note_run(data_dir)
        # Last: without it no node starts. One that had it and not yet its channels would start, and watch none.
        KeyStore(data_dir).create(entropy, passphrase)
    except BaseException:
        _remove_what_was_made(data_dir)
        raise
    return Restored(
        backup.node_id, backup.made_ms, tuple(channel.hex() for channel in channels), tuple(faults), backup.torn
    )


def _remove_what_was_made(data_dir: Path) -> None:
    """Leave the directory as empty as it was, so that the same command can be given again."""
    store = data_dir / STORE_NAME
    mark = data_dir / MARK_NAME
    for made in (KeyStore(data_dir).path, data_dir / FILE_NAME, mark, store, log_of(store), shared_memory_of(store)):
        made.unlink(missing_ok=True)


def _fill(path: Path, backup: Backup) -> tuple[ChannelId, ...]:
    database = connect(path)
    try:
        path.chmod(0o600)
        migrate(database)
        mark_restored(database)  # also without a channel: towers have heard of the lives before
        return take_up_missing(database, backup, "this node was restored from a backup")
    except apsw.Error as error:
        raise BackupError(f"the store {path} cannot be made: {error}", "check the disk") from error
    finally:
        database.close()
