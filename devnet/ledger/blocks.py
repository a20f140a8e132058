"""Blocks: what happened on the ledger, each holding the hash of the one before it.

A block's hash is SHA-256 of its Candid encoding as `Block` of `ledger.did` (the real ledger hashes a protobuf
encoding; clients only see that `parent_hash` links the chain).
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from devnet.candid import BLOB, NAT64, Shape, encode, opt, record, single, variant

__all__ = ["BLOCK", "TIMESTAMP", "TOKENS", "Block", "Burn", "Mint", "Operation", "Transaction", "Transfer"]


class Mint(msgspec.Struct, frozen=True, tag=True):
    """New money. `to`: account of 32 bytes; `amount`: e8s."""

    to: bytes
    amount: int


class Burn(msgspec.Struct, frozen=True, tag=True):
    """Money taken out of the world. `from_`: account of 32 bytes; `amount`: e8s."""

    from_: bytes
    amount: int
    spender: None = None
    """Always null: nobody spends for another here."""


class Transfer(msgspec.Struct, frozen=True, tag=True):
    """Money moved between accounts of 32 bytes. `amount`, `fee`: e8s; the fee is burned."""

    from_: bytes
    to: bytes
    amount: int
    fee: int
    spender: None = None
    """Always null: nobody spends for another here."""


Operation = Mint | Burn | Transfer


class Transaction(msgspec.Struct, frozen=True):
    """What somebody asked for.

    `memo`: of the legacy interface, 0 in ICRC-1 transfers, whose memo (at most 32 bytes) is `icrc1_memo`;
    `created_at_time`: ns, the block's time where the caller gave none; `deduplicated`: whether he gave one.
    """

    operation: Operation
    memo: int
    icrc1_memo: bytes | None
    created_at_time: int
    deduplicated: bool


class Block(msgspec.Struct, frozen=True):
    """One entry of the chain. `parent_hash`: 32 bytes, None in the first; `timestamp`: ledger time in ns."""

    parent_hash: bytes | None
    transaction: Transaction
    timestamp: int

    def digest(self) -> bytes:
        """Return the hash (32 bytes) that the next block holds."""
        return hashlib.sha256(encode((BLOCK,), self)).digest()


TOKENS: Final[Shape[int]] = single("e8s", NAT64)
TIMESTAMP: Final[Shape[int]] = single("timestamp_nanos", NAT64)
_OPERATION: Final = variant(
    Mint=record(Mint, to=BLOB, amount=TOKENS),
    Burn=record(Burn, from_=BLOB, spender=opt(BLOB), amount=TOKENS),
    Transfer=record(Transfer, from_=BLOB, to=BLOB, amount=TOKENS, fee=TOKENS, spender=opt(BLOB)),
)
BLOCK: Final[Shape[Block]] = record(
    Block,
    parent_hash=opt(BLOB),
    transaction=record(
        Transaction, memo=NAT64, icrc1_memo=opt(BLOB), operation=opt(_OPERATION), created_at_time=TIMESTAMP
    ),
    timestamp=TIMESTAMP,
)
