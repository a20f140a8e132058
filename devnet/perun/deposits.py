"""Payments to the canister that were notified and wait for `deposit`, by memo.

The memo of a legacy transfer is a number. An ICRC-1 transfer has number 0 and perhaps bytes: eight of them are
taken as the number in little-endian order, which is how wallets that only know ICRC-1 can fund a channel. With no
memo, number 0 or any other length a payment can be nobody's funding.

Whoever pays with a memo that no funding has, has lost the money: the canister cannot tell a memo from its
hash's origin, and the funding may come later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from devnet.perun.ledger_port import Payment

__all__ = ["Deposits", "NoDeposit", "SavedDeposits"]

_MEMO_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class NoDeposit:
    """A payment of `e8s` by the account `sender` (32 bytes) that has no usable memo."""

    sender: bytes
    e8s: int


class SavedDeposits(msgspec.Struct, frozen=True):
    """What outlives an upgrade. `waiting`: e8s by memo; `known`: blocks, for ever; `unassigned_e8s`: see there."""

    waiting: list[tuple[int, int]]
    known: list[int]
    unassigned_e8s: int


class Deposits:
    """`account`: the canister's own (32 bytes). Only blocks that pay it are remembered, each once for ever."""

    def __init__(self, account: bytes) -> None:
        self.account = account
        self._waiting: dict[int, int] = {}
        self._known: set[int] = set()
        self._unassigned_e8s = 0

    @classmethod
    def of(cls, account: bytes, saved: SavedDeposits) -> Deposits:
        """Return the deposits that were saved."""
        deposits = cls(account)
        deposits._waiting = dict(saved.waiting)
        deposits._known = set(saved.known)
        deposits._unassigned_e8s = saved.unassigned_e8s
        return deposits

    def saved(self) -> SavedDeposits:
        """Return what outlives an upgrade."""
        return SavedDeposits(sorted(self._waiting.items()), sorted(self._known), self._unassigned_e8s)

    @property
    def total_e8s(self) -> int:
        """All money that waits here, with what came in without memo and is too little to be sent back."""
        return sum(self._waiting.values()) + self._unassigned_e8s

    def knows(self, block: int) -> bool:
        """Whether a block was taken before."""
        return block in self._known

    def take(self, block: int, payment: Payment) -> int | NoDeposit:
        """Remember a block that pays us, and return its e8s, or that it has no usable memo.

        Money without memo stays here until it is released.
        """
        assert payment.to == self.account, "only payments to this canister are remembered"
        assert block not in self._known, "a block is remembered once"
        self._known.add(block)
        memo = _memo(payment)
        if memo is None:
            self._unassigned_e8s += payment.e8s
            return NoDeposit(payment.from_, payment.e8s)
        if payment.e8s:
            self._waiting[memo] = self._waiting.get(memo, 0) + payment.e8s
        return payment.e8s

    def release(self, payment: NoDeposit) -> None:
        """Let go of money without memo: a refund has it from now on."""
        self._unassigned_e8s -= payment.e8s

    def claim(self, memo: int) -> int:
        """Return the e8s that wait under a memo and forget them; 0 if there are none."""
        return self._waiting.pop(memo, 0)


def _memo(payment: Payment) -> int | None:
    if payment.icrc1_memo is None:
        return payment.memo or None
    if len(payment.icrc1_memo) != _MEMO_BYTES:
        return None
    return int.from_bytes(payment.icrc1_memo, "little") or None
