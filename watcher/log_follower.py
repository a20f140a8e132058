"""Follows the canister's log of registrations: sweeps it as often as the channels ask for, and says whether it covers
them. While it does not, each channel is looked at by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from protocol.errors import PerundError
from protocol.horizon import Horizon
from watcher.ports import Clock, DisputeLog
from watcher.refuting import RETRY_FIRST_S, RETRY_LAST_S
from watcher.roster import LONGEST_INTERVAL_NS, Roster, Watched
from watcher.suspicion import Suspicion
from watcher.sweep import Sweep
from watcher.vitals import Vitals

__all__ = ["SWEEP", "LogFollower"]

log = structlog.get_logger()

SWEEP: Final = "sweep"
"""The name of this part of the watcher."""
MOST_DOUBLINGS: Final = 10
TOGETHER: Final = 500
"""So many channels are planned anew before others get a turn."""


class LogFollower:
    """One part of the watcher. `covers`: whether quiet channels need no looks of their own but the daily one."""

    def __init__(
        self,
        disputes: DisputeLog,
        sweep: Sweep,
        roster: Roster,
        vitals: Vitals,
        clock: Clock,
        horizon: Horizon,
        plan_next: Callable[[Watched], None],
        shown: Callable[[PerundError], None],
    ) -> None:
        """`plan_next`: plans the next look of a channel, after `covers` has changed; `shown`: told of each reading
        that came to nothing, with what it showed.
        """
        self.covers = False
        self.missing = False
        """Whether it is certified that the canister keeps no log."""
        self._shown = shown
        self._disputes = disputes
        self._sweep = sweep
        self._roster = roster
        self._vitals = vitals
        self._clock = clock
        self._horizon = horizon
        self._plan_next = plan_next
        self._came = asyncio.Event()

    def came(self) -> None:
        """A channel came, whose challenge period may be the shortest."""
        self._came.set()

    async def suspect(self, suspicion: Suspicion) -> None:
        """Ask one node what is new in the log. The cursor stays where certified pages have brought it."""
        await suspicion.ask_log(self._disputes, self._sweep.cursor)

    async def once(self) -> None:
        """Sweep once, if there is a log. A failure is logged: then the channels are looked at one by one."""
        try:
            if await self._disputes.available():
                await self._sweep.make()
        except PerundError as error:
            self._vitals.sweep_fails = True
            self._shown(error)
            log.warning("watcher.sweep_failed", error=str(error))

    async def follow(self) -> None:
        """Sweep for ever. A canister without a log is asked again now and then: it may be upgraded."""
        available = False
        failures = 0
        while True:
            if not len(self._roster):
                self._came.clear()
                await self._came.wait()
            try:
                available = available or await self._disputes.available()
                self.missing = not available
                if available:
                    await self._sweep.make()
            except PerundError as error:
                failures += 1
                self._vitals.sweep_fails = True
                log.warning("watcher.sweep_failed", error=str(error))
                self._shown(error)
                await self._fall_back(in_time=True)
                retry_ns = int(min(RETRY_FIRST_S * 2 ** min(failures, MOST_DOUBLINGS), RETRY_LAST_S) * 1e9)
                await self._pause(min(retry_ns, self._interval_ns()))
            except Exception:
                await self._fall_back(in_time=False)  # a defect: nothing relies on the log until it is read again
                raise
            else:
                failures = 0
                self._vitals.sweep_fails = False
                self._vitals.down.discard(SWEEP)
                if available:
                    await self._rely()
                    await self._pause(self._interval_ns())
                else:
                    await asyncio.sleep(LONGEST_INTERVAL_NS / 1e9)

    def _interval_ns(self) -> int:
        return self._roster.interval_ns or LONGEST_INTERVAL_NS

    async def _pause(self, pause_ns: int) -> None:
        """Wait so long, or less when a channel comes whose challenge period asks for sooner."""
        until_ns = self._clock.monotonic_ns() + pause_ns
        while (left_ns := until_ns - self._clock.monotonic_ns()) > 0:
            self._came.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._came.wait(), left_ns / 1e9)
            until_ns = min(until_ns, self._clock.monotonic_ns() + self._interval_ns())

    async def _rely(self) -> None:
        """From now on the log covers quiet channels."""
        if not self.covers:
            self.covers = True
            log.info("watcher.follows_log", channels=len(self._roster))
            await self._plan_anew()

    async def _fall_back(self, *, in_time: bool) -> None:
        """Look at each channel again: at once, or `in_time` before the horizon is too old for payments to go on."""
        shortest, asked_ns = self._roster.shortest_challenge_ns, self._horizon.asked_ns
        if not self.covers:
            return
        if in_time and asked_ns is not None and 4 * (self._clock.monotonic_ns() - asked_ns) < (shortest or 0):
            return
        self.covers = False
        log.warning("watcher.looks_at_each_channel", channels=len(self._roster))
        await self._plan_anew()

    async def _plan_anew(self) -> None:
        for number, entry in enumerate(self._roster):
            # Who was never looked at stays where it stands: in the line of those whose look is due.
            if entry.registered is None and entry.looked_ns is not None and not entry.looking and not entry.failures:
                self._plan_next(entry)
            if number % TOGETHER == TOGETHER - 1:
                await asyncio.sleep(0)
