"""What a daemon tells its service manager (systemd, `Type=notify`), if there is one: the protocol of sd_notify(3).

Nothing here waits or fails: who manages us is not part of the program either.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Final

import structlog

__all__ = ["keep_alive", "tell"]

log = structlog.get_logger()

US: Final = 1_000_000


def tell(*facts: str) -> None:
    """Tell the manager facts like `READY=1` or `STATUS=...`, in one datagram; without a manager do nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    name = os.fsencode(address)
    if name.startswith(b"@"):  # in the abstract name space of Linux
        name = b"\0" + name[1:]
    text = "\n".join(fact.replace("\n", " ") for fact in facts)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.setblocking(False)
            manager.sendto(text.encode(errors="replace"), name)
    except OSError as error:
        log.warning("service.not_told", manager=address, error=str(error))


async def keep_alive() -> None:
    """Tell the manager twice in each period that the event loop turns, if it asked for that; else return."""
    try:
        period_s = int(os.environ.get("WATCHDOG_USEC", "0")) / US
        asked = int(os.environ.get("WATCHDOG_PID") or os.getpid()) == os.getpid()
    except ValueError:
        log.warning("service.watchdog_unreadable", asked=os.environ.get("WATCHDOG_USEC"))
        return
    while asked and period_s > 0:
        tell("WATCHDOG=1")
        await asyncio.sleep(period_s / 2)
