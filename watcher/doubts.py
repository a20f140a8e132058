"""Doubts: a state below ours is shown, and no proof of it comes. Then our newest goes out all the same.

A refutation is never dishonest (rule 5), so whoever spoils or keeps back every certificate gains nothing by it: what a
query shows, or an answer whose certificate is worthless, is enough, once a look at every server at once has failed. It
is bounded, for a liar can show anything: whoever alone can prove nothing and be believed nothing else has our newest
states registered, each of a few times, at a rate that is small. docs/adr/0016-refuting-on-a-hint.md.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from protocol.errors import PerundError
from protocol.horizon import Horizon
from protocol.types import Params, RegisteredState, SignedState
from watcher.looking import Consider, Looks
from watcher.ports import Canister, Clock, Hints, Notices, States
from watcher.roster import Roster, Watched
from watcher.vitals import Vitals

__all__ = ["Doubts", "grace_ns"]

log = structlog.get_logger()

S: Final = 1_000_000_000
AT_ONCE: Final = 12
"""Looks under way. With more doubts than that the look at one channel speaks for others: see `_nothing_proves`."""
SENDS_AT_ONCE: Final = 24
CROWDED_SEND_S: Final = 2.0
"""How long the answer to a refutation is waited for with so many doubts: kept back, it must not keep others back."""
BURST: Final = 20
"""So many refutations on hints may go out together."""
ROUNDS_PER_CHALLENGE: Final = 4
"""Beyond that, at a rate at which every channel gets its turn so often in the shortest challenge period, or 1/s."""
UNHEARD_SENDS: Final = 3
"""So often it is sent without a new hint: a request may be lost."""
LONGEST_PAUSE_NS: Final = 3_600 * S
LATE_NS: Final = 60 * S
HINT_PATIENCE_S: Final = 3.0


def grace_ns(challenge_ns: int) -> int:
    """Return how long a proof is waited for before a hint is enough: a 24th of the period, 1 to 10 seconds."""
    return min(max(challenge_ns // 24, S), 10 * S)


@dataclass(slots=True, eq=False)
class _Doubt:
    """A channel of which something below ours is shown. Times are local elapsed nanoseconds."""

    entry: Watched
    shown: RegisteredState
    since_ns: int
    """A look whose request was signed later has the last word."""
    heard_ns: int
    due_ns: int
    sent: int = 0
    sent_ns: int = 0
    unheard: int = 0
    busy: bool = False


class Doubts:
    """A part of the watcher. Nothing here is believed, and nothing that is believed changes by it."""

    def __init__(
        self,
        states: States,
        canister: Canister,
        notices: Notices,
        clock: Clock,
        roster: Roster,
        vitals: Vitals,
        looks: Looks,
        horizon: Horizon,
        hints: Hints | None,
        consider: Consider,
        proven_below: Callable[[Watched], bool],
    ) -> None:
        """`consider`: what is done with a look; `proven_below`: refutes what is certified already, if it is below."""
        self._states = states
        self._canister = canister
        self._notices = notices
        self._clock = clock
        self._roster = roster
        self._vitals = vitals
        self._looks = looks
        self._horizon = horizon
        self._hints = hints
        self._consider = consider
        self._proven_below = proven_below
        self._open: dict[Watched, _Doubt] = {}
        self._due: list[tuple[int, int, _Doubt]] = []
        self._order = 0
        self._places = asyncio.Semaphore(AT_ONCE)
        self._sends = asyncio.Semaphore(SENDS_AT_ONCE)
        self._unproven_ns = 0
        """When the newest look at every server was asked for that came to nothing."""
        self._tokens, self._counted_ns = float(BURST), clock.monotonic_ns()
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._open)

    # --- what is heard -----------------------------------------------------------------------------------

    def hear(self, entry: Watched, shown: RegisteredState) -> None:
        """Take note that somebody shows this state registered, without a proof."""
        now_ns = self._clock.monotonic_ns()
        if not self._roster.holds(entry) or now_ns < entry.doubted_from_ns:
            return
        entry.doubted_from_ns = now_ns + grace_ns(entry.challenge_ns)  # asking for our newest reads a disk
        if self._proven_below(entry):
            return
        doubt = self._open.get(entry)
        if self._ours_above(entry, shown) is None:
            if doubt is not None and not doubt.busy:
                del self._open[entry]
            return
        if doubt is None:
            due_ns = max(now_ns + grace_ns(entry.challenge_ns), entry.unproven_from_ns)
            doubt = self._open[entry] = _Doubt(entry, shown, now_ns, now_ns, due_ns)
            self._schedule(doubt)
            return
        doubt.shown, doubt.heard_ns, doubt.unheard = shown, now_ns, 0

    def look_failed(self, entry: Watched) -> None:
        """Take note that a look came to nothing: what waits for one waits no longer."""
        doubt = self._open.get(entry)
        if doubt is not None and not doubt.busy and not doubt.sent:
            doubt.due_ns = min(doubt.due_ns, max(self._clock.monotonic_ns(), entry.unproven_from_ns))
            self._schedule(doubt)

    def forget(self, entry: Watched) -> None:
        """Forget a channel that is watched no more."""
        self._open.pop(entry, None)

    def _ours_above(self, entry: Watched, shown: RegisteredState) -> tuple[Params, SignedState] | None:
        """Return our newest if it refutes what is shown, and what is shown can be a state of this channel at all."""
        known = self._states.newest(entry.channel)
        if known is None:
            return None
        ours, theirs = known[1].state, shown.state
        if theirs.version >= ours.version or theirs.total != ours.total or theirs.channel != ours.channel:
            return None
        now_ns = self._vitals.chain_now_ns()
        return None if now_ns is not None and shown.timeout_ns + LATE_NS < now_ns else known

    def _proven(self, doubt: _Doubt) -> bool:
        """Whether a certified look asked since then has had the last word."""
        entry = doubt.entry
        quiet_ns = (self._horizon.asked_ns or 0) if entry.registered is None else 0
        return max(entry.looked_ns or 0, quiet_ns) > doubt.since_ns

    # --- what is done ------------------------------------------------------------------------------------

    def _schedule(self, doubt: _Doubt) -> None:
        self._order += 1
        heapq.heappush(self._due, (doubt.due_ns, self._order, doubt))
        self._wake.set()

    async def run(self) -> None:
        """Answer doubts when they are due, for ever."""
        try:
            while True:
                self._wake.clear()
                now_ns = self._clock.monotonic_ns()
                while self._due and self._due[0][0] <= now_ns:
                    due_ns, _, doubt = heapq.heappop(self._due)
                    if self._open.get(doubt.entry) is doubt and doubt.due_ns == due_ns and not doubt.busy:
                        self._start(doubt)
                pause_s = (self._due[0][0] - now_ns) / S if self._due else None
                try:
                    async with asyncio.timeout(pause_s):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def once(self) -> None:
        """Answer every doubt that there is now, instead of `run`, and return when that is done."""
        for _ in range(UNHEARD_SENDS):
            for doubt in list(self._open.values()):
                self._start(doubt)
            if not self._tasks:
                return
            await asyncio.wait(self._tasks)

    def _start(self, doubt: _Doubt) -> None:
        doubt.busy = True
        task = asyncio.get_running_loop().create_task(self._answer(doubt), name="doubt")
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._ended(doubt, ended))

    def _ended(self, doubt: _Doubt, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        doubt.busy = False
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("watcher.doubt_failed", channel=doubt.entry.channel.hex(), exc_info=error)
        if self._open.get(doubt.entry) is doubt:
            self._schedule(doubt)

    async def _answer(self, doubt: _Doubt) -> None:
        """Look at every server at once; if that proves nothing, send our newest, or say when to come again."""
        entry = doubt.entry
        doubt.due_ns = self._clock.monotonic_ns() + grace_ns(entry.challenge_ns)
        if await self._is_over(doubt):
            self.forget(entry)
            if doubt.sent:
                self._notices.noticed("watcher.unproven_over", entry.channel, {"proven": self._proven(doubt)})
            return
        async with self._sends:
            known = self._ours_above(entry, doubt.shown)
            if known is None or not self._roster.holds(entry) or self._proven_below(entry):
                self.forget(entry)
                return
            wait_ns = self._wait_for_token_ns(doubt)
            if wait_ns:
                doubt.due_ns = self._clock.monotonic_ns() + wait_ns
                return
            await self._send(doubt, *known)

    async def _is_over(self, doubt: _Doubt) -> bool:
        """Whether a look has decided, one that is made now included, or nobody shows a stale state any more."""
        entry = doubt.entry
        async with self._places:
            if self._proven(doubt):
                return True
            if not self._nothing_proves(doubt):
                asked_ns, patience_s = self._clock.monotonic_ns(), grace_ns(entry.challenge_ns) / S
                try:
                    await self._looks.make(entry, patience_s, self._consider, everywhere=True)
                except PerundError:  # it was reported; what it showed was heard
                    self._unproven_ns = max(self._unproven_ns, asked_ns)
                else:
                    return True
            return bool(doubt.sent) and doubt.heard_ns <= doubt.sent_ns and await self._hint_says_over(doubt)

    def _nothing_proves(self, doubt: _Doubt) -> bool:
        """Whether there are too many doubts for a look at each, and such a look came to nothing since this one.

        Who keeps the answers of every server back would else win by showing something of so many channels that a true
        hint waits behind them for longer than the challenge period. One certified answer ends it.
        """
        if len(self._open) <= AT_ONCE or self._unproven_ns <= max(doubt.since_ns, doubt.sent_ns):
            return False
        certified_ns = self._vitals.asked_ns
        return certified_ns is None or certified_ns < self._unproven_ns

    async def _hint_says_over(self, doubt: _Doubt) -> bool:
        """Ask again what is shown, after a refutation went out. No answer says nothing, but not for ever."""
        doubt.unheard += 1
        if self._hints is not None:
            try:
                async with asyncio.timeout(HINT_PATIENCE_S):
                    shown = await self._hints.hint(doubt.entry.channel)
                if shown is None or self._ours_above(doubt.entry, shown) is None:
                    return True
                doubt.shown, doubt.heard_ns, doubt.unheard = shown, self._clock.monotonic_ns(), 0
            except (PerundError, TimeoutError) as error:
                log.debug("watcher.hint_failed", channel=doubt.entry.channel.hex(), error=str(error))
        return doubt.unheard >= UNHEARD_SENDS

    async def _send(self, doubt: _Doubt, params: Params, signed: SignedState) -> None:
        entry, ours = doubt.entry, signed.state.version
        channel, shown = entry.channel.hex(), doubt.shown.state.version
        now_ns = self._clock.monotonic_ns()
        if entry.unproven_told_ns is None or now_ns - entry.unproven_told_ns >= entry.challenge_ns:
            entry.unproven_told_ns = now_ns
            facts: dict[str, str | int | bool] = {"shown": shown, "ours": ours, "alarm": True}
            self._notices.noticed("watcher.refuting_unproven", entry.channel, facts)
        if now_ns - entry.unproven_sent_ns >= entry.challenge_ns:
            entry.unproven_sent = 0
        doubt.sent += 1
        entry.unproven_sent += 1
        within_s = min(max(entry.challenge_ns / 8 / S, 2.0), 15.0 if len(self._open) <= AT_ONCE else CROWDED_SEND_S)
        try:
            async with asyncio.timeout(within_s + 1):
                answer = await self._canister.refute(params, signed, within_s)
            log.info("watcher.unproven_refutation_sent", channel=channel, version=ours, shown=shown, answer=answer)
        except (PerundError, TimeoutError) as error:
            log.warning("watcher.unproven_refutation_unanswered", channel=channel, version=ours, error=str(error))
        doubt.sent_ns = entry.unproven_sent_ns = self._clock.monotonic_ns()
        pause_ns = grace_ns(entry.challenge_ns) << min(entry.unproven_sent, 20)
        pause_ns = max(min(pause_ns, entry.challenge_ns // 4, LONGEST_PAUSE_NS), S)
        doubt.due_ns = entry.unproven_from_ns = doubt.sent_ns + pause_ns

    def _wait_for_token_ns(self, doubt: _Doubt) -> int:
        """Take a token for one refutation, or return how long to wait for one.

        What was sent already leaves half of them to what was not: a liar's noise does not keep a true hint waiting.
        """
        now_ns = self._clock.monotonic_ns()
        shortest_s = (self._roster.shortest_challenge_ns or S) / S
        rate = max(1.0, ROUNDS_PER_CHALLENGE * len(self._roster) / shortest_s)
        self._tokens = min(BURST, self._tokens + rate * (now_ns - self._counted_ns) / S)
        self._counted_ns = now_ns
        lacking = 1 + (BURST / 2 if doubt.sent else 0) - self._tokens
        if lacking > 0:
            return int(lacking / rate * S) + 1
        self._tokens -= 1
        return 0
