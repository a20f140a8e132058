"""What a test orders: which fault, and whom it hits."""

from __future__ import annotations

from dataclasses import dataclass

from devnet.replica.exchange import Endpoint, Exchange

__all__ = ["Order"]


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
