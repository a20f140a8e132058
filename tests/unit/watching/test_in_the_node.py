"""The watcher in a whole node: what `node.health` says of it, and what somebody hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from perund.control import schema
from perund.control.methods import NODE_HEALTH
from perund.control.values import Seconds
from tests.unit.node.conftest import net
from tests.unit.node.net import Fault, Net
from tests.unit.node.street import House, Street

__all__ = ["net"]

PATIENCE_S = 20


@pytest.fixture
async def street(net: Net) -> AsyncIterator[Street]:
    async with Street.inhabited(net) as inhabited:
        yield inhabited


async def until(house: House, condition: Callable[[schema.Health], bool]) -> schema.Health:
    """Return what a node says of its health, as soon as the condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await house.control.call(NODE_HEALTH, schema.NoParams())
            if condition(found):
                return found
            await asyncio.sleep(0.02)


async def event(house: House, kind: str) -> schema.Event:
    """Return the first event of a kind."""
    async with asyncio.timeout(PATIENCE_S):
        async for found in house.control.events(after=0, kinds=[kind]):
            return found
    raise AssertionError("the feed ended")


def has(code: str) -> Callable[[schema.Health], bool]:
    return lambda found: code in {problem.code for problem in found.problems}


async def test_a_healthy_watcher_reads_the_log(street: Street) -> None:
    await street.open(5, challenge_s=Seconds(600))
    found = await until(street.alice, lambda h: h.watcher is not None and h.watcher.by_log)
    seen = found.watcher
    assert seen is not None
    assert seen.state == "watching"
    assert seen.channels == 1
    assert seen.sweeps >= 1
    assert seen.lag_s is not None
    assert int(seen.chain_time_ns or 0) > 10**18


async def test_blindness_is_a_problem_an_alarm_and_an_event_and_ends(street: Street) -> None:
    await street.open(5, challenge_s=Seconds(3))
    for method in ("query_state", "disputes_since"):
        street.net.disturb(method, Fault.LOST, 100_000)
    found = await until(street.alice, has("watcher_blind"))
    assert found.watcher is not None
    assert found.watcher.state == "blind"
    assert (await event(street.alice, "watcher.blind")).data["alarm"] is True
    found = await until(street.alice, has("alarm"))
    assert [p.message.split(":")[0] for p in found.problems if p.code == "alarm"] == ["watcher.blind"]

    street.net.calm()
    assert "alarm" not in (await event(street.alice, "watcher.sees")).data
    found = await until(street.alice, lambda h: not has("alarm")(h))
    assert not has("watcher_blind")(found)
