"""Keeping a peer: which address is tried when, in a time that passes by itself."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import cast

import pytest

from tests.simulation.virtual_loop import VirtualLoop
from wire.address import Address
from wire.errors import PeerUnreachable
from wire.keeper import Keeper, Target
from wire.limits import Timing
from wire.nearness import Nearness
from wire.session import Session

PEER, OTHER = b"\x02" + b"a" * 32, b"\x02" + b"b" * 32
HERE, THERE, OLD = (Address("a.example", port) for port in (1, 2, 3))


class Line:
    """A session, as far as the keeper looks at it."""

    def __init__(self, since_s: float, dialed_at: Address) -> None:
        self.since_s = since_s
        self.dialed_at = dialed_at
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def closed(self) -> str:
        return await asyncio.shield(self.end)


class World:
    """Who answers where. Notes every try: when, at which address."""

    def __init__(self, *answers: Address) -> None:
        self.answers = set(answers)
        self.money = False
        self.tries: list[tuple[float, Address]] = []
        self.proofs: list[Address] = []
        self.proven: list[Address] = []
        self.lines: dict[bytes, Line] = {}
        self.wall_ahead_s = 0.0
        self.proof_s = 0.1
        self.loop = asyncio.get_running_loop()
        self.keeper = Keeper(
            self, 8, Timing(), random.Random(1), lambda _, address: self.proven.append(address), self.wall_s
        )

    def wall_s(self) -> float:
        return self.loop.time() + self.wall_ahead_s

    async def dial(self, peer: bytes, host: str, port: int, nearest: Nearness | None = None) -> Session:
        assert nearest in (None, Nearness.PUBLIC)
        self.tries.append((self.loop.time(), Address(host, port)))
        await asyncio.sleep(0.1)
        if Address(host, port) not in self.answers:
            raise PeerUnreachable("nobody is there")
        self.lines[peer] = line = Line(self.loop.time(), Address(host, port))
        self.keeper.arrived(peer)
        return cast("Session", line)

    async def prove(self, peer: bytes, place: Address, nearest: Nearness | None = None) -> None:
        assert (peer, nearest) == (PEER, Nearness.PUBLIC)
        self.proofs.append(place)
        await asyncio.sleep(self.proof_s)
        if place not in self.answers:
            raise PeerUnreachable("nobody is there")

    def session(self, peer: bytes) -> Session | None:
        line = self.lines.get(peer)
        return cast("Session", line) if line is not None and not line.end.done() else None

    def has_money_with(self, peer: bytes) -> bool:
        return self.money and peer == PEER

    def longest_pause_s(self) -> float:
        times = [at_s for at_s, _ in self.tries]
        return max(later - earlier for earlier, later in itertools.pairwise(times))


def told(address: Address) -> Target:
    return Target(address, proven=False, nearest=Nearness.PUBLIC)


def in_time(play: Callable[[], Coroutine[None, None, None]]) -> None:
    loop = VirtualLoop(lambda: None)
    try:
        loop.run_until_complete(play())
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.close()


@pytest.mark.parametrize(("money", "least_s", "most_s"), [(True, 7, 16), (False, 140, 301)])
def test_where_money_waits_a_peer_is_looked_for_more_often(*, money: bool, least_s: float, most_s: float) -> None:
    async def play() -> None:
        world = World()
        world.money = money
        world.keeper.keep(PEER, [Target(HERE)])
        await asyncio.sleep(3_600)
        assert least_s < world.longest_pause_s() < most_s
        await world.keeper.close()

    in_time(play)


def test_addresses_are_tried_in_turn_the_proven_ones_first() -> None:
    async def play() -> None:
        world = World(THERE)
        world.keeper.keep(PEER, [Target(HERE), Target(OLD), told(THERE)])
        await asyncio.sleep(1)
        assert [address for _, address in world.tries] == [HERE, OLD, THERE]
        assert world.session(PEER) is not None
        await asyncio.sleep(10_000)
        assert len(world.tries) == 3
        world.lines[PEER].end.set_result("over")
        await asyncio.sleep(3)
        assert world.session(PEER) is not None
        await world.keeper.close()

    in_time(play)


def test_what_is_not_proven_is_tried_eight_times_at_once_and_then_once_a_minute() -> None:
    """However often it is told, and however many others there are."""

    async def play() -> None:
        world = World()
        world.money = True
        world.keeper.keep(PEER, [told(Address("victim.example", port)) for port in range(1, 9)])
        await asyncio.sleep(0)
        for hour in range(10):
            await asyncio.sleep(360)
            world.keeper.keep(PEER, [told(Address("victim.example", 10 * hour + port)) for port in range(11, 19)])
        assert len(world.tries) <= 8 + 61
        tried = Counter(address for _, address in world.tries[:8])
        assert set(tried.values()) == {1}, "each in turn"
        await world.keeper.close()

    in_time(play)


def test_all_unproven_addresses_together_are_tried_once_a_second() -> None:
    async def play() -> None:
        world = World()
        for number in range(200):
            peer = b"\x02" + number.to_bytes(32, "big")
            world.keeper.keep(peer, [told(Address("victim.example", port)) for port in range(1, 9)])
        await asyncio.sleep(100)
        assert 64 < len(world.tries) <= 64 + 101
        await world.keeper.close()

    in_time(play)


def test_what_a_peer_says_of_itself_is_found_out_while_it_is_there() -> None:
    """Once for each address, without another session; what is told later, too."""

    async def play() -> None:
        world = World(HERE, THERE)
        world.keeper.keep(PEER, [Target(HERE), told(OLD)])
        await asyncio.sleep(5)
        assert (world.proofs, world.proven) == ([OLD], [])
        world.keeper.keep(PEER, [Target(HERE), told(THERE), told(OLD)])
        await asyncio.sleep(10_000)
        assert (world.proofs, world.proven) == ([OLD, THERE], [THERE])
        assert len(world.tries) == 1
        await world.keeper.close()

    in_time(play)


def test_a_peer_is_looked_for_soon_when_another_one_is_there_again() -> None:
    async def play() -> None:
        world = World()
        world.keeper.keep(PEER, [Target(HERE)])
        world.keeper.keep(OTHER, [Target(THERE)])
        await asyncio.sleep(2_000)
        world.answers = {HERE, THERE}
        while not world.lines:  # noqa: ASYNC110  (no event says so)
            await asyncio.sleep(1)
        await asyncio.sleep(2)
        assert set(world.lines) == {PEER, OTHER}
        await world.keeper.close()

    in_time(play)


def test_others_that_come_and_go_make_nobody_dial_more_than_twice_a_minute() -> None:
    async def play() -> None:
        world = World(THERE)
        world.keeper.keep(PEER, [Target(HERE)])
        world.keeper.keep(OTHER, [Target(THERE)])
        await asyncio.sleep(2_000)
        before = len(world.tries)
        for _ in range(600):
            world.keeper.arrived(OTHER)
            await asyncio.sleep(1)
        tries = [address for _, address in world.tries[before:] if address == HERE]
        assert 19 <= len(tries) <= 25
        await world.keeper.close()

    in_time(play)


def test_after_a_sleep_of_the_machine_everybody_is_looked_for_at_once() -> None:
    async def play() -> None:
        world = World()
        world.keeper.keep(PEER, [Target(HERE)])
        await asyncio.sleep(2_000)
        world.answers = {HERE}
        world.wall_ahead_s += 8 * 3_600
        await asyncio.sleep(6)
        assert PEER in world.lines
        await world.keeper.close()

    in_time(play)


def test_where_sessions_end_at_once_is_tried_last() -> None:
    """A copy of the peer that has stopped answers there, and goes; the peer itself is elsewhere."""

    async def play() -> None:
        world = World(HERE)
        world.keeper.keep(PEER, [Target(HERE), Target(THERE)])
        await asyncio.sleep(0.2)
        world.answers = {HERE, THERE}
        world.lines[PEER].end.set_result("this life has stopped")
        await asyncio.sleep(3)
        assert [address for _, address in world.tries] == [HERE, THERE]
        assert world.session(PEER) is not None
        await world.keeper.close()

    in_time(play)


def test_an_address_that_leads_nowhere_does_not_keep_a_peer_from_being_dialed_again() -> None:
    async def play() -> None:
        world = World(HERE)
        world.keeper.keep(PEER, [Target(HERE), *(told(Address("victim.example", port)) for port in range(1, 9))])
        world.proof_s = 15.0
        await asyncio.sleep(6)
        world.lines[PEER].end.set_result("cut")
        await asyncio.sleep(2)
        assert world.session(PEER) is not None
        await world.keeper.close()

    in_time(play)
