"""The node's store as `perund watch` reads it: through the view `watched`, in short reads, and never a byte written.

The node may run, be stopped in the middle of a write, or bring the schema up to date meanwhile: WAL readers wait
for nobody and see each migration whole. A damaged store is said to be one, and what can be read of it and bears both
signatures still refutes: to watch less than before is better than to watch nothing. The same when the files are
replaced: what the ones before had is read from them at that moment, and an older state never takes a newer one's place.
Implements `watcher.ports.States`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import apsw
import structlog

from perund.file_id import FileId
from perund.store.damage import require_sound_file, unusable
from perund.store.errors import StorageFailed, StoreDamaged, WrongNetwork
from perund.store.own_files import log_of, shared_memory_of
from protocol.errors import Undecodable
from protocol.signing import verify_signed_state
from protocol.types import ChannelId, Nanos, Params, ParticipantKey, SignedState, State

__all__ = ["WatchedStates"]

log = structlog.get_logger()

BUSY_MS: Final = 1_000
_NEWEST: Final = (
    "SELECT channel, nonce, participant_0, participant_1, challenge_ns, version, allocation_0, allocation_1, "
    "finalized, signature_0, signature_1 FROM watched"
)
_Column = Any
"""A column's value: its type is in the schema, which no type checker reads."""


@dataclass(frozen=True, slots=True)
class News:
    """Something about the store that somebody must hear of."""

    kind: str
    channel: ChannelId | None
    facts: dict[str, str | int | bool]


