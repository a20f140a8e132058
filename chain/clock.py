"""Three times: the wall's, the machine's monotonic one, and the chain's as far as certificates have shown it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

__all__ = ["Certified", "ChainTime", "Clock", "SystemClock"]

CLOCKS_AGREE_NS: Final = 2_000_000_000
"""By so much the wall clock may run away from the monotonic one between two certificates: it is being set."""
T = TypeVar("T")
U = TypeVar("U")


class Clock(Protocol):
    """Where the agent gets the time from."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970 as this machine believes."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds since some fixed moment; never goes back, also counts while the machine sleeps."""
        ...


class SystemClock:
    """The machine's clocks."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970 as this machine believes."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """Nanoseconds since boot. CLOCK_MONOTONIC stops while a laptop sleeps: looks would seem young after it."""
        return _monotonic_ns()


if hasattr(time, "CLOCK_BOOTTIME"):

    def _monotonic_ns() -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

else:

    def _monotonic_ns() -> int:
        return time.monotonic_ns()


@dataclass(frozen=True, slots=True)
class Certified(Generic[T]):
    """A certified answer to a call.

    `chain_time_ns`: the certificate's time, a lower bound of chain time; `signed_at_mono_ns`: the agent's monotonic
    clock when the request was signed. **The answer is as old as that** (rule 5): a replica can withhold it and
    deliver it later under a new certificate. `request_id`: 32 bytes.
    """

    value: T
    chain_time_ns: int
    asked_at_chain_ns: int
    """Chain time when the request was signed, as far as it was known: the answer may be as old as that, and whether
    something was over then is all that it proves."""
    signed_at_mono_ns: int
    request_id: bytes

    def age_ns(self, clock: Clock) -> int:
        """Return how old the look is now."""
        return clock.monotonic_ns() - self.signed_at_mono_ns

    def with_value(self, value: U) -> Certified[U]:
        """Return the same proof around what was read from its bytes."""
        return Certified(value, self.chain_time_ns, self.asked_at_chain_ns, self.signed_at_mono_ns, self.request_id)


class ChainTime:
    """Chain time, estimated from certificates and the monotonic clock. It never goes back.

    A certificate's time was reached when it arrived, so each one gives a lower bound: the largest counts.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_of_mono: int | None = None
        self.observed_at_mono_ns: int | None = None
        """When the newest certificate came, by the monotonic clock."""
        self._observed_at_wall_ns = 0

    @property
    def certified(self) -> bool:
        """Whether a certificate has been seen; until then `now_ns` is only this machine's wall clock."""
        return self._ahead_of_mono is not None

    def now_ns(self) -> int:
        """Return chain time now."""
        if self._ahead_of_mono is None:
            return self._clock.wall_ns()
        return self._clock.monotonic_ns() + self._ahead_of_mono

    def is_young(self, most_ns: int) -> bool:
        """Whether a certificate came within so long, and this machine was not put to sleep since, as far as it knows.

        A machine that was paused as a whole may find that its monotonic clock stood still. Then what elapsed is not
        known before the next certificate; that the wall clock went on alone is a sign of it.
        """
        if self.observed_at_mono_ns is None:
            return False
        by_mono = self._clock.monotonic_ns() - self.observed_at_mono_ns
        by_wall = self._clock.wall_ns() - self._observed_at_wall_ns
        return by_mono <= most_ns and abs(by_wall - by_mono) <= CLOCKS_AGREE_NS

    def observe(self, time_ns: int) -> None:
        """Learn from a verified certificate's time."""
        self.observed_at_mono_ns = self._clock.monotonic_ns()
        self._observed_at_wall_ns = self._clock.wall_ns()
        ahead = time_ns - self.observed_at_mono_ns
        if self._ahead_of_mono is None or ahead > self._ahead_of_mono:
            self._ahead_of_mono = ahead
