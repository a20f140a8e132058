"""Who gets a place: strangers by address and by turn, known and chosen peers before all, handshakes by chance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from coincurve import PrivateKey

from protocol.messages import ErrorMessage, Ping, Pong
from tests.hostile.strangers import Place, Stranger, TurnedAway, addresses
from tests.unit.wire.scene import HELLO, LOCAL, Node, RawPeer, Recorder, Scene, ended, scene
from wire.limits import Allowance, Limits, Timing
from wire.network import PeerNetwork
from wire.origin import origin_of


@pytest.fixture
async def at() -> AsyncIterator[Scene]:
    async with scene() as made:
        yield made


def place_of(node: Node) -> Place:
    return Place(f"{node.id.hex()}@{LOCAL}:{node.port}", HELLO.network)


async def befriend(node: Node, *, source: str | None = None) -> Stranger:
    """Connect a peer that has money."""
    friend = Stranger(place_of(node))
    node.handler.known.add(friend.node_id)
    return await friend.arrive(source)


def present(node: Node, strangers: list[Stranger]) -> int:
    """How many of them have a session."""
    return sum(node.network.session(stranger.node_id) is not None for stranger in strangers)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.7", "127.0.0.7"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("/run/socket", "/run/socket"),
    ],
)
def test_places_are_counted_by_the_network_that_a_household_has(host: str, origin: str) -> None:
    assert origin_of(host) == origin


# Sessions.


async def test_one_address_has_a_part_of_the_places_only(at: Scene) -> None:
    node = await at.node(limits=Limits(strangers=6, strangers_per_address=3))
    here, there = addresses(2)
    elsewhere = await Stranger(place_of(node)).arrive(there)
    crowd = [await Stranger(place_of(node)).arrive(here) for _ in range(12)]
    assert present(node, [elsewhere]) == 1
    assert present(node, crowd) == 3


async def test_a_newcomer_takes_its_place_from_the_address_that_has_most(at: Scene) -> None:
    node = await at.node(limits=Limits(strangers=6, strangers_per_address=4))
    one, two, three = addresses(3)
    crowd = [await Stranger(place_of(node)).arrive(one) for _ in range(4)]
    others = [await Stranger(place_of(node)).arrive(source) for source in (two, two, three)]
    assert present(node, others) == 3
    assert present(node, crowd) == 3


async def test_whom_we_want_has_a_place_among_any_number_of_strangers(at: Scene) -> None:
    node = await at.node(limits=Limits(connections=3, strangers=3))
    for _ in range(3):
        await Stranger(place_of(node)).arrive()
    wanted = Stranger(place_of(node))
    node.network.choose(wanted.node_id)
    await wanted.arrive()
    friend = await befriend(node)
    for _ in range(6):
        await Stranger(place_of(node)).arrive()
    assert present(node, [wanted, friend]) == 2
    node.network.forget(wanted.node_id)


async def test_a_peer_whose_money_is_gone_is_a_stranger_again(at: Scene) -> None:
    # Fund, close, keep the session, and again with the same money: each would hold a connection for ever.
    node = await at.node(limits=Limits(connections=4, strangers=2))
    former = [await befriend(node) for _ in range(4)]
    node.handler.known.clear()
    friend = await befriend(node)
    assert present(node, [friend]) == 1
    assert present(node, former) == 3


async def test_of_two_with_money_the_one_with_more_has_the_last_place() -> None:
    stakes: dict[bytes, int] = {}
    handler = Recorder()
    network = PeerNetwork(
        PrivateKey(), HELLO, handler, Limits(connections=2), Timing(farewell_s=0.1), stake=lambda p: stakes.get(p, 0)
    )
    _, port = await network.listen(LOCAL, 0)
    place = Place(f"{network.node_id.hex()}@{LOCAL}:{port}", HELLO.network)

    async def come(stake: int) -> Stranger:
        stranger = Stranger(place)
        stakes[stranger.node_id] = stake
        handler.known.add(stranger.node_id)
        return await stranger.arrive()

    dust, some = await come(1), await come(50)
    with pytest.raises(TurnedAway, match="too_many_peers"):
        await come(1)  # an equal one displaces nobody: two would take turns for ever
    much = await come(100)
    assert "too_many_peers" in str(dust.inbox)
    assert (some.over, much.over) == (None, None)
    await network.close()


async def test_a_peer_that_begins_one_session_after_the_other_is_slowed_down(at: Scene) -> None:
    node = await at.node(limits=Limits(sessions_at_once=3, sessions_per_s=0.001))
    key = PrivateKey()
    node.handler.known.add(key.public_key.format())
    for _ in range(3):
        await Stranger(place_of(node), key).arrive()
    with pytest.raises(TurnedAway, match="too_many_peers"):
        await Stranger(place_of(node), key).arrive()
    assert len(node.network.sessions()) == 1
    assert (await befriend(node)).over is None  # others are not


# Rates.


async def test_strangers_of_one_address_share_what_they_may_say(at: Scene) -> None:
    node = await at.node(
        limits=Limits(stranger=Allowance(50, 2**20, 2**20), strangers_of_address=Allowance(50, 2**20, 0))
    )
    here, there = addresses(2)
    loop = asyncio.get_running_loop()
    crowd = [await Stranger(place_of(node)).arrive(here) for _ in range(5)]
    other = await Stranger(place_of(node)).arrive(there)
    friend = await befriend(node, source=here)
    for stranger in crowd:
        stranger.say(*[Ping(number) for number in range(30)])
    began_s = loop.time()
    for quick in (other, friend):
        quick.say(*[Ping(number) for number in range(30)])
        for _ in range(30):
            await quick.hear(Pong)
    assert loop.time() - began_s < 1, "whoever is elsewhere, or has money, does not wait for them"
    for stranger in crowd:
        for _ in range(30):
            await stranger.hear(Pong)
    assert loop.time() - began_s >= 1.8  # 150 messages, of which 50 were free: two seconds' worth


async def test_all_strangers_together_share_what_they_may_say(at: Scene) -> None:
    node = await at.node(
        limits=Limits(stranger=Allowance(50, 2**20, 2**20), strangers_together=Allowance(50, 2**20, 0))
    )
    crowd = [await Stranger(place_of(node)).arrive(source) for source in addresses(5)]
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    for stranger in crowd:
        stranger.say(*[Ping(number) for number in range(30)])
    for stranger in crowd:
        for _ in range(30):
            await stranger.hear(Pong)
    assert loop.time() - began_s >= 1.8


# The door.


@pytest.mark.parametrize("known", [True, False])
async def test_a_slow_handshake_gets_through_a_flood_of_half_open_ones(at: Scene, known: bool) -> None:
    """Many times more come than there is room, while an honest peer's act three is on its way."""
    node = await at.node(limits=Limits(handshakes=20, handshakes_per_address=20))
    slow_from, *flood_from = addresses(30)
    if known:
        node.network.seen_at(friend_id(node), slow_from)
    got_through = 0
    for _ in range(20):
        reader, writer = await asyncio.open_connection(LOCAL, node.port, local_addr=(slow_from, 0))
        at.writers.append(writer)
        for source in flood_from[:20]:
            _, other = await asyncio.open_connection(LOCAL, node.port, local_addr=(source, 0))
            at.writers.append(other)
        got_through += not await is_cut(reader)
    if known:
        assert got_through == 20, "their room is their own"
    else:
        assert got_through >= 2, "of the oldest, none would be left; by chance one in three is"


