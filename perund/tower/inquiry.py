"""Which channels that recover still wait for which towers: none ends its loss before all were asked (rule 7).

A peer may hide the newest state, and a tower may be the only one that shows it. But a tower that is gone for good must
not keep the money: it is waited for only so long.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from perund.node.driver import ChannelDriver
    from protocol.types import ChannelId

__all__ = ["PATIENCE_S", "Inquiries"]

log = structlog.get_logger()

PATIENCE_S: Final = 120.0
"""Enough for a tower that restarts; less than a peer waits for the final state (10 minutes) before it settles alone."""


@dataclass(slots=True)
class _Inquiry:
    driver: ChannelDriver
    missing: set[bytes]
    timer: asyncio.TimerHandle


class Inquiries:
    """The channels for which towers are being asked."""

    def __init__(self) -> None:
        self._open: dict[ChannelId, _Inquiry] = {}

    def __contains__(self, channel: ChannelId) -> bool:
        return channel in self._open

    def begin(self, driver: ChannelDriver, towers: set[bytes]) -> None:
        """Wait until each of these towers (node keys) has answered for a channel, and not for ever."""
        channel = driver.channel.id
        timer = asyncio.get_running_loop().call_later(PATIENCE_S, self._end, channel)
        self._open[channel] = _Inquiry(driver, towers, timer)
        if not towers:
            self._end(channel)

    def answered(self, tower: bytes, channel: ChannelId) -> None:
        """Take note that a tower has nothing more to say about a channel."""
        inquiry = self._open.get(channel)
        if inquiry is not None:
            inquiry.missing.discard(tower)
            if not inquiry.missing:
                self._end(channel)

    def dropped(self, tower: bytes) -> None:
        """A tower is used no more."""
        for channel in list(self._open):
            self.answered(tower, channel)

    def forget(self, channel: ChannelId) -> None:
        """A channel is closed."""
        inquiry = self._open.pop(channel, None)
        if inquiry is not None:
            inquiry.timer.cancel()

    def close(self) -> None:
        """The node stops."""
        for channel in list(self._open):
            self.forget(channel)

    def _end(self, channel: ChannelId) -> None:
        inquiry = self._open.pop(channel)
        inquiry.timer.cancel()
        if inquiry.missing:
            missing = [tower.hex()[:16] for tower in inquiry.missing]
            log.warning("tower.not_asked", channel=inquiry.driver.short, towers=missing, waited_s=PATIENCE_S)
        inquiry.driver.towers_answered()
