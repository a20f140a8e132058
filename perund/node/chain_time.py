"""Chain time and the local clock, as the node uses them."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

import structlog

from chain.errors import ChainError
from protocol.effects import Moment
from protocol.types import Nanos

__all__ = ["ChainTime"]

log = structlog.get_logger()

YOUNG_NS: Final = 10_000_000_000
"""A certificate of so long ago tells the time to who decides by it, unless the machine slept since."""
PATIENCE_S: Final = 5.0


class _Clock(Protocol):
    def monotonic_ns(self) -> int: ...


class _KnowsChainTime(Protocol):
    @property
    def chain_time_is_certified(self) -> bool: ...

    def chain_time(self) -> int: ...

    def chain_time_is_young(self, most_ns: int) -> bool: ...

    async def renew_time(self, canister: bytes, older_than_ns: int) -> None: ...


class ChainTime:
    """Now, for machines and jobs: chain time decides deadlines, the local clock only schedules.

    Between certificates it is what the last one told and what elapsed since. A machine that was paused (a snapshot, a
    lid that was closed) may not know that anything elapsed: who is about to decide by it asks for a young one first,
    and who is about to turn somebody away, or to set somebody a term, for a new one.
    """

    def __init__(self, agent: _KnowsChainTime, clock: _Clock, canister: bytes) -> None:
        """`canister`: any of the network (raw principal), for a certificate that tells the time."""
        self._agent = agent
        self._clock = clock
        self._canister = canister

    @property
    def certified(self) -> bool:
        """Whether any certificate has been seen: no deadline is decided before."""
        return self._agent.chain_time_is_certified

    @property
    def young(self) -> bool:
        """Whether a certificate told it a moment ago, and no sign is seen that the machine slept since."""
        return self._agent.chain_time_is_young(YOUNG_NS)

    async def ensure(self) -> None:
        """Return when chain time is young: a call that moves money does not hang on the wall clock, or on a pause.

        Raises `ChainError`.
        """
        await self._agent.renew_time(self._canister, YOUNG_NS)

    async def renew(self) -> None:
        """Return when chain time is certified anew, by a request made from now on. Raises `ChainError`."""
        await self._agent.renew_time(self._canister, 0)

    async def refresh(self) -> None:
        """Return when chain time is certified anew, or cannot be soon: for what is done all the same."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self.renew()
        except (ChainError, TimeoutError) as error:
            log.warning("chain.time_not_renewed", error=str(error) or f"no answer within {PATIENCE_S:g} s")

    def chain_ns(self) -> Nanos:
        """Return the chain time: the newest certified one plus what has elapsed since."""
        return Nanos(self._agent.chain_time())

    def elapsed_ns(self) -> int:
        """Return local time that never goes back and runs while the machine sleeps."""
        return self._clock.monotonic_ns()

    def now(self) -> Moment:
        """Return both."""
        return Moment(self.elapsed_ns(), self.chain_ns())