@dataclass(frozen=True, slots=True)
class _Files:
    """The database and what belongs to it; None: it is not there."""

    database: FileId
    log: FileId | None
    shared: FileId | None

    @classmethod
    def of(cls, path: Path) -> _Files:
        """Return what is there now. Raises `OSError`: there is no database."""
        return cls(FileId.of(path), FileId.if_there(log_of(path)), FileId.if_there(shared_memory_of(path)))

    def replaced_by(self, other: _Files) -> str:
        """Return which file is another one there, for people; empty when only one came that was not there before."""
        if self.database != other.database:
            return "the database is another file"
        if self.log is not None and self.log != other.log:
            return "the log is another file, or gone"
        return ""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What tells whether the store changed: the connection, and its counter of commits by others."""

    connection: int
    version: int


class WatchedStates:
    """Reads channels and newest states. The connection is made anew after an error, or when the file is another."""

    def __init__(self, path: Path, network: bytes) -> None:
        """`network`: 32 bytes, the one of the configuration."""
        self._path = path
        self._network = network
        self._database: apsw.Connection | None = None
        self._files: _Files | None = None
        self._examined: _Files | None = None
        self.news: list[News] = []
        """What was noticed of the store, until somebody takes it from here."""
        self.damage: str | None = None
        """What is wrong with the file that is there now, for people; None while nothing was found."""
        self._opened = 0
        self._seen: _Seen | None = None
        self._known: dict[ChannelId, tuple[Params, SignedState]] = {}
        self._lower: set[ChannelId] = set()

    def close(self) -> None:
        """Close the connection."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def changed(self) -> bool:
        """Whether anything was written since `channels` was last asked. Raises `StorageFailed`."""
        return self._look() != self._seen

    def channels(self) -> dict[ChannelId, Nanos]:
        """Return the channels whose money is not out, with their challenge periods (ns).

        Raises `StorageFailed` when the store cannot be read now, `WrongNetwork` when it is another network's.
        """
        seen = self._look()
        rows = self._rows("SELECT channel, challenge_ns, network FROM watched WHERE phase != 'closed'", ())
        wanted: dict[ChannelId, Nanos] = {}
        for channel, challenge_ns, network in rows:
            if not isinstance(channel, bytes) or not isinstance(challenge_ns, int):
                self._damaged(f"channel {_text(channel)} cannot be watched")
                continue
            wanted[ChannelId(channel)] = Nanos(challenge_ns)
            if network != self._network:
                raise WrongNetwork(
                    f"channel {_text(channel)} in {self._path} is of another network than the "
                    "configuration names: root key, canister and ledger must be those of its channels"
                )
        self._seen = seen
        return wanted

    def newest(self, channel: ChannelId) -> tuple[Params, SignedState] | None:
        """Return the newest fully signed state on the disk, read now.

        When the disk cannot be read at this moment, or what it has is older, what it showed last: that still refutes
        what is older than it, and the next try reads again.
        """
        try:
            rows = self._rows(f"{_NEWEST} WHERE channel = ?", (channel,))
            if rows:
                self._learn(channel, self._signed(rows[0]))
        except StorageFailed as error:
            log.error("watch.store_unreadable", channel=channel.hex(), error=str(error))
        return self._known.get(channel)

    def vanished(self, channel: ChannelId) -> bool:
        """Whether the store has nothing of a channel, whose money was not out when it was last read, any more.

        Raises `StorageFailed`.
        """
        return not self._rows("SELECT 1 FROM watched WHERE channel = ?", (channel,))

    def forget(self, channel: ChannelId) -> None:
        """Forget a channel that is watched no more."""
        self._known.pop(channel, None)
        self._lower.discard(channel)

    def _learn(self, channel: ChannelId, found: tuple[Params, SignedState]) -> None:
        """Keep the newest state that was ever read: to refute with it is right, whatever the store has become."""
        known = self._known.get(channel)
        if known is None or known[1].state.version <= found[1].state.version:
            self._known[channel] = found
        elif channel not in self._lower:
            self._lower.add(channel)
            facts: dict[str, str | int | bool] = {
                "version": found[1].state.version, "had": known[1].state.version, "alarm": True,
            }  # fmt: skip
            self.news.append(News("watch.store_went_back", channel, facts))

    # --- what is damaged ---------------------------------------------------------------------------------

    def examine(self) -> None:
        """Check the file and every newest state in it, once for each file; `damage` tells what is wrong.

        Raises `StorageFailed` when the store cannot be read now.
        """
        database = self._connection()
        if self._examined == self._files:
            return
        self._examined, self.damage = self._files, None
        try:
            require_sound_file(database)
            for row in self._rows(f"{_NEWEST} WHERE phase != 'closed'", ()):
                self._signed(row)
        except StoreDamaged as error:
            self.damage = str(error)

    def _signed(self, row: tuple[_Column, ...]) -> tuple[Params, SignedState]:
        """Return the newest state in a row. Raises `StoreDamaged`: the canister would refuse it."""
        try:
            params, signed = _decoded(*row)
            genuine = verify_signed_state(params, signed)
        except (Undecodable, TypeError, ValueError):  # a length, or a kind of value, that nobody writes
            genuine = False
        if not genuine:
            raise self._damaged(f"a newest state is not signed by both: channel {_text(row[0])}, version {row[5]}")
        return params, signed

    def _damaged(self, what: str) -> StoreDamaged:
        error = StoreDamaged(self._path, what)
        self.damage = str(error)
        return error

    # --- reading -----------------------------------------------------------------------------------------

    def _look(self) -> _Seen:
        database = self._connection()
        try:
            return _Seen(self._opened, int(str(database.pragma("data_version"))))
        except apsw.Error as error:
            raise self._failed(error) from error

    def _rows(self, sql: str, values: tuple[bytes, ...]) -> list[tuple[_Column, ...]]:
        database = self._connection()
        try:
            return database.execute(sql, values).fetchall()
        except apsw.Error as error:
            raise self._failed(error) from error

    def _connection(self) -> apsw.Connection:
        try:
            files = _Files.of(self._path)
            if self._database is not None and files == self._files:
                return self._database
            self._leave(files)
            database = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READONLY)
            database.set_busy_timeout(BUSY_MS)
            database.execute("SELECT 1 FROM sqlite_schema").fetchone()  # the log and what is shared are opened now
            files = _Files.of(self._path)
        except FileNotFoundError as error:
            self._leave(None)
            raise self._failed(error) from error
        except (OSError, apsw.Error) as error:
            raise self._failed(error) from error
        self._database, self._files = database, files
        self._opened += 1
        return database

    def _leave(self, files: _Files | None) -> None:
        """Other files (or none) are in the place of those that are open: take along what these have, and say so."""
        database, before = self._database, self._files
        if before is not None:
            what = before.replaced_by(files) if files is not None else "the database is not there any more"
            if what:
                self.news.append(News("watch.store_replaced", None, {"what": what, "alarm": True}))
        self._files = None
        if database is None:
            return
        try:
            rows: list[tuple[_Column, ...]] = database.execute(f"{_NEWEST} WHERE phase != 'closed'").fetchall()
            for row in rows:
                params, signed = _decoded(*row)
                if verify_signed_state(params, signed):
                    self._learn(signed.state.channel, (params, signed))
        except (apsw.Error, Undecodable, TypeError, ValueError) as error:
            log.warning("watch.store_lost", error=str(error))  # what was read of it before is all there is
        self.close()

    def _failed(self, error: Exception) -> StorageFailed:
        self.close()
        if "no such table" in str(error):
            return StorageFailed(
                f"the store {self._path} has no view of watched channels: it was written by an older perund; "
                "start the node once with this one"
            )
        failed = unusable(self._path, error, "read now")
        if isinstance(failed, StoreDamaged):
            self.damage = str(failed)
        return failed


def _text(channel: object) -> str:
    return channel.hex()[:16] if isinstance(channel, bytes) else repr(channel)


def _decoded(
    channel: ChannelId, nonce: bytes, first: bytes, second: bytes, challenge_ns: int, version: int,
    share_0: int, share_1: int, finalized: int, signature_0: bytes, signature_1: bytes,
) -> tuple[Params, SignedState]:  # fmt: skip
    params = Params(nonce, (ParticipantKey(first), ParticipantKey(second)), Nanos(challenge_ns))
    state = State(channel, version, (share_0, share_1), bool(finalized))
    return params, SignedState(state, (signature_0, signature_1))
