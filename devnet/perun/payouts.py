"""Money on its way out: paid once, or given back.

A payout is written down before the ledger is called and struck out when its fate is certain. Between the two the
ledger may answer nothing, refuse, or execute it while the answer is lost; and other calls run. Sending the same
request again is safe as long as the ledger remembers it, later its blocks tell.

What a transfer costs, the ledger decides. It is asked: at the start, daily, and after it has refused a fee. The fee
that an error names is never learned: that of a burn is 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import Final

import msgspec

from devnet.perun.ledger_port import LedgerPort, LedgerTerms, LedgerUnreachable, Outgoing, Refused

__all__ = ["LEDGER_FEE_E8S", "Fate", "Payout", "Payouts"]

LEDGER_FEE_E8S: Final = 10_000
"""What payouts were made with that were saved before the fee was part of them."""
ASK_AGAIN_NS: Final = 24 * 3600 * 1_000_000_000
DEAD_AFTER_NS: Final = 25 * 3600 * 1_000_000_000
"""A request without an answer is not executed any more after this: calls between canisters live for minutes."""


class Payout(msgspec.Struct, frozen=True):
    """`e8s` leave the books; the account `to` (32 bytes) gets them less the ledger's fee.

    `created_at_ns`: unique among all payouts of the canister; `receiver`: the raw principal behind `to`, empty when
    money goes back to the account it came from; `from_block`: no block before it can show this payout.
    """

    to: bytes
    e8s: int
    memo: int
    created_at_ns: int
    receiver: bytes = b""
    fee_e8s: int = LEDGER_FEE_E8S
    from_block: int = 0

    @property
    def outgoing(self) -> Outgoing:
        """The request to the ledger, always the same."""
        return Outgoing(self.to, self.e8s - self.fee_e8s, self.fee_e8s, self.memo, self.created_at_ns)


class Fate(Enum):
    """What is known of a payout that is not executed."""

    NOT_EXECUTED = auto()
    """It never will be: the money can be given back."""
    WRONG_FEE = auto()
    """As before, and the ledger takes another fee now: the same payout can be made anew with that."""
    UNKNOWN = auto()
    """It may have been, or may be still: only the same request may be sent."""


class Payouts:
    """Sends payouts. `sent`: those for which a request was made, by `created_at_ns`."""

    def __init__(self, ledger: LedgerPort, last_ns: int = 0, sent: frozenset[int] = frozenset()) -> None:
        self._ledger = ledger
        self._in_flight: set[int] = set()
        self._terms: LedgerTerms | None = None
        self._asked_ns = 0
        self.sent = set(sent)
        self.last_ns = last_ns

    async def terms(self, now_ns: int, *, anew: bool = False) -> LedgerTerms:
        """Return what the ledger decides, at most a day old (`anew`: asked now). Raises `LedgerUnreachable`."""
        if anew or self._terms is None or now_ns - self._asked_ns >= ASK_AGAIN_NS:
            self._terms = await self._ledger.terms()
            self._asked_ns = now_ns
        return self._terms

    def next_created_at(self, now_ns: int) -> int:
        """Return a time for a new payout that no other has.

        Two payouts of one amount, memo, receiver and time would be one to the ledger: the second would be called
        paid without being so.
        """
        self.last_ns = max(now_ns, self.last_ns + 1)
        return self.last_ns

    @property
    def fee_e8s(self) -> int:
        """What the ledger last said that a transfer costs; 0 before it was asked."""
        return 0 if self._terms is None else self._terms.fee_e8s

    @contextmanager
    def holding(self, payout: Payout) -> Iterator[None]:
        """Have a payout count as in flight inside the block."""
        self._in_flight.add(payout.created_at_ns)
        try:
            yield
        finally:
            self._in_flight.discard(payout.created_at_ns)

    def is_in_flight(self, payout: Payout) -> bool:
        """Whether a request for it is waiting for the ledger at this moment."""
        return payout.created_at_ns in self._in_flight

    async def send(self, payout: Payout, now_ns: int) -> int | Fate:
        """Return the block of a payout, or what is known of it. It must not be in flight."""
        tried_before = payout.created_at_ns in self.sent
        self.sent.add(payout.created_at_ns)
        with self.holding(payout):
            try:
                known: int | Refused | Fate = await self._ledger.transfer(payout.outgoing)
                if isinstance(known, Refused):
                    known = await self._after_refusal(payout, known, now_ns, tried_before=tried_before)
            except LedgerUnreachable:
                return Fate.UNKNOWN
        if known is not Fate.UNKNOWN:
            self.sent.discard(payout.created_at_ns)
        return known

    async def _after_refusal(self, payout: Payout, refused: Refused, now_ns: int, *, tried_before: bool) -> int | Fate:
        """Return what a refusal says: of a repeated request it says nothing yet about the earlier ones."""
        nothing = Fate.WRONG_FEE if refused is Refused.BAD_FEE else Fate.NOT_EXECUTED
        if not tried_before or refused is Refused.INSUFFICIENT_FUNDS:  # funds are checked after duplicates
            return nothing
        block = await self._ledger.find_transfer(payout.outgoing, payout.from_block)
        if block is not None:
            return block
        # While the fee is another one, the ledger never says that a request is too old.
        final = refused is Refused.TOO_OLD or now_ns - payout.created_at_ns > DEAD_AFTER_NS
        return nothing if final else Fate.UNKNOWN
