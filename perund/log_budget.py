"""How much is logged of what others can cause: a rate and a burst for each kind, each party and in all, and counts.

A line is written on the event loop, and a stranger's message can cause one. Nothing is lost silently: a line that was
held back is counted, by kind, in a `log.suppressed` once a minute.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

import structlog
from structlog.typing import EventDict, WrappedLogger

from perund.repeats import Repeats

__all__ = ["LogBudget", "log_budget"]

SUMMARY_EVERY_S: Final = 60.0
MOST_KINDS: Final = 100
SUMMARY: Final = "log.suppressed"
_PARTIES: Final = ("peer", "client", "tower", "address", "host", "channel", "task", "job")
"""Keys that say whom a line is about; the first that is there counts."""
_OWN: Final = ("node.", "tower.started", "tower.stop", "watch.", "network.", "canister.", "backup.", SUMMARY)
"""What no peer causes: never held back because of what others do."""
_LOUD: Final = ("error", "critical")


class LogBudget:
    """A processor of structlog, the first in the chain: what is held back costs next to nothing.

    Of one kind about one party ten lines come at once, then one after each pause of 1 s, doubling to 10 minutes. Of
    one kind in all 200 come at once, then one each second; in all 2,000, then two each second. Errors and alarms are
    held to the first bound alone, so no noise of others hides them.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._by_party = Repeats(10, 1, 600, 3_600)
        self._by_kind = Repeats(200, 1, 1, 300)
        self._in_all = Repeats(2_000, 0.5, 0.5, 300)
        self._hidden: dict[str, int] = {}
        self._summary_s = clock_s()

    def __call__(self, logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
        """Return the line, or raise `DropEvent`."""
        del logger
        kind = str(event.get("event", ""))[:64]
        if kind == SUMMARY:
            return event
        now_s = self._clock_s()
        if self._is_due(now_s):
            self.report()
        repeated = self._takes(kind, _party(event), name in _LOUD, now_s)
        if repeated is None:
            self._hide(kind)
            raise structlog.DropEvent
        if repeated:
            event["repeated"] = repeated
        return event

    def filter(self, record: logging.LogRecord) -> bool:
        """Hold the standard library's records to the same bounds. For `logging.Handler.addFilter`."""
        kind = f"{record.name}: {record.msg}"[:64]
        if self._takes(kind, "", record.levelno >= logging.ERROR, self._clock_s()) is not None:
            return True
        self._hide(kind)
        return False

    def _hide(self, kind: str) -> None:
        if kind not in self._hidden and len(self._hidden) >= MOST_KINDS:
            kind = "others"
        self._hidden[kind] = self._hidden.get(kind, 0) + 1

    def report(self) -> None:
        """Say how many lines of which kinds were held back since this was said last, if there were any."""
        hidden, self._hidden = self._hidden, {}
        self._summary_s = self._clock_s()
        if hidden:
            structlog.get_logger().warning(SUMMARY, lines=sum(hidden.values()), kinds=hidden)

    def tick(self) -> None:
        """Report when it is time, also when nothing is logged any more."""
        if self._is_due(self._clock_s()):
            self.report()

    def _is_due(self, now_s: float) -> bool:
        return bool(self._hidden) and now_s - self._summary_s >= SUMMARY_EVERY_S

    def _takes(self, kind: str, party: str, loud: bool, now_s: float) -> int | None:  # noqa: FBT001
        """Return how many like this were held back before it, or None when it is."""
        repeated = self._by_party.take((kind, party), now_s)
        if repeated is None or loud or kind.startswith(_OWN):
            return repeated
        if self._by_kind.take(kind, now_s) is None or self._in_all.take("", now_s) is None:
            return None
        return repeated


def log_budget() -> LogBudget | None:
    """Return what bounds the log of this process, once `configure_logs` was called."""
    return next((p for p in structlog.get_config()["processors"] if isinstance(p, LogBudget)), None)


def _party(event: EventDict) -> str:
    for key in _PARTIES:
        value = event.get(key)
        if value is not None:
            text = str(value)[:80]
            # A port is not a party: every connection has another.
            return text.rpartition(":")[0] if key == "address" else text
    return ""
