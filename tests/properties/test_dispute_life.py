"""The whole life of disputes: whatever happens in between, the newest fully signed state is the one that is settled,
as long as a watcher has one chance to act in each challenge period.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.types import ChannelId
from tests.unit.watcher.shore import Shore, in_no_time, stop
from watcher.watch import Watcher

CHALLENGE_S = 60
LONGEST_AWAY_S = 0.55 * CHALLENGE_S


@dataclass(frozen=True)
class Pay:
    """The two sign the next state, if the watcher's looks allow it."""

    channel: int


@dataclass(frozen=True)
class Cheat:
    """Either side registers one of the states that were ever signed: `which` of them, oldest first."""

    channel: int
    which: float


@dataclass(frozen=True)
class Wait:
    """Time passes."""

    seconds: float


@dataclass(frozen=True)
class Away:
    """The watcher is killed, and starts again later, knowing nothing but what is on the disk."""

    seconds: float


@dataclass(frozen=True)
class Trouble:
    """The next refutations are lost, and the log cannot be read for a while."""

    refutations: int
    seconds: float


CHANNEL = st.integers(0, 2)
LIFE = st.lists(
    st.one_of(
        st.builds(Pay, CHANNEL),
        st.builds(Cheat, CHANNEL, st.floats(0, 1)),
        st.builds(Wait, st.floats(0.1, 2 * CHALLENGE_S)),
        st.builds(Away, st.floats(0.1, LONGEST_AWAY_S)),
        st.builds(Trouble, st.integers(0, 3), st.floats(0, 10)),
    ),
    max_size=25,
)


class Town:
    """Three channels, their canister, and one watcher at a time."""

    def __init__(self) -> None:
        self.shore = Shore()
        self.channels: list[ChannelId] = []
        self.signed: list[int] = [0, 0, 0]
        self.away_until_s = 0.0
        self.watcher: Watcher | None = None
        self._run: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        self.channels = [await self.shore.channel(nonce, CHALLENGE_S) for nonce in range(3)]
        self.start()
        await asyncio.sleep(1)

    def start(self) -> None:
        self.watcher = self.shore.log_watcher(hint_every_s=2)
        for channel in self.channels:
            self.watcher.watch(channel, self.shore.states[channel][0].challenge_duration_ns)
        self._run = asyncio.ensure_future(self.watcher.run())

    async def end(self) -> None:
        assert self._run is not None
        await stop(self._run)

    async def live(self, event: Pay | Cheat | Wait | Away | Trouble) -> None:
        match event:
            case Pay(index):
                # After a registration no state is signed any more (rule 4): both sides have seen it in a look.
                if self.shore.registered(self.channels[index]) is None:
                    self.signed[index] += 1
                    self.shore.agree(self.channels[index], self.signed[index])
            case Cheat(index, which):
                version = round(which * self.signed[index])
                channel = self.channels[index]
                registered = self.shore.registered(channel)
                if registered is None or registered < version:
                    settled = self.settled(channel)
                    if not settled:
                        self.shore.register(channel, version)
            case Wait(seconds):
                await asyncio.sleep(seconds)
            case Away(seconds):
                await self.end()
                await asyncio.sleep(seconds)
                self.start()
                await asyncio.sleep(CHALLENGE_S / 3)  # the one chance
            case Trouble(refutations, seconds):
                self.shore.lost_refutations = refutations
                self.shore.log_broken = True
                await asyncio.sleep(seconds)
                self.shore.log_broken = False

    def settled(self, channel: ChannelId) -> bool:
        found = self.shore.scene.canister.query_state(channel)
        return found is not None and found.timeout <= self.shore.chain_ns()


def living(life: list[Any]) -> Callable[[], Coroutine[Any, Any, None]]:
    async def play() -> None:
        town = Town()
        await town.begin()
        for event in life:
            await town.live(event)
        await asyncio.sleep(2 * CHALLENGE_S)
        await town.end()
        for index, channel in enumerate(town.channels):
            registered = town.shore.registered(channel)
            assert registered in (None, town.signed[index]), f"channel {index} settles on {registered}: {life}"
        refuted = [version for _, version in town.shore.refutations]
        assert all(version in town.signed for version in refuted)

    return play


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(LIFE)
def test_the_newest_state_is_settled(life: list[Any]) -> None:
    in_no_time(living(life))()
