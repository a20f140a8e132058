"""The watcher: looks at every channel until its money is out, and refutes what is below ours.

It is level-triggered: each round compares what the canister has with what the store has, so a missed event
cannot blind it. The newest state comes from the store at the moment of use. Where the canister keeps a log of
registrations, one certified sweep of it is a look at every quiet channel (`Horizon`); where not, or while the sweep
fails, each channel is looked at in turn. DESIGN, section 8; docs/watching.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Final

import structlog

from protocol.errors import InvariantBroken, PerundError
from protocol.horizon import Horizon
from protocol.types import ChannelId, Nanos, RegisteredState
from watcher.doubts import Doubts
from watcher.errors import OnlyShown
from watcher.log_follower import SWEEP, LogFollower
from watcher.looking import Looks
from watcher.ports import Canister, CertifiedLook, Clock, DisputeLog, Hints, Notices, Reports, States
from watcher.refuting import RETRY_FIRST_S, RETRY_LAST_S, Refuter
from watcher.roster import LONGEST_INTERVAL_NS, Roster, Watched
from watcher.schedule import Schedule
from watcher.suspicion import Suspicion
from watcher.sweep import Sweep
from watcher.vitals import Condition, Vitals

__all__ = ["DAY_NS", "LONGEST_INTERVAL_NS", "LOOKS_IN_FLIGHT", "RETRY_LAST_S", "Watcher"]

log = structlog.get_logger()

DAY_NS: Final = 86_400 * 1_000_000_000
LOOKS_IN_FLIGHT: Final = 16
"""Of the rounds. Refutations and looks that are asked for do not wait behind them."""
MOST_DOUBLINGS: Final = 10
MOST_PATIENCE_S: Final = 60.0
LEAST_PATIENCE_S: Final = 2.0
RESTART_FIRST_S: Final = 1.0
RESTART_LAST_S: Final = 30.0
LATE_NS: Final = 60 * 1_000_000_000
LONG_RUN_NS: Final = 60 * 1_000_000_000
LONGEST_TICK_S: Final = 5.0
SHORTEST_TICK_S: Final = 0.1


class _Unheard:
    """Takes notices where nobody else does: they are logged."""

    def noticed(self, kind: str, channel: ChannelId | None, facts: Mapping[str, str | int | bool]) -> None:
        log.error(kind, channel=channel.hex() if channel is not None else None, **facts)


class Watcher:
    """Runs as a task of the node, or in a process of its own. See `run`."""

    def __init__(
        self,
        states: States,
        canister: Canister,
        reports: Reports,
        clock: Clock,
        looks_per_challenge: int = 6,
        *,
        disputes: DisputeLog | None = None,
        hints: Hints | None = None,
        hint_every_s: float = 2.0,
        notices: Notices | None = None,
    ) -> None:
        """`looks_per_challenge`: at least 3; twice that, so that one may fail and payments still go on (rule 4).

        `disputes`: the canister's log, asked at the start whether there is one; `hints`: cheap queries of single
        channels; `hint_every_s`: how often queries are made between looks. Without them there are looks only.
        """
        self.horizon = Horizon()
        """What `protocol.channel` takes as the look at a quiet channel."""
        self._clock = clock
        self._reports = reports
        self._notices = notices or _Unheard()
        self._hints = hints
        self._hint_every_s = hint_every_s
        self._canister = canister
        self._roster = Roster(looks_per_challenge)
        self._vitals = Vitals(self._roster, clock)
        self._schedule = Schedule(self._roster)
        self._looks = Looks(canister, reports, clock, self._roster, self._vitals)
        self._refuter = Refuter(states, canister, reports, self._notices, self._roster, self._vitals, self._looks)
        self._doubts = Doubts(
            states,
            canister,
            self._notices,
            clock,
            self._roster,
            self._vitals,
            self._looks,
            self.horizon,
            hints,
            self._refuter.consider,
            self._refuter.reconsider,
        )
        self._looks.on_failure = self._look_failed
        self._suspicion = Suspicion(self._roster, clock, self._hurry, self._doubts)
        self._log: LogFollower | None = None
        if disputes is not None:
            sweep = Sweep(disputes, self._roster, self._vitals, clock, self.horizon, self._take)
            self._log = LogFollower(
                disputes, sweep, self._roster, self._vitals, clock, self.horizon, self._plan_next, self._hear_shown
            )
        self._blind = False
        self._wake = asyncio.Event()
        self._rounds: set[asyncio.Task[None]] = set()
        self._asked = asyncio.Semaphore(LOOKS_IN_FLIGHT)

    # --- what is watched ---------------------------------------------------------------------------------

    def watch(self, channel: ChannelId, challenge_ns: Nanos) -> None:
        """Watch a channel from now on, with a look at once."""
        now_ns = self._clock.monotonic_ns()
        entry = self._roster.add(channel, challenge_ns, now_ns)
        if entry is not None:
            self._plan(entry, now_ns)
            if self._log is not None:
                self._log.came()

    def unwatch(self, channel: ChannelId) -> None:
        """Stop watching: the money is out."""
        entry = self._roster.remove(channel)
        if entry is not None:
            self._vitals.failing.discard(channel)
            self._doubts.forget(entry)
            if entry.refutation is not None:
                entry.refutation.cancel()

    def hurry(self, channel: ChannelId) -> None:
        """Look as soon as possible: something is suspected."""
        entry = self._roster.get(channel)
        if entry is not None:
            self._hurry(entry)

    def suspect(self, channel: ChannelId, registered: RegisteredState) -> None:
        """Take note that somebody shows this state registered, or that it once was, without a proof that is fresh."""
        entry = self._roster.get(channel)
        if entry is not None:
            self._doubts.hear(entry, registered)

    def _hear_shown(self, error: PerundError) -> None:
        if isinstance(error, OnlyShown):
            for channel, registered in error.registered.items():
                self.suspect(channel, registered)

    def _look_failed(self, entry: Watched, error: PerundError) -> None:
        """A look came to nothing: what is known, or shown without a proof, is reason enough to refute."""
        self._hear_shown(error)
        self._refuter.reconsider(entry)
        self._doubts.look_failed(entry)

    def _hurry(self, entry: Watched) -> None:
        if entry.looking:
            entry.again = True
        else:
            self._schedule.hurry(entry)
            self._wake.set()

    def _plan(self, entry: Watched, due_ns: int) -> None:
        self._schedule.at(entry, due_ns)
        self._wake.set()

    def _plan_next(self, entry: Watched) -> None:
        """Plan the next look that is due by itself: a quiet channel that the log covers needs one a day."""
        period = DAY_NS if self._by_log() and entry.registered is None else entry.interval_ns
        self._plan(entry, entry.next_slot_ns(period, self._clock.monotonic_ns()))

    def _by_log(self) -> bool:
        return self._log is not None and self._log.covers

    # --- what can be asked -------------------------------------------------------------------------------

    def watched(self) -> set[ChannelId]:
        """Return the channels that are watched."""
        return {entry.channel for entry in self._roster}

    def oldest_look_age_ns(self) -> int | None:
        """Return the age of the oldest newest look, or None when a channel was never looked at or none is watched."""
        oldest: int | None = None
        for entry in self._roster:
            if entry.looked_ns is None:
                return None
            asked_ns = max(entry.looked_ns, (self.horizon.asked_ns or 0) if entry.registered is None else 0)
            oldest = asked_ns if oldest is None else min(oldest, asked_ns)
        return self._clock.monotonic_ns() - oldest if oldest is not None else None

    def failing(self) -> dict[ChannelId, int]:
        """Return the channels whose last looks failed, with how many did."""
        found = (self._roster.get(channel) for channel in list(self._vitals.failing))
        return {entry.channel: entry.failures for entry in found if entry is not None}

    def condition(self) -> Condition:
        """Return the watcher's own health."""
        vitals = self._vitals
        return Condition(
            state=vitals.state,
            watched=len(self._roster),
            chain_ns=vitals.chain_ns,
            lag_ns=vitals.lag_ns,
            least_margin_ns=self._refuter.least_margin_ns(),
            by_log=self._by_log(),
            looks=vitals.looks,
            looks_failed=vitals.looks_failed,
            sweeps=vitals.sweeps,
            restarts=vitals.restarts,
        )

    # --- looking -----------------------------------------------------------------------------------------

    async def look(self, channel: ChannelId) -> CertifiedLook:
        """Make a look by a request signed after this call, and report it.

        Raises `PerundError` when no certified answer came.
        """
        entry = self._roster.get(channel)
        if entry is None:
            return await self._canister.look(channel)
        async with self._asked:
            return await self._looks.make(entry, MOST_PATIENCE_S, self._refuter.consider)

    def _take(self, entry: Watched, look: CertifiedLook) -> None:
        """Take what the log shows of a channel."""
        quiet_before = entry.registered is None
        self._looks.take(entry, look, self._refuter.consider)
        if look.registered is None or quiet_before:
            self._plan_next(entry)

    async def _round(self, entry: Watched) -> None:
        entry.looking, failed = True, False
        try:
            patience_s = min(max(entry.challenge_ns / 3e9, LEAST_PATIENCE_S), MOST_PATIENCE_S)
            # After one that came to nothing every server is asked at once: one may be keeping the answers back.
            everywhere = entry.failures > 0
            await self._looks.make(entry, patience_s, self._refuter.consider, everywhere=everywhere)
        except PerundError:
            failed = True
            entry.again = False  # what failed is tried again soon anyway
        finally:  # whatever happened, there is a next round
            entry.looking = False
            if self._roster.holds(entry):
                if failed:
                    doublings = min(entry.failures, MOST_DOUBLINGS)  # after hours 2**failures would be no float
                    pause_ns = int(min(RETRY_FIRST_S * 2**doublings, RETRY_LAST_S) * 1e9)
                    self._plan(entry, self._clock.monotonic_ns() + min(pause_ns, entry.interval_ns))
                else:
                    self._plan_next(entry)
                if entry.again:
                    entry.again = False
                    self._hurry(entry)

    def _round_ended(self, task: asyncio.Task[None]) -> None:
        self._rounds.discard(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # A defect in the path that guards money is loud, and the rounds go on.
            log.error("watcher.round_failed", exc_info=error)
            self._pass_on(error)

    # --- running -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Watch for ever. A fault of one channel does not stop the others, a fault of one part not the other parts."""
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "rounds": self._go_round,
            "pulse": self._feel_pulse,
            "doubts": self._settle_doubts,
        }
        if self._log is not None:
            parts[SWEEP] = self._log.follow
        if self._log is not None or self._hints is not None:
            parts["hints"] = self._ask_for_hints
        tasks = [asyncio.ensure_future(self._keep(name, part)) for name, part in parts.items()]
        try:
            await asyncio.gather(*tasks)
        finally:
            every = [*tasks, *self._rounds, *self._refuter.tasks()]
            for task in every:
                task.cancel()
            await asyncio.gather(*every, return_exceptions=True)

    async def once(self) -> None:
        """Make one certified round instead of `run`: look at every channel, refute, and wait until that is done.

        A look that fails is reported, and not made again. A refutation ends when a look shows its end, or a minute
        after its deadline.
        """
        if self._log is not None:
            await self._log.once()
        try:
            looks = [self.look(entry.channel) for entry in self._roster if entry.looked_ns is None]
            for outcome in await asyncio.gather(*looks, return_exceptions=True):
                if isinstance(outcome, BaseException) and not isinstance(outcome, PerundError):
                    raise outcome
            if self._hints is not None:
                await self._suspicion.ask(self._hints, [entry for entry in self._roster if entry.failures])
            await self._doubts.once()
            while tasks := self._refuter.tasks():
                await asyncio.wait(tasks, timeout=1)
                self._refuter.warn()
                if (self._refuter.least_margin_ns() or 0) < -LATE_NS:
                    break
        finally:
            for task in self._refuter.tasks():
                task.cancel()

    async def _keep(self, name: str, part: Callable[[], Awaitable[None]]) -> None:
        """Run a part for ever, through its own faults."""
        pause_s = RESTART_FIRST_S
        while True:
            began_ns = self._clock.monotonic_ns()
            try:
                await part()
            except Exception as error:  # what guards money starts again, whatever it was; and loudly
                log.exception("watcher.part_failed", part=name)
                self._pass_on(error)
                self._vitals.restarts += 1
                self._vitals.down.add(name)
                self._say_restarted(name, error)
            if self._clock.monotonic_ns() - began_ns > LONG_RUN_NS:
                pause_s = RESTART_FIRST_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RESTART_LAST_S)

    def _say_restarted(self, name: str, error: Exception) -> None:
        try:
            self._notices.noticed(
                "watcher.restarted", None, {"part": name, "error": type(error).__name__, "alarm": True}
            )
        except Exception as unheard:  # whoever listens must not stop the watch either
            log.exception("watcher.notice_failed", part=name)
            self._pass_on(unheard)

    def _pass_on(self, error: BaseException) -> None:
        """Let the node know of a broken safety rule: it ends the node, wherever it shows."""
        if isinstance(error, InvariantBroken):
            asyncio.get_running_loop().call_exception_handler({"message": str(error), "exception": error})

    async def _go_round(self) -> None:
        """Look at every channel when it is due."""
        self._vitals.down.discard("rounds")
        while True:
            self._wake.clear()
            now_ns = self._clock.monotonic_ns()
            while len(self._rounds) < LOOKS_IN_FLIGHT and (entry := self._schedule.take(now_ns)) is not None:
                self._start_round(self._round(entry))
            due_ns = self._schedule.next_due_ns() if len(self._rounds) < LOOKS_IN_FLIGHT else None
            with suppress(TimeoutError):
                # Not wait_for: in Python 3.11 it swallows a cancellation that comes with the wake-up.
                async with asyncio.timeout((due_ns - now_ns) / 1e9 if due_ns is not None else None):
                    await self._wake.wait()

    def _start_round(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="look")
        self._rounds.add(task)
        task.add_done_callback(self._round_ended)

    async def _feel_pulse(self) -> None:
        """Say when no certified answer comes any more, and warn of deadlines that come near."""
        self._vitals.down.discard("pulse")
        while True:
            shortest = self._roster.shortest_challenge_ns
            tick_s = min(max(shortest / 30e9, SHORTEST_TICK_S), LONGEST_TICK_S) if shortest else LONGEST_TICK_S
            await asyncio.sleep(tick_s)
            self._refuter.warn()
            blind = self._vitals.blind
            if blind != self._blind:
                self._blind = blind
                lag_ns = self._vitals.lag_ns
                facts: dict[str, str | int | bool] = {"channels": len(self._roster)}
                if lag_ns is not None:
                    facts["lag_s"] = round(lag_ns / 1e9)
                if blind:
                    self._notices.noticed("watcher.blind", None, {**facts, "alarm": True})
                else:
                    self._notices.noticed("watcher.sees", None, facts)

    # --- hints -------------------------------------------------------------------------------------------

    async def _ask_for_hints(self) -> None:
        """Ask single nodes between the looks: what they say may start one."""
        self._vitals.down.discard("hints")
        while True:
            await asyncio.sleep(self._hint_every_s)
            if not len(self._roster):
                continue
            covered = self._log is not None and self._log.covers
            if self._log is not None and not self._log.missing:
                await self._log.suspect(self._suspicion)
            if self._hints is not None and not covered:
                await self._suspicion.ask_around(self._hints, self._hint_every_s)

    async def _settle_doubts(self) -> None:
        self._vitals.down.discard("doubts")
        await self._doubts.run()
