"""Sessions that cost much are read more slowly, and not at all while what they made us do is not done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from protocol.messages import ErrorMessage, Hello, Ping, Pong
from tests.hostile.strangers import Stranger
from tests.unit.wire.scene import Node, Scene, scene
from tests.unit.wire.test_admission import befriend, place_of
from wire.limits import LONGEST_DEBT_S, Allowance, Limits, Throttle
from wire.session import COMPLAINT_COST_S, Session


@pytest.fixture
async def at() -> AsyncIterator[Scene]:
    async with scene() as made:
        yield made


def session_of(node: Node, peer: Stranger) -> Session:
    session = node.network.session(peer.node_id)
    assert session is not None
    return session


async def heard_back(peer: Stranger, number: int) -> None:
    """Ping, and wait for the answer."""
    peer.say(Ping(number))
    await peer.hear(Pong)


async def test_a_session_that_is_held_is_not_read_and_goes_on_where_it_was(at: Scene) -> None:
    node = await at.node()
    held, other = await befriend(node), await befriend(node)
    session = session_of(node, held)
    session.hold()
    before = held.heard
    held.say(*[Ping(number) for number in range(200)])
    for number in range(20):
        await heard_back(other, number)
    assert held.heard == before
    session.release()
    for number in range(200):
        assert await held.hear(Pong) == Pong(number)
    session.release()  # of what is not held: nothing
    await heard_back(held, 1)


async def test_what_is_charged_is_waited_for_also_when_the_session_was_held_meanwhile(at: Scene) -> None:
    node = await at.node()
    friend = await befriend(node)
    session, loop = session_of(node, friend), asyncio.get_running_loop()
    for held in (False, True):
        began_s = loop.time()
        session.charge(1.4)  # a second's worth is free
        if held:
            session.hold()
            session.release()
        await heard_back(friend, 1)
        await heard_back(friend, 2)
        assert loop.time() - began_s >= 0.35
        session.link._throttle.allow(session.link._throttle.allowance)


async def test_a_new_session_does_not_pay_the_debts_of_the_old(at: Scene) -> None:
    node = await at.node()
    friend = await befriend(node)
    session_of(node, friend).charge(100)
    assert session_of(node, friend).link.debt_s == pytest.approx(LONGEST_DEBT_S, abs=0.5)
    friend.leave()
    again = Stranger(place_of(node), friend.key)
    await again.secure()
    again.say(Hello(1, place_of(node).network, 0, "again", 1))
    async with asyncio.timeout(10):
        while (session := node.network.session(friend.node_id)) is None or session.link.debt_s < 1:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert session.link.debt_s > LONGEST_DEBT_S - 2


async def test_complaints_take_what_others_may_say_to_people(at: Scene) -> None:
    node = await at.node(limits=Limits(known=Allowance(1_000, 2**20, 2**20)))
    friend = await befriend(node)
    loop, began_s = asyncio.get_running_loop(), asyncio.get_running_loop().time()
    count = int(1 / COMPLAINT_COST_S) + 50
    friend.say(*[ErrorMessage("bad_state", "again", b"")] * count)
    await heard_back(friend, 1)
    assert loop.time() - began_s >= 0.4
    assert len([name for name in node.handler.names() if name == "peer_error"]) == count


def test_a_throttle_owes_at_most_so_much() -> None:
    throttle = Throttle(Allowance(50, 1_000, 0), 0)
    throttle.charge(3)
    assert throttle.owes
    assert throttle.debt_s() == pytest.approx(2)
    throttle.charge(1_000)
    assert throttle.debt_s() == pytest.approx(LONGEST_DEBT_S)
    throttle.refill(LONGEST_DEBT_S + 0.1)
    assert throttle.debt_s() == 0
