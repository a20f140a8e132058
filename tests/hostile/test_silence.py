"""Proposals while the Internet Computer is silent, readers of events, towers: they stop neither payments nor a stop."""

import asyncio
import contextlib
import time

import pytest

from perund.control.client import ControlClient
from perund.demo.processes import NodeProcess
from perund.store.schema import STORE_NAME
from perund.store.store import connect
from tests.e2e.town import LOOK_AGAIN_S, Town, within
from tests.e2e.watchtower import TowerProcess, lag_of, node_with, served, tower_in
from tests.hostile.measured import ALLOWANCE_MS, RATIO, Flooded, attacked, used

MOST_MEMORY = 40_000_000
STOP_S = 8.0
EVENTS = 300_000


@pytest.fixture(autouse=True)
def _small_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERUND_POLICY_MIN_TOTAL_E8S", "1 ICP")
    monkeypatch.setenv("PERUND_LOG_FORMAT", "json")


async def stopped_s(node: NodeProcess) -> float:
    """Stop a node, and return how many seconds that took."""
    start = time.monotonic()
    assert await node.stop() == 0, node.log.read_text()[-2_000:]
    return time.monotonic() - start


async def test_proposals_while_the_internet_computer_is_silent(town: Town) -> None:
    flooded = await Flooded().settle_in(town)
    await town.order_fault("slow", "any", 1_000_000, 600)
    before_ms = await flooded.latency_ms(1.5)
    start = used(flooded.bob)
    async with attacked(town, flooded.bob, "proposals") as attack:
        under_ms = await flooded.latency_ms(4)
        spent = used(flooded.bob).since(start)
        took_s = await stopped_s(flooded.bob)
    print(f"proposals in silence: p50 {before_ms:.1f} -> {under_ms:.1f} ms, {spent}, stop {took_s:.1f} s")
    assert attack.sent > 100
    assert under_ms <= max(RATIO * before_ms, ALLOWANCE_MS)
    assert spent.memory <= MOST_MEMORY
    assert took_s <= STOP_S
    await town.order_fault("slow", "any", 0)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["complaints", "declined", "chatter", "reconnects"])
async def test_a_stop_under_a_flood(town: Town, kind: str) -> None:
    flooded = await Flooded().settle_in(town)
    async with attacked(town, flooded.bob, kind):
        await flooded.latency_ms(2)
        assert await stopped_s(flooded.bob) <= STOP_S


async def test_readers_of_events_that_never_come(town: Town) -> None:
    flooded = await Flooded().settle_in(town)
    await flooded.bob.stop()
    database = connect(flooded.bob.dir / STORE_NAME)
    database.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO event "
        "SELECT (SELECT max(cursor) FROM event) + i, 0, iif(i % 3, 'channel.updated', 'channel.signed'), NULL, '{}' "
        "FROM n",
        (EVENTS,),
    )
    database.close()
    await flooded.bob.start()
    await town.until(flooded.alice, flooded.channel, lambda c: c.phase == "open", "open")
    before_ms = await flooded.latency_ms(2)
    looked = 0

    async def reader(kinds: list[str]) -> None:
        nonlocal looked
        while True:
            async with await ControlClient.connect(flooded.bob.dir) as control:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.3):
                        async for event in control.events(after=0, kinds=kinds):
                            raise AssertionError(event)
                looked += 1

    readers = [asyncio.ensure_future(reader(["never.comes", f"nor.does.{n}"])) for n in range(6)]
    under_ms = await flooded.latency_ms(3)
    for task in readers:
        task.cancel()
    ends = await asyncio.gather(*readers, return_exceptions=True)
    print(f"readers of {EVENTS} events: p50 {before_ms:.1f} -> {under_ms:.1f} ms")
    assert not [end for end in ends if isinstance(end, Exception)]
    assert looked > 6
    assert under_ms <= max(RATIO * before_ms, ALLOWANCE_MS)


async def promised(node: NodeProcess, tower: TowerProcess, channel: str, version: int) -> None:
    """Return when the node has a promise for the newest state: strangers' slots may wait for their proof meanwhile."""
    await tower.until(lambda: version in tower.versions(channel), f"version {version} held")
    while (await lag_of(node, tower.address))["channels_behind"]:  # noqa: ASYNC110  (asked over a socket)
        await asyncio.sleep(LOOK_AGAIN_S)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["recalls", "slots", "complaints", "reconnects"])
async def test_a_tower_under_a_flood(town: Town, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("PERUND_TOWER_MIN_CHALLENGE_S", "1")
    tower = await tower_in(town)
    alice = await node_with(town, "alice", tower.address)
    bob = await town.node("bob")
    channel = await town.open(alice, bob, 50, challenge_s=60)
    await town.pay(alice, channel, 1_000)
    await served(town, alice, tower, channel)
    start = used(tower)
    async with attacked(town, tower, kind, network=alice.info.network_hash) as attack:
        for _ in range(20):
            await town.pay(alice, channel, 1_000)
            newest = town.newest(alice, channel).state.version
            await within(promised(alice, tower, channel, newest), "the tower promising the newest state", 10)
        spent = used(tower).since(start)
        took_s = await stopped_s(tower)
    print(f"tower, {kind}: {spent}, stop {took_s:.1f} s")
    assert attack.sent > 0  # a tower reads strangers slowly
    assert spent.log <= 400_000
    assert spent.memory <= MOST_MEMORY
    assert took_s <= STOP_S
