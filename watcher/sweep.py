"""The sweep: one certified reading of the canister's log of registrations stands for a look at every quiet channel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from protocol.horizon import Horizon
from protocol.types import Nanos
from watcher.errors import NoAnswerInTime, StrangeLog
from watcher.ports import CertifiedLook, CertifiedPage, Clock, DisputeLog
from watcher.roster import Roster, Watched
from watcher.vitals import Vitals

__all__ = ["PAGE", "Sweep"]

log = structlog.get_logger()

PAGE: Final = 200
TOGETHER: Final = 500
"""So many channels are told of the first sweep before others get a turn."""
LEAST_PATIENCE_S: Final = 2.0
MOST_PATIENCE_S: Final = 60.0

Take = Callable[[Watched, CertifiedLook], None]


class Sweep:
    """Reads the log from where it knows it on.

    The cursor is moved by certified pages only, after every registration in them was brought to its channel; it
    lives no longer than the process. So every entry below it was seen while its channel was watched, or the channel
    has had a look of its own since: nothing can be registered behind the cursor.
    """

    def __init__(
        self, disputes: DisputeLog, roster: Roster, vitals: Vitals, clock: Clock, horizon: Horizon, take: Take
    ) -> None:
        """`take`: what is done with the look at a channel that the log names."""
        self._disputes = disputes
        self._roster = roster
        self._vitals = vitals
        self._clock = clock
        self._horizon = horizon
        self._take = take
        self.cursor = 0
        self._complete = False

    async def make(self) -> None:
        """Read to the head, then move the horizon to when the first request was signed.

        Raises `PerundError` when no certified answer came, `StrangeLog` for pages that cannot be.
        """
        first: CertifiedPage | None = None
        while True:
            page = await self._page()
            if page.head < self.cursor:
                # The canister starts anew (it was reinstalled, say): so does whoever reads its log.
                log.warning("watcher.log_restarted", cursor=self.cursor, head=page.head)
                self.cursor, first = 0, None
                continue
            self._check(page)
            first = first or page
            self._bring_all(page)
            self.cursor = page.entries[-1].index + 1 if page.entries else page.head
            if self.cursor >= page.head:
                break
        if not self._complete:
            await self._tell_everybody(first.asked_ns, first.chain_ns)
            self._complete = True
        self._horizon.move(first.asked_ns, first.chain_ns)
        self._vitals.sweeps += 1

    async def _page(self) -> CertifiedPage:
        patience_s = self._patience_s()
        try:
            async with asyncio.timeout(patience_s):
                page = await self._disputes.page(self.cursor, PAGE)
        except TimeoutError as error:
            raise NoAnswerInTime(f"the log of registrations was not shown within {patience_s:.1f} s") from error
        self._vitals.answered(page.asked_ns, page.chain_ns)
        return page

    def _patience_s(self) -> float:
        shortest = self._roster.shortest_challenge_ns or 0
        return min(max(shortest / 3e9, LEAST_PATIENCE_S), MOST_PATIENCE_S)

    def _check(self, page: CertifiedPage) -> None:
        expected = self.cursor
        for entry in page.entries:
            if not expected <= entry.index < page.head:
                raise StrangeLog(
                    f"the log of registrations shows index {entry.index} where {expected} to {page.head - 1} can be"
                )
            expected = entry.index + 1

    def _bring_all(self, page: CertifiedPage) -> None:
        failed: Exception | None = None
        for found in page.entries:
            try:
                self._bring(found.channel, CertifiedLook(found.registered, page.asked_ns, page.chain_ns))
            except Exception as error:  # one channel's fault keeps the page from counting, not the others from hearing
                log.exception("watcher.entry_not_taken", channel=found.channel.hex())
                failed = failed or error
        if failed is not None:
            raise failed

    def _bring(self, channel: bytes, look: CertifiedLook) -> None:
        entry = self._roster.get(channel)
        if entry is None:
            return
        if look.registered is None:
            raise StrangeLog(f"the log shows a state of channel {channel.hex()} that cannot be one of it")
        self._take(entry, look)

    async def _tell_everybody(self, asked_ns: int, chain_ns: Nanos) -> None:
        """Bring the first complete sweep to those who had no look yet: it began at 0, so it is one for each."""
        look = CertifiedLook(None, asked_ns, chain_ns)
        for number, entry in enumerate(self._roster):
            if entry.looked_ns is None and entry.since_ns <= asked_ns and self._roster.holds(entry):
                self._take(entry, look)
            if number % TOGETHER == TOGETHER - 1:
                await asyncio.sleep(0)
