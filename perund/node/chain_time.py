"""Chain time and the local clock, as the node uses them."""

from __future__ import annotations

from typing import Protocol

from protocol.effects import Moment
from protocol.types import Nanos

__all__ = ["ChainTime"]


class _Clock(Protocol):
    def monotonic_ns(self) -> int: ...


class _KnowsChainTime(Protocol):
    @property
    def chain_time_is_certified(self) -> bool: ...

    def chain_time(self) -> int: ...

    async def ensure_time(self, canister: bytes) -> None: ...


class ChainTime:
    """Now, for machines and jobs: chain time decides deadlines, the local clock only schedules."""

    def __init__(self, agent: _KnowsChainTime, clock: _Clock, canister: bytes) -> None:
        """`canister`: any of the network (raw principal), for a certificate that tells the time."""
        self._agent = agent
        self._clock = clock
        self._canister = canister

    @property
    def certified(self) -> bool:
        """Whether any certificate has been seen: no deadline is decided before."""
        return self._agent.chain_time_is_certified

    async def ensure(self) -> None:
        """Return when chain time is certified: a call that moves money does not hang on the wall clock.

        Raises `ChainError`.
        """
        await self._agent.ensure_time(self._canister)

    def chain_ns(self) -> Nanos:
        """Return the chain time: the newest certified one plus what has elapsed since."""
        return Nanos(self._agent.chain_time())

    def elapsed_ns(self) -> int:
        """Return local time that never goes back and runs while the machine sleeps."""
        return self._clock.monotonic_ns()

    def now(self) -> Moment:
        """Return both."""
        return Moment(self.elapsed_ns(), self.chain_ns())
