"""A node's receipts of its towers, as rows of its store: the newest of each tower for each channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from perund.store.writer import Statement
from protocol.messages import TowerReceipt
from protocol.types import Nanos

__all__ = ["KeptReceipt", "forget_receipts", "record_receipt", "record_tower_life"]


MOST_SKEW_NS: Final = 3_600 * 1_000_000_000
"""How far a tower's chain time may be ahead of ours."""
MOST_PROMISED_NS: Final = 400 * 86_400 * 1_000_000_000
"""No tower promises for longer: `tower.receipt_s` and `tower.funding_s` end at a year."""


@dataclass(frozen=True, slots=True)
class KeptReceipt:
    """What a tower has signed for a channel, as far as the node decides by it. Times are chain times."""

    version: int
    digest: bytes
    chain_time_ns: Nanos
    expires_ns: Nanos

    @classmethod
    def of(cls, receipt: TowerReceipt) -> KeptReceipt:
        """Return what is kept in memory of a verified receipt."""
        return cls(receipt.version, receipt.state_hash, receipt.chain_time_ns, receipt.expires_ns)

    def believable(self, now_ns: Nanos) -> bool:
        """Whether its times are of now: of others nobody can tell until when it really holds."""
        return self.chain_time_ns <= now_ns + MOST_SKEW_NS and self.expires_ns - self.chain_time_ns <= MOST_PROMISED_NS

    def renew_at_ns(self) -> Nanos:
        """Return when half of its time is over: enough is left to try again for as long."""
        return Nanos((self.chain_time_ns + self.expires_ns) // 2)


def record_receipt(tower: bytes, number: int, receipt: TowerReceipt) -> Statement:
    """The newest receipt of a tower for the channel in row `number`."""
    return Statement(
        "INSERT OR REPLACE INTO tower_receipt VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            tower,
            number,
            receipt.version,
            receipt.state_hash,
            receipt.chain_time_ns,
            receipt.expires_ns,
            receipt.signature,
        ),
    )


def record_tower_life(tower: bytes, life: bytes, writes: int) -> Statement:
    """Which life of its store (32 bytes) a tower names."""
    return Statement("INSERT OR REPLACE INTO tower_life VALUES (?, ?, ?)", (tower, life, writes))


def forget_receipts(number: int) -> Statement:
    """The channel in row `number` is closed."""
    return Statement("DELETE FROM tower_receipt WHERE number = ?", (number,))
