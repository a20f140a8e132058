"""Watchtowers as processes: they refute for nodes that are down, keep what they took, and are believed in nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from chain.perun import CanisterError
from perund.demo.processes import NodeProcess
from perund.store.store import connect
from perund.tower.books import STORE_NAME
from protocol.messages import ErrorMessage, Hello, TowerReceipt, TowerState
from protocol.types import Nanos, Params, ParticipantKey, SignedState
from tests.e2e.peer import Peer
from tests.e2e.shell import perund
from tests.e2e.town import ICP, LOOK_AGAIN_S, Town, within
from tests.e2e.watchtower import (
    PlayedTower,
    TowerProcess,
    keys_of,
    lag_of,
    network_of,
    node_with,
    served,
    tower_in,
)
from wire.network import PeerNetwork

DAY_S = 86_400


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERUND_TOWER_MIN_CHALLENGE_S", "1")
    monkeypatch.setenv("PERUND_WIRE_RECONNECT_MAX_S", "1")


async def registered(town: Town, channel: str, version: int) -> None:
    """Return when the canister has this version."""

    async def wait() -> None:
        while await town.registered_version(channel) != version:  # noqa: ASYNC110  (it happens in other processes)
            await asyncio.sleep(LOOK_AGAIN_S)

    await within(wait(), f"version {version} registered")


def holds_no_secret(found: bytes, node: NodeProcess, share: bytes) -> None:
    """Check that nothing of a node's secrets is in these bytes, neither raw nor in hex."""
    keys = keys_of(node)
    secrets = {
        "node key": keys.node_key.secret,
        "wallet": keys.wallet_seed,
        "backup key": keys.backup_key,
        "participant key": keys.participant_seed(share),
        "share": share,
        "entropy": keys._entropy,
        "phrase": keys.phrase.encode(),
    }
    for name, secret in secrets.items():
        assert secret not in found, name
        assert secret.hex().encode() not in found.lower(), name


async def test_the_tower_alone_is_up_after_it_was_killed_itself(town: Town) -> None:
    tower, listener = await tower_in(town), await PlayedTower(town).open()
    alice, bob = await town.node("alice"), await node_with(town, "bob", tower.address, listener.address)
    channel = await town.open(alice, bob, 50, challenge_s=30)
    old = [town.newest(alice, channel)]
    for _ in range(3):
        await town.pay(alice, channel, 5 * ICP)
        old.append(town.newest(alice, channel))
    assert await served(town, bob, tower, channel) == 3
    row = town.row(alice, channel)
    params, share = row.terms.params, row.terms.peer_share
    await asyncio.gather(alice.kill(), bob.kill(), tower.kill())
    assert (await town.perun.dispute(params, old[0])).value is None
    assert (await town.perun.dispute(params, old[1])).value is None

    await tower.start()

    await registered(town, channel, 3)
    await tower.until(lambda: "tower.refuted" in [note.kind for note in tower.status().notes], "told")
    for signed in old[:-1]:
        assert (await town.perun.dispute(params, signed)).value is CanisterError.OUTDATED_STATE
    disk = b"".join(path.read_bytes() for path in tower.dir.iterdir() if path.is_file())
    assert bytes.fromhex(channel) in disk
    holds_no_secret(disk + tower.log.read_bytes(), bob, share)
    assert isinstance(listener.heard[-1], TowerState)
    assert listener.heard[-1].version == 3
    holds_no_secret(listener.bytes_heard(), bob, share)
    await listener.network.close()

    await town.devnet.advance(31)
    await tower.until(lambda: tower.status().settled == 1, "seen settled")
    shown = await perund("watchtower", "--status", "--json", "--dir", str(tower.dir))
    assert (shown.json["channels"], shown.json["settled"]) == (1, 1)
    assert "tower.refuted" in (await perund("watchtower", "--status", "--dir", str(tower.dir))).out
    await asyncio.gather(alice.start(), bob.start())
    await town.settles(channel, alice, bob)
    assert await town.balance(bob) == 315 * ICP - 10_000


async def test_two_towers_and_the_node_race(town: Town) -> None:
    towers = [await tower_in(town, name) for name in ("tower", "other-tower")]
    alice, bob = await town.node("alice"), await node_with(town, "bob", *(tower.address for tower in towers))
    channel = await town.open(alice, bob, 50, challenge_s=20)
    old: list[SignedState] = [town.newest(alice, channel)]
    for _ in range(4):
        await town.pay(alice, channel, ICP)
        old.append(town.newest(alice, channel))
    newest = old.pop()
    for tower in towers:
        assert await served(town, bob, tower, channel) == 4
    params = town.row(alice, channel).terms.params
    await alice.kill()

    for signed in old:
        assert (await town.perun.dispute(params, signed)).value in (None, CanisterError.OUTDATED_STATE)
    await registered(town, channel, newest.state.version)

    for signed in old:
        assert (await town.perun.dispute(params, signed)).value is CanisterError.OUTDATED_STATE
    view = await town.until(bob, channel, lambda c: c.registered is not None and c.registered.ours, "its own seen")
    assert view.phase == "leaving"
    await town.devnet.advance(21)
    assert (await town.closed(bob, channel)).payout_e8s == 4 * ICP - 10_000
    for tower in towers:
        await tower.until(lambda t=tower: not t.status().slots or t.status().settled == 1, "settled")  # type: ignore[misc]
    await alice.start()
    await town.settles(channel, alice, bob)


