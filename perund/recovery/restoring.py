"""A node from its 24 words and its backup file, on an empty machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import apsw

from perund.config import FILE_NAME
from perund.config_file import load_config
from perund.keys import Keys
from perund.keystore import KeyStore
from perund.node.daemon import STORE_NAME
from perund.private_file import make_private_dir, write_new
from perund.recovery.backup import Backup, BackupError, read_backup
from perund.recovery.copying import mark_as_copy
from perund.store.jobs import insert_channel, record_peer
from perund.store.schema import migrate
from perund.store.store import connect
from protocol.effects import Phase
from protocol.errors import Undecodable
from protocol.opening import Opened
from protocol.signing import verify_signed_state
from protocol.types import Nanos

__all__ = ["Restored", "restore_node"]


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored. `channels`: ids in hex."""

    node_id: str
    made_ms: int
    channels: tuple[str, ...]


def restore_node(data_dir: Path, backup_path: Path, entropy: bytes, passphrase: str) -> Restored:
    """Make a data directory from phrase and backup. Its channels recover: they ask peers for the newest states.

    Raises `BackupError`, `DirectoryError` (nothing is overwritten), `PassphraseError`, `ConfigError`.
    """
    keys = Keys(entropy)
    backup = read_backup(backup_path, keys)
    opened = [_checked(channel.opened()) for channel in backup.channels]
    make_private_dir(data_dir)
    write_new(data_dir / FILE_NAME, backup.config.encode())
    load_config(data_dir)
    KeyStore(data_dir).create(entropy, passphrase)
    _fill(data_dir / STORE_NAME, backup, opened)
    return Restored(backup.node_id, backup.made_ms, tuple(o.terms.channel.hex() for o in opened))


def _checked(opened: Opened) -> Opened:
    try:
        genuine = verify_signed_state(opened.terms.params, opened.signed)
    except Undecodable as error:
        raise BackupError(f"a channel in the backup is none: {error}", "the file is damaged") from error
    if not genuine:
        raise BackupError(
            f"channel {opened.terms.channel.hex()[:16]} in the backup has no signed state 0", "the file is damaged"
        )
    return opened


def _fill(path: Path, backup: Backup, opened: list[Opened]) -> None:
    database = connect(path)
    try:
        path.chmod(0o600)
        migrate(database)
        database.execute("BEGIN IMMEDIATE")
        database.execute("INSERT INTO about VALUES (1, ?, 0)", (backup.network,))
        for number, (channel, saved) in enumerate(zip(opened, backup.channels, strict=True), start=1):
            force_after_ns = 600 * 10**9
            for statement in insert_channel(channel, number, backup.network, Nanos(saved.opened_ns), force_after_ns):
                database.execute(statement.sql, statement.values)
            # It may have been open: what is under way is found out by looks, never by paying (rule 7).
            database.execute("UPDATE channel_state SET phase = ? WHERE number = ?", (Phase.OPEN, number))
        for peer in backup.peers:
            statement = record_peer(peer.peer, peer.host, peer.port)
            database.execute(statement.sql, statement.values)
        mark_as_copy(database, "this node was restored from a backup")
        database.execute("COMMIT")
    except apsw.Error as error:
        raise BackupError(f"the store {path} cannot be made: {error}", "check the disk") from error
    finally:
        database.close()
