"""How many files and connections this process may have open."""

from __future__ import annotations

import resource
from typing import Final

import structlog

from wire.limits import Limits

__all__ = ["raise_open_files"]

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)

OTHERS: Final = 256
"""For the store, the control socket, the Internet Computer and dials."""


def raise_open_files(limits: Limits) -> None:
    """Let this process have as many connections as its limits allow; warn when the system does not.

    Without a free descriptor nobody is accepted, neither a stranger nor who has money here.
    """
    needed = limits.connections + 2 * limits.handshakes + limits.farewells + limits.dials + OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    allowed = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        log.warning("node.few_open_files", allowed=allowed, needed=needed, hint="raise the hard limit (ulimit -Hn)")
