"""What a watchtower keeps on its disk. Implements `watcher.tower.ports.Books`.

A slot has one row, so the disk grows with the slots and with nothing that happens to them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw

from perund.store.errors import StorageFailed, StoreError, WrongNetwork
from perund.store.lives import recall_life, record_heard
from perund.store.schema import known_version, migrate
from perund.store.store import connect
from perund.store.writer import Statement, Writer
from protocol.hearing import Heard
from protocol.messages import TowerState
from protocol.types import ChannelId, Nanos, Params, SignedState
from watcher.tower.slots import Guarded, Slot
from watcher.tower.tower import read_state
from wire.codec import decode, encode

__all__ = ["STORE_NAME", "Status", "TowerBooks", "read_status"]

STORE_NAME: Final = "tower.db"
KEPT_NOTES: Final = 10_000
KEPT_CONFLICTS: Final = 1_000
BUSY_MS: Final = 5_000
CHECKPOINT_PAGES: Final = 500
"""Two megabytes of log beside the store, then it is written back: the disk is as large as the slots are many."""

_V1: Final = """
CREATE TABLE about(
  id INTEGER PRIMARY KEY CHECK (id = 1),
  network BLOB NOT NULL,             -- 32 bytes, protocol.terms.network_hash
  runs INTEGER NOT NULL
);

CREATE TABLE slot(                   -- the newest state of a client for a channel; times are chain times
  client BLOB NOT NULL,              -- 33 bytes, its node key
  channel BLOB NOT NULL,
  version BLOB NOT NULL,             -- 8 bytes, big endian: a nat64 that sorts
  digest BLOB NOT NULL,
  message BLOB NOT NULL,             -- the state as it came: `TowerState`
  challenge_ns INTEGER NOT NULL,
  since_ns INTEGER NOT NULL,
  lapses_ns INTEGER NOT NULL,
  expires_ns INTEGER NOT NULL,       -- the newest receipt: with version and digest it can be signed again
  proven INTEGER NOT NULL,
  settled_ns INTEGER,
  PRIMARY KEY (client, channel)
) WITHOUT ROWID;
CREATE INDEX slot_of ON slot(channel);

CREATE TRIGGER a_newer_state_is_never_replaced BEFORE UPDATE OF version, digest, message ON slot
WHEN NEW.version <= OLD.version
BEGIN
  SELECT RAISE(ABORT, 'an older state was to replace a newer one');
END;

CREATE TABLE conflict(               -- two states of one version, both signed by both: evidence
  client BLOB NOT NULL,
  channel BLOB NOT NULL,
  held BLOB NOT NULL, other BLOB NOT NULL,    -- `TowerState`
  at_ns INTEGER NOT NULL,
  PRIMARY KEY (client, channel)
) WITHOUT ROWID;

CREATE TABLE note(                   -- what the operator should see
  id INTEGER PRIMARY KEY,
  at_ns INTEGER NOT NULL,
  kind TEXT NOT NULL,
  channel BLOB,
  facts TEXT NOT NULL
);
"""
_V2: Final = """
CREATE TABLE store_life(             -- which store this is: a promise is believed as long as its store is the same
  id INTEGER PRIMARY KEY CHECK (id = 1),
  life BLOB NOT NULL,                -- 32 bytes, random
  writes INTEGER NOT NULL            -- starts, and states that were kept: an older copy has a lower number
);
INSERT INTO store_life VALUES (1, randomblob(32), 0);
CREATE TRIGGER a_slot_is_counted AFTER INSERT ON slot BEGIN UPDATE store_life SET writes = writes + 1; END;
CREATE TRIGGER a_state_is_counted AFTER UPDATE OF version ON slot BEGIN
  UPDATE store_life SET writes = writes + 1;
END;

CREATE TABLE heard_life(             -- the lives of clients with slots, as they were heard
  node BLOB PRIMARY KEY,             -- 33 bytes, its node key
  newest BLOB NOT NULL,              -- `Life`
  rival BLOB,                        -- `Life` of the same number, or null
  stopped BLOB                       -- `LifeStopped`, the word of an older one, or null
) WITHOUT ROWID;
"""
_V3: Final = """
-- Of whom a slot ever had money, the lives are kept: an older copy of it may come when the last one is gone.
ALTER TABLE heard_life ADD COLUMN had_money INTEGER NOT NULL DEFAULT 0;
"""
MIGRATIONS: Final = (_V1, _V2, _V3)

_KEEP: Final = (
    "INSERT INTO slot VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL) ON CONFLICT DO UPDATE SET "
    "version = excluded.version, digest = excluded.digest, message = excluded.message, "
    "lapses_ns = excluded.lapses_ns, expires_ns = excluded.expires_ns, proven = excluded.proven"
)


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened. `at_ns`: chain time."""

    at_ns: Nanos
    kind: str
    channel: str | None
    """In hex."""
    facts: dict[str, str | int | bool]


