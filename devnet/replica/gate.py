"""Lets calls of canisters in, or, for a moment, nobody: what is saved is a state between calls, never within one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Gate"]


class Gate:
    """Many may be inside at once; `closed` waits until they are out and keeps the others waiting.

    `passages` counts who was ever let in: if it has not moved, no canister has changed.
    """

    def __init__(self) -> None:
        self._inside = 0
        self._open = asyncio.Event()
        self._open.set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.passages = 0

    @asynccontextmanager
    async def passage(self) -> AsyncIterator[None]:
        """Be inside for the duration of one call."""
        while not self._open.is_set():
            await self._open.wait()
        self.passages += 1
        self._inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    @asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        """Have nobody inside. One at a time: there is one task that saves."""
        self._open.clear()
        try:
            await self._empty.wait()
            yield
        finally:
            self._open.set()
