"""A wall clock that steps by minutes and days, again and again: people are shown it, and it decides nothing."""

from __future__ import annotations

import asyncio
import signal
import sys
from itertools import pairwise

from perund.control import schema
from perund.control.client import ControlClient
from perund.control.methods import CHANNEL_PAY, NODE_INFO
from perund.control.values import PaidE8s
from perund.demo.processes import NodeProcess
from tests.e2e import stepping_clock as clock_module
from tests.e2e.town import FEE, ICP, Town, within

STEPS = 8
"""So many steps of a clock are waited for where something must not happen meanwhile."""
MINUTE_MS, DAY_MS = 60_000, 86_400_000


async def pair(town: Town) -> tuple[NodeProcess, NodeProcess]:
    """Make two nodes whose clocks step, each at its own moments and by its own amounts."""
    alice, bob = await asyncio.gather(
        town.node("alice", wrapper=stepping("alice")), town.node("bob", contributes=50, wrapper=stepping("bob"))
    )
    return alice, bob


def stepping(seed: str) -> tuple[str, ...]:
    """Return what starts a node with a clock that steps."""
    return (sys.executable, "-P", clock_module.__file__, seed, "--")


async def steps(node: NodeProcess) -> None:
    """Return after some steps of a node's clock, as it shows them itself: compared with certified chain time."""

    async def watch() -> None:
        seen: set[int] = set()
        async with await ControlClient.connect(node.dir) as control:
            while len(seen) < STEPS:
                info = await control.call(NODE_INFO, schema.NoParams())
                if info.clock_skew_ms is not None:
                    seen.add(info.clock_skew_ms // MINUTE_MS)
                await asyncio.sleep(0.03)

    await within(watch(), f"{node.name}: {STEPS} steps of its clock")


async def pay_for_some_steps(town: Town, node: NodeProcess, channel: str) -> list[str]:
    """Pay one after the other while a node's clock steps; return the ids in this order."""
    ids: list[str] = []
    stepped = asyncio.create_task(steps(node))
    while not stepped.done():
        ids.append(str((await town.pay(node, channel, 1 + len(ids) % 7)).payment))
    await stepped
    return ids


async def test_a_channels_whole_life(town: Town) -> None:
    alice, bob = await pair(town)
    channel = await town.open(alice, bob, 50, 50)
    made: dict[str, list[str]] = {"alice": [], "bob": []}
    rent = schema.PayParams(channel, PaidE8s(5), idempotency_key="rent")
    for life in (1, 2):
        paid = str((await within(alice.control.call(CHANNEL_PAY, rent), "the same key")).payment)
        made["alice"] += [] if paid in made["alice"] else [paid]
        lives = await asyncio.gather(*(pay_for_some_steps(town, node, channel) for node in (alice, bob)))
        for node, ids in zip((alice, bob), lives, strict=True):
            assert all(before < after for before, after in pairwise(ids)), "ids rise whatever the clock does"
            made[node.name] += ids
        if life == 1:
            await asyncio.gather(town.restart(alice), town.restart(bob))

    for node in (alice, bob):
        listed = await town.payments(node, channel)
        for way, who in (("sent", node.name), ("received", "bob" if node is alice else "alice")):
            ids = [p.payment for p in listed if p.direction == way]
            assert sorted(ids) == sorted(made[who]), "each exactly once, in both lists"
        assert {p.status for p in listed} == {"delivered"}
        events = town.reader(node).events(0, 100_000)
        jumps = [abs(after.at_ms - before.at_ms) for before, after in pairwise(events)]
        assert any(jump > MINUTE_MS for jump in jumps)
        assert any(jump > DAY_MS for jump in jumps), "the clock did step"
    view = await town.close(bob, channel)
    assert view.phase == "closed"
    await town.settles(channel, alice, bob)
    for node in (alice, bob):
        rows = town.reader(node).events(0, 100_000)
        assert [row.kind for row in rows if row.data.get("alarm")] == []
        assert not {"channel.leaving", "channel.disputing"} & {row.kind for row in rows}, "closed together"


async def test_no_deadline_is_decided_by_it(town: Town) -> None:
    alice, bob = await pair(town)
    channel = await town.propose(alice, bob, 50, 50, funding_timeout_s=600)
    bob.signal(signal.SIGSTOP)
    await town.event(alice, "channel.deposited", channel)
    await steps(alice)
    assert (await town.view(alice, channel)).phase == "funding", "the deadline is ten minutes of chain time"
    bob.signal(signal.SIGCONT)
    for node in (alice, bob):
        await town.until(node, channel, lambda c: c.phase == "open", "open")
    await town.pay(alice, channel, 7 * ICP)

    bob.signal(signal.SIGSTOP)
    closing = asyncio.create_task(town.close(alice, channel, force_after_s=600))
    await town.until(alice, channel, lambda c: c.phase == "closing", "closing")
    await steps(alice)
    assert (await town.view(alice, channel)).phase == "closing", "the peer has ten minutes of chain time"
    bob.signal(signal.SIGCONT)
    assert (await closing).payout_e8s == 43 * ICP - FEE
    await town.settles(channel, alice, bob)
    assert "channel.leaving" not in await town.events(alice, channel)


async def test_left_alone_under_it_a_channel_is_refuted_and_paid_out(town: Town) -> None:
    alice, bob = await pair(town)
    channel = await town.open(alice, bob, 50)
    old = town.newest(alice, channel)
    await town.pay(alice, channel, 7 * ICP)
    await alice.kill()
    await town.register(bob, channel, old)
    await town.until(bob, channel, lambda c: c.registered is not None and c.registered.ours, "refuted")
    await steps(bob)
    assert (await town.view(bob, channel)).phase == "leaving", "the challenge period is chain time"
    await town.devnet.advance(13)
    await town.closed(bob, channel)
    await alice.start()
    await town.settles(channel, alice, bob)
