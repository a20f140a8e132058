"""A node whose disk is lost gets its newest states from its watchtower when the peer does not show them (rule 7)."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from perund.control.errors import RpcError
from perund.demo.processes import NodeProcess
from perund.node.daemon import STORE_NAME
from perund.store.store import connect
from perund.tower.books import STORE_NAME as TOWER_STORE_NAME
from protocol.messages import ErrorMessage, TowerRecall
from protocol.types import ChannelId
from tests.e2e.peer import Peer
from tests.e2e.shell import perund
from tests.e2e.test_recovery import restored
from tests.e2e.town import FEE, ICP, Town
from tests.e2e.watchtower import TowerProcess, node_with, served, tower_in


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERUND_TOWER_MIN_CHALLENGE_S", "1")
    monkeypatch.setenv("PERUND_WIRE_RECONNECT_MAX_S", "1")


async def paid_and_guarded(town: Town) -> tuple[NodeProcess, NodeProcess, TowerProcess, str]:
    """Alice, bob, bob's tower and their channel at version 4: bob has 20 ICP of 50, and had 3, 10 and 18 before."""
    tower = await tower_in(town)
    alice, bob = await town.node("alice"), await node_with(town, "bob", tower.address)
    channel = await town.open(alice, bob, 50, challenge_s=30)
    for amount in (3, 7, 8, 2):
        await town.pay(alice, channel, amount * ICP)
    assert await served(town, bob, tower, channel) == 4
    return alice, bob, tower, channel


async def came_back(town: Town, node: NodeProcess, channel: str) -> None:
    """Return when the newest state is on the disk of a node that had lost it."""
    adopted = await town.event(node, "channel.adopted", channel)
    assert (adopted.data["version"], adopted.data["had"], adopted.data["from"]) == (4, 0, "a watchtower")
    newest = town.newest(node, channel).state
    assert (newest.version, newest.allocation) == (4, (30 * ICP, 20 * ICP))


def copy_unmarked(node: NodeProcess, target: Path) -> None:
    """Copy a store behind the node's back: what `perund backup --store` marks, this does not."""
    store = connect(node.dir / STORE_NAME)
    store.execute("VACUUM INTO ?", (str(target),))
    store.close()


def put_back(town: Town, node: NodeProcess, copy: Path) -> None:
    """Put an old copy of a store in the place of the store: what nobody should do."""
    town._readers.pop(node.name, None)
    for suffix in ("-wal", "-shm"):
        (node.dir / f"{STORE_NAME}{suffix}").unlink(missing_ok=True)
    shutil.copy(copy, node.dir / STORE_NAME)


async def refused_without_the_risk(node: NodeProcess, channel: str) -> None:
    with pytest.raises(RpcError) as refused:
        await node.control.call("channel.dispute", {"channel": channel})
    assert refused.value.name == "channel_recovering"


async def test_the_peer_is_gone_and_the_tower_has_the_newest_state(town: Town, tmp_path: Path) -> None:
    alice, bob, _, channel = await paid_and_guarded(town)
    await asyncio.gather(alice.kill(), bob.kill())

    again = await restored(bob, tmp_path)
    await came_back(town, again, channel)

    view = await town.view(again, channel)
    assert (view.recovering, view.phase, view.registered) == (True, "closing", None)
    await refused_without_the_risk(again, channel)
    assert await town.registered_version(channel) is None
    checked = await perund("check", "--dir", str(again.dir), "--json")
    assert (checked.code, checked.json["findings"]) == (0, [])
    await again.control.call("channel.dispute", {"channel": channel, "accept_risk": True})
    await town.until(again, channel, lambda c: c.registered is not None and c.registered.ours, "version 4 registered")
    assert await town.registered_version(channel) == 4
    await town.devnet.advance(31)
    assert (await town.closed(again, channel)).payout_e8s == 20 * ICP - FEE
    assert await town.balance(bob) == 320 * ICP - FEE
    await again.stop()
    await alice.start()
    view = await town.closed(alice, channel)
    assert view.payout_e8s == 30 * ICP - FEE


async def test_the_peer_registers_an_old_state_and_is_refuted_with_what_came_back(town: Town, tmp_path: Path) -> None:
    tower = await tower_in(town)
    alice, bob = await town.node("alice"), await node_with(town, "bob", tower.address)
    channel = await town.open(alice, bob, 50, challenge_s=30)
    await town.pay(alice, channel, 3 * ICP)
    old, params = town.newest(alice, channel), town.row(alice, channel).terms.params
    for amount in (7, 8, 2):
        await town.pay(alice, channel, amount * ICP)
    assert await served(town, bob, tower, channel) == 4
    await asyncio.gather(alice.kill(), bob.kill())

    again = await restored(bob, tmp_path)
    await came_back(town, again, channel)
    await tower.kill()  # the tower has given back what it has: the node is on its own
    assert (await town.perun.dispute(params, old)).value is None

    refuted = await town.event(again, "channel.refuted", channel)
    assert refuted.data["version"] == 4
    assert await town.registered_version(channel) == 4
    await town.devnet.advance(31)
    assert (await town.closed(again, channel)).payout_e8s == 20 * ICP - FEE
    await again.stop()
    await tower.start()


