"""Asks the canister whether channels that nobody has shown money of are real, so that made-up ones go again."""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass
from typing import Final

import structlog

from protocol.errors import PerundError
from protocol.types import ChannelId
from watcher.tower.ports import Books, ChainClock, Holdings
from watcher.tower.slots import Guarded
from watcher.tower.tower import Tower

__all__ = ["Proving"]

log = structlog.get_logger()

S: Final = 1_000_000_000
FIRST_LOOK_S: Final = 20
"""For a channel of version 0: its deposits take a while, and nobody can cheat with version 0."""
LONGEST_PAUSE_S: Final = 1_800
SHORTEST_PAUSE_S: Final = 5
"""Between two looks at one channel, however many states come for it."""
LOOKS_FOR_STRANGERS: Final = 4
LOOKS_FOR_KNOWN: Final = 8
SWEEP_S: Final = 60


@dataclass(slots=True)
class _Asked:
    """When the next look at a channel is due (local time), and when the last one was."""

    channel: ChannelId
    due_ns: int
    pause_s: float = FIRST_LOOK_S
    last_ns: int | None = None
    asking: bool = False


class Proving:
    """A task. Looks at strangers' channels and at those of known clients do not wait for each other."""

    def __init__(self, tower: Tower, books: Books, holdings: Holdings, clock: ChainClock) -> None:
        self._tower = tower
        self._books = books
        self._holdings = holdings
        self._clock = clock
        self._asked: dict[ChannelId, _Asked] = {}
        self._due: list[tuple[int, ChannelId]] = []
        self._wake = asyncio.Event()
        self._rooms = {False: asyncio.Semaphore(LOOKS_FOR_STRANGERS), True: asyncio.Semaphore(LOOKS_FOR_KNOWN)}
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, guarded: Guarded) -> None:
        """Have a look made at a channel: soon when it is in use already, later when it is at version 0."""
        now_ns = self._clock.elapsed_ns()
        entry = self._asked.get(guarded.channel)
        if entry is None:
            entry = self._asked[guarded.channel] = _Asked(guarded.channel, now_ns + FIRST_LOOK_S * S)
            self._schedule(entry, now_ns if guarded.version > 0 else entry.due_ns)
        elif guarded.version > 0 and entry.last_ns is None:
            self._schedule(entry, now_ns)
        elif entry.last_ns is not None:
            soon_ns = max(now_ns, entry.last_ns + SHORTEST_PAUSE_S * S)
            if soon_ns < entry.due_ns:
                self._schedule(entry, soon_ns)

    def _schedule(self, entry: _Asked, due_ns: int) -> None:
        entry.due_ns = due_ns
        heapq.heappush(self._due, (due_ns, entry.channel))
        self._wake.set()

    async def run(self) -> None:
        """Look at what is due, and sweep once a minute, for ever."""
        swept_ns = self._clock.elapsed_ns()
        try:
            while True:
                now_ns = self._clock.elapsed_ns()
                while self._due and self._due[0][0] <= now_ns:
                    due_ns, channel = heapq.heappop(self._due)
                    entry = self._asked.get(channel)
                    if entry is not None and entry.due_ns == due_ns and not entry.asking:
                        self._spawn(entry)
                if now_ns - swept_ns >= SWEEP_S * S:
                    swept_ns = now_ns
                    self._tower.sweep()
                next_ns = min(self._due[0][0] if self._due else now_ns + SWEEP_S * S, swept_ns + SWEEP_S * S)
                self._wake.clear()
                try:
                    async with asyncio.timeout(max(0.0, (next_ns - now_ns) / S)):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, entry: _Asked) -> None:
        entry.asking = True
        task = asyncio.get_running_loop().create_task(self._look(entry), name=f"prove {entry.channel.hex()[:16]}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("tower.proving_failed", exc_info=error)

    async def _look(self, entry: _Asked) -> None:
        try:
            await self._look_once(entry)
        finally:
            entry.asking = False
            guarded = self._tower.slots.channels.get(entry.channel)
            if guarded is None or guarded.proven or guarded.settled_ns is not None:
                if self._asked.get(entry.channel) is entry:
                    del self._asked[entry.channel]
            else:
                entry.pause_s = min(entry.pause_s * 2, LONGEST_PAUSE_S)
                lapses_ns = min(slot.lapses_ns for slot in guarded.slots.values())
                left_s = max(SHORTEST_PAUSE_S, (lapses_ns - self._clock.chain_ns()) / S)
                self._schedule(entry, self._clock.elapsed_ns() + int(min(entry.pause_s, left_s) * S))

    async def _look_once(self, entry: _Asked) -> None:
        guarded = self._tower.slots.channels.get(entry.channel)
        if guarded is None:
            return
        known = any(self._tower.slots.is_known(client) for client in guarded.slots)
        async with self._rooms[known]:
            entry.last_ns, asked_ns = self._clock.elapsed_ns(), self._clock.chain_ns()
            found = self._books.newest(entry.channel)
            if found is None:
                return  # its state is on its way to the disk
            try:
                funded = await self._holdings.funded(found[0])
            except PerundError as error:  # unknown is not 'no money'
                log.warning("tower.look_failed", channel=entry.channel.hex()[:16], error=str(error))
                return
            if funded:
                self._tower.proved(entry.channel)
            elif self._clock.certified:
                self._tower.lapse(entry.channel, asked_ns)
