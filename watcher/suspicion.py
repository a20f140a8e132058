"""Suspicion: cheap queries between the looks. One node's word can start a certified look, and do nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import structlog

from protocol.errors import PerundError
from protocol.types import RegisteredState
from watcher.ports import Clock, DisputeLog, Hints
from watcher.roster import Roster, Watched
from watcher.sweep import PAGE

__all__ = ["Suspicion"]

log = structlog.get_logger()

QUERIES_PER_TURN: Final = 4


class Suspicion:
    """Asks single nodes. No cursor is kept of what they say, and who lies costs us one look in each interval."""

    def __init__(self, roster: Roster, clock: Clock, hurry: Callable[[Watched], None]) -> None:
        self._roster = roster
        self._clock = clock
        self._hurry = hurry
        self._rotation: Iterator[Watched] = iter(())

    async def ask_log(self, disputes: DisputeLog, cursor: int) -> None:
        """Ask for the registrations from the certified cursor on."""
        try:
            entries = await disputes.hint_page(cursor, PAGE)
        except PerundError as error:
            log.debug("watcher.hint_failed", error=str(error))
            return
        for hinted in entries:
            entry = self._roster.get(hinted.channel)
            if entry is not None:
                self._hear(entry, hinted.registered)

    async def ask_around(self, hints: Hints) -> None:
        """Ask for the next few channels, in rotation."""
        for _ in range(min(QUERIES_PER_TURN, len(self._roster))):
            entry = next(self._rotation, None)
            if entry is None:
                self._rotation = iter(self._roster)
                entry = next(self._rotation)
            if not self._roster.holds(entry):
                continue
            try:
                self._hear(entry, await hints.hint(entry.channel))
            except PerundError as error:
                log.debug("watcher.hint_failed", channel=entry.channel.hex(), error=str(error))

    def _hear(self, entry: Watched, hinted: RegisteredState | None) -> None:
        known, now_ns = entry.registered, self._clock.monotonic_ns()
        if hinted is None or (known is not None and hinted.state.version <= known.state.version):
            return
        if now_ns < entry.hints_from_ns:
            return
        entry.hints_from_ns = now_ns + entry.interval_ns
        self._hurry(entry)
