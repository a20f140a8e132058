"""How long a call is let wait: for the Internet Computer, and for the end of what it asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from chain.errors import NotInTime
from perund.control.errors import RpcError
from protocol.errors import PerundError

__all__ = ["ANSWER_S", "answered", "ended_within"]

ANSWER_S: Final = 15.0
"""A caller is answered by then also when the Internet Computer is silent: what is tried again takes over a minute."""


def answered(within_s: float = ANSWER_S) -> AbstractAsyncContextManager[None]:
    """Bound questions to the Internet Computer that change nothing. Raises `NotInTime`, a `ChainError`."""
    return _within(within_s, lambda: NotInTime(within_s))


def ended_within(timeout_s: int | None, state: Callable[[], str]) -> AbstractAsyncContextManager[None]:
    """Bound a wait for something that is durable and goes on without the caller. `state`: how it stands, for people.

    Raises `RpcError` (wait_ended). Without a limit it waits for as long as it takes.
    """
    return _within(timeout_s, lambda: RpcError("wait_ended", state()))


@asynccontextmanager
async def _within(limit_s: float | None, over: Callable[[], PerundError]) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(limit_s) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise over() from error