@dataclass(frozen=True, slots=True)
class Status:
    """What a tower has on its disk. `notes`: newest first."""

    clients: int
    slots: int
    channels: int
    unproven: int
    settled: int
    conflicts: int
    disk_bytes: int
    notes: list[Note]


class TowerBooks:
    """One writer with group commit, as in a node's store; reads wait for nobody."""

    def __init__(self, path: Path, network: bytes, failed: Callable[[StorageFailed], None]) -> None:
        """Open or create the books. `network`: 32 bytes; `failed` is called once when a write fails.

        Raises `WrongNetwork`, `UnknownSchema`, `StorageFailed`.
        """
        try:
            database = connect(path)
        except apsw.Error as error:
            raise _unusable(path, error) from error
        try:
            path.chmod(0o600)
            database.pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            migrate(database, MIGRATIONS)
            row = database.execute("SELECT network FROM about").fetchone()
            if row is not None and row[0] != network:
                raise WrongNetwork(
                    f"the tower's store is of network {row[0].hex()[:16]}…, the configuration names "
                    f"{network.hex()[:16]}…: root key, canister and ledger must be those of its channels"
                )
            database.execute("INSERT INTO about VALUES (1, ?, 1) ON CONFLICT DO UPDATE SET runs = runs + 1", (network,))
            ((life,),) = database.execute("UPDATE store_life SET writes = writes + 1 RETURNING life")
            assert isinstance(life, bytes)
            self.life = life
            self._reader = _reader(path)
            self._writer = Writer(database, path, failed)
        except (apsw.Error, OSError) as error:
            database.close()
            raise _unusable(path, error) from error
        except StoreError:
            database.close()
            raise

    def require_own_files(self) -> None:
        """Ask, without waiting, that the files are still these books': who has gone quiet hears of it too."""
        self._writer.commit(())

    def close(self) -> None:
        """Write what is queued, and close."""
        self._reader.close()
        self._writer.close()

    # --- watcher.tower.ports.Books -----------------------------------------------------------------------

    def slots(self) -> Iterable[tuple[Guarded, Slot]]:
        """Yield every slot, with facts about its channel."""
        rows = self._reader.execute(
            "SELECT client, channel, version, digest, challenge_ns, since_ns, lapses_ns, expires_ns, proven, "
            "settled_ns FROM slot ORDER BY since_ns"
        )
        for client, channel, version, digest, challenge, since, lapses, expires, proven, settled in rows:
            slot = Slot(
                client, channel, int.from_bytes(version, "big"), digest, since, lapses, expires, proven=bool(proven)
            )
            yield Guarded(channel, challenge, settled_ns=settled), slot

    def newest(self, channel: ChannelId) -> tuple[Params, SignedState] | None:
        """Return the newest durable state of a channel over all clients."""
        return self._read("SELECT message FROM slot WHERE channel = ? ORDER BY version DESC LIMIT 1", channel)

    def held(self, client: bytes, channel: ChannelId) -> SignedState | None:
        """Return the durable state in a client's own slot (33 bytes, its node key), or None."""
        found = self._read("SELECT message FROM slot WHERE client = ? AND channel = ?", client, channel)
        return found[1] if found is not None else None

    def _read(self, query: str, *values: bytes) -> tuple[Params, SignedState] | None:
        row = self._reader.execute(query, values).fetchone()
        if row is None:
            return None
        message = decode(row[0])
        assert isinstance(message, TowerState)
        return read_state(message)

    def keep(self, slot: Slot, message: TowerState, then: Callable[[], None]) -> None:
        """Put this state into its slot, in the place of an older one."""
        values = (
            slot.client,
            slot.channel,
            slot.version.to_bytes(8, "big"),
            slot.digest,
            encode(message),
            message.challenge_duration_ns,
            slot.since_ns,
            slot.lapses_ns,
            slot.expires_ns,
            slot.proven,
        )
        self._writer.commit([Statement(_KEEP, values)], then)

    def change(self, slots: Iterable[Slot], settled_ns: Nanos | None, then: Callable[[], None] | None = None) -> None:
        """Write what changed about slots but not their states."""
        self._writer.commit(
            [
                Statement(
                    "UPDATE slot SET lapses_ns = ?, expires_ns = ?, proven = ?, settled_ns = ? "
                    "WHERE client = ? AND channel = ?",
                    (slot.lapses_ns, slot.expires_ns, slot.proven, settled_ns, slot.client, slot.channel),
                )
                for slot in slots
            ],
            then,
        )

    def drop(self, slots: Iterable[Slot]) -> None:
        """Forget slots and their states."""
        gone = list(slots)
        self._writer.commit(
            [
                *(
                    Statement("DELETE FROM slot WHERE client = ? AND channel = ?", (slot.client, slot.channel))
                    for slot in gone
                ),
                *(
                    Statement("UPDATE heard_life SET had_money = 1 WHERE node = ?", (client,))
                    for client in dict.fromkeys(slot.client for slot in gone if slot.proven)
                ),
                *(
                    Statement(
                        "DELETE FROM heard_life WHERE node = ? AND NOT had_money "
                        "AND NOT EXISTS (SELECT 1 FROM slot WHERE client = node)",
                        (client,),
                    )
                    for client in dict.fromkeys(slot.client for slot in gone)
                ),
            ]
        )

    def writes(self) -> int:
        """Return a number that rises with every start and every state that is kept, as it is on the disk."""
        ((writes,),) = self._reader.execute("SELECT writes FROM store_life")
        return int(str(writes))

    def heard(self, client: bytes) -> Heard | None:
        """Return what was heard of the lives of a client (33 bytes, its node key), if it is kept."""
        return recall_life(self._reader, client)

    def keep_heard(self, client: bytes, heard: Heard) -> None:
        """Remember what was heard of a client's lives. It goes with its last slot, unless one of them had money."""
        self._writer.commit([record_heard(client, heard)])

    def conflict(self, slot: Slot, message: TowerState, at_ns: Nanos) -> None:
        """Keep both states of one version as evidence: the first pair of each slot, and the newest pairs in all."""
        self._writer.commit(
            [
                Statement(
                    "INSERT INTO conflict SELECT client, channel, message, ?, ? FROM slot "
                    "WHERE client = ? AND channel = ? ON CONFLICT DO NOTHING",
                    (encode(message), at_ns, slot.client, slot.channel),
                ),
                Statement(
                    "DELETE FROM conflict WHERE at_ns < "
                    "(SELECT at_ns FROM conflict ORDER BY at_ns DESC LIMIT 1 OFFSET ?)",
                    (KEPT_CONFLICTS - 1,),
                ),
            ]
        )

    def note(self, kind: str, at_ns: Nanos, channel: ChannelId | None, facts: dict[str, str | int | bool]) -> None:
        """Remember that something happened; the oldest notes go."""
        self._writer.commit(
            [
                Statement(
                    "INSERT INTO note(at_ns, kind, channel, facts) VALUES (?, ?, ?, ?)",
                    (at_ns, kind, channel, json.dumps(facts)),
                ),
                Statement("DELETE FROM note WHERE id <= (SELECT max(id) FROM note) - ?", (KEPT_NOTES,)),
            ]
        )


