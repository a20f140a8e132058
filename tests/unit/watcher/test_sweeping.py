"""The canister's log: one certified reading of it is a look at every quiet channel, and hides nothing."""

from __future__ import annotations

import asyncio

import pytest

from protocol.horizon import Horizon
from protocol.types import ChannelId, Nanos
from tests.unit.watcher.shore import SECOND, Shore, in_no_time, stop
from watcher.ports import CertifiedLook, LogEntry
from watcher.watch import DAY_NS, LOOKS_IN_FLIGHT, Watcher


async def guarded(shore: Shore, count: int = 1, version: int = 5, hint_every_s: float = 1e9) -> tuple[
    list[ChannelId], Watcher, asyncio.Task[None]
]:  # fmt: skip
    """Channels that are watched by the log, all of them quiet."""
    channels = [await shore.channel(nonce) for nonce in range(count)]
    watcher = shore.log_watcher(hint_every_s)
    for channel in channels:
        shore.agree(channel, version)
        watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    run = asyncio.ensure_future(watcher.run())
    await asyncio.sleep(1)
    return channels, watcher, run


@in_no_time
async def test_quiet_channels_are_covered_by_one_reading_of_the_log() -> None:
    shore = Shore()
    channels, watcher, run = await guarded(shore, 200)
    assert {channel for channel, _ in shore.heard.looks} == set(channels)  # each has a look: its own, or the log's
    own = sum(len(asked) for asked in shore.looks_asked.values())
    assert own <= 2 * LOOKS_IN_FLIGHT  # those that were under way before the log was read
    asked = len(shore.pages_asked)
    await asyncio.sleep(600)
    assert len(shore.pages_asked) - asked == pytest.approx(60, abs=2)  # six in each challenge period of 60 s
    later = sum(len(asked) for asked in shore.looks_asked.values()) - own
    assert later <= 200 * 600 * SECOND / DAY_NS + 3
    assert watcher.horizon.asked_ns is not None
    assert shore.monotonic_ns() - watcher.horizon.asked_ns < 11 * SECOND
    age = watcher.oldest_look_age_ns()
    assert age is not None
    assert age < 11 * SECOND
    assert watcher.condition().by_log
    await stop(run)


@in_no_time
async def test_a_registration_is_found_by_the_next_reading_and_refuted() -> None:
    shore = Shore()
    (channel, other), watcher, run = await guarded(shore, 2)
    shore.register(channel, 3)
    registered_s = shore.now_s()
    await asyncio.sleep(12)
    assert shore.registered(channel) == 5
    assert shore.refutations[0][0] - registered_s < 10.1
    assert shore.heard.refuting == [(channel, 3, 5)]
    assert shore.heard.refuted == [(channel, 5)]
    # From now on it has looks of its own; the other has none.
    before = len(shore.looks_asked[channel]), len(shore.looks_asked[other])
    await asyncio.sleep(100)
    assert len(shore.looks_asked[channel]) - before[0] >= 9
    assert len(shore.looks_asked[other]) == before[1]
    assert watcher.condition().sweeps > 10
    await stop(run)


@in_no_time
async def test_the_horizon_moves_only_after_what_was_found_is_told() -> None:
    """Rule 4: a channel with something registered must not pass for a quiet one, not for a moment."""
    shore = Shore()
    (channel, _), watcher, run = await guarded(shore, 2)
    horizons: list[int | None] = []

    def told(_: ChannelId) -> None:
        horizons.append(watcher.horizon.asked_ns)

    shore.on_look = told
    shore.register(channel, 7)  # above ours: nothing to refute, much to tell
    registered_ns = shore.monotonic_ns()
    await asyncio.sleep(12)
    assert horizons[0] is not None
    assert horizons[0] < registered_ns
    await stop(run)


