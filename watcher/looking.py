"""Certified looks: made with patience, taken in the order of what they can know, and told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from protocol.errors import PerundError
from protocol.types import RegisteredState
from watcher.errors import NoAnswerInTime
from watcher.ports import Canister, CertifiedLook, Clock, Reports
from watcher.roster import Roster, Watched
from watcher.vitals import Vitals

__all__ = ["Consider", "Looks"]

Consider = Callable[[Watched, CertifiedLook], None]
AFTER_ITS_OWN_S: Final = 1.0
"""A look at every server ends by itself, with what was shown; if not, so much later."""


class Looks:
    """Makes looks at watched channels, and takes those that others made."""

    def __init__(self, canister: Canister, reports: Reports, clock: Clock, roster: Roster, vitals: Vitals) -> None:
        self._canister = canister
        self._reports = reports
        self._clock = clock
        self._roster = roster
        self._vitals = vitals
        self.on_failure: Callable[[Watched, PerundError], None] = lambda _entry, _error: None
        """Told of each look that came to nothing, after it was reported."""

    async def make(
        self, entry: Watched, patience_s: float, consider: Consider, *, everywhere: bool = False
    ) -> CertifiedLook:
        """Look at a channel by a request signed after this call, and take what it shows.

        `consider` decides what to do about a registered state; `everywhere`: every server is asked at once. Raises
        `PerundError` when no certified answer came.
        """
        self._vitals.looks += 1
        try:
            async with asyncio.timeout(patience_s + (AFTER_ITS_OWN_S if everywhere else 0)):
                if everywhere:
                    look = await self._canister.look_everywhere(entry.channel, patience_s)
                else:
                    look = await self._canister.look(entry.channel)
        except TimeoutError as error:
            failure = NoAnswerInTime(f"no certified answer came within {patience_s:.1f} s")
            self._failed(entry, failure)
            raise failure from error
        except PerundError as failure:
            self._failed(entry, failure)
            raise
        entry.failures = 0
        self._vitals.failing.discard(entry.channel)
        self._vitals.answered(look.asked_ns, look.chain_ns)
        self.take(entry, look, consider)
        return look

    def _failed(self, entry: Watched, error: PerundError) -> None:
        entry.failures += 1
        self._vitals.looks_failed += 1
        if self._roster.holds(entry):
            self._vitals.failing.add(entry.channel)
        self._reports.look_failed(entry.channel, str(error))
        self.on_failure(entry, error)

    def take(self, entry: Watched, look: CertifiedLook, consider: Consider) -> None:
        """Take a certified look, unless something newer is known.

        Answers overtake each other: of two, the one whose request was signed first may have been executed last.
        What is registered stays registered and only rises, so more is always news; less is believed only of a
        request signed after the more was learned (then the canister lost its state).
        """
        shown, known = look.registered, entry.registered
        if known is not None and look.asked_ns < entry.learned_ns and _less(shown, known):
            return
        if shown is not None and shown != known:
            entry.learned_ns = self._clock.monotonic_ns()
        entry.registered = shown
        entry.looked_ns = max(look.asked_ns, entry.looked_ns or look.asked_ns)
        if shown is not None and self._roster.holds(entry):
            consider(entry, look)  # first: a report that fails must not cost the refutation
        self._reports.looked(entry.channel, look)


def _less(shown: RegisteredState | None, known: RegisteredState) -> bool:
    return shown is None or shown.state.version < known.state.version
