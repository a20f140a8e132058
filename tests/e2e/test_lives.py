"""Two copies of one node: the older one stops signing, and a tower or a peer is who tells it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from pathlib import Path

import pytest
from coincurve import PrivateKey

from perund.config import FILE_NAME
from perund.control import schema
from perund.control.errors import RpcError
from perund.demo.processes import NodeProcess
from perund.node.daemon import STORE_NAME
from perund.store.store import connect
from protocol.lives import sign_life
from protocol.messages import ErrorMessage, LifeHeard, LifeStopped
from tests.e2e.peer import Peer
from tests.e2e.test_recovery import restored
from tests.e2e.town import FEE, ICP, LOOK_AGAIN_S, Town, free_port, within
from tests.e2e.watchtower import network_of, node_with, served, tower_in


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERUND_TOWER_MIN_CHALLENGE_S", "1")
    monkeypatch.setenv("PERUND_WIRE_RECONNECT_MAX_S", "1")


def lives(event: schema.Event) -> tuple[int, int]:
    """Return which life told, and of which other one."""
    life, other = event.data["life"], event.data["other"]
    assert isinstance(life, int)
    assert isinstance(other, int)
    return life, other


def copied(town: Town, node: NodeProcess, name: str = "double") -> NodeProcess:
    """The data directory of a node once more, as `cp -r` makes it, with a port of its own."""
    double = NodeProcess(town.directory, name)
    store = connect(node.dir / STORE_NAME)  # a copy of files that change meanwhile is no copy: this is a clean one
    store.pragma("wal_checkpoint(TRUNCATE)")
    store.close()
    shutil.copytree(node.dir, double.dir, ignore=shutil.ignore_patterns("*.sock", "*.log"))
    path = double.dir / FILE_NAME
    text, count = re.subn(r"(?m)^listen = .*$", f'listen = "127.0.0.1:{free_port()}"', path.read_text())
    assert count == 1
    path.write_text(text)
    town.nodes[name] = double
    return double


async def meets(node: NodeProcess, peer: NodeProcess) -> None:
    """A node dials a peer. It may be turned away at once, so it may have to be tried twice."""
    for _ in range(2):
        try:
            await within(node.control.call("peer.connect", {"peer": peer.address}), "connected")
        except RpcError:
            await asyncio.sleep(LOOK_AGAIN_S)
        else:
            return


async def lives_again(node: NodeProcess, peer: NodeProcess) -> None:
    """A node is stopped, begins its next life and tells a peer."""
    await node.stop()
    await node.start()
    await meets(node, peer)


async def has_stopped(town: Town, node: NodeProcess, peer: NodeProcess | None = None) -> schema.Event:
    """Return the event with which a node stopped signing. `peer`: who is to tell it, dialed until it did."""

    async def meeting() -> None:
        while peer is not None:
            await meets(node, peer)
            await asyncio.sleep(0.2)

    dialing = asyncio.get_running_loop().create_task(meeting())
    try:
        return await town.event(node, "node.stopped_signing")
    finally:
        dialing.cancel()
        await asyncio.gather(dialing, return_exceptions=True)


async def signs_nothing(town: Town, node: NodeProcess, channel: str, peer: NodeProcess) -> None:
    """Check everything that could have it sign."""
    with pytest.raises(RpcError) as refused:
        await town.pay(node, channel, ICP)
    assert refused.value.name == "channel_frozen"
    with pytest.raises(RpcError) as refused:
        await town.propose(node, peer, 5)
    assert refused.value.name == "stopped_signing"
    assert "--take-over" in refused.value.message
    health = await node.control.call("node.health")
    [problem] = [problem for problem in health["problems"] if problem["code"] == "stopped_signing"]
    assert "--take-over" in problem["message"]
    assert town.row(node, channel).memory.frozen.startswith("data_loss")


@pytest.mark.parametrize("proposer", ["alice", "bob"])
async def test_an_old_copy_beside_the_original_stops_and_the_original_goes_on(town: Town, proposer: str) -> None:
    """In both roles: the copied node is bob, who is participant 1 or 0."""
    alice, bob = await town.pair()
    first, second = (alice, bob) if proposer == "alice" else (bob, alice)
    channel = await town.open(first, second, 50)
    await town.pay(first, channel, 20 * ICP)
    await bob.stop()
    double = copied(town, bob)
    for _ in range(3):
        await lives_again(bob, alice)
        await town.pay(bob, channel, ICP)
    before = town.newest(bob, channel).state.version

    await double.start()
    stopped = await has_stopped(town, double, alice)
    assert stopped.data["alarm"] is True
    assert lives(stopped)[0] < lives(stopped)[1]
    signed = town.row(double, channel).memory.last_signature
    await signs_nothing(town, double, channel, alice)

    await meets(bob, alice)
    await town.pay(bob, channel, 2 * ICP)
    older = await town.event(bob, "node.older_life")
    assert lives(older) == lives(stopped)[::-1]
    assert town.newest(bob, channel).state.version == before + 1
    assert town.row(double, channel).memory.last_signature == signed

    # It stays stopped over a restart, whatever starts it, and takes no session from the other one.
    await double.stop()
    await double.start()
    await signs_nothing(town, double, channel, alice)
    await double.stop()
    await town.close(bob, channel)
    await town.settles(channel, alice, bob)


async def test_who_waits_on_a_copy_that_stops_is_told_so(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(bob, alice, 50)
    await bob.stop()
    double = copied(town, bob)
    for _ in range(3):
        await lives_again(bob, alice)
    await town.pay(bob, channel, ICP)
    await alice.stop()
    await double.start()
    waiting = asyncio.ensure_future(town.pay(double, channel, ICP))
    while not [p for p in await town.payments(double, channel) if p.status == "queued"]:  # noqa: ASYNC110
        await asyncio.sleep(LOOK_AGAIN_S)
    await alice.start()
    await has_stopped(town, double, alice)
    with pytest.raises(RpcError, match="another copy of this node runs") as told:
        await waiting
    assert told.value.name == "outcome_unknown"
    await double.stop()
    await meets(bob, alice)
    await town.close(bob, channel)
    await town.settles(channel, alice, bob)


async def test_two_that_start_from_one_store_both_stop_until_their_operator_chooses(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await town.pay(alice, channel, 20 * ICP)
    await bob.stop()
    double = copied(town, bob)
    await asyncio.gather(bob.start(), double.start())
    await meets(bob, alice)
    with contextlib.suppress(RpcError):  # they dial alice by themselves, and may have heard of each other already
        await town.pay(bob, channel, ICP)

    stopped = await has_stopped(town, double, alice)
    assert lives(stopped)[0] == lives(stopped)[1]
    await has_stopped(town, bob, alice)
    for node in (bob, double):
        await signs_nothing(town, node, channel, alice)

    await asyncio.gather(bob.stop(), double.stop())
    await bob.start("--take-over")
    await meets(bob, alice)
    other = await town.open(bob, alice, 10)
    await town.pay(bob, other, ICP)
    await town.close(bob, other)
    # Which of them has what was signed last, nobody can tell: the channel of before is not updated any more.
    assert town.row(bob, channel).memory.frozen.startswith("data_loss")


async def test_the_original_stops_when_a_copy_of_it_is_newer(town: Town) -> None:
    """Copied while it runs: the copy's life is above the one that runs on."""
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await town.pay(alice, channel, 20 * ICP)
    double = copied(town, bob)
    await double.start()
    await meets(double, alice)
    await town.pay(double, channel, ICP)

    await has_stopped(town, bob, alice)
    await signs_nothing(town, bob, channel, alice)
    await meets(double, alice)
    await town.pay(double, channel, ICP)
    assert (await town.event(double, "node.older_life")).data["alarm"] is True
    await bob.stop()
    await town.close(double, channel)
    assert (await town.closed(double, channel)).payout_e8s == 18 * ICP - FEE