async def replay(
    town: Town, node: NodeProcess, tower: TowerProcess, params: Params, signed: SignedState
) -> TowerReceipt:
    """Bring a state to a tower in the name of a node that is down."""
    heard: asyncio.Future[TowerReceipt] = asyncio.get_running_loop().create_future()

    class Client(PlayedTower):
        def received(self, session: object, message: object) -> None:
            assert isinstance(message, TowerReceipt)
            heard.set_result(message)

    network = PeerNetwork(keys_of(node).node_key, Hello(1, network_of(town), 0, "a thief", 1), Client(town))
    node_id, _, place = tower.address.partition("@")
    host, _, port = place.rpartition(":")
    session = await network.dial(bytes.fromhex(node_id), host, int(port))
    state = signed.state
    session.send(
        TowerState(
            params.nonce, *params.participants, params.challenge_duration_ns, state.version, state.allocation,
            state.finalized, *signed.signatures,
        )
    )  # fmt: skip
    receipt = await within(heard, "an answer")
    await network.close()
    return receipt


async def test_a_tower_that_was_away_gets_the_newest_and_keeps_it(town: Town) -> None:
    tower = await tower_in(town)
    liar = await PlayedTower(town, lambda honest: replace(honest, version=honest.version + 1)).open()
    alice, bob = await town.node("alice"), await node_with(town, "bob", tower.address, liar.address)
    channel = await town.open(alice, bob, 50, challenge_s=30)
    await served(town, bob, tower, channel)
    params, first = town.row(bob, channel).terms.params, town.newest(bob, channel)

    # One tower answers nonsense: it is told, and nothing more is said to it.
    dropped = await town.event(bob, "tower.dropped")
    assert (dropped.data["tower"], dropped.data["alarm"]) == (liar.network.node_id.hex(), True)
    assert "not signed" in (await lag_of(bob, liar.address))["dropped"]
    assert len(liar.heard) == 1

    # The other one is away: payments go on, and only how far it is behind grows.
    await tower.kill()
    for _ in range(4):
        await town.pay(alice, channel, ICP)
    lag = await lag_of(bob, tower.address)
    assert (lag["channels_behind"], lag["connected"], lag.get("dropped")) == (1, False, None)
    assert lag["oldest_undelivered_s"] > 0
    await tower.start()
    assert await served(town, bob, tower, channel) == 4
    assert tower.versions(channel) == [4]
    assert len(liar.heard) == 1
    await liar.network.close()

    # Half of the receipt's time goes by: it is renewed without anything new to guard.
    before = tower.expiries(channel)
    await town.devnet.advance(20 * DAY_S)
    await tower.until(lambda: tower.expiries(channel) > before, "a new promise")
    assert tower.versions(channel) == [4]

    # Somebody with bob's key brings an old state: the tower keeps what it has.
    await bob.stop()
    receipt = await replay(town, bob, tower, params, first)
    assert receipt.version == 4
    assert tower.versions(channel) == [4]

    # A node that starts again brings nothing that its receipts cover.
    await bob.start()
    await town.close(bob, channel)
    await tower.until(lambda: not tower.status().slots or tower.status().settled == 1, "settled or forgotten")


async def test_a_tower_that_cannot_write_still_refutes(town: Town) -> None:
    tower = await tower_in(town)
    alice, bob = await town.node("alice"), await node_with(town, "bob", tower.address)
    channel = await town.open(alice, bob, 50, challenge_s=30)
    old = town.newest(alice, channel)
    await town.pay(alice, channel, 5 * ICP)
    await served(town, bob, tower, channel)
    params = town.row(alice, channel).terms.params
    await asyncio.gather(alice.kill(), bob.kill())
    books = connect(tower.dir / STORE_NAME)
    books.execute("DROP TABLE note")  # the next thing that it has to say cannot be written
    books.close()

    assert (await town.perun.dispute(params, old)).value is None

    await registered(town, channel, 1)
    await tower.until(lambda: "tower.guards_only" in tower.log.read_text(), "said so")
    assert tower.returncode is None
    assert await tower.stop() == 1
    await town.devnet.advance(31)
    await asyncio.gather(alice.start(), bob.start())
    await town.settles(channel, alice, bob)


async def test_a_node_is_no_tower(town: Town) -> None:
    alice = await town.node("alice", icp=0)
    bob = await node_with(town, "bob", alice.address)

    async def found_out() -> None:
        while "no watchtower" not in ((await lag_of(bob, alice.address)).get("problem") or ""):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_AGAIN_S)

    await within(found_out(), "it is found out")
    peer = Peer(town.devnet)
    await peer.dial(alice)
    keys = (ParticipantKey(bytes(32)), ParticipantKey(b"\x01" * 32))
    peer.session.send(TowerState(bytes(64), *keys, Nanos(10**12), 0, (1, 1), False, bytes(64), bytes(64)))
    await peer.hear(ErrorMessage, "not_a_tower")
    await peer.close()
    result = await perund("watchtower", "--status", "--dir", str(alice.dir))
    assert result.code == 1
    assert "no watchtower has run" in result.err
