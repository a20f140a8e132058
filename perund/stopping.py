"""A stop that comes: each step of it has so long and no longer, whatever peers and the Internet Computer do.

Everything that counts is durable before anything is said, so a process may end at any moment: what is not awaited any
more is lost time, never money.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Final

import structlog

from perund.log_sink import log_sink

__all__ = ["LAST_RESORT_S", "STEP_S", "Ending", "bounded", "end_in_time", "unhurried"]

log = structlog.get_logger()

STEP_S: Final = 3.0
LAST_RESORT_S: Final = 13.0
"""After the wish to stop; what is logged may take two more. A thread of a library that waits for a name server would
keep the process for minutes.
"""

Ending = Callable[[Callable[[], int]], None]
"""Told that a stop began, with what says how the process will end."""


def bounded(
    name: str, step: Callable[[], Coroutine[None, None, None]], most_s: float = STEP_S
) -> Callable[[], Coroutine[None, None, None]]:
    """Return a step of a stop that ends after `most_s` seconds. For `AsyncExitStack.push_async_callback`."""

    async def run() -> None:
        task = asyncio.ensure_future(step())
        done, _ = await asyncio.wait({task}, timeout=most_s)
        if done:
            task.result()
            return
        log.warning("node.stop_is_slow", step=name, waited_s=most_s)
        task.cancel()

    return run


def unhurried(status: Callable[[], int]) -> None:
    """Let a stop take its time: for who runs a node inside another program."""
    del status


def end_in_time(status: Callable[[], int], most_s: float = LAST_RESORT_S) -> None:
    """End this process in `most_s` seconds, if it has not ended by then. `status`: what it ends with."""

    def end() -> None:
        sink = log_sink()
        if sink is not None:
            sink.flush_within()
        os._exit(status())

    timer = threading.Timer(most_s, end)
    timer.daemon = True
    timer.start()
