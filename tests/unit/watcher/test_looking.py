"""When the watcher looks: often enough, not all at once, again after a failure, and anew when it matters."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from tests.unit.watcher.shore import SECOND, NoAnswer, Shore, in_no_time, stop
from watcher.watch import LONGEST_INTERVAL_NS, LOOKS_IN_FLIGHT, RETRY_LAST_S


@in_no_time
async def test_each_channel_is_looked_at_so_many_times_in_a_challenge_period() -> None:
    shore = Shore()
    quick, slow = await shore.channel(1, challenge_s=60), await shore.channel(2, challenge_s=600)
    watcher = shore.watcher(looks_per_challenge=6)
    run = asyncio.ensure_future(watcher.run())
    watcher.watch(quick, shore.states[quick][0].challenge_duration_ns)
    watcher.watch(slow, shore.states[slow][0].challenge_duration_ns)
    await asyncio.sleep(600)

    assert shore.looks_asked[quick][0] == shore.looks_asked[slow][0] == 0  # at once
    for channel, challenge_s in ((quick, 60), (slow, 600)):
        times = [*shore.looks_asked[channel], 600]
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert max(gaps) < challenge_s / 6 + 0.1
        assert len(times) <= 600 / (challenge_s / 6) + 2  # and not more often: quiet channels cost little
    await stop(run)


@in_no_time
async def test_a_long_challenge_period_is_no_reason_to_look_rarely() -> None:
    shore = Shore()
    channel = await shore.channel(challenge_s=7 * 86_400)
    watcher = shore.watcher()
    run = asyncio.ensure_future(watcher.run())
    watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    await asyncio.sleep(3 * LONGEST_INTERVAL_NS / SECOND + 1)
    assert len(shore.looks_asked[channel]) == 4
    await stop(run)


@in_no_time
async def test_many_channels_share_a_few_requests() -> None:
    shore = Shore(latency_s=0.05)
    channels = [await shore.channel(nonce) for nonce in range(100)]
    watcher = shore.watcher()
    run = asyncio.ensure_future(watcher.run())
    for channel in channels:
        watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    await asyncio.sleep(1)
    assert {channel for channel, _ in shore.heard.looks} == set(channels)
    assert shore.most_in_flight == LOOKS_IN_FLIGHT
    await stop(run)


@in_no_time
async def test_a_look_that_fails_is_made_again_soon_then_later_and_later() -> None:
    shore = Shore()
    channel = await shore.channel(challenge_s=3600)
    shore.broken.add(channel)
    watcher = shore.watcher()
    run = asyncio.ensure_future(watcher.run())
    watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    await asyncio.sleep(300)
    times = shore.looks_asked[channel]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[0] < 1
    assert [round(gap) for gap in gaps] == sorted(round(gap) for gap in gaps)
    assert gaps[-1] == pytest.approx(RETRY_LAST_S, abs=0.1)
    assert watcher.failing() == {channel: len(shore.heard.failures)}
    assert watcher.oldest_look_age_ns() is None  # never looked at: that is no age

    shore.broken.clear()
    await asyncio.sleep(RETRY_LAST_S)
    assert watcher.failing() == {}
    assert len(shore.heard.looks) == 1
    await stop(run)


@in_no_time
async def test_after_days_without_an_answer_it_still_tries_every_few_seconds() -> None:
    shore = Shore()
    channel = await shore.channel(challenge_s=3600)
    shore.broken.add(channel)
    watcher = shore.watcher()
    run = asyncio.ensure_future(watcher.run())
    watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    await asyncio.sleep(6 * 3600)  # more than 1024 failures: 2 to that power is no float
    before = len(shore.looks_asked[channel])
    assert before > 1024
    await asyncio.sleep(60)
    assert len(shore.looks_asked[channel]) - before >= 3
    await stop(run)


@in_no_time
async def test_a_look_that_is_asked_for_is_signed_after_that() -> None:
    """Rule 5: a look in flight may be of before the question. A replica can hold its answer as long as it likes."""
    shore = Shore()
    channel = await shore.channel()
    shore.agree(channel, 1)
    watcher = shore.watcher()
    run = asyncio.ensure_future(watcher.run())
    shore.hold = asyncio.Event()
    watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    await asyncio.sleep(5)  # its first look has seen nothing, and is held back
    shore.register(channel, 1)
    asked_ns = shore.monotonic_ns()
    asking = asyncio.ensure_future(watcher.look(channel))
    await asyncio.sleep(1)
    shore.hold.set()
    look = await asking
    assert look.asked_ns >= asked_ns
    assert look.registered is not None
    assert [seen.registered is not None for _, seen in shore.heard.looks] == [False, True]
    await stop(run)


@in_no_time
async def test_a_suspicion_during_a_look_leads_to_another_look() -> None:
    """Also when it comes from the very report of that look: an answer so old that payments wait for a newer one."""
    shore = Shore()
    channel = await shore.channel(challenge_s=3600)
    watcher = shore.watcher()
    run = asyncio.ensure_future(watcher.run())
    suspicions = iter([channel])
    shore.on_look = lambda _: watcher.hurry(next(suspicions, b""))  # type: ignore[arg-type]
    watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    await asyncio.sleep(1)
    assert len(shore.looks_asked[channel]) == 2
    watcher.hurry(channel)
    await asyncio.sleep(0.5)
    assert len(shore.looks_asked[channel]) == 3
    await asyncio.sleep(60)  # and then it is quiet again until the next is due
    assert len(shore.looks_asked[channel]) == 3
    await stop(run)


@in_no_time
async def test_a_fault_of_one_channel_does_not_stop_the_others() -> None:
    shore = Shore()
    broken, defective, good = [await shore.channel(nonce) for nonce in range(3)]
    shore.broken.add(broken)
    shore.defective.add(defective)
    watcher = shore.watcher()
    run = asyncio.ensure_future(watcher.run())
    for channel in (broken, defective, good):
        watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    await asyncio.sleep(120)
    assert len([c for c, _ in shore.heard.looks if c == good]) >= 12
    assert len(shore.looks_asked[defective]) >= 12
    assert not run.done()
    shore.defective.clear()  # and the faulty one recovers
    await asyncio.sleep(15)
    assert defective in {c for c, _ in shore.heard.looks}
    await stop(run)


@in_no_time
async def test_a_look_that_fails_is_an_error_for_who_asked() -> None:
    shore = Shore()
    channel = await shore.channel()
    watcher = shore.watcher()
    run = asyncio.ensure_future(watcher.run())
    watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    await asyncio.sleep(1)
    shore.broken.add(channel)
    with pytest.raises(NoAnswer):
        await watcher.look(channel)
    assert shore.heard.failures == [channel]
    await stop(run)


@in_no_time
async def test_the_age_of_the_oldest_look() -> None:
    shore = Shore()
    one, two = await shore.channel(1, challenge_s=3600), await shore.channel(2, challenge_s=3600)
    watcher = shore.watcher()
    assert watcher.oldest_look_age_ns() is None
    run = asyncio.ensure_future(watcher.run())
    watcher.watch(one, shore.states[one][0].challenge_duration_ns)
    await asyncio.sleep(100)
    watcher.watch(two, shore.states[two][0].challenge_duration_ns)
    await asyncio.sleep(10)
    assert watcher.oldest_look_age_ns() == pytest.approx(110 * SECOND, rel=0.01)
    watcher.unwatch(one)
    assert watcher.oldest_look_age_ns() == pytest.approx(10 * SECOND, rel=0.01)
    await stop(run)


@in_no_time
async def test_what_is_watched_no_more_is_not_looked_at() -> None:
    shore = Shore()
    channel = await shore.channel()
    watcher = shore.watcher()
    run = asyncio.ensure_future(watcher.run())
    watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)  # twice is once
    await asyncio.sleep(1)
    watcher.unwatch(channel)
    watcher.unwatch(channel)
    watcher.hurry(channel)
    await asyncio.sleep(600)
    assert len(shore.looks_asked[channel]) == 1
    await watcher.look(channel)  # who asks for one gets it all the same
    assert len(shore.looks_asked[channel]) == 2
    await stop(run)


@in_no_time
async def test_a_channel_that_is_watched_again_during_a_look_has_one_schedule() -> None:
    shore = Shore(latency_s=2)
    channel = await shore.channel(challenge_s=60)
    watcher = shore.watcher()
    run = asyncio.ensure_future(watcher.run())
    duration = shore.states[channel][0].challenge_duration_ns
    watcher.watch(channel, duration)
    await asyncio.sleep(1)
    watcher.unwatch(channel)
    watcher.watch(channel, duration)
    await asyncio.sleep(121)
    assert 10 <= len(shore.looks_asked[channel]) <= 14
    await stop(run)
