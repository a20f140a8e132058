"""What counts: the one truth of a payment that is in a state, for both roles, for lists, waiters and books.

*Received* is what is in a fully signed, durable state and was counted while a fresh look showed nothing registered
(rule 4). *Delivered* to the peer is what the peer has shown to hold, while nothing is registered that leaves it out.
What the canister settled on has the last word over both: whatever it leaves out was not paid.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.payments import Batch
from protocol.types import State

__all__ = ["Agreed", "Counted"]


@dataclass(frozen=True, slots=True)
class Counted:
    """What is durable of a channel about how far its payments count. All are versions."""

    received: int
    """Up to here what the peer paid is counted as received (rule 4)."""
    peer_holds: int
    """Up to here the peer has shown that it holds what we paid it."""
    settled: int | None
    """What the canister settled on, or None while it has not settled."""

    def status(self, version: int, *, ours: bool) -> str:
        """Return what a payment in the state of that version is: signed, delivered or failed. `ours`: we paid it."""
        if self.settled is not None:
            return "delivered" if version <= self.settled else "failed"
        return "delivered" if version <= (self.peer_holds if ours else self.received) else "signed"


@dataclass(frozen=True, slots=True)
class Agreed:
    """A fully signed state that was new, with the payments that led to it."""

    state: State
    sent: Batch
    received: Batch
    change_e8s: int
    """What it changed our share by."""
