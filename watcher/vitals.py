"""How the watcher itself is: whether it sees anything, how old that is, and how much time is left."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from protocol.types import ChannelId, Nanos
from watcher.ports import Clock
from watcher.roster import Roster

__all__ = ["Condition", "Vitals", "WatcherState"]


class WatcherState(StrEnum):
    """In which state the watcher is."""

    STARTING = "starting"
    """No certified answer came yet."""
    WATCHING = "watching"
    """All is well."""
    DEGRADED = "degraded"
    """Something of it fails: looks, the sweep of the log, or a part of it that had to be restarted."""
    BLIND = "blind"
    """No certified answer came for a third of the shortest challenge period: payments stop."""


@dataclass(frozen=True, slots=True)
class Condition:
    """The watcher's health. `lag_ns`: age of the newest certified answer; `chain_ns`: chain time last seen;
    `least_margin_ns`: time until the nearest deadline of a refutation; counts are since the start.
    """

    state: WatcherState
    watched: int
    chain_ns: Nanos | None
    lag_ns: int | None
    least_margin_ns: int | None
    by_log: bool
    """Whether quiet channels are seen in the canister's log, rather than looked at one by one."""
    looks: int
    looks_failed: int
    sweeps: int
    restarts: int


class Vitals:
    """What the parts of the watcher tell about their work."""

    def __init__(self, roster: Roster, clock: Clock) -> None:
        self._roster = roster
        self._clock = clock
        self._ahead_ns: int | None = None
        self.asked_ns: int | None = None
        """When the newest certified answer was asked for, in local elapsed time."""
        self.chain_ns: Nanos | None = None
        """Chain time when the newest certified answer was asked for."""
        self.looks = 0
        self.looks_failed = 0
        self.sweeps = 0
        self.restarts = 0
        self.sweep_fails = False
        """Whether the newest sweep of the log failed."""
        self.down: set[str] = set()
        """The parts that failed and are not at work again yet."""
        self.failing: set[ChannelId] = set()
        """The channels whose newest look failed."""

    def answered(self, asked_ns: int, chain_ns: Nanos) -> None:
        """Take the times of a certified answer: when it was asked for, here and on the chain as far as it was known."""
        ahead = chain_ns - asked_ns
        if chain_ns > 0 and (self._ahead_ns is None or ahead > self._ahead_ns):  # 0: it was not known yet
            self._ahead_ns = ahead
        if self.chain_ns is None or chain_ns > self.chain_ns:
            self.chain_ns = chain_ns
        if self.asked_ns is None or asked_ns > self.asked_ns:
            self.asked_ns = asked_ns

    def chain_now_ns(self) -> Nanos | None:
        """Return a lower bound of chain time now that never goes back; None before the first certificate."""
        return Nanos(self._clock.monotonic_ns() + self._ahead_ns) if self._ahead_ns is not None else None

    @property
    def lag_ns(self) -> int | None:
        """Age of the newest certified answer: since its request was signed. None before the first."""
        return self._clock.monotonic_ns() - self.asked_ns if self.asked_ns is not None else None

    @property
    def blind(self) -> bool:
        """Whether no certified answer came for a third of the shortest challenge period among watched channels."""
        shortest = self._roster.shortest_challenge_ns
        if shortest is None:
            return False
        # A channel with a shorter period than all before has its first third from when it came.
        since = max(self.asked_ns or 0, self._roster.shortest_since_ns)
        # Where few looks are made in a period, the answer between two of them is not missing yet.
        patience_ns = max(shortest / 3, 1.5 * (self._roster.interval_ns or 0))
        return self._clock.monotonic_ns() - since >= patience_ns

    @property
    def state(self) -> WatcherState:
        """In which state the watcher is."""
        if self.blind:
            return WatcherState.BLIND
        if self.failing or self.sweep_fails or self.down:
            return WatcherState.DEGRADED
        if self.asked_ns is None and len(self._roster):
            return WatcherState.STARTING
        return WatcherState.WATCHING