@in_no_time
async def test_a_channel_that_cannot_be_told_holds_the_horizon() -> None:
    shore = Shore()
    (channel, quiet, next_to_it), watcher, run = await guarded(shore, 3)
    shore.defective.add(channel)
    shore.register(channel, 3)
    shore.register(next_to_it, 3)
    horizon = watcher.horizon.asked_ns
    await asyncio.sleep(40)
    moved = watcher.horizon.asked_ns
    assert moved is not None
    assert horizon is not None
    assert moved - horizon <= 10 * SECOND  # at most the sweep that was due before it was registered
    assert shore.registered(channel) == shore.registered(next_to_it) == 5  # but they are refuted all the same
    assert not watcher.condition().by_log
    assert len(shore.looks_asked[quiet]) >= 3  # and the others are looked at one by one
    assert not run.done()
    shore.defective.clear()
    await asyncio.sleep(80)
    assert watcher.horizon.asked_ns is not None
    assert shore.monotonic_ns() - watcher.horizon.asked_ns < 11 * SECOND
    assert quiet in {c for c, _ in shore.heard.looks}
    await stop(run)


@in_no_time
async def test_what_was_registered_while_the_watcher_was_away_is_found_from_zero() -> None:
    shore = Shore()
    channels = [await shore.channel(nonce) for nonce in range(450)]  # more than two pages
    for channel in channels:
        shore.agree(channel, 5)
        shore.register(channel, 5)
    stale = channels[300]
    shore.agree(stale, 6)
    watcher = shore.log_watcher()
    run = asyncio.ensure_future(watcher.run())
    watcher.watch(stale, shore.states[stale][0].challenge_duration_ns)
    await asyncio.sleep(2)
    assert [cursor for _, cursor in shore.pages_asked[:3]] == [0, 200, 400]
    assert shore.registered(stale) == 6
    await stop(run)


@in_no_time
async def test_an_answer_that_was_overtaken_takes_nothing_back() -> None:
    """A page is asked for before a look and executed after it: the older request shows more, and counts."""
    shore = Shore(latency_s=0.2)
    (channel,), watcher, run = await guarded(shore)
    shore.page_delay_s = 3.0  # a replica that executes the reading of the log late
    await shore.page_asked()
    await asyncio.sleep(0.1)
    look = await watcher.look(channel)  # signed later, executed earlier: nothing registered
    assert look.registered is None
    shore.register(channel, 7)
    await asyncio.sleep(4)
    seen = [registered.registered for c, registered in shore.heard.looks if c == channel]
    assert seen[-1] is not None
    assert seen[-1].state.version == 7
    await asyncio.sleep(30)
    assert all(look.registered is not None for _, look in shore.heard.looks[-3:])
    await stop(run)


@in_no_time
async def test_a_log_that_starts_anew_is_read_from_zero() -> None:
    shore = Shore()
    (channel, other), watcher, run = await guarded(shore, 2)
    shore.register(other, 5)
    await asyncio.sleep(21)
    assert shore.pages_asked[-1][1] == 1
    fresh = Shore()
    fresh.scene.now_ns = shore.chain_ns()
    shore.scene = fresh.scene  # the canister was installed again, and is empty
    again = await shore.channel(0)
    assert again == channel
    await asyncio.sleep(21)
    assert 0 in [cursor for _, cursor in shore.pages_asked[-3:]]
    shore.agree(channel, 5)
    shore.register(channel, 2)
    await asyncio.sleep(15)
    assert shore.registered(channel) == 5
    assert watcher.condition().sweeps > 0
    await stop(run)


@in_no_time
async def test_while_the_log_is_out_of_reach_each_channel_is_looked_at_and_then_no_more() -> None:
    shore = Shore()
    channels, watcher, run = await guarded(shore, 20)
    shore.log_broken = True
    own = sum(len(asked) for asked in shore.looks_asked.values())
    await asyncio.sleep(60)
    assert not watcher.condition().by_log
    assert watcher.condition().state == "degraded"
    looks = sum(len(asked) for asked in shore.looks_asked.values()) - own
    assert looks >= 20 * 3
    shore.register(channels[3], 2)
    await asyncio.sleep(12)
    assert shore.registered(channels[3]) == 5
    age = watcher.oldest_look_age_ns()
    assert age is not None
    assert age < 20 * SECOND  # payments go on: a third of the challenge period

    shore.log_broken = False
    await asyncio.sleep(30)
    assert watcher.condition().by_log
    assert watcher.condition().state == "watching"
    quiet = sum(len(shore.looks_asked[c]) for c in channels if c != channels[3])
    await asyncio.sleep(100)
    assert sum(len(shore.looks_asked[c]) for c in channels if c != channels[3]) - quiet <= 1
    await stop(run)


