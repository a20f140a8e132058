"""Kills a node at a named point of its work with the chain: each durable write, and both sides of each call."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from chain.clock import Certified
from chain.request import SignedCall
from perund.store.writer import Statement
from protocol.effects import Record
from tests.adversarial.inhabitant import Inhabitant

__all__ = ["Axe"]

READS: Final = frozenset({"query_holdings", "query_state", "query_blocks", "account_balance", "transfer_fee"})
"""Calls that change nothing: being killed before one is being killed after what came before."""


class Axe:
    """Stops the node's job at `target`, for good; without a target it only notes every `point` that is passed.

    Only what a job of the node does counts: the order of that never varies.
    """

    def __init__(self, node: Inhabitant, target: str | None = None) -> None:
        self.points: list[str] = []
        self._target = target
        self._seen: Counter[str] = Counter()
        self._fallen = asyncio.Event()
        self._write = node.services.store.write
        self._submit = node.agent.submit
        node.services.store.write = self._writing  # type: ignore[method-assign]
        node.agent.submit = self._submitting  # type: ignore[method-assign]

    async def fallen(self) -> None:
        """Return when the node stands still at the target."""
        await asyncio.wait_for(self._fallen.wait(), 20)

    async def _writing(self, records: Iterable[Record | Statement], asked: Callable[[int], None] | None = None) -> None:
        listed = list(records)
        await self._write(listed, asked)
        written = next((name for record in listed if (name := _name_of(record))), None)
        if written is not None:
            await self._passed(f"{written} is durable")

    async def _submitting(self, call: SignedCall, *, give_up_after_s: float | None = None) -> Certified[bytes]:
        if call.method not in READS:
            await self._passed(f"{call.method} is to be sent")
        answer = await self._submit(call, give_up_after_s=give_up_after_s)
        await self._passed(f"{call.method} is answered")
        return answer

    async def _passed(self, what: str) -> None:
        task = asyncio.current_task()
        if task is None or task.get_name().split()[0] not in {"funding", "settlement", "send"}:
            return
        self._seen[what] += 1
        point = what if self._seen[what] == 1 else f"{what} ({self._seen[what]})"
        self.points.append(point)
        if point == self._target:
            self._fallen.set()
            await asyncio.Event().wait()


def _name_of(record: Record | Statement) -> str | None:
    """Return what a statement is for people who read the list of points."""
    if not isinstance(record, Statement):
        return None
    assert isinstance(record.values, tuple)
    match record.sql.split()[:3]:
        case ["INSERT", "INTO", "transfer"]:
            return "the intent"
        case ["INSERT", "INTO", "withdrawal"]:
            return "the withdrawal"
        case ["UPDATE", "transfer", _] if "unproven + 1" in record.sql:
            return "the request"
        case ["UPDATE", "transfer" | "withdrawal" as table, _] if "status = ?" in record.sql:
            return f"{table} {record.values[0]!s}"
        case _:
            return None