async def test_a_tower_tells_them_when_no_peer_is_there(town: Town) -> None:
    tower = await tower_in(town)
    alice, bob = await town.node("alice"), await node_with(town, "bob", tower.address)
    channel = await town.open(alice, bob, 50, challenge_s=30)
    await town.pay(alice, channel, 20 * ICP)
    await served(town, bob, tower, channel)
    await alice.stop()
    await bob.stop()
    double = copied(town, bob)
    await bob.start()
    await bob.stop()
    await bob.start()  # its life is above the copy's

    await double.start()
    stopped = await has_stopped(town, double)
    assert stopped.data["peer"] == tower.address.partition("@")[0]
    await town.event(bob, "node.older_life")
    await tower.kill()
    await tower.start()  # what it heard is on its disk
    again = copied(town, bob, "again")
    old = connect(again.dir / STORE_NAME)
    old.execute("DROP TRIGGER a_life_number_only_rises")
    old.execute("UPDATE own_life SET number = 1")
    old.close()
    await again.start()
    await has_stopped(town, again)


async def test_a_crash_with_a_session_half_open_is_no_such_case(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    for _ in range(3):
        await bob.kill()  # alice may not have noticed when it is back
        await bob.start()
        await meets(bob, alice)
        await town.pay(alice, channel, 2 * ICP)
        await town.pay(bob, channel, ICP)
    for node in (alice, bob):
        assert "node.stopped_signing" not in [row.kind for row in town.reader(node).events(0, 100_000)]
    await town.close(bob, channel)
    await town.settles(channel, alice, bob)


async def test_a_restored_node_outlives_the_one_that_it_was(
    town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await town.pay(alice, channel, 20 * ICP)
    monkeypatch.setenv("PERUND_WIRE_LISTEN", f"127.0.0.1:{free_port()}")
    again = await restored(bob, tmp_path)  # bob runs on, on the machine that was thought lost
    await meets(again, alice)
    await has_stopped(town, bob, alice)
    await bob.stop()
    view = await town.closed(again, channel)
    assert view.payout_e8s == 20 * ICP - FEE
    await again.stop()


async def test_a_peer_that_lies_about_lives_stops_nobody(town: Town) -> None:
    """Only the node's own key stops it: a peer that has heard of no other life has nothing to show."""
    alice = await town.node("alice", icp=0)
    peer = Peer(town.devnet)
    key = PrivateKey()
    forged = sign_life(key, network_of(town), 2**62, bytes(32))
    lies = (
        LifeHeard(2**63 - 1, bytes(32), bytes(64)),
        LifeHeard(forged.number, forged.nonce, forged.signature),
        LifeStopped(1, bytes(32), 2**62, bytes(32), bytes(64)),
        forged,
    )
    for lie in lies:
        await peer.dial(alice)
        peer.session.send(lie)
        await peer.hear(ErrorMessage, "bad_life")
        await peer.session.closed()
    await peer.close()
    health = await alice.control.call("node.health")
    assert not [p for p in health["problems"] if p["code"] in ("stopped_signing", "older_life")]
    assert "node.stopped_signing" not in [row.kind for row in town.reader(alice).events(0, 100_000)]
    assert town.reader(alice).heard_life(peer.network.node_id) is None
