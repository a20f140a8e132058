"""Payments as they travel: many of them, in columns.

A batch carries ids, amounts and memos beside each other rather than one record per payment: adding a
thousand amounts, cutting a thousand ids and storing a thousand rows are then one operation each.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from protocol.errors import Undecodable
from protocol.limits import MAX_MEMO_BYTES

__all__ = ["EMPTY", "PAYMENT_ID_BYTES", "Batch", "Payment"]

PAYMENT_ID_BYTES: Final = 16
_IDS: Final = struct.Struct("16s")


class Payment(NamedTuple):
    """One payment. `id`: 16 bytes, unique per channel and sender for ever; `memo`: at most 256 bytes."""

    id: bytes
    amount_e8s: int
    memo: bytes = b""


@dataclass(frozen=True)
class Batch:
    """Payments of one sender, in order.

    `ids`: 16 bytes each, joined; `amounts_e8s`: at least 1 each; `memos`: by position, only those that are
    not empty. Raises `Undecodable` when the columns do not fit each other or an id stands twice.
    """

    ids: bytes = b""
    amounts_e8s: tuple[int, ...] = ()
    memos: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.amounts_e8s)
        if len(self.ids) != count * PAYMENT_ID_BYTES:
            raise Undecodable(f"{count} payments need {count * PAYMENT_ID_BYTES} bytes of ids, not {len(self.ids)}")
        if count == 0:
            if self.memos:
                raise Undecodable("memos without payments")
            return
        if min(self.amounts_e8s) < 1:
            raise Undecodable(f"a payment of {min(self.amounts_e8s)} e8s; at least 1 is needed")
        for position, memo in self.memos.items():
            if not 0 <= position < count:
                raise Undecodable(f"a memo for payment {position} of {count}")
            if not 1 <= len(memo) <= MAX_MEMO_BYTES:
                raise Undecodable(f"a memo of {len(memo)} bytes; 1 to {MAX_MEMO_BYTES} are allowed")
        if count > 1 and len(set(_IDS.iter_unpack(self.ids))) != count:
            raise Undecodable("a payment id stands twice in one batch")

    def __len__(self) -> int:
        return len(self.amounts_e8s)

    def __iter__(self) -> Iterator[Payment]:
        for position, (payment_id, amount) in enumerate(zip(self.each_id(), self.amounts_e8s, strict=True)):
            yield Payment(payment_id, amount, self.memos.get(position, b""))

    def each_id(self) -> Iterator[bytes]:
        """Yield the ids of 16 bytes, in order."""
        return (payment_id for (payment_id,) in _IDS.iter_unpack(self.ids))

    @property
    def total_e8s(self) -> int:
        """The sum of the amounts."""
        return sum(self.amounts_e8s)

    @classmethod
    def of(cls, payments: list[Payment]) -> Batch:
        """Return the columns of these payments."""
        return cls(
            ids=b"".join(p.id for p in payments),
            amounts_e8s=tuple(p.amount_e8s for p in payments),
            memos={i: p.memo for i, p in enumerate(payments) if p.memo},
        )


EMPTY: Final = Batch()
