"""What a test orders: which fault, whom it hits, and what a fault does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from aiohttp import web

from devnet.replica.exchange import Endpoint, Exchange

__all__ = ["Behaviour", "Order"]


@dataclass(slots=True)
class Order:
    """`kind`: a name of `faults.KINDS`; `endpoint`, `method`, `canister` (raw principal): whom it hits, None for all.

    `left`: how many more requests it hits; `seconds`: the delay of the kinds that have one.
    """

    kind: str
    endpoint: Endpoint | None
    left: int
    method: str | None = None
    canister: bytes | None = None
    seconds: float = 0.0

    def concerns(self, exchange: Exchange) -> bool:
        """Whether it hits this request."""
        return (
            self.endpoint in {None, exchange.endpoint}
            and self.method in {None, exchange.method}
            and self.canister in {None, exchange.id}
        )


class Behaviour(ABC):
    """What happens to requests instead of the honest answer. `endpoints`: which ones it can happen to."""

    endpoints: ClassVar[frozenset[str]]

    def __init__(self, order: Order) -> None:
        self.order = order

    @abstractmethod
    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Answer one request."""
