"""How long a call is let wait: for the Internet Computer, and for the end of what it asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from chain.errors import NotInTime
from perund.control.errors import RpcError

__all__ = ["ANSWER_S", "answered", "ended_within", "not_ended"]

ANSWER_S: Final = 15.0
"""A caller is answered by then also when the Internet Computer is silent: what is tried again takes over a minute."""


@asynccontextmanager
async def answered(within_s: float = ANSWER_S) -> AsyncIterator[None]:
    """Bound questions to the Internet Computer that change nothing. Raises `NotInTime`, a `ChainError`."""
    try:
        async with asyncio.timeout(within_s) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise NotInTime(within_s) from error


@asynccontextmanager
async def ended_within(timeout_s: int | None, state: Callable[[], str]) -> AsyncIterator[None]:
    """Bound a wait for something that is durable and goes on without the caller. `state`: how it stands, for people.

    Raises `RpcError` (wait_ended). Without a limit it waits for as long as it takes.
    """
    try:
        async with asyncio.timeout(timeout_s) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise not_ended(state()) from error


def not_ended(state: str) -> RpcError:
    """Return what a caller is told whose time is over."""
    return RpcError("wait_ended", state)
