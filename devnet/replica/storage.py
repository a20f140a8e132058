"""The state directory: keys, chain time, canisters and outcomes of calls, in one SQLite file.

A round is one transaction, synced before its certificate leaves: after a power cut the network is as somebody
last saw it, and a call whose outcome was shown is not run again. Of a canister, the parts whose bytes have changed
are written, once a round, however many calls changed it; outcomes are appended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw

from devnet.canister import CanisterModule
from devnet.replica.clock import ChainClock
from devnet.replica.errors import StateUnusable
from devnet.replica.keys import NodeKey, RootKey
from devnet.replica.outcomes import Outcome, Rejected, Replied
from devnet.replica.parts import changed_parts, parts_of
from devnet.replica.principals import to_text
from devnet.replica.requests import KEPT_AFTER_EXPIRY_NS, Record, RequestLog

__all__ = ["Changes", "Savings"]

_FILE: Final = "devnet.sqlite"
_FORMAT: Final = 1
_SCHEMA: Final = """
CREATE TABLE network (
  root_key BLOB NOT NULL, node_key BLOB NOT NULL, time_ns INTEGER NOT NULL, offset_ns INTEGER NOT NULL
);
CREATE TABLE canister (
  id BLOB NOT NULL, part INTEGER NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (id, part)
) WITHOUT ROWID;
CREATE TABLE request (
  id BLOB PRIMARY KEY, sender BLOB NOT NULL, canister BLOB NOT NULL, expiry_ns INTEGER NOT NULL,
  reply BLOB, reject_code INTEGER, reject_message TEXT, error_code TEXT
) WITHOUT ROWID;
CREATE INDEX request_expiry ON request (expiry_ns);
"""
_INSTALLS: Final = "CREATE TABLE IF NOT EXISTS install (id BLOB PRIMARY KEY, time_ns INTEGER NOT NULL) WITHOUT ROWID"


@dataclass(frozen=True, slots=True)
class CanisterChange:
    """Parts of what a canister saved, by number; there are `count` of them in all."""

    canister_id: bytes
    parts: list[tuple[int, bytes]]
    count: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What a round adds: canisters that have changed, calls that finished, installations, and the time."""

    canisters: list[CanisterChange]
    finished: list[tuple[bytes, Record]]
    installs: list[tuple[bytes, int]]
    time_ns: int
    offset_ns: int


