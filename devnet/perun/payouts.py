"""Money on its way out: paid once, or given back.

A payout is written down before the ledger is called and struck out when its fate is certain. Between the two the
ledger may answer nothing, refuse, or execute it while the answer is lost; and other calls run. Sending the same
request again is safe as long as the ledger remembers it (24 h), later its blocks tell.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

import msgspec

from devnet.perun.ledger_port import LedgerPort, LedgerUnreachable, Outgoing, Refused

__all__ = ["LEDGER_FEE_E8S", "Fate", "Payout", "Payouts"]

LEDGER_FEE_E8S: Final = 10_000


class Payout(msgspec.Struct, frozen=True):
    """`e8s` leave the books; the account `to` (32 bytes) gets them less the ledger's fee.

    `created_at_ns`: unique among all payouts of the canister; `receiver`: the raw principal behind `to`, empty when
    money goes back to the account it came from.
    """

    to: bytes
    e8s: int
    memo: int
    created_at_ns: int
    receiver: bytes = b""

    @property
    def outgoing(self) -> Outgoing:
        """The request to the ledger, always the same."""
        return Outgoing(self.to, self.e8s - LEDGER_FEE_E8S, LEDGER_FEE_E8S, self.memo, self.created_at_ns)


class Fate(Enum):
    """What is known of a payout that is not executed."""

    NOT_EXECUTED = auto()
    """It never will be: the money can be given back."""
    UNKNOWN = auto()
    """It may have been, or may be still: only the same request may be sent."""


class Payouts:
    """Sends payouts. `sent`: those for which a request was made, by `created_at_ns`."""

    def __init__(self, ledger: LedgerPort, last_ns: int = 0, sent: frozenset[int] = frozenset()) -> None:
        self._ledger = ledger
        self._in_flight: set[int] = set()
        self.sent = set(sent)
        self.last_ns = last_ns

    def next_created_at(self, now_ns: int) -> int:
        """Return a time for a new payout that no other has.

        Two payouts of one amount, memo, receiver and time would be one to the ledger: the second would be called
        paid without being so.
        """
        self.last_ns = max(now_ns, self.last_ns + 1)
        return self.last_ns

    def is_in_flight(self, payout: Payout) -> bool:
        """Whether a request for it is waiting for the ledger at this moment."""
        return payout.created_at_ns in self._in_flight

    async def send(self, payout: Payout) -> int | Fate:
        """Return the block of a payout, or what is known of it. It must not be in flight."""
        tried_before = payout.created_at_ns in self.sent
        self.sent.add(payout.created_at_ns)
        self._in_flight.add(payout.created_at_ns)
        try:
            answer = await self._ledger.transfer(payout.outgoing)
            if isinstance(answer, Refused):
                answer_to_retry = await self._after_refusal(payout, answer) if tried_before else Fate.NOT_EXECUTED
            else:
                answer_to_retry = answer
        except LedgerUnreachable:
            return Fate.UNKNOWN
        finally:
            self._in_flight.discard(payout.created_at_ns)
        if answer_to_retry is not Fate.UNKNOWN:
            self.sent.discard(payout.created_at_ns)
        return answer_to_retry

    async def _after_refusal(self, payout: Payout, refused: Refused) -> int | Fate:
        """Return what a refusal of a repeated request says about the earlier ones."""
        match refused:
            case Refused.INSUFFICIENT_FUNDS:
                return Fate.NOT_EXECUTED  # checked after duplicates
            case Refused.TOO_OLD:
                block = await self._ledger.find_transfer(payout.outgoing)
                return Fate.NOT_EXECUTED if block is None else block
            case Refused.BAD_FEE | Refused.CREATED_IN_FUTURE:
                return Fate.UNKNOWN  # checked before duplicates
