"""One full certified round, as `perund watch --once` makes it."""

from __future__ import annotations

import asyncio

import pytest

from protocol.types import ChannelId
from tests.unit.watcher.shore import Shore, in_no_time
from watcher.watch import Watcher


async def watched(shore: Shore, count: int = 3, *, by_log: bool = True) -> tuple[list[ChannelId], Watcher]:
    watcher = shore.log_watcher() if by_log else shore.watcher()
    channels = [await shore.channel(nonce) for nonce in range(count)]
    for channel in channels:
        shore.agree(channel, 5)
        watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    return channels, watcher


@pytest.mark.parametrize("by_log", [True, False])
def test_it_sees_everything_refutes_and_ends(by_log: bool) -> None:
    @in_no_time
    async def life() -> None:
        shore = Shore()
        channels, watcher = await watched(shore, by_log=by_log)
        shore.register(channels[1], 2)
        shore.lost_refutations = 2
        await watcher.once()
        assert {channel for channel, _ in shore.heard.looks} == set(channels)
        assert shore.registered(channels[1]) == 5
        assert shore.heard.refuted == [(channels[1], 5)]
        assert watcher.condition().state == "watching"
        assert len(asyncio.all_tasks()) == 1

    life()


@in_no_time
async def test_where_the_log_cannot_be_read_each_channel_is_looked_at() -> None:
    shore = Shore()
    channels, watcher = await watched(shore)
    shore.log_broken = True
    shore.broken.add(channels[0])
    shore.register(channels[2], 2)
    await watcher.once()
    assert shore.registered(channels[2]) == 5
    assert shore.heard.failures == [channels[0]]
    assert watcher.condition().state == "degraded"


@in_no_time
async def test_it_does_not_wait_for_ever_for_a_refutation_that_cannot_be_made() -> None:
    shore = Shore()
    channels, watcher = await watched(shore)
    shore.register(channels[0], 2)
    shore.lost_refutations = 10_000
    look = shore.look

    async def unreachable(channel: ChannelId):  # type: ignore[no-untyped-def]
        if shore.refutations:
            shore.broken.add(channel)
        return await look(channel)

    shore.look = unreachable  # type: ignore[method-assign]
    began = shore.now_s()
    await watcher.once()
    assert 60 < shore.now_s() - began < 200  # the challenge period, and a minute
    assert "watcher.margin_quarter" in shore.heard.alarms()
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1
