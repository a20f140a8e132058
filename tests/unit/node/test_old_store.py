"""A store that perund wrote when its schema was 4 is opened, and its channel goes on.

The two in `tests/vectors/store-schema-4` are not made here: that code wrote them, in the middle of things. Payments of
both were delivered, participant 0 has an update outstanding and a payment queued, participant 1 has one queued.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from perund.recovery.checking import check_store
from perund.store.damage import require_sound_channel
from perund.store.reading import open_reader
from perund.store.schema import MIGRATIONS
from tests.unit.node.test_driver import NOW, Pair
from tests.unit.store.books import KEYS, batch

VECTORS = Path(__file__).parents[2] / "vectors" / "store-schema-4"


def write_old(name: str, directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / "perund.db"
    database = sqlite3.connect(path)
    database.executescript((VECTORS / f"{name}.sql").read_text())
    database.close()
    return path


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    """Both sides, started on what the old code left."""
    made = Pair(tmp_path)
    for side in (made.alice, made.bob):
        side.store.close()
        for path in side.directory.iterdir():
            path.unlink()
        write_old(side.directory.name, side.directory)
        side.start()
        side.take_up()
    yield made
    made.alice.store.close()
    made.bob.store.close()


async def test_what_was_under_way_is_delivered_and_payments_go_on(pair: Pair) -> None:
    for side in (pair.alice, pair.bob):
        row = side.store.read.channel(1)
        assert row is not None
        require_sound_channel(row, side.store.read, KEYS[side.ours].public)
        assert row.memory.counted == row.memory.newest.state.version == 6
        assert side.statuses().count("delivered") == 12, "what was believed stays so"
        assert not row.memory.frozen
    pair.connect()
    await pair.run()
    assert pair.alice.statuses() == pair.bob.statuses() == ["delivered"] * 15
    for payer in (pair.alice, pair.bob):
        payer.driver.pay(batch(90 + payer.ours), None)
        payer.driver.flush()
        await pair.run()
    assert pair.alice.statuses() == pair.bob.statuses() == ["delivered"] * 17
    assert pair.alice.driver.channel.newest == pair.bob.driver.channel.newest
    pair.alice.driver.perform(pair.alice.driver.channel.close(NOW, "asked for"))
    await pair.run()
    assert pair.alice.driver.channel.final == pair.bob.driver.channel.final is not None


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_it_is_read_without_being_changed(name: str, tmp_path: Path) -> None:
    """Who runs `perund check`, `perund backup` or `perund passphrase` before the new node is told of no bad disk."""
    path = write_old(name, tmp_path)
    before = path.read_bytes()
    assert check_store(path) == (1, [])
    read = open_reader(path)
    [row] = read.live_channels()
    assert row.memory.newest.state.version == 6
    assert read.path == path
    assert path.read_bytes() == before
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA user_version").fetchone() == (4,) < (len(MIGRATIONS),)
    database.close()
