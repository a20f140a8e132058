"""What the canister needs of the ledger: four calls, each of which other calls may interleave with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

__all__ = ["LedgerBlock", "LedgerPort", "LedgerTerms", "LedgerUnreachable", "Outgoing", "Payment", "Refused"]


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


@dataclass(frozen=True, slots=True)
class LedgerTerms:
    """What the ledger decides, and may change: nobody else holds it as a constant.

    `fee_e8s`: of a transfer; `minting_account`: 32 bytes, what is sent there is burned, at another fee;
    `chain_length`: the index that the next block gets at least.
    """

    fee_e8s: int
    minting_account: bytes | None
    chain_length: int


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

    async def terms(self) -> LedgerTerms:
        """Ask for the fee and what else the ledger decides."""
        ...

    async def transfer(self, outgoing: Outgoing) -> int | Refused:
        """Return the block of a transfer, also if an earlier identical request made it."""
        ...

    async def query_block(self, index: int) -> LedgerBlock | None:
        """Return a block, None if the ledger does not have it (yet)."""
        ...

    async def find_transfer(self, outgoing: Outgoing, from_block: int) -> int | None:
        """Return the block of a transfer that was executed, None if there is none at `from_block` or after it.

        Asked when it cannot be executed any more the answer is final.
        """
        ...
