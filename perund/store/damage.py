"""What a damaged disk did to a store: found before the node signs anything on it, and by `perund check`.

Two things are looked at. The file: SQLite compares pages, rows and indexes with each other. And the content of
each channel: a byte that changed in a signature or an amount leaves the file in order, but the state that the
money depends on is no longer signed by both.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import apsw

from perund.store.errors import StorageFailed, StoreDamaged
from protocol.signing import verify, verify_signed_state
from protocol.types import Params, ParticipantKey, SignedState, State

if TYPE_CHECKING:
    from perund.store.reading import Reader
    from perund.store.rows import ChannelRow

__all__ = ["faults_in_channel", "faults_in_file", "require_sound_channel", "require_sound_file", "unusable"]

LARGE_BYTES: Final = 1 << 29
"""About ten million payments, whose check takes about 4 s from memory. A node is to be ready within 10 s."""


def faults_in_file(database: apsw.Connection) -> list[str]:
    """Return what SQLite finds wrong in the whole file: every page, every row, every index. Raises `apsw.Error`."""
    return [text for text in _verdicts(database, "") if text != "ok"]


def require_sound_file(database: apsw.Connection) -> None:
    """Check the file before a node works on it.

    In a store of more than `LARGE_BYTES` the table of payments is left out: it is history, it outgrows everything
    else, and no state depends on it. `perund check` reads it, and a page of it that cannot be read fails the call, or
    ends the node, that asks for it.
    Raises `StoreDamaged`, `StorageFailed`.
    """
    path = Path(database.filename)
    try:
        pages, bytes_each = int(str(database.pragma("page_count"))), int(str(database.pragma("page_size")))
        parts = [""]
        if pages * bytes_each > LARGE_BYTES:
            names = database.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name != 'payment'")
            parts = [f"({name})" for (name,) in names.fetchall()]
        for part in parts:
            for text in _verdicts(database, part):
                if text != "ok":
                    raise StoreDamaged(path, text)
    except apsw.Error as error:
        raise unusable(path, error) from error


def _verdicts(database: apsw.Connection, part: str) -> Iterator[str]:
    # Not quick_check: it leaves out whether the indexes have every row, and saves a tenth of the time.
    for (text,) in database.execute(f"PRAGMA integrity_check{part}"):
        yield " ".join(str(text).split())


def faults_in_channel(row: ChannelRow, signatures_0: tuple[bytes, bytes]) -> Iterator[str]:
    """Yield what no working disk would say of a channel. `signatures_0`: on state 0, 64 bytes each.

    State 0 counts as much as the newest one: the backup file is written from it.
    """
    terms, newest, pending = row.terms, row.memory.newest, row.memory.pending
    state = newest.state
    # Made anew, for the row's own params believe the channel id that was stored beside them.
    params = Params(terms.params.nonce, terms.params.participants, terms.params.challenge_duration_ns)
    if params.channel_id != terms.channel:
        yield "the channel id is not the hash of the params"
        params = terms.params
    signed_0 = SignedState(terms.state_0(), signatures_0)
    if newest != signed_0 and not verify_signed_state(params, signed_0):
        yield "state 0 is not signed by both"
    if not verify_signed_state(params, newest):
        yield f"the newest state (version {state.version}) is not signed by both"
    if state.total != terms.total:
        yield f"version {state.version} allocates {state.total} e8s of {terms.total} (rule 6)"
    if pending is not None:
        proposed = State(terms.channel, pending.version, pending.allocation, pending.finalized)
        if not verify(params.participants[0], proposed.encoded, pending.signature):
            yield f"the outstanding update (version {pending.version}) is not signed by us"


def require_sound_channel(row: ChannelRow, read: Reader, our_key: ParticipantKey) -> None:
    """Check a channel before a node goes on with it. Raises `StoreDamaged` with all that is wrong.

    `our_key`: what the phrase and the stored share give; with another one nobody could withdraw.
    """
    faults = list(faults_in_channel(row, read.signatures_0(row.number)))
    if our_key != row.terms.params.participants[row.terms.our_index]:
        faults.append("our share does not give our key")
    if faults:
        raise StoreDamaged(read.path, f"channel {row.terms.channel.hex()[:16]}: {', '.join(faults)}")


def unusable(path: Path, error: Exception, done: str = "opened") -> StorageFailed:
    """Return what is raised for an error of SQLite or of the file system: `StoreDamaged` when the content is bad.

    `done`: what cannot be done with the store.
    """
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return StoreDamaged(path, str(error))
    return StorageFailed(
        f"the store {path} cannot be {done}: {error}; check the disk, its space and permissions, and start again: "
        "nothing has to be restored for that, and an older copy must never take its place"
    )
