"""Refuting: the newest state in the place of an older one, until a look shows it there.

Many disputes at once share a few places, and whoever has the least time left goes first. Chain time decides about
deadlines, in a lower bound that never goes back; a refutation is tried until a look says that it is too late.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import structlog

from protocol.errors import PerundError
from protocol.types import Params, RegisteredState, SignedState
from watcher.looking import Looks
from watcher.ports import Canister, CertifiedLook, Notices, Reports, States
from watcher.roster import Roster, Watched
from watcher.vitals import Vitals

__all__ = ["RETRY_FIRST_S", "RETRY_LAST_S", "NearestFirst", "Refuter"]

log = structlog.get_logger()

RETRY_FIRST_S: Final = 0.25
RETRY_LAST_S: Final = 15.0
AT_ONCE: Final = 12
LEAST_PATIENCE_S: Final = 2.0
MOST_PATIENCE_S: Final = 60.0
WARNINGS: Final = ((2, "watcher.margin_half"), (4, "watcher.margin_quarter"))
"""Which part of the challenge period is left at most, and the event that says so."""


class NearestFirst:
    """Lets so many work at the same time; of those who wait, the one with the nearest deadline is next."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = 0

    @asynccontextmanager
    async def place(self, deadline_ns: int) -> AsyncIterator[None]:
        """Wait for a place, and give it back at the end."""
        if self._free:
            self._free -= 1
        else:
            turn = asyncio.get_running_loop().create_future()
            self._order += 1
            heapq.heappush(self._waiting, (deadline_ns, self._order, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._give_back()  # the place was given at the very moment
                raise
        try:
            yield
        finally:
            self._give_back()

    def _give_back(self) -> None:
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Refuter:
    """Refutes what is below ours."""

    def __init__(
        self,
        states: States,
        canister: Canister,
        reports: Reports,
        notices: Notices,
        roster: Roster,
        vitals: Vitals,
        looks: Looks,
    ) -> None:
        self._states = states
        self._canister = canister
        self._reports = reports
        self._notices = notices
        self._roster = roster
        self._vitals = vitals
        self._looks = looks
        self._places = NearestFirst(AT_ONCE)
        self._active: dict[Watched, asyncio.Task[None]] = {}

    def consider(self, entry: Watched, look: CertifiedLook) -> None:
        """Start a refutation if a version below ours is registered and time is left. Above ours is never refuted."""
        if look.registered is not None and not look.registered.settled(look.chain_ns):
            self._start_if_below(entry, look.registered)

    def reconsider(self, entry: Watched) -> bool:
        """Refute what was proven before, also while nothing new can be: ours may be a newer one since.

        Returns whether a refutation is under way.
        """
        registered, now_ns = entry.registered, self._vitals.chain_now_ns()
        if registered is None or now_ns is None or registered.settled(now_ns) or not self._roster.holds(entry):
            return self._running(entry)
        return self._start_if_below(entry, registered)

    @staticmethod
    def _running(entry: Watched) -> bool:
        return entry.refutation is not None and not entry.refutation.done()

    def _start_if_below(self, entry: Watched, registered: RegisteredState) -> bool:
        if self._running(entry):
            return True
        known = self._states.newest(entry.channel)
        if known is None or registered.state.version >= known[1].state.version:
            return False
        task = asyncio.get_running_loop().create_task(self._refute(entry), name="refutation")
        entry.refutation = self._active[entry] = task
        task.add_done_callback(lambda ended: self._ended(entry, ended))
        self._reports.refuting(entry.channel, registered.state.version, known[1].state.version)
        return True

    def _ended(self, entry: Watched, task: asyncio.Task[None]) -> None:
        if entry.refutation is task:
            self._active.pop(entry, None)
            entry.refutation = None
        if not task.cancelled() and (error := task.exception()) is not None:
            # The channel is looked at again soon, and refuted anew.
            log.error("watcher.refutation_crashed", channel=entry.channel.hex(), exc_info=error)

    def least_margin_ns(self) -> int | None:
        """Return the time until the nearest deadline of what is being refuted, or None."""
        now_ns = self._vitals.chain_now_ns()
        if now_ns is None:
            return None
        return min((e.registered.timeout_ns - now_ns for e in self._active if e.registered is not None), default=None)

    def tasks(self) -> list[asyncio.Task[None]]:
        """Return what runs."""
        return list(self._active.values())

    # --- warnings ----------------------------------------------------------------------------------------

    def warn(self) -> None:
        """Warn of refutations whose time runs out: once each when half and a quarter of the period is left."""
        now_ns = self._vitals.chain_now_ns()
        if now_ns is None:
            return
        for entry in list(self._active):
            registered = entry.registered
            if registered is None:
                continue
            if entry.warned_timeout_ns != registered.timeout_ns:
                entry.warned, entry.warned_timeout_ns = 0, registered.timeout_ns
            left_ns = registered.timeout_ns - now_ns
            while entry.warned < len(WARNINGS) and WARNINGS[entry.warned][0] * left_ns <= entry.challenge_ns:
                kind = WARNINGS[entry.warned][1]
                entry.warned += 1
                self._notices.noticed(kind, entry.channel, _margin(registered.state.version, left_ns))

    # --- one refutation ----------------------------------------------------------------------------------

    async def _refute(self, entry: Watched) -> None:
        """Register the newest state until a look shows a version at least ours, or it is settled."""
        delay_s = RETRY_FIRST_S
        while True:
            known = self._states.newest(entry.channel)
            if known is None:
                return
            ours = known[1].state.version
            async with self._places.place(entry.registered.timeout_ns if entry.registered is not None else 0):
                # The newest at once: a peer that registers its old states one by one would otherwise restart the
                # timer each time.
                await self._send(entry, *known)
                look = await self._confirm(entry)
            if look is not None and look.registered is not None:
                if look.registered.state.version >= ours:
                    self._reports.refuted(entry.channel, ours)
                    return
                if look.registered.settled(look.chain_ns):
                    return  # too late; the look was reported, and the channel raises the loss alarm
            left_s = self._left_s(entry)
            # The less time is left, the sooner it is tried again: no back-off may outwait a deadline.
            await asyncio.sleep(min(delay_s, RETRY_LAST_S, max(left_s / 16, RETRY_FIRST_S) if left_s > 0 else delay_s))
            delay_s = min(delay_s * 2, RETRY_LAST_S)

    async def _send(self, entry: Watched, params: Params, signed: SignedState) -> None:
        channel, version = entry.channel.hex(), signed.state.version
        patience_s = self._patience_s(entry)
        try:
            async with asyncio.timeout(patience_s):
                answer = await self._canister.refute(params, signed, patience_s)
        except TimeoutError:
            log.warning("watcher.refutation_unanswered", channel=channel, version=version, waited_s=patience_s)
        except PerundError as error:
            log.warning("watcher.refutation_failed", channel=channel, version=version, error=str(error))
        else:
            log.info("watcher.refutation_sent", channel=channel, version=version, answer=answer)

    async def _confirm(self, entry: Watched) -> CertifiedLook | None:
        try:
            return await self._looks.make(entry, self._patience_s(entry), self.consider)
        except PerundError:
            return None  # it was reported; unknown is no reason to stop

    def _left_s(self, entry: Watched) -> float:
        """Return the seconds of chain time that are left: at most so many, and negative when it is over."""
        now_ns = self._vitals.chain_now_ns()
        if now_ns is None or entry.registered is None:
            return 0.0
        return (entry.registered.timeout_ns - now_ns) / 1e9

    def _patience_s(self, entry: Watched) -> float:
        """How long one request may take: a replica that keeps an answer must not keep the time with it."""
        left_s = self._left_s(entry)
        return min(max(left_s / 4, LEAST_PATIENCE_S), MOST_PATIENCE_S) if left_s > 0 else RETRY_LAST_S


def _margin(registered: int, left_ns: int) -> Mapping[str, str | int | bool]:
    return {"registered": registered, "left_s": round(left_ns / 1e9), "alarm": True}
