"""What the canister needs of the ledger: three calls, each of which other calls may interleave with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

__all__ = ["LedgerBlock", "LedgerPort", "LedgerUnreachable", "Outgoing", "Payment", "Refused"]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A transfer from the canister's default account. The same one sent twice is executed once.

    `to`: account of 32 bytes; `e8s` arrive there; `fee_e8s` come on top; `created_at_ns`: with the memo it tells
    the ledger that two requests are one.
    """

    to: bytes
    e8s: int
    fee_e8s: int
    memo: int
    created_at_ns: int


class Refused(Enum):
    """Why the ledger did not execute a request. In the order in which it checks; duplicates come before funds."""

    BAD_FEE = auto()
    TOO_OLD = auto()
    CREATED_IN_FUTURE = auto()
    INSUFFICIENT_FUNDS = auto()


@dataclass(frozen=True, slots=True)
class Payment:
    """Money that moved between accounts of 32 bytes. `icrc1_memo`: None in legacy transfers."""

    from_: bytes
    to: bytes
    e8s: int
    memo: int
    icrc1_memo: bytes | None


@dataclass(frozen=True, slots=True)
class LedgerBlock:
    """A block of the ledger. `payment`: None when it is something else (minted, burned, approved)."""

    payment: Payment | None


class LedgerUnreachable(Exception):
    """The ledger gave no answer: a transfer may have been executed or not."""


class LedgerPort(Protocol):
    """The ledger. Every method raises `LedgerUnreachable`."""

    async def transfer(self, outgoing: Outgoing) -> int | Refused:
        """Return the block of a transfer, also if an earlier identical request made it."""
        ...

    async def query_block(self, index: int) -> LedgerBlock | None:
        """Return a block, None if the ledger does not have it (yet)."""
        ...

    async def find_transfer(self, outgoing: Outgoing) -> int | None:
        """Return the block of a transfer that was executed, None if there is none.

        Asked when its `created_at_ns` is too old to be executed any more: the answer is final.
        """
        ...
