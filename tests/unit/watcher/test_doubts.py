"""Where no certificate can be had, what is merely shown is enough to refute by; and what that costs is bounded."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

import pytest

from protocol.types import ChannelId, Nanos, Params, RegisteredState, SignedState, State
from tests.unit.devnet.scene import START_NS
from tests.unit.watcher.shore import SECOND, NoAnswer, Shore, in_no_time, stop
from watcher.doubts import BURST
from watcher.ports import CertifiedLook
from watcher.watch import Watcher


async def guarded(
    shore: Shore, watcher: Watcher, count: int = 1, challenge_s: int = 120
) -> tuple[list[ChannelId], asyncio.Task[None]]:
    """Channels that are watched, with a newest state of version 5."""
    channels = [await shore.channel(nonce, challenge_s=challenge_s) for nonce in range(count)]
    for channel in channels:
        shore.agree(channel, 5)
        watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    run = asyncio.ensure_future(watcher.run())
    await asyncio.sleep(1)
    return channels, run


def registered(channel: ChannelId, version: int, total: int = 1000) -> RegisteredState:
    return RegisteredState(
        State(channel, version, (total - version, version), finalized=False), Nanos(START_NS + 10**6 * SECOND)
    )


@pytest.mark.parametrize("by_log", [True, False], ids=["a log", "no log"])
@pytest.mark.parametrize("from_the_start", [True, False], ids=["from the start", "later"])
def test_a_hint_is_enough_where_no_proof_can_be_had(by_log: bool, from_the_start: bool) -> None:
    @in_no_time
    async def life() -> None:
        shore = Shore()
        shore.no_proofs = from_the_start
        (channel,), run = await guarded(shore, shore.log_watcher(2) if by_log else shore.query_watcher())
        shore.no_proofs = True
        shore.register(channel, 3)
        registered_s = shore.now_s()
        await asyncio.sleep(20)
        assert shore.registered(channel) == 5
        assert shore.refutations[0][0] - registered_s < 12
        assert shore.heard.alarms()[0] == "watcher.refuting_unproven"
        assert shore.heard.refuting == []  # that is said of what is certified
        await asyncio.sleep(600)
        assert len(shore.refutations) == 1, "a query that shows ours ends it"
        await stop(run)

    life()


@in_no_time
async def test_what_a_bad_certificate_shows_is_a_hint_too() -> None:
    """Queries hang. The answers to looks prove nothing, and show it."""
    shore = Shore()
    shore.no_proofs = shore.shows = shore.silent_hints = True
    (channel,), run = await guarded(shore, shore.log_watcher(2))
    shore.register(channel, 3)
    await asyncio.sleep(40)
    assert shore.registered(channel) == 5
    await stop(run)


@in_no_time
async def test_what_was_certified_once_is_refuted_when_ours_is_newer_later() -> None:
    """A tower learns a newer state in the middle of a dispute, and from then on nothing is certified or shown."""
    shore = Shore()
    watcher = shore.query_watcher()
    (channel,), run = await guarded(shore, watcher)
    shore.register(channel, 5)
    await asyncio.sleep(25)
    assert shore.refutations == []
    shore.no_proofs = shore.silent_hints = True
    shore.agree(channel, 8)
    watcher.hurry(channel)
    await asyncio.sleep(10)
    assert shore.registered(channel) == 8
    await stop(run)


@in_no_time
async def test_what_a_store_remembers_of_before_a_crash_is_enough() -> None:
    shore = Shore()
    shore.no_proofs = shore.silent_hints = True
    watcher = shore.query_watcher()
    (channel,), run = await guarded(shore, watcher)
    shore.register(channel, 3)
    watcher.suspect(channel, registered(channel, 3))
    await asyncio.sleep(20)
    assert shore.registered(channel) == 5
    await stop(run)


@in_no_time
async def test_in_a_log_that_cannot_be_certified_the_end_is_found() -> None:
    """Five hundred channels of others are registered before ours; no cursor is certified."""
    shore = Shore()
    shore.no_proofs = True
    others = [await shore.channel(nonce) for nonce in range(1, 501)]
    for other in others:
        shore.register(other, 0)
    (channel,), run = await guarded(shore, Watcher(shore, shore, shore, shore, disputes=shore, notices=shore))
    shore.register(channel, 3)
    await asyncio.sleep(20)
    assert shore.registered(channel) == 5
    await stop(run)


@in_no_time
async def test_one_hint_that_hangs_keeps_nobody_waiting() -> None:
    shore = Shore()
    shore.no_proofs = True
    hint, hanging = shore.hint, set[ChannelId]()

    async def some_hang(channel: ChannelId) -> RegisteredState | None:
        if channel in hanging:
            await asyncio.Event().wait()
        return await hint(channel)

    shore.hint = some_hang  # type: ignore[method-assign]
    channels, run = await guarded(shore, shore.query_watcher(), 20)
    hanging.update(channels[:-1])
    shore.register(channels[-1], 3)
    await asyncio.sleep(60)
    assert shore.registered(channels[-1]) == 5
    await stop(run)


@in_no_time
async def test_a_look_has_the_last_word_where_it_can_be_had() -> None:
    """A single node lies; looks are slow, but they come."""
    shore = Shore(latency_s=3)
    (channel,), run = await guarded(shore, shore.query_watcher())
    shore.made_up[channel] = registered(channel, 3)
    await asyncio.sleep(600)
    assert shore.refutations == []
    assert shore.heard.alarms() == []
    await stop(run)


@in_no_time
async def test_who_keeps_looks_back_is_asked_together_with_all_others() -> None:
    """The first server in line keeps each answer for a minute and lies in its queries; another one is honest."""
    shore = Shore()
    (channel,), run = await guarded(shore, shore.query_watcher())
    look = shore.look

    async def kept(channel: ChannelId) -> object:
        await asyncio.sleep(60)
        return await look(channel)

    async def everywhere(channel: ChannelId, within_s: float) -> object:
        del within_s
        return await look(channel)

    shore.look, shore.look_everywhere = kept, everywhere  # type: ignore[method-assign, assignment]
    shore.made_up[channel] = registered(channel, 3)
    await asyncio.sleep(600)
    assert shore.refutations == []
    await stop(run)


@pytest.mark.parametrize(
    ("version", "total"), [(5, 1000), (9, 1000), (3, 999)], ids=["ours", "above ours", "no state of this channel"]
)
def test_what_is_not_below_ours_is_not_refuted_on_a_hint(version: int, total: int) -> None:
    @in_no_time
    async def life() -> None:
        shore = Shore()
        shore.no_proofs = True
        (channel,), run = await guarded(shore, shore.query_watcher())
        shore.made_up[channel] = registered(channel, version, total)
        await asyncio.sleep(300)
        assert shore.refutations == []
        await stop(run)

    life()


@in_no_time
async def test_a_liar_whom_nobody_can_contradict_costs_little_and_hides_nothing() -> None:
    """It shows a registration for each of two hundred channels. One of them is real."""
    shore = Shore()
    shore.no_proofs = True
    sent: list[tuple[float, ChannelId]] = []
    refute = shore.refute

    async def counted(params: Params, signed: SignedState, within_s: float) -> str:
        sent.append((shore.now_s(), params.channel_id))
        if params.channel_id == channels[-1]:
            return await refute(params, signed, within_s)
        return "lost"

    shore.refute = counted  # type: ignore[method-assign]
    watcher = shore.query_watcher()
    channels, run = await guarded(shore, watcher, 200, challenge_s=600)
    for channel in channels[:-1]:
        shore.made_up[channel] = registered(channel, 3)
    shore.register(channels[-1], 3)
    await asyncio.sleep(600)
    assert shore.registered(channels[-1]) == 5
    rate = 4 * 200 / 600
    assert len(sent) <= BURST + rate * 600
    assert max(Counter(channel for _, channel in sent).values()) <= 8
    for second in range(0, 600, 10):
        assert len([at for at, _ in sent if second <= at < second + 10]) <= BURST + rate * 10 + 1
    told = [channel for kind, channel, _ in shore.heard.notices if kind == "watcher.refuting_unproven"]
    assert max(Counter(told).values()) <= 2
    await stop(run)


@in_no_time
async def test_a_liar_that_takes_its_word_back_begins_nothing_anew() -> None:
    shore = Shore()
    shore.no_proofs = True
    (channel,), run = await guarded(shore, shore.query_watcher(1))
    shore.lost_refutations = 10**6
    for turn in range(600):
        shore.made_up[channel] = registered(channel, 3) if turn % 2 else None
        await asyncio.sleep(1)
    assert len(shore.refutations) <= 5 * 8  # five challenge periods
    await stop(run)


@in_no_time
async def test_what_is_watched_no_more_is_forgotten() -> None:
    shore = Shore()
    shore.no_proofs = True
    watcher = shore.query_watcher()
    (channel,), run = await guarded(shore, watcher)
    watcher.suspect(channel, registered(channel, 3))
    watcher.unwatch(channel)
    await asyncio.sleep(60)
    assert shore.refutations == []
    await stop(run)


@in_no_time
async def test_one_round_asks_and_refutes_as_well() -> None:
    shore = Shore()
    channel = await shore.channel(challenge_s=120)
    shore.agree(channel, 5)
    watcher = shore.query_watcher()
    watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    shore.register(channel, 3)
    shore.no_proofs = True
    await watcher.once()
    assert shore.registered(channel) == 5


def keep_back(shore: Shore, real: ChannelId, sent: list[float]) -> None:
    """From now on every server keeps every answer as long as it can; what arrives is executed all the same."""
    refute = shore.refute
    shore.no_proofs = True

    async def kept(channel: ChannelId) -> CertifiedLook:
        del channel
        return await asyncio.Event().wait()  # type: ignore[return-value]  # it never comes

    async def kept_everywhere(channel: ChannelId, within_s: float) -> CertifiedLook:
        del channel
        await asyncio.sleep(within_s)
        raise NoAnswer("nobody answered")

    async def unanswered(params: Params, signed: SignedState, within_s: float) -> str:
        sent.append(shore.now_s())
        if params.channel_id == real:
            with contextlib.suppress(NoAnswer):
                await refute(params, signed, within_s)
        await asyncio.sleep(within_s)
        raise NoAnswer("nobody answered")

    shore.look, shore.look_everywhere, shore.refute = kept, kept_everywhere, unanswered  # type: ignore[method-assign]


@pytest.mark.parametrize(("count", "challenge_s"), [(150, 60), (300, 120)])
def test_a_true_hint_does_not_wait_behind_a_liar_that_keeps_every_answer_back(count: int, challenge_s: int) -> None:
    """It shows something of each channel, and each look and each refutation waits as long as it may."""

    @in_no_time
    async def life() -> None:
        shore, sent = Shore(), list[float]()
        channels, run = await guarded(shore, shore.query_watcher(), count, challenge_s)
        keep_back(shore, channels[-1], sent)
        for channel in channels[:-1]:
            shore.made_up[channel] = registered(channel, 3)
        shore.register(channels[-1], 3)
        began_s = shore.now_s()
        await asyncio.sleep(challenge_s - 5)
        assert shore.registered(channels[-1]) == 5, "settled on the old state"
        rate = max(1.0, 4 * count / challenge_s)
        assert len(sent) <= BURST + rate * (shore.now_s() - began_s)
        await stop(run)

    life()


@in_no_time
async def test_one_server_that_answers_contradicts_a_liar_about_every_channel() -> None:
    """More channels than looks at once: the look at one speaks for others only where it came to nothing."""
    shore = Shore()
    channels, run = await guarded(shore, shore.query_watcher(), 40, challenge_s=600)
    look = shore.look
    kept = set(channels[:2])

    async def some_are_kept(channel: ChannelId, within_s: float) -> CertifiedLook:
        if channel in kept:
            await asyncio.sleep(within_s)
            raise NoAnswer("nobody answered")
        await asyncio.sleep(6)
        return await look(channel)

    shore.look_everywhere = some_are_kept  # type: ignore[method-assign]
    for channel in channels:
        shore.made_up[channel] = registered(channel, 3)
    sent: list[ChannelId] = []

    async def counted(params: Params, signed: SignedState, within_s: float) -> str:
        del signed, within_s
        sent.append(params.channel_id)
        return "done"

    shore.refute = counted  # type: ignore[method-assign]
    await asyncio.sleep(200)
    assert set(sent) <= kept
    await stop(run)
