"""Alarms: what somebody must hear of now. They go to the log, to `perun health`, and to a command or a webhook."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog

from perund.store.rows import EventRow
from perund.watching.delivery import Delivery

__all__ = ["Alarm", "Alarms"]

log = structlog.get_logger()

KEPT_NS: Final = 86_400 * 1_000_000_000
MOST_KEPT: Final = 1_000
MOST_WAITING: Final = 100
GRACE_S: Final = 5.0
_ENDED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "watcher.sees": ("watcher.blind",),
    "watcher.unproven_over": ("watcher.refuting_unproven",),
    "backup.readable": ("backup.unreadable",),
    "channel.refuted": (
        "channel.refuting",
        "watcher.margin_half",
        "watcher.margin_quarter",
        "watcher.refuting_unproven",
    ),
}
"""Events that say that the cause of an alarm is gone."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm. `at_ns`: the local clock, for people; `channel`: hex, or None; `rang_ns`: the monotonic clock."""

    kind: str
    channel: str | None
    at_ns: int
    rang_ns: int
    facts: Mapping[str, str | int | bool]

    @property
    def text(self) -> str:
        """What it says, for people."""
        told = ", ".join(f"{key} {value}" for key, value in self.facts.items() if key != "alarm")
        return f"{self.kind}: {told}" if told else self.kind


class Alarms:
    """Rings. Nothing here waits for whoever is told: a slow receiver costs alarms, with a count, never the watch."""

    def __init__(self, source: str = "", delivery: Delivery | None = None) -> None:
        """`source`: who rings, for the receiver; `delivery`: who is told besides the log and `perun health`."""
        self._source = source
        self._delivery = delivery
        self._kept: dict[tuple[str, str | None], Alarm] = {}
        self._waiting: deque[bytes] = deque()
        self._dropped = 0
        self._worker: asyncio.Task[None] | None = None

    def heard(self, events: Iterable[EventRow]) -> None:
        """Take events of the store: ring for those with `alarm`, and end alarms whose cause is gone."""
        for event in events:
            channel = event.channel.hex() if event.channel is not None else None
            self.ended(event.kind, channel)
            if event.data.get("alarm") is True:
                self.ring(event.kind, channel, event.data)

    def ring(self, kind: str, channel: str | None, facts: Mapping[str, str | int | bool]) -> None:
        """Raise an alarm. Returns at once."""
        shown = {key: value for key, value in facts.items() if key not in ("alarm", "channel", "event")}
        log.error(kind, channel=channel, alarm=True, **shown)
        alarm = Alarm(kind, channel, time.time_ns(), time.monotonic_ns(), dict(shown))
        self._kept.pop((kind, channel), None)
        self._kept[kind, channel] = alarm
        if len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        if self._delivery is not None and self._delivery.wanted:
            self._queue(alarm)

    def ended(self, kind: str, channel: str | None) -> None:
        """Take an event that may end alarms."""
        for over in _ENDED_BY.get(kind, ()):
            self._kept.pop((over, channel), None)

    def current(self) -> list[Alarm]:
        """Return the alarms of this run whose cause did not end, none older than a day."""
        since = time.monotonic_ns() - KEPT_NS  # by the wall clock, a step of it would hide them
        return [alarm for alarm in self._kept.values() if alarm.rang_ns >= since]

    async def close(self) -> None:
        """Deliver what waits, for a few seconds."""
        if self._worker is None or self._worker.done():
            return
        await asyncio.wait({self._worker}, timeout=GRACE_S)
        if not self._worker.done():
            log.warning("alarm.not_delivered", waiting=len(self._waiting))
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    # --- telling -----------------------------------------------------------------------------------------

    def _queue(self, alarm: Alarm) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.popleft()
            self._dropped += 1
            log.error("alarm.dropped", waiting=MOST_WAITING, dropped=self._dropped)
        at = datetime.fromtimestamp(alarm.at_ns / 1e9, UTC).isoformat(timespec="milliseconds")
        self._waiting.append(
            msgspec.json.encode(
                {
                    "event": alarm.kind,
                    "channel": alarm.channel,
                    "at": at,
                    "source": self._source,
                    "dropped": self._dropped,
                    "data": alarm.facts,
                }
            )
        )
        if self._worker is None or self._worker.done():
            self._worker = asyncio.get_running_loop().create_task(self._tell(), name="alarms")

    async def _tell(self) -> None:
        assert self._delivery is not None
        while self._waiting:
            await self._delivery.deliver(self._waiting.popleft())
