"""Taking channels up from a backup: into a new store, or into one that turns out to be old (rule 7)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw

from perund.keys import Keys
from perund.recovery.backup import BACKUP_NAME, Backup, BackupError, SavedChannel, read_backup
from perund.recovery.backup_writing import put_aside
from perund.recovery.copying import mark_as_copy
from perund.store.damage import require_sound_file, unusable
from perund.store.jobs import insert_channel, record_addresses
from perund.store.rows import PeerAddress
from perund.store.schema import migrate
from perund.store.store import connect
from perund.store.writer import Statement
from protocol.errors import Undecodable
from protocol.opening import Opened
from protocol.signing import verify_signed_state
from protocol.types import ChannelId, Nanos

__all__ = ["genuine_channels", "take_up_from_file", "take_up_missing"]

FORCE_AFTER_NS = 600 * 10**9


def genuine_channels(backup: Backup) -> tuple[list[Opened], list[str]]:
    """Return the channels of a backup, and what is wrong with those that are none."""
    good: list[Opened] = []
    faults: list[str] = []
    for saved in backup.channels:
        try:
            good.append(_genuine(saved.opened()))
        except (BackupError, Undecodable) as error:
            faults.append(f"the channel of proposal {saved.proposal_id.hex()[:16]} in the backup is none: {error}")
    return good, faults


def _genuine(channel: Opened) -> Opened:
    if not verify_signed_state(channel.terms.params, channel.signed):
        raise BackupError("it has no signed state 0", "the file is damaged")
    return channel


def take_up_missing(database: apsw.Connection, backup: Backup, why: str) -> tuple[ChannelId, ...]:
    """Take up, in one transaction, the channels that the store lacks; they recover, and so does all that it has.

    A channel is in its store before it is in the backup file: what the store lacks, it has lost. `why`: for people.
    What of them is no channel is added to the faults of the backup. Returns the channels taken up. Raises
    `StoreDamaged`, `apsw.Error`.
    """
    missing: list[tuple[Opened, SavedChannel]] = []
    for saved in backup.channels:
        # Only what is taken up is verified: a node with many channels that lacks none is to be ready soon.
        if database.execute("SELECT 1 FROM channel WHERE proposal_id = ?", (saved.proposal_id,)).fetchone():
            continue
        try:
            missing.append((_genuine(saved.opened()), saved))
        except (BackupError, Undecodable) as error:
            backup.faults.append(f"the channel of proposal {saved.proposal_id.hex()[:16]} is none: {error}")
    if not missing:
        return ()
    require_sound_file(database)  # what a damaged store lacks was not lost: it is to be put aside, not written on
    database.execute("BEGIN IMMEDIATE")
    try:
        database.execute("INSERT INTO about VALUES (1, ?, 0) ON CONFLICT DO NOTHING", (backup.network,))
        ((highest,),) = database.execute("SELECT coalesce(max(number), 0) FROM channel")
        assert isinstance(highest, int)
        for number, (opened, saved) in enumerate(missing, start=highest + 1):
            for statement in insert_channel(opened, number, backup.network, Nanos(saved.opened_ns), FORCE_AFTER_NS):
                database.execute(statement.sql, statement.values)
        for statement in _addresses(backup):
            database.execute(statement.sql, statement.values)
        mark_as_copy(database, why)
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
    return tuple(opened.terms.channel for opened, _ in missing)


def _addresses(backup: Backup) -> Iterator[Statement]:
    """Write where peers proved to be: the file is newer than a store that lacks channels of it. It does not say who
    gave an address: they stand for our operator's, so that a peer is found before any look shows money.
    """
    peers: dict[bytes, list[PeerAddress]] = {}
    for order, saved in enumerate(backup.peers):
        row = PeerAddress(
            saved.place, given=True, since_ms=backup.made_ms, proven_ms=backup.made_ms + order, nearest=None
        )
        peers.setdefault(saved.peer, []).append(row)
    for peer, rows in peers.items():
        yield from record_addresses(peer, rows)


def take_up_from_file(data_dir: Path, store_path: Path, keys: Keys, network: bytes) -> tuple[ChannelId, ...]:
    """Before a node starts: take up what its backup file has and its store, an old copy perhaps, has lost.

    The file is rewritten from the store soon after: without this an old store would destroy what the file knows.
    One that cannot be read is put aside, and said. Raises `BackupError`: it belongs to another network, or the
    store cannot be written. `StoreDamaged`: the store is to be put aside instead.
    """
    path = data_dir / BACKUP_NAME
    if not path.exists():
        return ()
    try:
        backup = read_backup(path, keys)
    except BackupError as error:
        put_aside(path, str(error))
        return ()
    if backup.channels and backup.network != network:
        raise BackupError(
            f"{path} is of network {backup.network.hex()[:16]}…, the configuration names {network.hex()[:16]}…",
            "root key, canister and ledger must be those of its channels",
        )
    taken = _take_up(store_path, backup) if backup.channels else ()
    if backup.faults:
        # What could be read of it is in the store now. The rest is for people: the file is about to be made anew.
        put_aside(path, f"{path}: {backup.faults[0]} ({len(backup.faults)} faults in all)")
    return taken


def _take_up(store_path: Path, backup: Backup) -> tuple[ChannelId, ...]:
    try:
        database = connect(store_path)
        try:
            store_path.chmod(0o600)
            migrate(database)
            return take_up_missing(database, backup, "the backup file has channels that this store lacked")
        finally:
            database.close()
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise unusable(store_path, error) from error
    except (apsw.Error, OSError) as error:
        raise BackupError(f"the store {store_path} cannot be written: {error}", "check the disk") from error
