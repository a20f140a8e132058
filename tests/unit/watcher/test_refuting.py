"""What the watcher does about a registered state: below ours is refuted until a look shows ours, above ours never."""

from __future__ import annotations

import asyncio

from protocol.types import ChannelId
from tests.unit.watcher.shore import Shore, in_no_time, stop
from watcher.watch import Watcher


async def guarded(shore: Shore, version: int = 5) -> tuple[ChannelId, Watcher, asyncio.Task[None]]:
    """A channel that is watched, with a newest state of this version."""
    channel = await shore.channel()
    shore.agree(channel, version)
    watcher = shore.watcher()
    run = asyncio.ensure_future(watcher.run())
    watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    await asyncio.sleep(1)
    return channel, watcher, run


@in_no_time
async def test_a_stale_state_is_refuted_in_the_next_round() -> None:
    shore = Shore()
    channel, _, run = await guarded(shore)
    shore.register(channel, 3)
    registered_s = shore.now_s()
    await asyncio.sleep(15)
    assert shore.registered(channel) == 5
    assert shore.refutations[0][0] - registered_s < 10.1  # a sixth of the challenge period
    assert shore.heard.refuting == [(channel, 3, 5)]
    assert shore.heard.refuted == [(channel, 5)]
    assert len(shore.refutations) == 1
    await stop(run)


@in_no_time
async def test_ours_and_what_is_above_ours_is_never_refuted() -> None:
    shore = Shore()
    channel, _, run = await guarded(shore)
    shore.register(channel, 5)
    await asyncio.sleep(20)
    shore.register(channel, 7)
    await asyncio.sleep(20)
    assert shore.refutations == []
    assert shore.heard.refuting == []
    assert shore.heard.looks[-1][1].registered is not None  # who watches is told all the same
    await stop(run)


@in_no_time
async def test_another_state_of_our_version_is_reported_and_left() -> None:
    """What it means is the channel's to say, which compares whole states: no version refutes its equal."""
    shore = Shore()
    channel, _, run = await guarded(shore)
    shore.register(channel, 5, paid=4)
    await asyncio.sleep(20)
    assert shore.refutations == []
    seen = shore.heard.looks[-1][1].registered
    assert seen is not None
    assert seen.state.digest != shore.states[channel][1].state.digest
    await stop(run)


@in_no_time
async def test_a_refutation_is_repeated_until_a_look_shows_it() -> None:
    shore = Shore()
    channel, _, run = await guarded(shore)
    shore.lost_refutations = 4
    shore.register(channel, 3)
    await asyncio.sleep(30)
    assert shore.registered(channel) == 5
    assert len(shore.refutations) == 5
    assert shore.heard.refuted == [(channel, 5)]
    assert shore.heard.refuting == [(channel, 3, 5)]  # one alarm, not one for each try
    await stop(run)


@in_no_time
async def test_an_answer_alone_proves_nothing() -> None:
    """The refutation is confirmed by a look, also when the canister said done: here the look fails for a while."""
    shore = Shore()
    channel, _, run = await guarded(shore)
    shore.register(channel, 3)
    shore.on_look = lambda _: shore.broken.add(channel) if shore.registered(channel) == 3 else None
    await asyncio.sleep(14)
    assert shore.registered(channel) == 5
    assert shore.heard.refuted == []
    shore.broken.clear()
    await asyncio.sleep(15)
    assert shore.heard.refuted == [(channel, 5)]
    await stop(run)


@in_no_time
async def test_the_newest_state_is_read_at_the_moment_of_use() -> None:
    shore = Shore(latency_s=1)
    channel, _, run = await guarded(shore, 5)
    shore.lost_refutations = 1
    shore.register(channel, 3)
    await shore.refuting_began.wait()
    shore.agree(channel, 6)  # while the first request is on its way
    await asyncio.sleep(15)
    assert [version for _, version in shore.refutations] == [5, 6]
    assert shore.registered(channel) == 6
    assert shore.heard.refuted == [(channel, 6)]
    await stop(run)


@in_no_time
async def test_old_states_registered_one_by_one_gain_the_peer_nothing() -> None:
    shore = Shore()
    channel, _, run = await guarded(shore, 9)
    shore.register(channel, 1)
    await asyncio.sleep(15)
    assert shore.registered(channel) == 9  # the newest at once, not the one above
    made = shore.channels[channel]
    for version in range(2, 9):
        shore.scene.now_ns = shore.chain_ns()
        assert shore.scene.dispute(made, made.signed(version, 1000 - version, version)) is not None
    await stop(run)


@in_no_time
async def test_a_second_stale_state_after_ours_was_replaced_by_a_newer_one() -> None:
    shore = Shore()
    channel, _, run = await guarded(shore, 5)
    shore.register(channel, 3)
    await asyncio.sleep(15)
    shore.agree(channel, 8)
    await asyncio.sleep(15)
    assert shore.registered(channel) == 8  # ours is the newest there is: what stands below it is refuted as well
    assert shore.heard.refuting == [(channel, 3, 5), (channel, 5, 8)]
    await stop(run)


@in_no_time
async def test_what_is_settled_is_reported_and_not_refuted() -> None:
    shore = Shore()
    channel, watcher, run = await guarded(shore)
    await stop(run)  # the node is down while a stale state settles
    shore.register(channel, 3)
    await asyncio.sleep(100)
    run = asyncio.ensure_future(watcher.run())
    watcher.hurry(channel)
    await asyncio.sleep(30)
    assert shore.refutations == []
    seen = shore.heard.looks[-1][1]
    assert seen.brief().settled
    assert seen.brief().version == 3
    await stop(run)


@in_no_time
async def test_a_refutation_ends_when_it_is_too_late() -> None:
    shore = Shore()
    channel, _, run = await guarded(shore)
    shore.lost_refutations = 1_000
    shore.register(channel, 3)
    await asyncio.sleep(100)
    tried = len(shore.refutations)
    assert tried > 5
    await asyncio.sleep(200)
    assert len(shore.refutations) == tried
    assert shore.heard.refuted == []
    await stop(run)


@in_no_time
async def test_a_channel_that_nobody_knows_any_more_is_not_refuted() -> None:
    shore = Shore()
    channel, _, run = await guarded(shore)
    del shore.states[channel]
    shore.register(channel, 3)
    await asyncio.sleep(20)
    assert shore.refutations == []
    await stop(run)


@in_no_time
async def test_unwatch_ends_a_refutation_and_a_look_in_flight_starts_none() -> None:
    shore = Shore()
    channel, watcher, run = await guarded(shore)
    shore.lost_refutations = 1_000
    shore.register(channel, 3)
    await shore.refuting_began.wait()
    watcher.unwatch(channel)
    tried = len(shore.refutations)
    await asyncio.sleep(30)
    assert len(shore.refutations) == tried

    watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    shore.hold = asyncio.Event()
    await asyncio.sleep(1)
    watcher.unwatch(channel)
    shore.hold.set()
    await asyncio.sleep(10)
    assert len(shore.refutations) == tried
    await stop(run)


@in_no_time
async def test_cancelling_the_watcher_leaves_nothing_behind() -> None:
    shore = Shore(latency_s=5)
    channel, _, run = await guarded(shore)
    others = [await shore.channel(nonce) for nonce in range(1, 40)]
    shore.lost_refutations = 1_000
    shore.register(channel, 3)
    await shore.refuting_began.wait()
    assert len(others) == 39
    await stop(run)  # asserts that no task is left
    tried = len(shore.refutations)
    await asyncio.sleep(100)
    assert len(shore.refutations) == tried
