"""One call at every server at once, for calls that do no harm however often they execute: looks and refutations.

No server can hold it up: not one that keeps its answer, nor one whose proofs are bad, nor all of them together by
telling no certified time. What cannot be proven comes back as an error, with what was shown (`ChainError.shown`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from chain.clock import Certified
from chain.errors import ChainError, LyingReplica, NotInTime, RequestRefused
from chain.identity import Identity
from chain.request import SignedCall
from chain.state_reader import SECOND, StateReader
from chain.submission import Submission
from chain.transport import Endpoint

__all__ = ["Errand"]

TIME_PATIENCE_S: Final = 2.0
"""How long a certified time is waited for, at most. Without one this machine's clock has to do."""
OFF_NS: Final = 30 * SECOND
"""Two times that differ by less are one: a call is good for minutes."""


class Errand:
    """One call. `sign`: makes it, by the chain time that it is given; each time it is another call."""

    def __init__(
        self, reader: StateReader, identity: Identity, canister: bytes, sign: Callable[[int], SignedCall]
    ) -> None:
        self._reader = reader
        self._identity = identity
        self._canister = canister
        self._sign = sign
        self._claimed: list[int] = []
        self._last: ChainError | None = None
        self._shown: bytes | None = None

    async def run(self, within_s: float) -> Certified[bytes]:
        """Return the first certified reply of any server.

        Raises `ChainError` when none came in that time; the call may have been executed all the same.
        """
        try:
            async with asyncio.timeout(within_s):
                return await self._run(within_s)
        except TimeoutError:
            error = self._last or NotInTime(within_s)
            error.shown = error.shown or self._shown
            raise error from None

    async def _run(self, within_s: float) -> Certified[bytes]:
        await self._learn_time(min(TIME_PATIENCE_S, within_s / 4))
        tried: list[int] = []
        times = [self._reader.chain_time.now_ns(), self._reader.clock.wall_ns()]
        while True:
            # Nothing but the expiry hangs on the time, and a call of this kind may be executed whenever it likes:
            # when a server refuses ours, its own is as good.
            time_ns = next((t for t in (*times, *self._claimed) if all(abs(t - u) > OFF_NS for u in tried)), None)
            if time_ns is None or (tried and not self._claimed):
                assert self._last is not None
                self._last.shown = self._last.shown or self._shown
                raise self._last
            tried.append(time_ns)
            answer = await self._round(self._sign(time_ns), within_s)
            if answer is not None:
                return answer

    async def _learn_time(self, patience_s: float) -> None:
        if not self._reader.chain_time.certified:
            with suppress(ChainError, TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._reader.ensure_time(self._canister)

    async def _round(self, call: SignedCall, within_s: float) -> Certified[bytes] | None:
        tasks = [asyncio.ensure_future(self._ask(server, call, within_s)) for server in list(self._reader.servers)]
        try:
            for task in asyncio.as_completed(tasks):
                answer = await task
                if answer is not None:
                    return answer
            return None
        finally:
            for task_ in tasks:
                task_.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, server: Endpoint, call: SignedCall, within_s: float) -> Certified[bytes] | None:
        submission = Submission(self._reader.only(server), self._identity, call, within_s, urgent=True)
        try:
            return await submission.send()
        except ChainError as error:
            self._shown = self._shown or error.shown
            if isinstance(error, RequestRefused) and error.claimed_time_ns is not None:
                self._claimed.append(error.claimed_time_ns)
            elif self._last is None or isinstance(error, LyingReplica):
                self._last = error  # who has the call says more than who refuses it
                return None
            self._last = self._last or error
            return None
