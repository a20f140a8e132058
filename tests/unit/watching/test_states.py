"""The node's store as `perund watch` reads it: at any moment, under any schema that keeps the view, writing nothing."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import apsw
import pytest

from perund.store.errors import StorageFailed, WrongNetwork
from perund.watching.states import WatchedStates
from protocol.effects import Phase, PhaseRecord, StateRecord
from protocol.payments import EMPTY
from protocol.types import ChannelId, Nanos
from tests.unit.store.books import NETWORK, Books, signed, terms_of


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    opened = Books(tmp_path)
    yield opened
    opened.store.close()


@pytest.fixture
def states(books: Books) -> Iterator[WatchedStates]:
    reading = WatchedStates(books.path, NETWORK)
    yield reading
    reading.close()


async def close(books: Books, channel: ChannelId) -> None:
    """The money of a channel is out."""
    await books.store.write([PhaseRecord(channel, Phase.CLOSED, "", "", Nanos(9))])


async def test_the_newest_state_is_the_one_on_the_disk_at_that_moment(books: Books, states: WatchedStates) -> None:
    terms = await books.add(terms_of())
    for version in (1, 2):
        newest = signed(terms.channel, version, 1000 - version, 500 + version)
        await books.store.write([StateRecord(newest, EMPTY, EMPTY)])
        assert states.newest(terms.channel) == (terms.params, newest)
    assert states.newest(ChannelId(b"\x09" * 64)) is None


async def test_channels_come_and_go(books: Books, states: WatchedStates) -> None:
    assert states.changed()
    assert states.channels() == {}
    assert not states.changed()
    first = await books.add(terms_of(1), 1)
    assert states.changed()
    assert states.channels() == {first.channel: first.params.challenge_duration_ns}
    second = await books.add(terms_of(2), 2)
    await close(books, first.channel)
    assert set(states.channels()) == {second.channel}
    assert not states.changed()


async def test_a_node_in_the_middle_of_a_write_or_a_migration_keeps_nobody_waiting(
    books: Books, states: WatchedStates
) -> None:
    terms = await books.add(terms_of())
    other = apsw.Connection(str(books.path))
    view = other.execute("SELECT sql FROM sqlite_master WHERE name = 'watched'").fetchall()[0][0]
    signatures = signed(terms.channel, 77, *terms.allocation).signatures
    other.execute("BEGIN IMMEDIATE; DROP VIEW watched")
    other.execute("UPDATE channel_state SET version = 77, signature_0 = ?, signature_1 = ?", signatures)
    found = states.newest(terms.channel)
    assert found is not None
    assert found[1].state.version == 0  # what is committed
    other.execute(f"ALTER TABLE channel_state ADD COLUMN novelty INTEGER; {view}; PRAGMA user_version = 99; COMMIT")
    other.close()
    found = states.newest(terms.channel)  # a schema that nobody here knows
    assert found is not None
    assert found[1].state.version == 77


async def test_a_store_that_is_put_in_its_place_is_noticed(books: Books, states: WatchedStates) -> None:
    await books.add(terms_of(1), 1)
    assert len(states.channels()) == 1
    books.store.close()
    for path in books.directory.glob("perund.db*"):
        path.rename(books.directory / f"old-{path.name}")
    books.store = type(books.store)(books.path, NETWORK, books.failures.append)
    assert states.changed()
    assert states.channels() == {}


async def test_what_cannot_be_read_is_unknown_and_not_nothing(books: Books, states: WatchedStates) -> None:
    terms = await books.add(terms_of())
    known = states.newest(terms.channel)
    states.news.clear()
    hidden = books.directory / "elsewhere.db"
    books.path.rename(hidden)
    with pytest.raises(StorageFailed, match="cannot be read now"):
        states.channels()
    assert states.newest(terms.channel) == known  # the last that was read still refutes
    hidden.rename(books.path)
    assert set(states.channels()) == {terms.channel}


def replace(books: Books, old: Path) -> None:
    """The node stops, and what was put away earlier takes the place of its files."""
    books.store.close()
    books.store.read._database.close()
    for path in books.directory.glob("perund.db*"):
        path.unlink()
    for path in old.glob("perund.db*"):
        path.rename(books.directory / path.name)


def put_away(books: Books, name: str) -> Path:
    old = books.directory / name
    subprocess.run(["mkdir", str(old)], check=True)
    subprocess.run(["cp", str(books.path), f"{books.path}-wal", str(old)], check=True)  # see `test_own_files.copy`
    return old


async def test_what_a_store_had_before_it_was_replaced_by_an_older_one_still_refutes(
    books: Books, states: WatchedStates
) -> None:
    terms = await books.add(terms_of())
    assert set(states.channels()) == {terms.channel}
    old = put_away(books, "old")
    newest = signed(terms.channel, 5, 700, 800)
    await books.store.write([StateRecord(newest, EMPTY, EMPTY)])
    replace(books, old)
    books.store = type(books.store)(books.path, NETWORK, books.failures.append)
    assert states.newest(terms.channel) == (terms.params, newest), "read from what was open, though nobody had asked"
    assert [(n.kind, n.channel) for n in states.news] == [
        ("watch.store_replaced", None),
        ("watch.store_went_back", terms.channel),
    ]
    assert states.newest(terms.channel) == (terms.params, newest)
    assert len(states.news) == 2, "said once"
    again = signed(terms.channel, 6, 600, 900)
    await books.store.write([StateRecord(again, EMPTY, EMPTY)])
    assert states.newest(terms.channel) == (terms.params, again)


async def test_a_log_that_is_taken_away_does_not_leave_the_watch_with_a_dead_one(
    books: Books, states: WatchedStates
) -> None:
    terms = await books.add(terms_of())
    first = states.newest(terms.channel)
    assert first is not None
    books.path.with_name("perund.db-wal").unlink()
    with pytest.raises(StorageFailed):
        await books.store.write([StateRecord(signed(terms.channel, 1, 900, 600), EMPTY, EMPTY)])
    books.reopen()
    newest = signed(terms.channel, 2, 800, 700)
    await books.store.write([StateRecord(newest, EMPTY, EMPTY)])
    assert states.newest(terms.channel) == (terms.params, newest)
    assert [n.kind for n in states.news] == ["watch.store_replaced"]


async def test_a_channel_whose_money_is_out_is_gone_and_one_that_was_lost_has_vanished(
    books: Books, states: WatchedStates
) -> None:
    first, second = await books.add(terms_of(1), 1), await books.add(terms_of(2), 2)
    await close(books, first.channel)
    assert not states.vanished(first.channel)
    assert not states.vanished(second.channel)
    assert states.vanished(terms_of(3).channel)


async def test_a_store_of_before_the_view_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "perund.db"
    apsw.Connection(str(path)).execute("CREATE TABLE about(id INTEGER)")
    states = WatchedStates(path, NETWORK)
    with pytest.raises(StorageFailed, match="start the node once"):
        states.channels()
    states.close()


async def test_a_channel_of_another_network_is_refused(books: Books) -> None:
    await books.add(terms_of())
    states = WatchedStates(books.path, b"\x77" * 32)
    with pytest.raises(WrongNetwork):
        states.channels()
    states.close()


async def test_a_state_that_is_not_signed_by_both_is_said_and_does_not_refute(
    books: Books, states: WatchedStates
) -> None:
    terms = await books.add(terms_of())
    states.examine()
    assert states.damage is None
    known = states.newest(terms.channel)
    other = apsw.Connection(str(books.path))
    other.execute("UPDATE channel_state SET version = 1")
    other.close()
    assert states.newest(terms.channel) == known  # the last that was genuine still refutes
    said = str(states.damage)
    assert "version 1" in said


@pytest.mark.parametrize(
    ("sql", "left"),
    [
        ("UPDATE channel_state SET signature_1 = x'00' WHERE number = 1", 2),
        ("UPDATE channel_state SET allocation_0 = 'many' WHERE number = 1", 2),
        ("UPDATE channel SET nonce = 7 WHERE number = 1", 2),
        ("UPDATE channel SET channel = 7 WHERE number = 1", 1),
        ("UPDATE channel SET challenge_ns = 'long' WHERE number = 1", 1),
    ],
)
async def test_of_a_damaged_store_what_is_in_order_is_watched(books: Books, sql: str, left: int) -> None:
    for number in (1, 2):
        await books.add(terms_of(number), number)
    other = apsw.Connection(str(books.path))
    other.execute(sql)
    other.close()
    states = WatchedStates(books.path, NETWORK)
    states.examine()
    assert states.damage is not None
    assert str(books.path) in states.damage
    assert len(states.channels()) == left
    assert states.newest(terms_of(1).channel) is None
    assert states.newest(terms_of(2).channel) is not None
    states.close()


async def test_it_cannot_write(books: Books, states: WatchedStates) -> None:
    await books.add(terms_of())
    states.channels()
    assert states._database is not None
    with pytest.raises(apsw.ReadOnlyError):
        states._database.execute("DELETE FROM channel")
