"""Payments that wait for an update: first in, first out, in columns."""

from __future__ import annotations

from protocol.payments import PAYMENT_ID_BYTES, Batch, Payment

__all__ = ["PaymentQueue", "room_of"]

BYTES_PER_PAYMENT = PAYMENT_ID_BYTES + 9
"""An id and the largest amount on the wire."""
BYTES_PER_MEMO = 10
"""Frame of a memo on the wire: its position and its length."""


def room_of(batch: Batch) -> int:
    """Return the bytes that payments take in a message, at most."""
    memos = sum(map(len, batch.memos.values())) + len(batch.memos) * BYTES_PER_MEMO
    return len(batch) * BYTES_PER_PAYMENT + memos


class PaymentQueue:
    """Our payments, in the order in which they were asked for."""

    __slots__ = ("_amounts", "_ids", "_memos", "_offset", "total_e8s")

    def __init__(self) -> None:
        self._ids = bytearray()
        self._amounts: list[int] = []
        self._memos: dict[int, bytes] = {}
        self._offset = 0  # position that the first waiting payment has in `_memos`
        self.total_e8s = 0

    def __len__(self) -> int:
        return len(self._amounts)

    def append(self, batch: Batch) -> None:
        """Add payments at the end."""
        base = self._offset + len(self._amounts)
        self._ids += batch.ids
        self._amounts += batch.amounts_e8s
        for position, memo in batch.memos.items():
            self._memos[base + position] = memo
        self.total_e8s += batch.total_e8s

    def take(self, room: int) -> Batch:
        """Remove and return the first payments that fit in `room` bytes of a message."""
        count = min(len(self._amounts), room // BYTES_PER_PAYMENT)
        memos: dict[int, bytes] = {}
        if self._memos and count:
            used = 0
            for position in range(count):
                memo = self._memos.get(self._offset + position)
                used += BYTES_PER_PAYMENT + (BYTES_PER_MEMO + len(memo) if memo else 0)
                if used > room:
                    count = position
                    break
                if memo:
                    memos[position] = memo
            for position in memos:
                del self._memos[self._offset + position]
        batch = Batch(bytes(self._ids[: count * PAYMENT_ID_BYTES]), tuple(self._amounts[:count]), memos)
        del self._ids[: count * PAYMENT_ID_BYTES]
        del self._amounts[:count]
        self._offset = self._offset + count if self._memos else 0
        self.total_e8s -= batch.total_e8s
        return batch

    def peek(self) -> Batch:
        """Return all payments, without removing them."""
        return Batch(
            bytes(self._ids),
            tuple(self._amounts),
            {position - self._offset: memo for position, memo in self._memos.items()},
        )

    def remove(self, payment_id: bytes) -> Payment | None:
        """Remove and return one payment, or None when it is not here."""
        if len(payment_id) != PAYMENT_ID_BYTES:
            return None
        start = self._ids.find(payment_id)
        while start >= 0 and start % PAYMENT_ID_BYTES:
            start = self._ids.find(payment_id, start + 1)
        if start < 0:
            return None
        everything = list(self.peek())
        gone = everything.pop(start // PAYMENT_ID_BYTES)
        self._ids, self._amounts, self._memos, self._offset, self.total_e8s = bytearray(), [], {}, 0, 0
        self.append(Batch.of(everything))
        return gone
