"""Chain time and the local clock, as the node uses them."""

from __future__ import annotations

from typing import Protocol

from protocol.effects import Moment
from protocol.types import Nanos

__all__ = ["ChainTime"]


class _Clock(Protocol):
    def monotonic_ns(self) -> int: ...


class _KnowsChainTime(Protocol):
    def chain_time(self) -> int: ...


class ChainTime:
    """Now, for machines and jobs: chain time decides deadlines, the local clock only schedules."""

    def __init__(self, agent: _KnowsChainTime, clock: _Clock) -> None:
        self._agent = agent
        self._clock = clock

    def chain_ns(self) -> Nanos:
        """Return the chain time: the newest certified one plus what has elapsed since."""
        return Nanos(self._agent.chain_time())

    def elapsed_ns(self) -> int:
        """Return local time that never goes back and runs while the machine sleeps."""
        return self._clock.monotonic_ns()

    def now(self) -> Moment:
        """Return both."""
        return Moment(self.elapsed_ns(), self.chain_ns())
