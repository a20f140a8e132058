"""Answers that come late, logs that start anew, and places that are given at the wrong moment."""

from __future__ import annotations

import asyncio

import pytest

from protocol.types import ChannelId, Nanos, RegisteredState, State
from tests.unit.devnet.scene import START_NS
from tests.unit.watcher.shore import SECOND, Shore, in_no_time, stop
from watcher.looking import Looks
from watcher.ports import CertifiedLook
from watcher.refuting import NearestFirst
from watcher.roster import Roster, Watched
from watcher.vitals import Vitals

CHANNEL = ChannelId(b"\x07" * 64)


def shown(version: int) -> RegisteredState:
    return RegisteredState(State(CHANNEL, version, (5, 5), finalized=False), Nanos(START_NS + 10**12))


def look(asked_s: float, version: int | None) -> CertifiedLook:
    asked_ns = int(asked_s * SECOND)
    return CertifiedLook(None if version is None else shown(version), asked_ns, Nanos(START_NS + asked_ns))


class _Taking:
    """What is taken of looks at one channel, and what would be refuted."""

    def __init__(self, shore: Shore) -> None:
        roster = Roster(6)
        entry = roster.add(CHANNEL, Nanos(60 * SECOND), 0)
        assert entry is not None
        self.entry: Watched = entry
        self.considered: list[int] = []
        self._looks = Looks(shore, shore, shore, roster, Vitals(roster, shore))

    def take(self, looked: CertifiedLook) -> int | None:
        """Return the version that is known to be registered afterwards."""
        self._looks.take(self.entry, looked, self._consider)
        return None if self.entry.registered is None else self.entry.registered.state.version

    def _consider(self, _: Watched, looked: CertifiedLook) -> None:
        assert looked.registered is not None
        self.considered.append(looked.registered.state.version)


@in_no_time
async def test_a_late_look_that_shows_more_is_news() -> None:
    """Answers overtake each other: the older request may have been executed later."""
    shore = Shore()
    taking = _Taking(shore)
    assert taking.take(look(1, None)) is None
    await asyncio.sleep(5)
    assert taking.take(look(4, 3)) == 3
    assert taking.take(look(2, 5)) == 5
    assert taking.considered == [3, 5]
    assert [looked.registered for _, looked in shore.heard.looks] == [None, shown(3), shown(5)]


@in_no_time
async def test_a_late_look_that_shows_a_registration_where_a_newer_one_showed_none_is_news() -> None:
    taking = _Taking(Shore())
    assert taking.take(look(4, None)) is None
    assert taking.take(look(2, 3)) == 3
    assert taking.considered == [3]
    assert taking.entry.looked_ns == 4 * SECOND  # but it is no newer for that


@in_no_time
async def test_a_late_look_that_shows_less_takes_nothing_back() -> None:
    shore = Shore()
    taking = _Taking(shore)
    await asyncio.sleep(5)
    assert taking.take(look(4, 5)) == 5
    for late in (look(4.9, 3), look(4.9, None), look(1, None)):
        assert taking.take(late) == 5
    assert taking.considered == [5]
    assert len(shore.heard.looks) == 1


@in_no_time
async def test_less_is_believed_of_a_request_that_was_signed_after_the_more_was_learned() -> None:
    """Then the canister lost its state: it was installed again, say."""
    taking = _Taking(Shore())
    await asyncio.sleep(5)
    assert taking.take(look(4, 5)) == 5
    assert taking.take(look(6, 3)) == 3
    await asyncio.sleep(5)
    assert taking.take(look(11, None)) is None


@in_no_time
async def test_what_a_log_that_starts_anew_has_already_is_read_and_refuted() -> None:
    """The canister was installed again: its first entries are below the index that the old log was read to."""
    shore = Shore()
    watcher = shore.log_watcher()
    for nonce in range(3):
        channel = await shore.channel(nonce)
        shore.agree(channel, 5)
        shore.register(channel, 5)
        watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    run = asyncio.ensure_future(watcher.run())
    await asyncio.sleep(11)
    assert shore.pages_asked[-1][1] == 3
    fresh = Shore()
    fresh.scene.now_ns = shore.chain_ns()
    shore.scene = fresh.scene
    stale = await shore.channel(7)
    shore.agree(stale, 5)
    shore.register(stale, 2)
    shore.broken.update(shore.channels)  # no look of its own: only the log can tell
    shore.pages_asked.clear()
    watcher.watch(stale, shore.states[stale][0].challenge_duration_ns)
    await asyncio.sleep(11)
    assert [cursor for _, cursor in shore.pages_asked][:2] == [3, 0]
    assert shore.registered(stale) == 5
    await stop(run)


@in_no_time
async def test_the_horizon_is_as_old_as_the_first_page_of_a_sweep() -> None:
    """What is registered while later pages are read may stand behind what the first one showed: rule 4 counts from
    when the first was asked for.
    """
    shore = Shore()
    channels = [await shore.channel(nonce) for nonce in range(450)]  # three pages
    for channel in channels:
        shore.register(channel, 5)
    quiet = await shore.channel(451)
    shore.page_delay_s = 1.0
    watcher = shore.log_watcher()
    watcher.watch(quiet, shore.states[quiet][0].challenge_duration_ns)
    run = asyncio.ensure_future(watcher.run())
    await asyncio.sleep(5)
    assert [cursor for _, cursor in shore.pages_asked] == [0, 200, 400]
    began_s = shore.pages_asked[0][0]
    assert watcher.horizon.asked_ns == pytest.approx(began_s * SECOND, abs=1)
    assert watcher.horizon.chain_ns == pytest.approx(START_NS + began_s * SECOND, abs=1)
    await stop(run)


@pytest.mark.parametrize("others", [0, 1])
async def test_a_place_that_is_given_at_the_moment_of_a_cancellation_goes_to_the_next(others: int) -> None:
    places = NearestFirst(1)
    done: list[int] = []

    async def work(deadline: int) -> None:
        async with places.place(deadline):
            done.append(deadline)

    async with places.place(1):
        cancelled, *rest = [asyncio.ensure_future(work(deadline)) for deadline in range(2, 3 + others)]
        await asyncio.sleep(0)
    cancelled.cancel()  # the place is its own already, and it does not know yet
    await asyncio.gather(cancelled, *rest, return_exceptions=True)
    assert cancelled.cancelled()
    assert done == [3][:others]
    async with asyncio.timeout(1), places.place(9):
        pass


@in_no_time
async def test_an_ordinary_look_asks_one_server() -> None:
    """Asking every server at once is for when no proof comes."""
    shore = Shore()
    asked: list[ChannelId] = []

    async def look_everywhere(channel: ChannelId, within_s: float) -> CertifiedLook:
        asked.append(channel)
        return await shore.look(channel)

    shore.look_everywhere = look_everywhere  # type: ignore[method-assign]
    channel = await shore.channel()
    watcher = shore.watcher()
    watcher.watch(channel, shore.states[channel][0].challenge_duration_ns)
    run = asyncio.ensure_future(watcher.run())
    await asyncio.sleep(60)
    await watcher.look(channel)
    assert len(shore.looks_asked[channel]) > 3
    shore.agree(channel, 5)
    shore.register(channel, 2)
    await asyncio.sleep(15)
    assert shore.registered(channel) == 5  # refuted, and confirmed by a look
    assert asked == []
    await stop(run)
