"""When time runs out: nearest deadlines first, sooner and sooner, and somebody is told."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from protocol.errors import InvariantBroken
from protocol.types import ChannelId, Params, SignedState
from tests.unit.watcher.shore import NoAnswer, Shore, in_no_time, stop
from watcher.refuting import NearestFirst
from watcher.watch import Watcher


@in_no_time
async def test_a_hundred_disputes_at_once_are_all_refuted_in_time() -> None:
    shore = Shore(latency_s=2)  # as on the Internet Computer
    watcher = shore.log_watcher()
    channels = [await shore.channel(nonce, challenge_s=300) for nonce in range(100)]
    for channel in channels:
        shore.agree(channel, 5)
        watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    run = asyncio.ensure_future(watcher.run())
    await asyncio.sleep(20)
    for channel in channels:
        shore.register(channel, 2)
    await asyncio.sleep(150)
    assert [shore.registered(channel) for channel in channels] == [5] * 100
    assert shore.heard.alarms() == []
    assert len(shore.heard.refuted) == 100
    await stop(run)


async def test_of_those_who_wait_the_nearest_deadline_is_next() -> None:
    places, order = NearestFirst(1), []

    async def work(deadline: int) -> None:
        async with places.place(deadline):
            order.append(deadline)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group, places.place(50):
        for deadline in (40, 10, 30, 20):
            group.create_task(work(deadline))
        await asyncio.sleep(0)
    assert order == [10, 20, 30, 40]


async def test_who_is_cancelled_leaves_its_place_to_others() -> None:
    places = NearestFirst(1)
    done: list[int] = []

    async def work(deadline: int) -> None:
        async with places.place(deadline):
            await asyncio.sleep(0)
            done.append(deadline)

    tasks = [asyncio.ensure_future(work(deadline)) for deadline in (1, 2, 3, 4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    tasks[0].cancel()
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 1)
    assert done == [3, 4]
    async with asyncio.timeout(1), places.place(5):
        pass


@in_no_time
async def test_the_less_time_is_left_the_sooner_it_is_tried_again() -> None:
    shore = Shore()
    channel = await shore.channel(challenge_s=60)
    shore.agree(channel, 5)
    watcher = shore.watcher()
    run = asyncio.ensure_future(watcher.run())
    watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    await asyncio.sleep(1)
    shore.lost_refutations = 1_000
    shore.register(channel, 3)
    registered_s = shore.now_s()
    await asyncio.sleep(70)
    tries = [at for at, _ in shore.refutations]
    gaps = [later - earlier for earlier, later in itertools.pairwise(tries)]
    last = [gap for at, gap in zip(tries, gaps, strict=False) if at > registered_s + 50]
    assert max(last) < 1
    assert max(gaps) < 4
    assert max(tries) > registered_s + 59
    await stop(run)


@in_no_time
async def test_half_and_a_quarter_of_the_period_are_each_told_once() -> None:
    shore = Shore()
    channel = await shore.channel(challenge_s=100)
    shore.agree(channel, 5)
    watcher = shore.log_watcher()
    run = asyncio.ensure_future(watcher.run())
    watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    await asyncio.sleep(1)
    shore.lost_refutations = 1_000
    shore.register(channel, 3)
    await asyncio.sleep(45)
    assert shore.heard.alarms() == []
    margin = watcher.condition().least_margin_ns
    assert margin is not None
    assert 50e9 < margin < 60e9
    await asyncio.sleep(10)
    assert shore.heard.alarms() == ["watcher.margin_half"]
    await asyncio.sleep(30)
    assert shore.heard.alarms() == ["watcher.margin_half", "watcher.margin_quarter"]
    _, whose, facts = shore.heard.notices[-1]
    assert whose == channel
    assert 20 <= int(facts["left_s"]) <= 25
    shore.lost_refutations = 0
    await asyncio.sleep(12)
    assert shore.registered(channel) == 5
    assert len(shore.heard.alarms()) == 2
    await stop(run)


@in_no_time
async def test_margins_are_told_also_while_the_internet_computer_is_out_of_reach() -> None:
    shore = Shore()
    channel = await shore.channel(challenge_s=300)
    shore.agree(channel, 5)
    watcher = shore.log_watcher()
    run = asyncio.ensure_future(watcher.run())
    watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    await asyncio.sleep(1)
    shore.lost_refutations = 10_000
    shore.register(channel, 3)
    await asyncio.sleep(55)
    shore.broken.add(channel)
    shore.log_broken = True
    await asyncio.sleep(105)
    assert shore.heard.alarms() == ["watcher.margin_half", "watcher.blind"] or shore.heard.alarms() == [
        "watcher.blind",
        "watcher.margin_half",
    ]
    await asyncio.sleep(80)
    assert shore.heard.alarms()[-1] == "watcher.margin_quarter"
    await stop(run)


@in_no_time
async def test_a_third_of_the_period_without_an_answer_is_blindness() -> None:
    shore = Shore()
    channel = await shore.channel(challenge_s=60)
    watcher = shore.log_watcher()
    run = asyncio.ensure_future(watcher.run())
    assert watcher.condition().state == "watching"  # nothing is to be watched
    watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    assert watcher.condition().state == "starting"
    await asyncio.sleep(5)
    assert watcher.condition().state == "watching"
    shore.broken.add(channel)
    shore.log_broken = True
    await asyncio.sleep(12)  # a sweep was due in the meantime, and failed
    assert watcher.condition().state == "degraded"
    assert shore.heard.alarms() == []
    await asyncio.sleep(6)
    assert watcher.condition().state == "blind"
    assert shore.heard.alarms() == ["watcher.blind"]
    await asyncio.sleep(600)
    assert shore.heard.alarms() == ["watcher.blind"]
    shore.broken.clear()
    shore.log_broken = False
    await asyncio.sleep(20)
    assert [kind for kind, _, _ in shore.heard.notices] == ["watcher.blind", "watcher.sees"]
    assert watcher.condition().state == "watching"
    await stop(run)


@in_no_time
async def test_blindness_from_the_start_is_told_too() -> None:
    shore = Shore()
    channel = await shore.channel(challenge_s=60)
    shore.broken.add(channel)
    watcher = shore.watcher()
    run = asyncio.ensure_future(watcher.run())
    await asyncio.sleep(300)
    watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    await asyncio.sleep(19)
    assert shore.heard.alarms() == []
    await asyncio.sleep(9)
    assert shore.heard.alarms() == ["watcher.blind"]
    await stop(run)


@in_no_time
async def test_a_replica_that_keeps_answers_does_not_keep_the_refutation() -> None:
    shore = Shore()
    channel = await shore.channel(challenge_s=60)
    shore.agree(channel, 5)
    kept = asyncio.Event()

    class Keeper(Shore):
        """Never answers the first refutation."""

        async def refute(self, params: Params, signed: SignedState, within_s: float) -> str:
            self.refutations.append((self.now_s(), signed.state.version))
            if len(self.refutations) == 1:
                await kept.wait()
            return await shore.refute(params, signed, within_s)

    keeper = Keeper()
    keeper.refutations = []
    watcher = Watcher(shore, _Both(shore, keeper), shore, shore, notices=shore)
    run = asyncio.ensure_future(watcher.run())
    watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    await asyncio.sleep(1)
    shore.register(channel, 3)
    await asyncio.sleep(40)
    assert shore.registered(channel) == 5
    await stop(run)


class _Both:
    """Looks here, refutes there."""

    def __init__(self, looks: Shore, refutes: Shore) -> None:
        self.look = looks.look
        self.look_everywhere = looks.look_everywhere
        self.refute = refutes.refute


@in_no_time
async def test_a_part_that_fails_is_started_again_and_told() -> None:
    shore = Shore()
    channel = await shore.channel(challenge_s=60)
    shore.agree(channel, 5)
    watcher = shore.log_watcher()
    good, faults = shore.available, 2

    async def faulty() -> bool:
        nonlocal faults
        if faults:
            faults -= 1
            raise RuntimeError("a defect")
        return await good()

    shore.available = faulty  # type: ignore[method-assign]
    run = asyncio.ensure_future(watcher.run())
    watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    await asyncio.sleep(0.5)
    assert watcher.condition().state == "degraded"
    assert shore.looks_asked[channel]  # the rounds go on meanwhile
    await asyncio.sleep(10)
    assert watcher.condition().state == "watching"
    assert watcher.condition().restarts == 2
    assert shore.heard.alarms() == ["watcher.restarted"] * 2
    await stop(run)


@in_no_time
async def test_a_broken_safety_rule_reaches_who_ends_the_node_and_the_watch_goes_on() -> None:
    shore = Shore()
    channel = await shore.channel(challenge_s=60)
    heard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context.get("exception")))

    def broken(_: ChannelId) -> None:
        raise InvariantBroken("two states of one version")

    shore.on_look = broken
    watcher = shore.watcher()
    run = asyncio.ensure_future(watcher.run())
    watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    await asyncio.sleep(25)
    assert len(heard) >= 2
    assert isinstance(heard[0], InvariantBroken)
    assert not run.done()
    await stop(run)


@pytest.mark.parametrize("seed", range(20))
def test_half_of_all_answers_lost_skips_no_dispute(seed: int) -> None:
    """No dispute window is missed while the network answers every other time."""
    import random

    @in_no_time
    async def life() -> None:
        rng = random.Random(seed)
        shore = Shore()
        channels = [await shore.channel(nonce, challenge_s=60) for nonce in range(4)]
        look, refute, page = shore.look, shore.refute, shore.page

        def unreliable(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            async def made(*arguments: object) -> object:
                if rng.random() < 0.5:
                    await asyncio.sleep(rng.uniform(0, 3))
                    raise NoAnswer("lost")
                return await call(*arguments)

            return made

        shore.look, shore.refute, shore.page = unreliable(look), unreliable(refute), unreliable(page)  # type: ignore[method-assign, assignment]
        watcher = shore.log_watcher(2)
        run = asyncio.ensure_future(watcher.run())
        for channel in channels:
            shore.agree(channel, 9)
            watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
        for version in range(4):
            await asyncio.sleep(rng.uniform(1, 30))
            shore.register(channels[version], version)
        await asyncio.sleep(58)
        assert [shore.registered(channel) for channel in channels] == [9] * 4, f"seed {seed}"
        await stop(run)

    life()
