"""Who waits for a payment: calls of the control interface that asked for its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from protocol.payments import PAYMENT_ID_BYTES, Batch

__all__ = ["Outcome", "PaymentWaiters"]


@dataclass(slots=True)
class Outcome:
    """What became of the payments of one call. `tell` is called once, when none is undecided."""

    undecided: int
    tell: Callable[[Outcome], None]
    version: int = 0
    ended: int = 0
    """How many were not delivered."""
    status: str = "delivered"
    code: str = ""
    """Why they were not delivered, or why nobody waits any more."""
    unit: int | None = None
    """The unit of work of the store in which they are queued, once it was asked for."""


class PaymentWaiters:
    """The calls that wait, by payment id."""

    __slots__ = ("_by_id",)

    def __init__(self) -> None:
        self._by_id: dict[bytes, Outcome] = {}

    def add(self, payments: Batch, outcome: Outcome) -> None:
        """Let `outcome` wait for every one of these payments."""
        if len(payments) == 1:
            self._by_id[payments.ids] = outcome
        else:
            self._by_id.update(dict.fromkeys(payments.each_id(), outcome))

    def delivered(self, payments: Batch, version: int) -> None:
        """Tell who waits for them that the peer has them, in this version."""
        if not self._by_id:
            return
        pop = self._by_id.pop
        for payment_id in payments.each_id():
            outcome = pop(payment_id, None)
            if outcome is not None:
                outcome.version = version
                outcome.undecided -= 1
                if outcome.undecided == 0:
                    outcome.tell(outcome)

    def ended(self, ids: bytes, status: str, code: str) -> None:
        """Tell who waits for them that they will not be delivered."""
        for start in range(0, len(ids), PAYMENT_ID_BYTES):
            outcome = self._by_id.pop(ids[start : start + PAYMENT_ID_BYTES], None)
            if outcome is not None:
                outcome.status, outcome.code = status, code
                outcome.ended += 1
                outcome.undecided -= 1
                if outcome.undecided == 0:
                    outcome.tell(outcome)

    def forget_all(self) -> list[Outcome]:
        """Return, once each, those that still wait: the node stops, and their payments go on without them."""
        waiting = list({id(outcome): outcome for outcome in self._by_id.values()}.values())
        self._by_id.clear()
        return waiting
