"""Suspicion: cheap queries between the looks. One node's word can start a certified look, and a refutation when no
look can be had (`watcher.doubts`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import structlog

from protocol.errors import PerundError
from protocol.types import RegisteredState
from watcher.doubts import Doubts
from watcher.ports import Clock, DisputeLog, Hints
from watcher.roster import Roster, Watched
from watcher.sweep import PAGE

__all__ = ["Suspicion"]

log = structlog.get_logger()

LEAST_QUERIES: Final = 4
MOST_QUERIES: Final = 64
QUERIES_AT_ONCE: Final = 8
ROUNDS_PER_CHALLENGE: Final = 4
"""Each channel is asked about so often in the shortest challenge period, as far as `MOST_QUERIES` in a turn allow."""
PAGES_PER_TURN: Final = 4
HINT_PATIENCE_S: Final = 5.0
"""A query that is not answered by then says nothing, and the others must not wait for it."""


class Suspicion:
    """Asks single nodes. What is certified moves by nothing that they say; who lies costs one look in each interval."""

    def __init__(self, roster: Roster, clock: Clock, hurry: Callable[[Watched], None], doubts: Doubts) -> None:
        self._roster = roster
        self._clock = clock
        self._hurry = hurry
        self._doubts = doubts
        self._rotation: Iterator[Watched] = iter(())
        self._read_to = 0

    async def ask_log(self, disputes: DisputeLog, cursor: int) -> None:
        """Ask for the registrations from the certified cursor on, page by page, a few pages in each turn.

        Where the last turn ended, this one goes on; at the end, wherever a liar says that it is, it begins at the
        certified cursor again. So a log that cannot be certified is read to its end all the same.
        """
        self._read_to = max(self._read_to, cursor)
        for _ in range(PAGES_PER_TURN):
            try:
                async with asyncio.timeout(HINT_PATIENCE_S):
                    entries = await disputes.hint_page(self._read_to, PAGE)
            except (PerundError, TimeoutError) as error:
                log.debug("watcher.hint_failed", error=str(error))
                self._read_to = cursor
                return
            for hinted in entries:
                entry = self._roster.get(hinted.channel)
                if entry is not None:
                    self._hear(entry, hinted.registered)
            if len(entries) < PAGE or entries[-1].index < self._read_to:
                self._read_to = cursor
                return
            self._read_to = entries[-1].index + 1

    async def ask_around(self, hints: Hints, every_s: float) -> None:
        """Ask for the next few channels, in rotation. `every_s`: how often this is called."""
        shortest_ns, channels = self._roster.shortest_challenge_ns, len(self._roster)
        wanted = int(ROUNDS_PER_CHALLENGE * channels * every_s * 1e9 / shortest_ns) + 1 if shortest_ns else 0
        turn: list[Watched] = []
        for _ in range(min(max(wanted, LEAST_QUERIES), MOST_QUERIES, channels)):
            entry = next(self._rotation, None)
            if entry is None:
                self._rotation = iter(self._roster)
                entry = next(self._rotation)
            turn.append(entry)
        await self.ask(hints, turn)

    async def ask(self, hints: Hints, entries: Sequence[Watched]) -> None:
        """Ask for these channels, a few at a time."""
        for first in range(0, len(entries), QUERIES_AT_ONCE):
            some = entries[first : first + QUERIES_AT_ONCE]
            await asyncio.gather(*(self._ask_one(hints, entry) for entry in some if self._roster.holds(entry)))

    async def _ask_one(self, hints: Hints, entry: Watched) -> None:
        try:
            async with asyncio.timeout(HINT_PATIENCE_S):
                hinted = await hints.hint(entry.channel)
        except (PerundError, TimeoutError) as error:
            log.debug("watcher.hint_failed", channel=entry.channel.hex(), error=str(error))
        else:
            self._hear(entry, hinted)

    def _hear(self, entry: Watched, hinted: RegisteredState | None) -> None:
        if hinted is None:
            return
        self._doubts.hear(entry, hinted)
        known, now_ns = entry.registered, self._clock.monotonic_ns()
        if (known is not None and hinted.state.version <= known.state.version) or now_ns < entry.hints_from_ns:
            return
        entry.hints_from_ns = now_ns + entry.interval_ns
        self._hurry(entry)
