"""Keeping sessions with chosen peers: dial, wait for the end, dial again with growing pauses."""

from __future__ import annotations

import asyncio
import random
from typing import Final, Protocol

import structlog

from wire.errors import DialFailed
from wire.limits import Timing
from wire.session import Session

__all__ = ["Dialer", "Keeper"]

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


class Dialer(Protocol):
    """Who can make sessions."""

    async def dial(self, peer: bytes, host: str, port: int) -> Session:
        """Return the session with this peer. Raises `DialFailed`."""
        ...

    def session(self, peer: bytes) -> Session | None:
        """Return the session with this peer, if there is one."""
        ...


class Keeper:
    """One task for each kept peer.

    Pauses double from `first_retry_s` to `longest_retry_s`, each spread over a half to the whole of it so that
    the peers of a node that comes back do not dial all at once. A session of `stable_after_s` starts afresh.
    """

    def __init__(self, dialer: Dialer, dials: int, timing: Timing, rng: random.Random) -> None:
        self._dialer = dialer
        self._slots = asyncio.Semaphore(dials)
        self._timing = timing
        self._rng = rng
        self._tasks: dict[bytes, asyncio.Task[None]] = {}
        self._arrivals: dict[bytes, asyncio.Event] = {}

    def keep(self, peer: bytes, host: str, port: int) -> None:
        """Keep this peer, at this address; an earlier address of it is forgotten."""
        self.forget(peer)
        self._arrivals[peer] = asyncio.Event()
        self._tasks[peer] = asyncio.get_running_loop().create_task(
            self._keep(peer, host, port, self._arrivals[peer]), name=f"keep {peer.hex()[:16]}"
        )

    def forget(self, peer: bytes) -> None:
        """Stop keeping this peer."""
        self._arrivals.pop(peer, None)
        task = self._tasks.pop(peer, None)
        if task is not None:
            task.cancel()

    def keeps(self, peer: bytes) -> bool:
        """Whether this peer is kept."""
        return peer in self._tasks

    def arrived(self, peer: bytes) -> None:
        """Take note of a session with this peer, whoever dialed: its pause is over."""
        event = self._arrivals.get(peer)
        if event is not None:
            event.set()

    async def close(self) -> None:
        """Stop keeping anybody."""
        tasks = list(self._tasks.values())
        for peer in list(self._tasks):
            self.forget(peer)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, peer: bytes, host: str, port: int, arrival: asyncio.Event) -> None:
        timing = self._timing
        pause_s = timing.first_retry_s
        clock = asyncio.get_running_loop().time
        while True:
            try:
                async with self._slots:
                    session = await self._dialer.dial(peer, host, port)
            except DialFailed as error:
                log.info(
                    "peer.dial_failed",
                    peer=peer.hex(),
                    host=host,
                    port=port,
                    cause=type(error).__name__,
                    reason=str(error),
                    retry_within_s=pause_s,
                )
            else:
                began_s = session.since_s
                await session.closed()
                if clock() - began_s >= timing.stable_after_s:
                    pause_s = timing.first_retry_s
            arrival.clear()
            if self._dialer.session(peer) is not None:
                continue  # the peer dialed, or replaced its session
            await self._pause(pause_s, arrival)
            pause_s = min(pause_s * 2, timing.longest_retry_s)

    async def _pause(self, pause_s: float, arrival: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(pause_s * self._rng.uniform(0.5, 1)):
                await arrival.wait()
        except TimeoutError:
            return
