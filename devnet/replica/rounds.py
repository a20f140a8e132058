"""Rounds: what finished since the last one is made durable, hashed and signed once, for everybody who waits.

A round is to this network what a block is to the real one. A call costs its share of one signature and one
commit, however many finish together; each caller is shown its own part of the same tree.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from devnet.replica import cbor
from devnet.replica.clock import ChainClock
from devnet.replica.gate import Gate
from devnet.replica.hash_tree import Node, Path, witness
from devnet.replica.keys import RootKey
from devnet.replica.requests import RequestLog
from devnet.replica.state_tree import StateTree
from devnet.replica.storage import Savings

__all__ = ["Round", "Rounds"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Round:
    """A state of the network, signed."""

    tree: Node
    signature: bytes

    def certificate(self, paths: Iterable[Path]) -> bytes:
        """Return the certificate that shows time and `paths`, as tagged CBOR."""
        shown = witness(self.tree, [(b"time",), *paths])
        return cbor.encode({"tree": shown.cbor(), "signature": self.signature})


class Rounds:
    """Makes a round whenever somebody waits for one, one after the other.

    With `savings`, a round is durable before anybody sees it. Then the gate is closed while the state is
    taken, so that no saved state has a call in the middle: after a power cut there is nobody to finish it.
    """

    def __init__(
        self,
        root_key: RootKey,
        tree: StateTree,
        requests: RequestLog,
        clock: ChainClock,
        gate: Gate,
        savings: Savings | None,
    ) -> None:
        self._root_key = root_key
        self._tree = tree
        self._requests = requests
        self._clock = clock
        self._gate = gate
        self._savings = savings
        self._waiting: list[asyncio.Future[Round]] = []
        self._task: asyncio.Task[None] | None = None
        self._abandoned = False
        self.failed = asyncio.Event()
        """Set when a round failed: from then on nothing is certified any more."""
        self.failure: Exception | None = None
        """Why."""

    async def certified(self) -> Round:
        """Return a round that holds everything that happened before now.

        Raises `StateUnusable` when it cannot be saved, and then always.
        """
        if self.failure is not None:
            raise self.failure
        waiter: asyncio.Future[Round] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="rounds")
        return await waiter

    def abandon(self) -> None:
        """Take no further state, for calls are about to be cut off; who waits is told nothing."""
        self._abandoned = True

    async def settle(self) -> None:
        """Wait until no round is under way."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)  # what is ready in this turn of the loop comes along
                await self._one_round()
        except Exception as exc:
            # Whatever it was, a defect of a canister's `save` too: nobody may wait for a round that never comes.
            log.exception("rounds.failed")
            self.failure = exc
            self.failed.set()
            _refuse(self._take_waiting(), exc)
        finally:
            self._task = None

    async def _one_round(self) -> None:
        waiting: list[asyncio.Future[Round]] = []
        try:
            if self._savings is None:
                waiting, tree = self._take_waiting(), self._snapshot()
            else:
                async with self._gate.closed():
                    if self._abandoned:
                        for waiter in self._take_waiting():
                            waiter.cancel()
                        return
                    waiting, tree = self._take_waiting(), self._snapshot()
                    changes = self._savings.changes(self._gate.passages)
                if changes is not None:
                    await asyncio.to_thread(self._savings.write, changes)
            finished = Round(tree, self._root_key.sign(tree.digest))
        except Exception as exc:
            _refuse(waiting, exc)
            raise
        for waiter in waiting:
            if not waiter.done():  # its client may have gone
                waiter.set_result(finished)

    def _snapshot(self) -> Node:
        now_ns = self._clock.now_ns()
        self._requests.forget_expired(now_ns)
        return self._tree.at(now_ns, self._requests.tree)

    def _take_waiting(self) -> list[asyncio.Future[Round]]:
        waiting, self._waiting = self._waiting, []
        return waiting


def _refuse(waiting: list[asyncio.Future[Round]], reason: Exception) -> None:
    for waiter in waiting:
        if not waiter.done():
            waiter.set_exception(reason)
