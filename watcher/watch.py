"""The watcher: looks at every channel until its money is out, and refutes what is below ours.

It is level-triggered: each round compares what the canister has with what the store has, so a missed event
cannot blind it. The newest state comes from the store at the moment of use.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Final

import structlog

from protocol.errors import PerundError
from protocol.types import ChannelId, Nanos, RegisteredState
from watcher.ports import Canister, CertifiedLook, Clock, Reports, States

__all__ = ["Watcher"]

log = structlog.get_logger()

LONGEST_INTERVAL_NS: Final = 600 * 1_000_000_000
SHORTEST_INTERVAL_NS: Final = 250_000_000
RETRY_FIRST_S: Final = 0.25
RETRY_LAST_S: Final = 15.0
LOOKS_IN_FLIGHT: Final = 16
MOST_DOUBLINGS: Final = 10


@dataclass(slots=True)
class _Watched:
    channel: ChannelId
    interval_ns: int
    due_ns: int
    last_asked_ns: int | None = None
    failures: int = 0
    again: bool = False
    """A look was asked for while another was under way, whose request may be older than the suspicion."""
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    refutation: asyncio.Task[None] | None = None


class Watcher:
    """Runs as a task of the node. See `run`."""

    def __init__(
        self, states: States, canister: Canister, reports: Reports, clock: Clock, looks_per_challenge: int = 6
    ) -> None:
        """`looks_per_challenge`: at least 3; twice that, so that one may fail and payments still go on (rule 4)."""
        self._states = states
        self._canister = canister
        self._reports = reports
        self._clock = clock
        self._looks = looks_per_challenge
        self._watched: dict[ChannelId, _Watched] = {}
        self._due: list[tuple[int, int, ChannelId]] = []
        self._order = 0
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(LOOKS_IN_FLIGHT)
        self._tasks: set[asyncio.Task[None]] = set()

    # --- what is watched ---------------------------------------------------------------------------------

    def watch(self, channel: ChannelId, challenge_ns: Nanos) -> None:
        """Watch a channel from now on, with a look at once."""
        if channel in self._watched:
            return
        interval = min(max(challenge_ns // self._looks, SHORTEST_INTERVAL_NS), LONGEST_INTERVAL_NS)
        entry = _Watched(channel, interval, self._clock.monotonic_ns())
        self._watched[channel] = entry
        self._schedule(entry, entry.due_ns)

    def unwatch(self, channel: ChannelId) -> None:
        """Stop watching: the money is out."""
        entry = self._watched.pop(channel, None)
        if entry is not None and entry.refutation is not None:
            entry.refutation.cancel()

    def hurry(self, channel: ChannelId) -> None:
        """Look as soon as possible: something is suspected."""
        entry = self._watched.get(channel)
        if entry is None:
            return
        if entry.looking.locked():
            entry.again = True
        else:
            self._schedule(entry, self._clock.monotonic_ns())

    def oldest_look_age_ns(self) -> int | None:
        """Return the age of the oldest newest look, or None when a channel was never looked at or none is watched."""
        asked = [entry.last_asked_ns for entry in self._watched.values()]
        if not asked or None in asked:
            return None
        return self._clock.monotonic_ns() - min(a for a in asked if a is not None)

    def failing(self) -> dict[ChannelId, int]:
        """Return the channels whose last looks failed, with how many did."""
        return {entry.channel: entry.failures for entry in self._watched.values() if entry.failures}

    # --- looking -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look at every channel when it is due, for ever. A fault of one channel does not stop the others."""
        try:
            while True:
                now = self._clock.monotonic_ns()
                while self._due and self._due[0][0] <= now:
                    due, _, channel = heapq.heappop(self._due)
                    entry = self._watched.get(channel)
                    if entry is not None and entry.due_ns == due:
                        self._spawn(self._round(entry))
                timeout = (self._due[0][0] - now) / 1e9 if self._due else None
                self._wake.clear()
                try:
                    await asyncio.wait_for(self._wake.wait(), timeout)
                except TimeoutError:
                    continue
        finally:
            tasks = [*self._tasks, *(e.refutation for e in self._watched.values() if e.refutation is not None)]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def look(self, channel: ChannelId) -> CertifiedLook:
        """Make a look by a request signed after this call, and report it.

        Raises `PerundError` when no certified answer came.
        """
        entry = self._watched.get(channel)
        if entry is None:
            return await self._canister.look(channel)
        try:
            async with entry.looking:
                return await self._look(entry)
        finally:
            self._again(entry)

    def _again(self, entry: _Watched) -> None:
        """Have the look made that was asked for during the one that ended."""
        if entry.again and self._watched.get(entry.channel) is entry and not entry.looking.locked():
            entry.again = False
            self._schedule(entry, self._clock.monotonic_ns())

    def _schedule(self, entry: _Watched, due_ns: int) -> None:
        entry.due_ns = due_ns
        self._order += 1
        heapq.heappush(self._due, (due_ns, self._order, entry.channel))
        self._wake.set()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A defect in the path that guards money is loud, and the rounds go on.
            log.error("watcher.round_failed", exc_info=error)

    async def _round(self, entry: _Watched) -> None:
        delay_ns = entry.interval_ns
        try:
            async with entry.looking:
                await self._look(entry)
        except PerundError:
            doublings = min(entry.failures, MOST_DOUBLINGS)  # after hours without an answer 2**failures is no float
            delay_ns = min(delay_ns, int(min(RETRY_FIRST_S * 2**doublings, RETRY_LAST_S) * 1e9))
            entry.again = False  # what failed is tried again soon anyway
        finally:  # whatever happened, there is a next round
            if self._watched.get(entry.channel) is entry:
                self._schedule(entry, self._clock.monotonic_ns() + delay_ns)
                self._again(entry)

    async def _look(self, entry: _Watched) -> CertifiedLook:
        async with self._slots:
            try:
                look = await self._canister.look(entry.channel)
            except PerundError as error:
                entry.failures += 1
                self._reports.look_failed(entry.channel, str(error))
                raise
        entry.failures = 0
        entry.last_asked_ns = max(look.asked_ns, entry.last_asked_ns or look.asked_ns)
        self._reports.looked(entry.channel, look)
        if look.registered is not None:
            self._consider(entry, look.registered, look.chain_ns)
        return look

    # --- refuting ----------------------------------------------------------------------------------------

    def _consider(self, entry: _Watched, registered: RegisteredState, chain_ns: Nanos) -> None:
        known = self._states.newest(entry.channel)
        if known is None or registered.settled(chain_ns) or entry.refutation is not None:
            return
        if self._watched.get(entry.channel) is not entry:
            return  # nobody would end the refutation of a channel that is watched no more
        ours = known[1].state.version
        if registered.state.version >= ours:
            return  # above ours is never refuted
        self._reports.refuting(entry.channel, registered.state.version, ours)
        entry.refutation = asyncio.ensure_future(self._refute(entry))
        entry.refutation.add_done_callback(self._ended)

    async def _refute(self, entry: _Watched) -> None:
        """Register the newest state until a look shows a version at least ours, or it is settled."""
        delay = RETRY_FIRST_S
        try:
            while True:
                known = self._states.newest(entry.channel)
                if known is None:
                    return
                params, signed = known
                try:
                    # The newest at once: a peer that registers its old states one by one would otherwise
                    # restart the timer each time.
                    answer = await self._canister.refute(params, signed)
                    log.info(
                        "watcher.refutation_sent",
                        channel=entry.channel.hex(),
                        version=signed.state.version,
                        answer=answer,
                    )
                except PerundError as error:
                    log.warning("watcher.refutation_failed", channel=entry.channel.hex(), error=str(error))
                try:
                    look = await self.look(entry.channel)
                except PerundError:
                    look = None
                if look is not None and look.registered is not None:
                    if look.registered.state.version >= signed.state.version:
                        self._reports.refuted(entry.channel, signed.state.version)
                        return
                    if look.registered.settled(look.chain_ns):
                        return  # too late; the look was reported, and the channel raises the loss alarm
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_LAST_S)
        finally:
            entry.refutation = None
