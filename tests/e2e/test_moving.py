"""Nodes that move find each other again, without any operator; and what a peer says of itself is only that."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable

import pytest
from coincurve import PrivateKey

from perund.config import FILE_NAME
from perund.control import schema
from perund.control.methods import NODE_INFO, PEER_CONNECT, PEER_LIST
from perund.demo.processes import NodeProcess
from protocol.messages import FEATURE_ADDRESSES, Addresses, Hello, PeerMessage
from tests.e2e.peer import Peer
from tests.e2e.town import ICP, LOOK_AGAIN_S, Town, free_port, within
from wire.network import PeerNetwork
from wire.session import Session

LOCAL = "127.0.0.1"


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERUND_WIRE_RECONNECT_MAX_S", "1")


def configure(node: NodeProcess, key: str, value: str) -> None:
    """Write a key of its configuration, as its operator does."""
    path = node.dir / FILE_NAME
    text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", path.read_text())
    assert count == 1
    path.write_text(text)


def move(node: NodeProcess, port: int | None = None) -> None:
    """Have it listen elsewhere from its next start on: nobody answers at its old address then."""
    configure(node, "listen", f'"{LOCAL}:{port or free_port()}"')


async def known(node: NodeProcess, peer: str) -> dict[str, schema.PeerPlace]:
    """Return where a node dials a peer, by address."""
    peers = (await node.control.call(PEER_LIST, schema.NoParams())).peers
    return {place.address: place for one in peers if one.node_id == peer for place in one.addresses}


async def connected(node: NodeProcess, peer: NodeProcess) -> None:
    """Return when they are."""

    async def look() -> None:
        while True:
            peers = (await node.control.call(PEER_LIST, schema.NoParams())).peers
            if any(one.connected for one in peers if one.node_id == peer.info.node_id):
                return
            await asyncio.sleep(LOOK_AGAIN_S)

    await within(look(), f"{node.name} is connected with {peer.name}")


async def knows(node: NodeProcess, peer: str, address: str) -> schema.PeerPlace:
    """Return what a node knows of an address, once it knows it."""

    async def look() -> schema.PeerPlace:
        while address not in (places := await known(node, peer)):  # noqa: ASYNC110  (asked over a socket)
            await asyncio.sleep(LOOK_AGAIN_S)
        return places[address]

    return await within(look(), f"{node.name} knows {address}")


async def test_who_was_dialed_finds_who_dialed_and_says_where_it_is_now(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await alice.stop()
    await bob.stop()
    move(bob)
    await bob.start()
    await alice.start()  # she knows where he was; he never dialed her
    await connected(alice, bob)
    await town.pay(alice, channel, 2 * ICP)
    assert bob.info.listen is not None
    assert alice.info.listen is not None
    assert (await known(bob, alice.info.node_id))[alice.info.listen].proven
    assert (await knows(alice, bob.info.node_id, bob.info.listen)).source == "announced"

    await alice.stop()
    move(alice)
    await alice.start()  # nobody can find her: she finds him, where he said that he is
    await connected(alice, bob)
    await town.pay(bob, channel, ICP)
    assert (await known(alice, bob.info.node_id))[bob.info.listen].proven
    await knows(bob, alice.info.node_id, alice.info.listen)


async def test_both_move_at_once_to_where_they_had_said(town: Town) -> None:
    """By a name, too."""
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    ports = {alice: free_port(), bob: free_port()}
    for node, host in ((alice, "localhost"), (bob, LOCAL)):
        configure(node, "announce", f'["listen", "{host}:{ports[node]}"]')
        await node.stop()
        await node.start()
        info = await node.control.call(NODE_INFO, schema.NoParams())
        assert info.announces == [info.listen, f"{host}:{ports[node]}"]
    await connected(alice, bob)
    await knows(alice, bob.info.node_id, f"{LOCAL}:{ports[bob]}")
    await knows(bob, alice.info.node_id, f"localhost:{ports[alice]}")
    for node in (alice, bob):
        await node.stop()
        move(node, ports[node])
    for node in (alice, bob):
        await node.start()
    await connected(alice, bob)
    await town.pay(alice, channel, 2 * ICP)
    await town.pay(bob, channel, ICP)


async def test_what_is_announced_is_forgotten_with_the_last_channel(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    assert alice.info.listen is not None
    await knows(bob, alice.info.node_id, alice.info.listen)
    await town.close(alice, channel)
    await town.closed(bob, channel)
    assert await known(bob, alice.info.node_id) == {}
    assert bob.info.listen is not None
    assert list(await known(alice, bob.info.node_id)) == [bob.info.listen], "her operator gave it"


class Liar(Peer):
    """It announces what it likes. `port`: where it can really be dialed."""

    port: int

    def __init__(self, town: Town) -> None:
        super().__init__(town.devnet)
        hello = Hello(1, self.network_hash, FEATURE_ADDRESSES, "a liar", 1)
        self.network = PeerNetwork(PrivateKey(), hello, self)
        self.heard: list[Addresses] = []

    def received(self, session: Session, message: PeerMessage) -> None:
        if isinstance(message, Addresses):
            self.heard.append(message)
        super().received(session, message)


class Victim:
    """Somebody who has nothing to do with it, and counts who knocks."""

    def __init__(self) -> None:
        self.knocked = 0
        self.port = 0

    async def start(self) -> Victim:
        self.server = await asyncio.start_server(self._knock, LOCAL, 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    def _knock(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.knocked += 1
        writer.close()


@pytest.fixture
async def victims() -> AsyncIterator[list[Victim]]:
    found = [await Victim().start() for _ in range(8)]
    yield found
    for victim in found:
        victim.server.close()


@pytest.mark.long
async def test_lies_replace_nothing_and_make_a_node_knock_a_few_times(town: Town, victims: list[Victim]) -> None:
    bob = await town.node("bob")
    liar = Liar(town)
    try:
        _, liar.port = await liar.network.listen(LOCAL, 0)
        await town.mint(liar.account, 60 * ICP)
        await liar.dial(bob)
        await liar.open(50 * ICP)
        node_id = liar.network.node_id.hex()
        truth = f"{LOCAL}:{liar.port}"
        await within(bob.control.call(PEER_CONNECT, schema.PeerConnectParams(f"{node_id}@{truth}")), "connected")

        for _ in range(3):  # in one session only the first counts
            liar.session.send(Addresses(tuple((LOCAL, victim.port) for victim in victims)))
        liar.session.send(Addresses(((LOCAL, victims[0].port),)))
        for victim in victims:
            place = await knows(bob, node_id, f"{LOCAL}:{victim.port}")
            assert (place.source, place.proven) == ("announced", False)
        assert [message.places for message in liar.heard] == [((LOCAL, int((bob.info.listen or "").split(":")[1])),)]

        await liar.network.close()
        await within(_until(lambda: sum(victim.knocked for victim in victims) >= 8), "it tries what it was told")
        await asyncio.wait_for(_rounds(bob, 4), 30)
        assert sum(victim.knocked for victim in victims) == 8, "what does not prove itself is tried once a minute"
        places = await known(bob, node_id)
        assert next(iter(places)) == truth
        assert [place.address for place in places.values() if place.proven] == [truth]

        # Where it really is it is found, first of all.
        again = PeerNetwork(liar.network._key, liar.network._hello, liar)
        await again.listen(LOCAL, liar.port)
        liar.network = again
        ended = liar.session
        await within(_until(lambda: liar.session is not ended), "dialed by bob")
    finally:
        await liar.close()


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  (other processes change it)
        await asyncio.sleep(LOOK_AGAIN_S)


async def _rounds(node: NodeProcess, more: int) -> None:
    """Return when it has tried what was proven so many times more."""

    def tried() -> int:
        return node.log.read_text(errors="replace").count("peer.dial_failed")

    before = tried()
    while tried() < before + more:  # noqa: ASYNC110  (another process writes it)
        await asyncio.sleep(LOOK_AGAIN_S)
