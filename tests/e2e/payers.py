"""Payers: each pays one order after another through a node's control socket, and remembers what it asked for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import Final

import msgspec

from perund.control import schema
from perund.control.errors import RpcError
from perund.control.methods import CHANNEL_PAY
from perund.control.values import PaidColumn, PaidE8s
from perund.demo.processes import NodeProcess
from tests.e2e.insisting import insist
from tests.e2e.kill_report import End

__all__ = ["Order", "Payer"]

MOST_E8S: Final = 20_000
"""Of one payment: a long run must not come near the end of anybody's share by chance."""
LONG: Final = 3_000
"""Payments in a list that is too long for one update."""
UNFINISHED: Final = frozenset({"queued", "offered", "signed"})


@dataclass
class Order:
    """Payments that were asked for in one call, under one key. `memos`: one each, or none for a bare list."""

    key: str
    channel: str
    sender: str
    amounts_e8s: tuple[int, ...]
    memos: tuple[str, ...]
    wait: bool
    end: End = "asked"
    why: str = ""
    asked_again: int = 0
    first_ids: set[str] = field(default_factory=set)
    """What the answers called the first of them: one key, one id."""

    def params(self) -> schema.PayParams:
        """The call."""
        if len(self.amounts_e8s) == 1 and self.memos:
            return schema.PayParams(
                self.channel,
                PaidE8s(self.amounts_e8s[0]),
                memo=self.memos[0],
                idempotency_key=self.key,
                wait=self.wait,
            )
        if not self.memos:
            column = PaidColumn(self.amounts_e8s)
            return schema.PayParams(self.channel, idempotency_key=self.key, wait=self.wait, amounts_e8s=column)
        listed = [schema.ToPay(PaidE8s(e8s), memo) for e8s, memo in zip(self.amounts_e8s, self.memos, strict=True)]
        return schema.PayParams(self.channel, idempotency_key=self.key, wait=self.wait, payments=listed)

    def repeated(self) -> None:
        """Take note that it was asked for once more."""
        self.asked_again += 1

    def answered(self, result: schema.PayResult) -> None:
        """Take note of an answer."""
        self.first_ids.add(str(result.payment or result.first_payment))
        if result.status not in UNFINISHED:
            assert result.status == "delivered", f"{self.key}: {result}"
            self.end = "delivered"


class Payer:
    """One of many who pay from a node at once. What it orders hangs on the seed alone."""

    def __init__(self, node: NodeProcess, number: int, seed: int) -> None:
        self.node = node
        self.name = f"{node.name} {number}"
        self.orders: list[Order] = []
        self._random = Random(f"{seed} payer {self.name}")

    async def pay(self, channel: str, stop: asyncio.Event) -> None:
        """Pay until `stop`, or until the channel takes no more. Every order is seen through to its end."""
        while not stop.is_set():
            order = self._order(channel)
            self.orders.append(order)
            await self._see_through(order)
            if order.end == "refused":
                return

    def _order(self, channel: str) -> Order:
        key, draw = f"{self.name} #{len(self.orders)}", self._random
        kind = draw.random()
        if kind < 0.5:
            count, bare = 1, False
        elif kind < 0.7:
            count, bare = draw.randint(2, 9), False
        elif kind < 0.995:
            count, bare = draw.randint(2, 40), True
        else:
            count, bare = LONG, True
        amounts = tuple(draw.randint(1, MOST_E8S) for _ in range(count))
        memos = () if bare else tuple(f"{key}.{position}" for position in range(count))
        return Order(key, channel, self.node.name, amounts, memos, wait=draw.random() < 0.7)

    async def _see_through(self, order: Order) -> None:
        params = order.params()
        try:
            result = await insist(self.node, CHANNEL_PAY, params, order.repeated)
            order.answered(result)
            if result.status in UNFINISHED and not order.wait:  # taken up is a promise: now it has to be kept
                params = msgspec.structs.replace(params, wait=True)
                order.answered(await insist(self.node, CHANNEL_PAY, params, order.repeated))
        except RpcError as error:
            order.why = f"{error.name}: {error.message}"
            if error.name == "channel_closed":
                order.end = "refused"
            elif error.name in ("payment_failed", "payment_declined"):
                order.end = "ended"
            else:
                raise AssertionError(f"{order.key}: {order.why}") from error
