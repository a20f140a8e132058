"""A tower that has forgotten says so, and is given everything again: a promise counts while its keeper confirms it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perund.demo.processes import NodeProcess
from perund.store.store import connect
from perund.tower.books import STORE_NAME
from protocol.types import SignedState
from tests.e2e.town import FEE, ICP, LOOK_AGAIN_S, Town, within
from tests.e2e.watchtower import TowerProcess, lag_of, node_with, served, tower_in


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERUND_TOWER_MIN_CHALLENGE_S", "1")
    monkeypatch.setenv("PERUND_WIRE_RECONNECT_MAX_S", "1")


def put_disk(tower: TowerProcess, disk: bytes | None) -> None:
    """Put another store, or none, in the place of a tower's."""
    for suffix in ("", "-wal", "-shm"):
        (tower.dir / f"{STORE_NAME}{suffix}").unlink(missing_ok=True)
    if disk is not None:
        (tower.dir / STORE_NAME).write_bytes(disk)


def copy_of(tower: TowerProcess, directory: Path) -> bytes:
    store, target = connect(tower.dir / STORE_NAME), directory / "copy-of-tower.db"
    store.execute("VACUUM INTO ?", (str(target),))
    store.close()
    return target.read_bytes()


async def confirmed(node: NodeProcess, tower: TowerProcess) -> None:
    """Return when the node says that the tower has everything."""

    async def wait() -> None:
        while (lag := await lag_of(node, tower.address))["channels_behind"] or not lag["connected"]:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_AGAIN_S)

    await within(wait(), "nothing behind")


async def registers_in_vain(town: Town, alice: NodeProcess, channel: str, old: SignedState, newest: int) -> None:
    """Alice, who has paid, registers what she had before, and nobody is there but the tower."""
    assert (await town.perun.dispute(town.row(alice, channel).terms.params, old)).value is None

    async def refuted() -> None:
        while await town.registered_version(channel) != newest:  # noqa: ASYNC110  (it happens in another process)
            await asyncio.sleep(LOOK_AGAIN_S)

    await within(refuted(), f"version {newest} registered")


@pytest.mark.parametrize("proposer", ["alice", "bob"])
async def test_a_tower_whose_store_was_deleted_refutes_all_the_same(town: Town, proposer: str) -> None:
    tower = await tower_in(town)
    alice, bob = await town.node("alice"), await node_with(town, "bob", tower.address)
    first, second = (alice, bob) if proposer == "alice" else (bob, alice)
    channel = await town.open(first, second, 50, challenge_s=30)
    old = town.newest(alice, channel)
    await town.pay(first, channel, 6 * ICP)
    await served(town, bob, tower, channel)
    await confirmed(bob, tower)

    await tower.kill()
    put_disk(tower, None)
    assert (await lag_of(bob, tower.address))["channels_behind"] == 1, "who is gone confirms nothing"
    await tower.start()
    forgot = await town.event(bob, "tower.forgot")
    assert (forgot.data["channels"], forgot.data["store"], forgot.data["alarm"]) == (1, "another store", True)
    await confirmed(bob, tower)
    newest = await served(town, bob, tower, channel)

    await asyncio.gather(alice.kill(), bob.kill())
    await registers_in_vain(town, alice, channel, old, newest)
    await town.devnet.advance(31)
    await asyncio.gather(alice.start(), bob.start())
    await town.settles(channel, alice, bob)


@pytest.mark.parametrize("connected", [True, False], ids=["while the client is there", "while it is not"])
async def test_an_older_copy_of_the_towers_store_is_brought_up_to_date(
    town: Town, tmp_path: Path, connected: bool
) -> None:
    tower = await tower_in(town)
    alice, bob = await town.node("alice"), await node_with(town, "bob", tower.address)
    channel = await town.open(alice, bob, 50, challenge_s=30)
    quiet = await town.open(alice, bob, 20, challenge_s=30)
    await served(town, bob, tower, channel)
    await served(town, bob, tower, quiet)
    copy, old = copy_of(tower, tmp_path), town.newest(alice, channel)
    await town.pay(alice, channel, 6 * ICP)
    await served(town, bob, tower, channel)
    await confirmed(bob, tower)

    if not connected:
        await bob.stop()
    await tower.kill()
    put_disk(tower, copy)
    await tower.start()
    if not connected:
        assert tower.versions(channel) == [0]
        await bob.start()
    forgot = (await town.event(bob, "tower.forgot")).data
    assert (forgot["channels"], forgot["store"]) == (1, "an older copy")
    await confirmed(bob, tower)
    assert await served(town, bob, tower, channel) == 1

    await asyncio.gather(alice.kill(), bob.kill())
    await registers_in_vain(town, alice, channel, old, 1)
    await town.devnet.advance(31)
    await asyncio.gather(alice.start(), bob.start())
    assert (await town.closed(bob, channel)).payout_e8s == 6 * ICP - FEE


async def test_a_tower_that_restarts_in_the_middle_of_a_delivery(town: Town) -> None:
    tower = await tower_in(town)
    alice, bob = await town.node("alice"), await node_with(town, "bob", tower.address)
    channels = [await town.open(alice, bob, 5, challenge_s=30) for _ in range(3)]
    for _ in range(3):
        for channel in channels:
            await town.pay(alice, channel, ICP // 10)
        await tower.kill()
        await tower.start()
    await confirmed(bob, tower)
    for channel in channels:
        assert tower.versions(channel) == [3]
    kinds = [row.kind for row in town.reader(bob).events(0, 100_000)]
    assert "tower.forgot" not in kinds
