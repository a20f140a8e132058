"""A durable job of a channel: it does the next thing, again and again, until nothing is left.

A job keeps nothing in memory that it would miss after a crash: each step decides from the store and from
certified looks.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

import structlog

from perund.node.driver import ChannelDriver
from perund.store.errors import StorageFailed
from protocol.errors import PerundError

__all__ = ["LAST_WAIT_S", "ChannelJob", "Progress"]

log = structlog.get_logger()

FIRST_WAIT_S: Final = 0.2
LAST_WAIT_S: Final = 10.0
FACTOR: Final = 1.6


@dataclass(frozen=True, slots=True)
class Progress:
    """What a step came to. `waiting_for` is empty when the next step can follow at once; `at_most_s`: the longest wait
    before the next step, approached by growing ones.
    """

    waiting_for: str
    at_most_s: float = LAST_WAIT_S

    @classmethod
    def again(cls) -> Progress:
        """Return that the next step can follow."""
        return cls("")

    @classmethod
    def wait(cls, what: str, at_most_s: float = LAST_WAIT_S) -> Progress:
        """Return that the next step waits, for `what`."""
        return cls(what, at_most_s)


class ChannelJob(ABC):
    """Runs as a task while it is needed; see `run`."""

    def __init__(self, driver: ChannelDriver, name: str) -> None:
        self.driver = driver
        self.name = name
        self.waiting_for = ""
        self.problem = ""
        """Why the last step failed, or empty."""
        self._wake = asyncio.Event()

    @property
    @abstractmethod
    def needed(self) -> bool:
        """Whether there is anything left to do."""

    @abstractmethod
    async def step(self) -> Progress:
        """Do the next thing."""

    def hurry(self) -> None:
        """Something may have changed: take the next step now."""
        self._wake.set()

    async def run(self) -> None:
        """Take steps until the job is not needed. A step that fails is taken again, later and later."""
        pause = FIRST_WAIT_S
        while self.needed:
            self._wake.clear()
            try:
                progress = await self.step()
                self.problem = ""
            except StorageFailed:
                raise
            except PerundError as error:
                progress = Progress.wait(str(error))
                if str(error) != self.problem:
                    log.warning("job.failed", job=self.name, channel=self.driver.short, error=str(error))
                self.problem = str(error)
            if not progress.waiting_for:
                pause = FIRST_WAIT_S
                continue
            if progress.waiting_for != self.waiting_for:
                pause = FIRST_WAIT_S
            self.waiting_for = progress.waiting_for
            try:
                # Not wait_for: in Python 3.11 it swallows a cancellation that comes with the wake-up, and the node
                # would wait for this job for ever when it stops.
                async with asyncio.timeout(min(pause, progress.at_most_s)):
                    await self._wake.wait()
                pause = FIRST_WAIT_S
            except TimeoutError:
                pause = min(pause * FACTOR, max(LAST_WAIT_S, progress.at_most_s))
        self.waiting_for = ""
