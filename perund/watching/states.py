"""The node's store as `perund watch` reads it: through the view `watched`, in short reads, and never a byte written.

The node may run, be stopped in the middle of a write, or bring the schema up to date meanwhile: WAL readers wait
for nobody and see each migration whole. Implements `watcher.ports.States`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import apsw
import structlog

from perund.store.errors import StorageFailed, WrongNetwork
from protocol.types import ChannelId, Nanos, Params, ParticipantKey, SignedState, State

__all__ = ["WatchedStates"]

log = structlog.get_logger()

BUSY_MS: Final = 1_000
_Column = Any
"""A column's value: its type is in the schema, which no type checker reads."""


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
        self._file = (0, 0)
        self._opened = 0
        self._seen: _Seen | None = None
        self._known: dict[ChannelId, tuple[Params, SignedState]] = {}

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
        for channel, _, network in rows:
            if network != self._network:
                raise WrongNetwork(
                    f"channel {bytes(channel).hex()[:16]} in {self._path} is of another network than the "
                    "configuration names: root key, canister and ledger must be those of its channels"
                )
        self._seen = seen
        return {ChannelId(channel): Nanos(challenge_ns) for channel, challenge_ns, _ in rows}

    def newest(self, channel: ChannelId) -> tuple[Params, SignedState] | None:
        """Return the newest fully signed state on the disk, read now.

        When the disk cannot be read at this moment, what it showed last: an older state of ours still refutes what
        is older than it, and the next try reads again.
        """
        try:
            rows = self._rows(
                "SELECT nonce, participant_0, participant_1, challenge_ns, version, allocation_0, allocation_1, "
                "finalized, signature_0, signature_1 FROM watched WHERE channel = ?",
                (channel,),
            )
        except StorageFailed as error:
            log.error("watch.store_unreadable", channel=channel.hex(), error=str(error))
            return self._known.get(channel)
        if not rows:
            return None
        nonce, first, second, challenge_ns, version, share_0, share_1, finalized, signature_0, signature_1 = rows[0]
        params = Params(nonce, (ParticipantKey(first), ParticipantKey(second)), Nanos(challenge_ns))
        state = State(channel, version, (share_0, share_1), bool(finalized))
        self._known[channel] = params, SignedState(state, (signature_0, signature_1))
        return self._known[channel]

    def forget(self, channel: ChannelId) -> None:
        """Forget a channel that is watched no more."""
        self._known.pop(channel, None)

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
            status = self._path.stat()
            file = (status.st_dev, status.st_ino)
            if self._database is not None and file == self._file:
                return self._database
            self.close()  # another file is in its place: a restored store
            database = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READONLY)
            database.set_busy_timeout(BUSY_MS)
        except (OSError, apsw.Error) as error:
            raise self._failed(error) from error
        self._database, self._file = database, file
        self._opened += 1
        return database

    def _failed(self, error: Exception) -> StorageFailed:
        self.close()
        if "no such table" in str(error):
            return StorageFailed(
                f"the store {self._path} has no view of watched channels: it was written by an older perund; "
                "start the node once with this one"
            )
        return StorageFailed(f"the store {self._path} cannot be read now: {error}")