def read_status(path: Path, notes: int = 20) -> Status:
    """Read what a tower has, also while it runs. Raises `StorageFailed` when there is none, and
    `UnknownSchema` when a newer perund wrote it.
    """
    if not path.exists():
        raise StorageFailed(f"there is no {path}: no watchtower has run in that directory yet")
    try:
        reader = _reader(path)
        try:
            known_version(reader, len(MIGRATIONS))
            counts = reader.execute(
                "SELECT count(DISTINCT client), count(*), count(DISTINCT channel), "
                "coalesce(sum(NOT proven), 0), coalesce(sum(settled_ns IS NOT NULL), 0), "
                "(SELECT count(*) FROM conflict) FROM slot"
            ).fetchone()
            found = reader.execute("SELECT at_ns, kind, channel, facts FROM note ORDER BY id DESC LIMIT ?", (notes,))
            rows = [
                Note(at, kind, channel.hex() if channel else None, json.loads(facts))
                for at, kind, channel, facts in found
            ]
        finally:
            reader.close()
    except apsw.Error as error:
        raise _unusable(path, error) from error
    assert counts is not None
    files = (path, path.with_name(f"{path.name}-wal"))
    disk = sum(file.stat().st_size for file in files if file.exists())
    clients, slots, channels, unproven, settled, conflicts = (int(str(count)) for count in counts)
    return Status(clients, slots, channels, unproven, settled, conflicts, disk, rows)


def _reader(path: Path) -> apsw.Connection:
    database = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    database.set_busy_timeout(BUSY_MS)
    database.pragma("query_only", 1)
    database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    return database


def _unusable(path: Path, error: Exception) -> StorageFailed:
    return StorageFailed(f"the tower's store {path} cannot be opened: {error}; check the disk and its permissions")