async def test_an_old_state_is_registered_before_the_tower_can_be_asked(town: Town, tmp_path: Path) -> None:
    """The node learns first that it lost data, from the canister, and then what: it refutes at once."""
    alice, bob, tower, channel = await paid_and_guarded(town)
    town.row(alice, channel)
    await asyncio.gather(alice.kill(), bob.kill(), tower.kill())
    again = await restored(bob, tmp_path)
    state_0 = town.newest(again, channel)
    assert state_0.state.version == 0
    await town.register(again, channel, state_0)
    view = await town.until(again, channel, lambda c: c.registered is not None, "seen")
    assert (view.version, view.phase, view.recovering) == (0, "leaving", True)

    books = connect(tower.dir / TOWER_STORE_NAME)
    books.execute("UPDATE slot SET proven = 0")  # so that it is the node that refutes: the tower has to look first
    books.close()
    await tower.start()
    await town.until(again, channel, lambda c: c.version == 4 and c.registered is not None and c.registered.ours, "4")
    await town.devnet.advance(31)
    assert (await town.closed(again, channel)).payout_e8s == 20 * ICP - FEE
    await again.stop()


async def test_with_its_peer_it_closes_far_above_what_came_back(town: Town, tmp_path: Path) -> None:
    alice, bob, tower, channel = await paid_and_guarded(town)
    await asyncio.gather(alice.kill(), bob.kill())
    again = await restored(bob, tmp_path)
    await came_back(town, again, channel)

    await alice.start()

    view = await town.closed(again, channel)
    assert (view.version, view.payout_e8s) == (2**32, 20 * ICP - FEE)
    assert (await town.closed(alice, channel)).payout_e8s == 30 * ICP - FEE
    await again.stop()
    await tower.until(lambda: not tower.status().slots or tower.status().settled == 1, "settled or forgotten")


async def test_a_peer_that_hides_the_newest_state_gains_nothing(town: Town, tmp_path: Path) -> None:
    """Alice runs on an old copy of her store: what she shows is signed by both, and better for her."""
    tower = await tower_in(town)
    alice, bob = await town.node("alice"), await node_with(town, "bob", tower.address)
    channel = await town.open(alice, bob, 50, challenge_s=30)
    await town.pay(alice, channel, 3 * ICP)
    copy_unmarked(alice, tmp_path / "old.db")
    for amount in (7, 8, 2):
        await town.pay(alice, channel, amount * ICP)
    assert await served(town, bob, tower, channel) == 4
    await asyncio.gather(alice.stop(), bob.kill(), tower.kill())
    put_back(town, alice, tmp_path / "old.db")
    await alice.start()

    again = await restored(bob, tmp_path)
    await town.until(again, channel, lambda c: c.version == 1 and c.phase == "closing", "what she shows is taken")
    assert town.row(again, channel).memory.last_signature is not None
    await tower.start()

    view = await town.closed(again, channel)
    assert (view.version, view.payout_e8s) == (2**32, 20 * ICP - FEE)
    assert (await town.closed(alice, channel)).payout_e8s == 30 * ICP - FEE
    await again.stop()


async def test_a_store_that_was_put_back_by_hand_is_found_out_by_the_towers_receipt(town: Town, tmp_path: Path) -> None:
    tower = await tower_in(town)
    alice, bob = await town.node("alice"), await node_with(town, "bob", tower.address)
    channel = await town.open(alice, bob, 50, challenge_s=30)
    copy_unmarked(bob, tmp_path / "old.db")
    for amount in (3, 7, 8, 2):
        await town.pay(alice, channel, amount * ICP)
    assert await served(town, bob, tower, channel) == 4
    await asyncio.gather(alice.kill(), bob.stop())
    put_back(town, bob, tmp_path / "old.db")
    old = connect(bob.dir / STORE_NAME)
    old.execute("DELETE FROM tower_receipt")  # so that it has something to bring, as after a renewal
    old.close()

    await bob.start()
    claimed = await town.event(bob, "tower.claims_newer", channel)
    assert (claimed.data["theirs"], claimed.data["ours"], claimed.data["alarm"]) == (4, 0, True)
    await came_back(town, bob, channel)
    frozen = await town.event(bob, "channel.frozen", channel)
    assert (frozen.data["code"], frozen.data["alarm"]) == ("data_loss", True)
    assert "came from a watchtower" in str(frozen.data["text"])
    await refused_without_the_risk(bob, channel)
    await alice.start()
    assert (await town.closed(bob, channel)).payout_e8s == 20 * ICP - FEE


async def test_a_tower_that_cannot_write_gives_back_what_it_has(town: Town, tmp_path: Path) -> None:
    alice, bob, tower, channel = await paid_and_guarded(town)
    old, params = town.row(alice, channel).terms.state_0(), town.row(alice, channel).terms.params
    await asyncio.gather(alice.kill(), bob.kill())
    books = connect(tower.dir / TOWER_STORE_NAME)
    books.execute("DROP TABLE note")  # the next thing that it has to say cannot be written
    books.close()
    again = await restored(bob, tmp_path)
    await came_back(town, again, channel)
    state_0 = town.reader(again).signatures_0(town.row(again, channel).number)
    await again.kill()
    assert (await town.perun.dispute(params, type(town.newest(alice, channel))(old, state_0))).value is None
    await tower.until(lambda: "tower.guards_only" in tower.log.read_text(), "said so")

    shutil.rmtree(again.dir)
    town._readers.pop(again.name)
    again = await restored(bob, tmp_path)
    await town.until(again, channel, lambda c: c.version == 4, "version 4 is back once more")
    await town.devnet.advance(31)
    assert (await town.closed(again, channel)).payout_e8s == 20 * ICP - FEE
    await again.stop()
    assert await tower.stop() == 1


async def test_a_node_that_is_no_tower_says_so(town: Town) -> None:
    alice = await town.node("alice", icp=0)
    peer = Peer(town.devnet)
    await peer.dial(alice)
    peer.session.send(TowerRecall(ChannelId(bytes(64))))
    await peer.hear(ErrorMessage, "not_a_tower")
    await peer.close()
