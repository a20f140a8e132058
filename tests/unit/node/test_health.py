"""What `node.health` says when the money is not safe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from chain.perun import PerunCanister
from devnet.network import PERUN_CANISTER_ID
from perund.control import schema
from perund.control.methods import CHANNEL_PAY, NODE_HEALTH
from perund.control.values import PaidE8s, Seconds
from perund.node.daemon import STORE_NAME
from perund.store.reading import open_reader
from perund.store.rows import ChannelRow
from protocol.types import SignedState
from tests.unit.node.net import ICP, Fault, Net
from tests.unit.node.street import House, Street, soon


@pytest.fixture
async def street(net: Net) -> AsyncIterator[Street]:
    async with Street.inhabited(net) as inhabited:
        yield inhabited


def row_of(house: House) -> ChannelRow:
    """The channel as it is on a node's disk."""
    return next(open_reader(house.directory / STORE_NAME).live_channels())


async def problems(house: House) -> set[str]:
    health = await house.control.call(NODE_HEALTH, schema.NoParams())
    assert health.ok is (not health.problems)
    return {problem.code for problem in health.problems}


async def until(house: House, code: str) -> schema.Health:
    """Return what a node says as soon as it has this problem."""
    async with asyncio.timeout(10):
        while code not in await problems(house):  # noqa: ASYNC110  (health is asked for; it tells nobody)
            await asyncio.sleep(0.02)
    return await house.control.call(NODE_HEALTH, schema.NoParams())


async def test_a_network_that_does_not_answer(street: Street) -> None:
    """A look is too old when a third of the challenge period has passed: payments stop, and it is said."""
    channel = await street.open(5, challenge_s=Seconds(1))
    assert await problems(street.alice) <= {"look_too_old"}
    street.net.disturb("query_state", Fault.HELD, 1_000)
    street.net.disturb("disputes_since", Fault.HELD, 1_000)
    health = await until(street.alice, "look_too_old")
    assert health.problems[0].channel == channel
    assert health.chain_lag_s is not None
    paying = asyncio.ensure_future(
        street.alice.control.call(CHANNEL_PAY, schema.PayParams(channel=channel, amount_e8s=PaidE8s(1), wait=False))
    )
    assert (await soon(paying)).status == "queued"  # and nothing is signed


async def test_a_stale_state_that_is_registered_is_refuted_without_anybody(street: Street) -> None:
    """Bob registers his first state while Alice cannot reach the canister; when she can, it is refuted."""
    channel = await street.open(5, challenge_s=Seconds(600))
    stale: SignedState = row_of(street.bob).memory.newest
    await soon(street.alice.control.call(CHANNEL_PAY, schema.PayParams(channel=channel, amount_e8s=PaidE8s(ICP))))
    terms = row_of(street.bob).terms
    await street.bob.stop()
    direct = PerunCanister(street.net.someone, PERUN_CANISTER_ID)
    assert (await direct.dispute(terms.params, stale)).value is None
    street.net.disturb("dispute", Fault.LOST, 20)
    await street.alice.stop()  # and starts again: its first look finds it
    await street.alice.start()
    health = await until(street.alice, "stale_state_registered")
    (problem,) = [p for p in health.problems if p.code == "stale_state_registered"]
    assert problem.message.startswith("version 0 is registered, ours is 1; ")
    assert health.least_margin_s is not None
    assert 0 < health.least_margin_s <= 600
    street.net.calm()
    async for event in street.alice.control.events(after=0, kinds=["channel.refuted"]):
        assert event.data == {"channel": channel, "version": 1}
        break
    assert (await direct.query_state(terms.channel)).value is not None
    view = await street.alice.channel(channel)
    assert view.registered is not None
    assert (view.registered.version, view.registered.ours) == (1, True)
    assert "stale_state_registered" not in await problems(street.alice)
