"""The node's own lives, and those that it has heard of others, as rows of its store."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

import apsw

from perund.store.writer import Statement
from protocol.hearing import Heard
from protocol.messages import Life, LifeStopped
from wire.codec import decode, encode

__all__ = [
    "OwnLife",
    "begin_life",
    "forget_life",
    "keep_life",
    "mark_restored",
    "recall_life",
    "record_heard",
    "record_stop",
]

NONCE_BYTES: Final = 32
STARTS_BITS: Final = 20
"""A restored store, and one that takes over, begins its numbers at the milliseconds since 1970 times 2^20: above every
life of a store for which that was not done later, and a million starts below the next time.
"""
LATEST_MS: Final = 2**42
"""The year 2109. A clock beyond it is wrong, and numbers stay below 2^63."""


@dataclass(frozen=True, slots=True)
class OwnLife:
    """The life that a start began. `stopped`: our word that it signs nothing, given in it or in an earlier start."""

    number: int
    nonce: bytes
    stopped: LifeStopped | None = None


def begin_life(database: apsw.Connection, now_ms: int, *, take_over: bool) -> OwnLife:
    """Begin a life and make it durable, or go on with one that has stopped.

    A stopped one stays so over restarts: the copy that a machine starts by itself must not outlive the node that its
    operator uses. `take_over`: the operator says that this copy is the one; `now_ms`: the clock.
    """
    row = database.execute("SELECT number, nonce, restored, stopped FROM own_life").fetchone()
    if row is None:
        ((runs,),) = database.execute("SELECT runs FROM about")
        row = (int(str(runs)) - 1, b"", 0, None)
    number, nonce, restored, encoded = int(str(row[0])), row[1], bool(row[2]), row[3]
    assert isinstance(nonce, bytes)
    assert encoded is None or isinstance(encoded, bytes)
    stopped = _stop(encoded)
    if stopped is not None and not take_over and not restored:
        return OwnLife(number, nonce, stopped)
    above = max(number, stopped.by_number if stopped is not None else 0)
    if restored or stopped is not None:
        # Also above what the other copy began since it was shown: whoever heard those lives could stop this node once
        # with each, and freeze its channels every time.
        above = max(above, min(now_ms, LATEST_MS) << STARTS_BITS)
    life = OwnLife(above + 1, os.urandom(NONCE_BYTES))
    database.execute(
        "INSERT INTO own_life VALUES (1, ?, ?, 0, NULL) ON CONFLICT DO UPDATE SET "
        "number = excluded.number, nonce = excluded.nonce, restored = 0, stopped = NULL",
        (life.number, life.nonce),
    )
    return life


def _stop(encoded: bytes | None) -> LifeStopped | None:
    if encoded is None:
        return None
    message = decode(encoded)
    assert isinstance(message, LifeStopped)
    return message


def mark_restored(database: apsw.Connection) -> None:
    """Have the next start of this store begin a life above all that others may have heard of."""
    database.execute(
        "INSERT INTO own_life VALUES (1, 0, ?, 1, NULL) ON CONFLICT DO UPDATE SET restored = 1", (bytes(NONCE_BYTES),)
    )


def record_stop(stop: LifeStopped) -> Statement:
    """Remember that this node signs nothing any more."""
    return Statement("UPDATE own_life SET stopped = ?", (encode(stop),))


def record_heard(node: bytes, heard: Heard) -> Statement:
    """What was heard of the lives of a node (33 bytes)."""
    rival = encode(heard.rival) if heard.rival is not None else None
    stopped = encode(heard.stopped) if heard.stopped is not None else None
    return Statement(
        "INSERT INTO heard_life(node, newest, rival, stopped) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "newest = excluded.newest, rival = excluded.rival, stopped = excluded.stopped",
        (node, encode(heard.newest), rival, stopped),
    )


def keep_life(node: bytes, number: int) -> Statement:
    """Keep what was heard of a node (33 bytes) for good, if there was ever money in this channel with it."""
    return Statement(
        "UPDATE heard_life SET had_money = 1 WHERE node = ? AND EXISTS (SELECT 1 FROM held WHERE number = ?)",
        (node, number),
    )


def forget_life(node: bytes) -> Statement:
    """Nothing binds us to a node (33 bytes) any more. Of whom money was here, it stays."""
    return Statement("DELETE FROM heard_life WHERE node = ? AND NOT had_money", (node,))


def recall_life(database: apsw.Connection, node: bytes) -> Heard | None:
    """Return what was written down of a node's lives (33 bytes)."""
    row = database.execute("SELECT newest, rival, stopped FROM heard_life WHERE node = ?", (node,)).fetchone()
    if row is None:
        return None
    newest, rival, stopped = row
    assert isinstance(newest, bytes)
    assert rival is None or isinstance(rival, bytes)
    assert stopped is None or isinstance(stopped, bytes)
    life, other = decode(newest), decode(rival) if rival is not None else None
    assert isinstance(life, Life)
    assert other is None or isinstance(other, Life)
    return Heard(life, other, _stop(stopped))
