"""How many files and connections this process may have open."""

from __future__ import annotations

import asyncio
import dataclasses
import resource
from collections.abc import Mapping
from typing import Any, Final

import structlog

from wire.limits import Limits

__all__ = ["OutOfFiles", "raise_open_files"]

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)

OTHERS: Final = 256
"""For the store, the backup, the control socket, the Internet Computer, and connections that are just being refused."""
SAY_EVERY_S: Final = 60.0
_ACCEPT_FAILED: Final = "socket.accept() out of system resource"


def raise_open_files(limits: Limits) -> Limits:
    """Let this process have as many connections as its limits allow. Returns limits that fit what the system allows.

    Without a free descriptor nobody is accepted, neither a stranger nor who has money here, and no backup is written.
    So where the hard limit is low, connections give way, first those that are no sessions.
    """
    needed = _most(limits) + OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return limits
    allowed = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed >= needed:
        return limits
    fitting = _within(limits, allowed - min(OTHERS, allowed // 2))
    log.warning(
        "node.few_open_files",
        allowed=allowed,
        needed=needed,
        connections=fitting.connections,
        hint="raise the hard limit (ulimit -Hn, LimitNOFILE)",
    )
    return fitting


def _most(limits: Limits) -> int:
    return limits.connections + 2 * limits.handshakes + limits.farewells + limits.dials


def _within(limits: Limits, most: int) -> Limits:
    """Return limits with at most so many connections of all kinds."""
    connections = max(1, min(limits.connections, most // 2))
    share = (most - connections) / (_most(limits) - limits.connections)
    return dataclasses.replace(
        limits,
        connections=connections,
        handshakes=max(1, int(limits.handshakes * share)),
        farewells=max(1, int(limits.farewells * share)),
        dials=max(1, int(limits.dials * share)),
    )


class OutOfFiles:
    """Connections that could not be accepted for want of a descriptor: counted, and said once a minute.

    asyncio pauses for a second after each, and tells its exception handler of each with a traceback.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._failed = 0
        self._said: asyncio.TimerHandle | None = None

    def took(self, context: Mapping[str, Any]) -> bool:
        """Whether what the loop's exception handler was told of is one of these."""
        if context.get("message") != _ACCEPT_FAILED:
            return False
        self._failed += 1
        if self._said is None:
            self._say()
        return True

    def _say(self) -> None:
        self._said = None
        if self._failed:
            log.error("node.out_of_files", accepts_failed=self._failed, hint="raise LimitNOFILE (ulimit -n)")
            self._failed = 0
            self._said = self._loop.call_later(SAY_EVERY_S, self._say)
