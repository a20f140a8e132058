"""Finds out whether a stranger that a full tower turns away has money, so that it is let in when it comes again."""

from __future__ import annotations

import asyncio
import random
from typing import Final

import structlog

from protocol.errors import PerundError
from protocol.types import ChannelId, Params
from watcher.tower.ports import ChainClock, Holdings

__all__ = ["Vouching"]

log = structlog.get_logger()

S: Final = 1_000_000_000
ADDRESSES: Final = 256
PER_ADDRESS: Final = 4
"""Questions that wait, of one address. A new one takes the place of another by chance, in its address or in all."""
AT_ONCE: Final = 4
"""Looks under way."""
HOLDS_S: Final = 600
"""For so long a client that was turned away has time to come again."""
VOUCHED: Final = 10_000


class Vouching:
    """A task. One address is asked about as often as another, however much it asks."""

    def __init__(self, holdings: Holdings, clock: ChainClock, rng: random.Random | None = None) -> None:
        self._holdings = holdings
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311  (it chooses who is asked about)
        self._waiting: dict[str, dict[ChannelId, Params]] = {}
        self._vouched: dict[ChannelId, int] = {}
        """Until when (local time), by channel; in the order in which they were found."""
        self._wake = asyncio.Event()

    def vouch(self, params: Params, origin: str) -> bool:
        """Whether a look showed money in this channel lately. If not, one is made when its address has its turn."""
        channel = params.channel_id
        until_ns = self._vouched.get(channel)
        if until_ns is not None and self._clock.elapsed_ns() < until_ns:
            return True
        if origin not in self._waiting and len(self._waiting) >= ADDRESSES:
            del self._waiting[self._rng.choice(list(self._waiting))]
        waiting = self._waiting.setdefault(origin, {})
        if channel not in waiting and len(waiting) >= PER_ADDRESS:
            del waiting[self._rng.choice(list(waiting))]
        waiting[channel] = params
        self._wake.set()
        return False

    async def run(self) -> None:
        """Look at what is asked about, for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            origin = self._rng.choice(list(self._waiting))
            waiting = self._waiting[origin]
            params = waiting.pop(self._rng.choice(list(waiting)))
            if not waiting:
                del self._waiting[origin]
            try:
                funded = await self._holdings.funded(params)
            except PerundError as error:  # unknown is not 'money'
                log.debug("tower.look_failed", channel=params.channel_id.hex()[:16], error=str(error))
                await asyncio.sleep(1)
                continue
            if funded:
                self._vouched.pop(params.channel_id, None)
                self._vouched[params.channel_id] = self._clock.elapsed_ns() + HOLDS_S * S
                if len(self._vouched) > VOUCHED:
                    del self._vouched[next(iter(self._vouched))]