def friend_id(node: Node) -> bytes:
    friend = PrivateKey().public_key.format()
    node.handler.known.add(friend)
    return friend


async def is_cut(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(0.02):
            return await reader.read(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


async def test_one_address_holds_few_places_at_the_door(at: Scene) -> None:
    node = await at.node(limits=Limits(handshakes=100, handshakes_per_address=5))
    here, there = addresses(2)
    held = []
    for source in [there] + [here] * 12:
        reader, writer = await asyncio.open_connection(LOCAL, node.port, local_addr=(source, 0))
        at.writers.append(writer)
        held.append(reader)
    cut = [asyncio.create_task(ended(reader)) for reader in held]
    while sum(task.done() for task in cut) < 7:
        await asyncio.wait([task for task in cut if not task.done()], return_when=asyncio.FIRST_COMPLETED)
    assert not cut[0].done()
    assert len(node.network._door) == 6
    for task in cut:
        task.cancel()
    await asyncio.gather(*cut, return_exceptions=True)


async def test_handshakes_begin_at_a_bounded_rate_and_the_newest_first(at: Scene) -> None:
    node = await at.node(limits=Limits(handshakes_per_s=20))
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    crowd = [asyncio.create_task(Stranger(place_of(node)).secure()) for _ in range(40)]
    await asyncio.gather(*crowd)
    assert loop.time() - began_s >= 0.9  # twenty at once, twenty within a second


async def test_a_known_address_does_not_wait_for_the_handshakes_of_others(at: Scene) -> None:
    node = await at.node(limits=Limits(handshakes_per_s=1))
    here, there = addresses(2)
    node.network.seen_at(friend_id(node), there)
    crowd = [asyncio.create_task(Stranger(place_of(node)).secure(here)) for _ in range(10)]
    await crowd[0]
    async with asyncio.timeout(5):
        await Stranger(place_of(node)).arrive(there)
    for task in crowd:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)


async def test_an_address_counts_only_while_its_peer_has_money(at: Scene) -> None:
    node = await at.node()
    friend = await befriend(node, source=addresses(1)[0])
    standings = node.network._standings
    assert standings.known_at(addresses(1)[0])
    node.handler.known.clear()
    standings.seen(friend.node_id, addresses(1)[0])
    assert not standings.known_at(addresses(1)[0])


async def test_farewells_take_nobodys_place(at: Scene) -> None:
    # Sessions that end wait for their last message to be read: any number of them must not fill the door.
    node = await at.node(limits=Limits(strangers=1, handshakes=2, farewells=3), timing=Timing(farewell_s=3))
    peers = [await RawPeer.connect(node) for _ in range(10)]
    await node.handler.heard("disconnected", 9)
    assert len(node.network._farewells) <= 3
    told = await peers[8].receive()
    assert isinstance(told, ErrorMessage)
    await RawPeer.connect(node)
    for peer in peers:
        await peer.close()
