"""The state directory: keys, chain time, canisters and outcomes of calls, in one SQLite file.

A round is one transaction, synced before its certificate leaves: after a power cut the network is as somebody
last saw it, and a call whose outcome was shown is not run again. Outcomes are appended; a canister is written
when its bytes have changed, whole, once a round, however many calls changed it.
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
from devnet.replica.principals import to_text
from devnet.replica.requests import KEPT_AFTER_EXPIRY_NS, Record, RequestLog

__all__ = ["Changes", "Savings"]

_FILE: Final = "devnet.sqlite"
_FORMAT: Final = 1
_SCHEMA: Final = """
CREATE TABLE network (
  root_key BLOB NOT NULL, node_key BLOB NOT NULL, time_ns INTEGER NOT NULL, offset_ns INTEGER NOT NULL
);
CREATE TABLE canister (id BLOB PRIMARY KEY, saved BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE request (
  id BLOB PRIMARY KEY, sender BLOB NOT NULL, canister BLOB NOT NULL, expiry_ns INTEGER NOT NULL,
  reply BLOB, reject_code INTEGER, reject_message TEXT, error_code TEXT
) WITHOUT ROWID;
CREATE INDEX request_expiry ON request (expiry_ns);
"""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a round adds: canisters whose bytes are new, calls that finished, and the time."""

    canisters: Mapping[bytes, bytes]
    finished: list[tuple[bytes, Record]]
    time_ns: int
    offset_ns: int


class Savings:
    """The open state directory of one running devnet; `open` says how it begins.

    `root_key`, `node_key`: the network's keys; `clock`: not before the last certified change;
    `requests`: the calls that are not forgotten.
    """

    def __init__(self, path: Path, connection: apsw.Connection, canisters: Mapping[bytes, CanisterModule]) -> None:
        self._path = path
        self._connection = connection
        self._canisters = canisters
        root, node, time_ns, offset_ns = connection.execute(
            "SELECT root_key, node_key, time_ns, offset_ns FROM network"
        ).get
        self.root_key = RootKey.from_bytes(root)
        self.node_key = NodeKey(node)
        self.clock = ChainClock(floor_ns=time_ns, offset_ns=offset_ns)
        self.requests = RequestLog(_read_requests(connection))
        self._finished: list[tuple[bytes, Record]] = []
        self._passages = 0
        self._offset_ns = offset_ns
        self._saved: dict[bytes, bytes] = dict(connection.execute("SELECT id, saved FROM canister"))
        for canister_id, saved in self._saved.items():
            self._restore(canister_id, saved)

    @classmethod
    def open(cls, directory: Path, canisters: Mapping[bytes, CanisterModule]) -> Savings:
        """Open or create a state directory and load the canisters from it. Raises `StateUnusable`."""
        path = directory / _FILE
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
            return cls(path, _connect(path), canisters)
        except apsw.BusyError as exc:
            raise StateUnusable(directory, "another devnet runs on it; stop that one first") from exc
        except (apsw.Error, OSError, ValueError) as exc:
            raise StateUnusable(directory, f"{exc}; move it away to start with an empty network") from exc

    def _restore(self, canister_id: bytes, saved: bytes) -> None:
        canister = self._canisters.get(canister_id)
        if canister is None:
            raise ValueError(f"it holds a canister {to_text(canister_id)} that this network does not have")
        canister.load(saved)

    def note(self, request_id: bytes, finished: Record) -> None:
        """Have a call that has just ended saved with the next round."""
        self._finished.append((request_id, finished))

    def changes(self, clock: ChainClock, passages: int) -> Changes | None:
        """Return what is new since the last time, None if nothing. Call it while no canister runs.

        `passages`: how many calls were let in so far; canisters are asked only if it has moved.
        """
        finished, self._finished = self._finished, []
        canisters: dict[bytes, bytes] = {}
        if passages != self._passages:
            self._passages = passages
            for canister_id, canister in self._canisters.items():
                saved = canister.save()
                if saved != self._saved.get(canister_id):
                    canisters[canister_id] = self._saved[canister_id] = saved
        if not finished and not canisters and clock.offset_ns == self._offset_ns:
            return None
        self._offset_ns = clock.offset_ns
        return Changes(canisters, finished, clock.now_ns(), clock.offset_ns)

    def write(self, changes: Changes) -> None:
        """Commit a round, durably; blocks. Raises `StateUnusable`: the round must not be shown then."""
        try:
            with self._connection:
                self._connection.execute(
                    "UPDATE network SET time_ns = ?, offset_ns = ?", (changes.time_ns, changes.offset_ns)
                )
                self._connection.executemany("INSERT OR REPLACE INTO canister VALUES (?, ?)", changes.canisters.items())
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


def _connect(path: Path) -> apsw.Connection:
    """Open the file for this process alone, creating network and keys if it is new."""
    connection = apsw.Connection(str(path))
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
    return connection


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


def _read_requests(connection: apsw.Connection) -> list[tuple[bytes, Record]]:
    found: list[tuple[bytes, Record]] = []
    for row in connection.execute("SELECT * FROM request ORDER BY id"):
        request_id, sender, canister, expiry_ns, reply, reject_code, reject_message, error_code = row
        outcome: Outcome = Replied(reply) if reply is not None else Rejected(reject_code, reject_message, error_code)
        found.append((request_id, Record(sender, canister, expiry_ns, outcome)))
    return found