class Savings:
    """The open state directory of one running devnet; `open` says how it begins.

    `root_key`, `node_key`: the network's keys; `requests`: the calls that are not forgotten.
    """

    def __init__(
        self,
        path: Path,
        connection: apsw.Connection,
        canisters: Mapping[bytes, CanisterModule],
        clock: ChainClock,
    ) -> None:
        self._path = path
        self._connection = connection
        self._canisters = canisters
        root, node, time_ns, offset_ns = connection.execute(
            "SELECT root_key, node_key, time_ns, offset_ns FROM network"
        ).get
        self.root_key = RootKey.from_bytes(root)
        self.node_key = NodeKey(node)
        clock.restore(time_ns, offset_ns)
        self._clock = clock
        self.installed_ns = dict[bytes, int](list(connection.execute("SELECT id, time_ns FROM install")))
        """When each canister was last installed; those of a directory of before were when it is first opened."""
        self._installs: list[tuple[bytes, int]] = [(c, clock.now_ns()) for c in canisters if c not in self.installed_ns]
        self.installed_ns.update(self._installs)
        self.requests = RequestLog(_read_requests(connection))
        self._finished: list[tuple[bytes, Record]] = []
        self._passages = 0
        self._offset_ns = offset_ns
        self._saved: dict[bytes, bytes] = _read_canisters(connection)
        for canister_id, saved in self._saved.items():
            self._restore(canister_id, saved)

    @classmethod
    def open(cls, directory: Path, canisters: Mapping[bytes, CanisterModule], clock: ChainClock) -> Savings:
        """Open or create a state directory; canisters and clock go on from it. Raises `StateUnusable`."""
        path = directory / _FILE
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
            connection = apsw.Connection(str(path))
            try:
                _prepare(connection)
                return cls(path, connection, canisters, clock)
            except BaseException:
                connection.close()
                raise
        except apsw.BusyError as exc:
            raise StateUnusable(directory, "another devnet runs on it; stop that one first") from exc
        except (apsw.Error, OSError, ValueError) as exc:
            raise StateUnusable(directory, f"{exc}; move it away to start with an empty network") from exc

    def _restore(self, canister_id: bytes, saved: bytes) -> None:
        canister = self._canisters.get(canister_id)
        if canister is None:
            raise ValueError(f"it holds a canister {to_text(canister_id)} that this network does not have")
        try:
            canister.load(saved)
        except Exception as exc:  # whatever its decoder raises, the bytes are of no use
            name = to_text(canister_id)
            raise ValueError(f"the canister {name} cannot read what it saved ({type(exc).__name__}: {exc})") from exc

    def note_install(self, canister_id: bytes, time_ns: int) -> None:
        """Have an installation saved with the next round."""
        self._installs.append((canister_id, time_ns))

    def note(self, request_id: bytes, finished: Record) -> None:
        """Have a call that has just ended saved with the next round."""
        self._finished.append((request_id, finished))

    def changes(self, passages: int) -> Changes | None:
        """Return what is new since the last time, None if nothing. Call it while no canister runs.

        `passages`: how many calls were let in so far; canisters are asked only if it has moved.
        """
        finished, self._finished = self._finished, []
        canisters: list[CanisterChange] = []
        if passages != self._passages:
            self._passages = passages
            for canister_id, canister in self._canisters.items():
                before, after = self._saved.get(canister_id), canister.save()
                if before != after:
                    changed = changed_parts(before or b"", after)
                    canisters.append(CanisterChange(canister_id, changed, parts_of(len(after))))
                    self._saved[canister_id] = after
        installs, self._installs = self._installs, []
        if not finished and not canisters and not installs and self._clock.offset_ns == self._offset_ns:
            return None
        self._offset_ns = self._clock.offset_ns
        return Changes(canisters, finished, installs, self._clock.now_ns(), self._offset_ns)

    def write(self, changes: Changes) -> None:
        """Commit a round, durably; blocks. Raises `StateUnusable`: the round must not be shown then."""
        try:
            with self._connection:
                self._connection.execute(
                    "UPDATE network SET time_ns = ?, offset_ns = ?", (changes.time_ns, changes.offset_ns)
                )
                for change in changes.canisters:
                    self._connection.executemany(
                        "INSERT OR REPLACE INTO canister VALUES (?, ?, ?)",
                        [(change.canister_id, number, part) for number, part in change.parts],
                    )
                    self._connection.execute(
                        "DELETE FROM canister WHERE id = ? AND part >= ?", (change.canister_id, change.count)
                    )
                self._connection.executemany("INSERT OR REPLACE INTO install VALUES (?, ?)", changes.installs)
                self._connection.executemany(
                    "INSERT OR REPLACE INTO request VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    [_row(request_id, record) for request_id, record in changes.finished],
                )
                self._connection.execute(
                    "DELETE FROM request WHERE expiry_ns < ?", (changes.time_ns - KEPT_AFTER_EXPIRY_NS,)
                )
        except apsw.Error as exc:
            reason = f"a write failed ({exc}); make room or repair the disk, then start again"
            raise StateUnusable(self._path.parent, reason) from exc

    def close(self) -> None:
        """Let go of the directory."""
        self._connection.close()


def _prepare(connection: apsw.Connection) -> None:
    """Take the file for this process alone; create network and keys if it is new."""
    if connection.pragma("user_version") == 0 and connection.execute("SELECT 1 FROM sqlite_master").get is not None:
        raise ValueError("it is a database of another program")
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    with connection:
        found = connection.pragma("user_version")
        if found == 0:
            connection.execute(_SCHEMA)
            connection.execute(
                "INSERT INTO network VALUES (?, ?, 0, 0)",
                (RootKey.generate().to_bytes(), NodeKey.generate().seed),
            )
            connection.pragma("user_version", _FORMAT)
        elif found != _FORMAT:
            raise ValueError(f"its format is {found}, this version reads {_FORMAT}")
        connection.execute(_INSTALLS)


Row = tuple[bytes, bytes, bytes, int, bytes | None, int | None, str | None, str | None]


def _row(request_id: bytes, record: Record) -> Row:
    head = (request_id, record.sender, record.canister_id, record.expiry_ns)
    match record.outcome:
        case Replied():
            return (*head, record.outcome.reply, None, None, None)
        case Rejected():
            outcome = record.outcome
            return (*head, None, outcome.reject_code, outcome.reject_message, outcome.error_code)
        case None:
            raise ValueError("only finished calls are saved")


def _read_canisters(connection: apsw.Connection) -> dict[bytes, bytes]:
    found: dict[bytes, list[bytes]] = {}
    for canister_id, part in connection.execute("SELECT id, bytes FROM canister ORDER BY id, part"):
        found.setdefault(canister_id, []).append(part)
    return {canister_id: b"".join(parts) for canister_id, parts in found.items()}


def _read_requests(connection: apsw.Connection) -> list[tuple[bytes, Record]]:
    found: list[tuple[bytes, Record]] = []
    for row in connection.execute("SELECT * FROM request ORDER BY id"):
        request_id, sender, canister, expiry_ns, reply, reject_code, reject_message, error_code = row
        outcome: Outcome = Replied(reply) if reply is not None else Rejected(reject_code, reject_message, error_code)
        found.append((request_id, Record(sender, canister, expiry_ns, outcome)))
    return found
