"""What a person sees on a terminal while a call takes long."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from perund.control.client import ControlClient

__all__ = ["watching"]


@contextlib.asynccontextmanager
async def watching(data_dir: Path, text: str, channel: str) -> AsyncIterator[None]:
    """Show a spinner on standard error, with the newest event of the channel (of any, when it has no id yet).

    Raises nothing of its own: a connection that ends is the business of the call that is waited for.
    """
    with Console(stderr=True).status(escape(text)) as status:
        news = asyncio.create_task(_follow(status, data_dir, text, channel))
        try:
            yield
        finally:
            news.cancel()
            await asyncio.gather(news, return_exceptions=True)


async def _follow(status: Status, data_dir: Path, text: str, channel: str) -> None:
    async with await ControlClient.connect(data_dir) as client:
        async for event in client.events():
            if channel and not str(event.data.get("channel", "")).startswith(channel):
                continue
            status.update(f"{escape(text)}: {escape(event.event)}")