@in_no_time
async def test_every_channel_has_a_look_of_its_own_each_day() -> None:
    shore = Shore()
    channels, watcher, run = await guarded(shore, 12)
    before = {channel: len(shore.looks_asked.get(channel, [])) for channel in channels}
    started = shore.now_s()
    await asyncio.sleep(86_400 + 60)
    times = sorted(at for c in channels for at in shore.looks_asked[c][before[c] :])
    assert all(1 <= len(shore.looks_asked[c]) - before[c] <= 2 for c in channels)
    assert times[0] > started
    assert len({round(at / 600) for at in times}) > 6  # spread over the day
    assert watcher.condition().by_log
    await stop(run)


@in_no_time
async def test_a_hint_starts_a_look_long_before_the_next_reading() -> None:
    shore = Shore()
    (channel, _), _, run = await guarded(shore, 2, hint_every_s=2)
    await shore.page_asked()
    await asyncio.sleep(0.1)
    shore.register(channel, 3)
    registered_s = shore.now_s()
    await shore.refuting_began.wait()
    assert shore.now_s() - registered_s < 2.2
    await stop(run)


@in_no_time
async def test_lying_queries_cost_a_look_in_each_interval_and_move_nothing() -> None:
    shore = Shore()
    channels, _, run = await guarded(shore, 3, hint_every_s=2)
    (first, *_) = channels
    truth = shore.states[first][1].state
    shore.scene.now_ns = shore.chain_ns()
    liar = await shore.channel(99)
    shore.register(liar, 1)
    registered = shore.entries(0, 1)[0].registered
    assert registered is not None
    shore.lies = [LogEntry(10**9 + i, channel, registered) for i, channel in enumerate(channels)]
    before = sum(len(asked) for asked in shore.looks_asked.values())
    await asyncio.sleep(100)
    looks = sum(len(asked) for asked in shore.looks_asked.values()) - before
    assert len(shore.hints_asked) >= 45
    assert looks <= 3 * (100 / 10 + 2)
    assert {cursor for _, cursor in shore.pages_asked[-5:]} == {1}  # the certified head, whatever they said
    assert shore.refutations == []
    assert truth.version == 5
    await stop(run)


@in_no_time
async def test_a_query_that_hides_a_registration_delays_it_to_the_certified_reading() -> None:
    shore = Shore()
    (channel,), _, run = await guarded(shore, hint_every_s=2)
    shore.lies = []
    shore.register(channel, 3)
    registered_s = shore.now_s()
    await asyncio.sleep(12)
    assert shore.registered(channel) == 5
    assert shore.refutations[0][0] - registered_s < 10.1
    await stop(run)


@in_no_time
async def test_without_a_log_single_queries_go_round_and_start_looks() -> None:
    shore = Shore()
    channels = [await shore.channel(nonce, challenge_s=3600) for nonce in range(10)]
    watcher = Watcher(shore, shore, shore, shore, hints=shore, hint_every_s=2, notices=shore)
    run = asyncio.ensure_future(watcher.run())
    for channel in channels:
        shore.agree(channel, 5)
        watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    await asyncio.sleep(5)
    shore.register(channels[7], 3)
    registered_s = shore.now_s()
    await shore.refuting_began.wait()
    assert shore.now_s() - registered_s < 7  # ten channels, four in each turn of two seconds
    await stop(run)


def test_a_horizon_never_goes_back() -> None:
    horizon = Horizon()
    for asked_ns in (5, 9, 7):
        horizon.move(asked_ns, Nanos(asked_ns))
    assert horizon.asked_ns == 9


@in_no_time
async def test_a_channel_that_comes_later_has_a_look_of_its_own_first() -> None:
    """It may have been registered below the cursor before anybody watched it."""
    shore = Shore()
    _, watcher, run = await guarded(shore, 2)
    late = await shore.channel(50)
    shore.agree(late, 4)
    shore.register(late, 2)
    await asyncio.sleep(20)  # its entry was read when nobody asked for it
    looks: list[CertifiedLook] = []
    shore.on_look = lambda channel: looks.extend(look for c, look in shore.heard.looks[-1:] if c == late == channel)
    watcher.watch(late, shore.states[late][0].challenge_duration_ns)
    await asyncio.sleep(1)
    assert looks[0].registered is not None
    assert shore.registered(late) == 4
    await stop(run)
