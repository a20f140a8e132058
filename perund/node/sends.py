"""Transfers of the wallet that somebody asked for: driven for whoever waits, and followed to their end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Final

import structlog

from perund.store.errors import StorageFailed
from protocol.errors import PerundError
from protocol.funding import IntentStatus

if TYPE_CHECKING:
    from perund.node.transfers import Transfers
    from perund.store.rows import TransferIntent

__all__ = ["Sends"]

log = structlog.get_logger()

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0


class Sends:
    """Every transfer is driven by one task at a time, however many callers ask what became of it."""

    def __init__(
        self,
        transfers: Transfers,
        spawn: Callable[[Coroutine[None, None, None], str], asyncio.Task[None]],
    ) -> None:
        """`spawn`: runs something until the node stops."""
        self._transfers = transfers
        self._spawn = spawn
        self._driven: dict[int, asyncio.Future[TransferIntent]] = {}
        self._followed: set[int] = set()

    async def drive(self, number: int) -> TransferIntent:
        """Ask the ledger once, and return the transfer as it is then known. Who stops waiting stops nothing.

        Raises `ChainError` when the ledger's blocks could not be read.
        """
        end = self._driven.get(number)
        if end is None:
            end = self._driven[number] = asyncio.get_running_loop().create_future()
            end.add_done_callback(lambda _: self._driven.pop(number, None))
            self._spawn(self._drive(number, end), "send")
        return await asyncio.shield(end)

    async def _drive(self, number: int, end: asyncio.Future[TransferIntent]) -> None:
        try:
            end.set_result(await self._transfers.drive(number))
        except StorageFailed:
            raise
        except PerundError as error:
            end.set_exception(error)
            end.exception()  # nobody may be waiting any more: that is no fault to report
        finally:
            end.cancel()  # unless it has ended

    def follow(self, number: int) -> None:
        """Go on with a transfer whose end is not known, until it is."""
        if number not in self._followed:
            self._followed.add(number)
            task = self._spawn(self._finish(number), "send")
            task.add_done_callback(lambda _: self._followed.discard(number))

    async def _finish(self, number: int) -> None:
        pause = FIRST_PAUSE_S
        while True:
            try:
                if (await self.drive(number)).status is not IntentStatus.OPEN:
                    return
            except PerundError as error:  # the blocks could not be read: nothing is known yet
                log.warning("send.not_followed", transfer=number, error=str(error))
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)
