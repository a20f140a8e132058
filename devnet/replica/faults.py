"""Faults that tests order: the next requests fare as they may on a bad day of the real network, or at a liar's.

`line_faults` and `lying_faults` have one class for each behaviour; here they are ordered, chosen and counted.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from aiohttp import web

from devnet.replica.exchange import ENDPOINTS, Endpoint, Exchange, Handler
from devnet.replica.line_faults import LINE_FAULTS
from devnet.replica.lying_faults import LYING_FAULTS, Copy, NoPast, Replayed, StaleCertificate, StaleQuery
from devnet.replica.order import Behaviour, Order
from devnet.replica.replica import Replica

__all__ = ["DELAYED", "ENDPOINTS", "KINDS", "Copy", "Endpoint", "Faults", "NoPast", "Order"]

_PLAIN: Final = {**LINE_FAULTS, **LYING_FAULTS}
_OF_THE_PAST: Final[dict[str, type[Behaviour]]] = {
    "stale_certificate": StaleCertificate,
    "replayed": Replayed,
    "stale_query": StaleQuery,
}
KINDS: Final[dict[str, frozenset[str]]] = {
    name: kind.endpoints for name, kind in (*_PLAIN.items(), *_OF_THE_PAST.items())
}
"""Every fault, and the endpoints that it can hit."""
DELAYED: Final = frozenset({"slow", "withheld"})
"""Those that take `seconds`."""


class Faults:
    """The faults that are due, the first ordered first. `hits`: how often each kind has hit so far."""

    def __init__(self, replica: Replica, copy: Copy | None = None) -> None:
        """`copy`: copies the canisters, for `stale_query`; None where that cannot be ordered."""
        self._replica = replica
        self._copy = copy
        self._due: list[Behaviour] = []
        self.hits: Counter[str] = Counter()

    async def order(self, order: Order) -> None:
        """Have the next `order.left` requests that it concerns fail, after those that are due already.

        Raises `NoPast`.
        """
        self._due.append(await self._behaviour(order))

    async def _behaviour(self, order: Order) -> Behaviour:
        match order.kind:
            case "stale_certificate":
                return StaleCertificate(order, await self._replica.rounds.certified())
            case "replayed":
                return Replayed(order, await self._replica.rounds.certified())
            case "stale_query":
                async with self._replica.gate.passage():  # no save in the middle of a call
                    return StaleQuery(order, self._copy)
            case _:
                return _PLAIN[order.kind](order)

    def clear(self) -> None:
        """Forget what is due."""
        self._due.clear()

    @property
    def due(self) -> tuple[Order, ...]:
        """What is ordered and not used up."""
        return tuple(behaviour.order for behaviour in self._due)

    async def apply(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Serve a request under the first fault that concerns it, if one does."""
        if not self._due:
            return await handler(request)
        exchange = await Exchange.of(request, handler, self._replica)
        behaviour = self._take(exchange) if exchange is not None else None
        if exchange is None or behaviour is None:
            return await handler(request)
        return await behaviour.serve(exchange)

    def _take(self, exchange: Exchange) -> Behaviour | None:
        for behaviour in self._due:
            order = behaviour.order
            if order.concerns(exchange) and exchange.endpoint in KINDS[order.kind]:
                order.left -= 1
                self.hits[order.kind] += 1
                if order.left == 0:
                    self._due.remove(behaviour)
                return behaviour
        return None
