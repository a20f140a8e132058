"""Whom a watchtower serves, how much of it, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from protocol.types import MAX_CHALLENGE_NS, MAX_E8S, MAX_VERSION, MIN_CHALLENGE_NS, Nanos, Params, State

__all__ = ["SLOTS_PROVEN_PER_CHANNEL", "Refused", "TowerPolicy"]

HOUR_NS: Final = 3_600 * 1_000_000_000
FUNDING_NS: Final = Nanos(12 * HOUR_NS)
RECEIPT_NS: Final = Nanos(30 * 24 * HOUR_NS)
GRACE_NS: Final = Nanos(24 * HOUR_NS)
SLOTS_PROVEN_PER_CHANNEL: Final = 4
"""One channel's money speaks for so many clients. Two have the keys; each may have moved to another node."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why not. `code`: a word of docs/protocol.md; `text`: the same for people, with the value."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class TowerPolicy:
    """The bounds. Times are durations in ns, amounts e8s.

    A client that shows money in a channel is a known one. Strangers, who have shown none yet, share room of their
    own, so that whoever makes up keys and channels by the thousand takes it from other strangers only.
    """

    clients: frozenset[bytes] = frozenset()
    """Node keys (33 bytes) that are served; empty: anybody."""
    max_clients: int = 1_000
    max_channels: int = 100_000
    """Slots in all."""
    max_channels_per_client: int = 10_000
    max_unfunded: int = 1_000
    """Slots of all strangers together. They take no room of known clients."""
    max_unfunded_per_address: int = 250
    """Of these, slots of strangers from one address."""
    max_unfunded_per_client: int = 100
    """Slots of one client whose money was not seen yet."""
    min_challenge_ns: Nanos = MIN_CHALLENGE_NS
    max_challenge_ns: Nanos = MAX_CHALLENGE_NS
    min_total_e8s: int = 0
    max_total_e8s: int = MAX_E8S
    funding_ns: Nanos = FUNDING_NS
    """How long a slot is kept for money to appear."""
    receipt_ns: Nanos = RECEIPT_NS
    """How long a receipt for a funded channel holds."""
    grace_ns: Nanos = GRACE_NS
    """How long a slot outlives the settlement of its channel."""

    def refuses_client(self, client: bytes) -> Refused | None:
        """Return why this node (33 bytes) is not served, or None."""
        if self.clients and client not in self.clients:
            return Refused("not_allowed", "this tower serves only the nodes that its operator named")
        return None

    def refuses_state(self, params: Params, state: State) -> Refused | None:
        """Return why this channel is not guarded with this state, or None. Signatures are checked elsewhere."""
        challenge = params.challenge_duration_ns
        if not self.min_challenge_ns <= challenge <= self.max_challenge_ns:
            return Refused(
                "bad_challenge_duration",
                f"{challenge / 1e9:g} s; this tower takes {self.min_challenge_ns / 1e9:g} "
                f"to {self.max_challenge_ns / 1e9:g} s",
            )
        if not self.min_total_e8s <= state.total <= self.max_total_e8s:
            return Refused(
                "bad_amount",
                f"{state.total} e8s in the channel; this tower takes {self.min_total_e8s} to {self.max_total_e8s} e8s",
            )
        if state.version > MAX_VERSION:
            return Refused("bad_version", f"version {state.version} is above 2^63: nobody may sign it")
        return None
