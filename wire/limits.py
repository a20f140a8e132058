"""What peers may use of us, and how long we wait for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

__all__ = ["Allowance", "Limits", "Throttle", "Timing"]

KIB: Final = 1024
MIB: Final = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one peer may send and leave unread. Above a rate we stop reading for a while: it is slowed down,
    not disconnected. Above `unread_bytes` of what we sent, the session ends.

    A rate is a bucket of one second's worth, so a short burst is free.
    """

    messages_per_s: float
    bytes_per_s: float
    unread_bytes: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on connections, and on each of them.

    A known peer has a channel with us. Strangers cannot take its room: they have a count of their own, and a
    session of theirs gives way when `connections` is reached. Who dials is a stranger until act three proves
    otherwise; so when `handshakes` are in flight the one that has been at it longest gives way to a new one:
    an honest peer needs a round trip, one that stalls to hold a place loses it.
    """

    connections: int = 4096
    """Sessions in total."""
    strangers: int = 100
    """Sessions that peers without a channel opened. Those that we dialed do not count."""
    handshakes: int = 50
    """Incoming connections that are not sessions, yet or any more."""
    dials: int = 10
    """Attempts of `keep_connected` at the same moment."""
    stranger: Allowance = field(default_factory=lambda: Allowance(500, 256 * KIB, MIB))
    strangers_together: Allowance = field(default_factory=lambda: Allowance(1_000, MIB, MIB))
    """What all sessions of peers without a channel may send together: many keys cost nothing, and each message costs
    the event loop a moment of those who have money here.
    """
    known: Allowance = field(default_factory=lambda: Allowance(50_000, 512 * MIB, 16 * MIB))


@dataclass(frozen=True, slots=True)
class Timing:
    """How long, in seconds."""

    handshake_s: float = 10
    """From a connection to the peer's `Hello`."""
    dial_s: float = 15
    """From the name of a host to the peer's `Hello`."""
    ping_after_s: float = 30
    """Silence after which we ask whether the peer is there."""
    dead_after_s: float = 60
    """Silence after which it is not."""
    farewell_s: float = 2
    """For a last message to be read before the connection is cut."""
    first_retry_s: float = 1
    longest_retry_s: float = 300
    stable_after_s: float = 300
    """A session that lasted as long makes the next retry a first one."""


LONGEST_DEBT_S: Final = 10.0
"""What a message was charged for makes its sender wait no longer than this: below the silence that ends a session."""


class Throttle:
    """Two token buckets, of messages and of bytes. Spending may overdraw; `debt_s` says how long to pause."""

    __slots__ = ("_burst_s", "_bytes", "_messages", "_updated_s", "allowance")

    def __init__(self, allowance: Allowance, now_s: float, burst_s: float = 1.0) -> None:
        """`burst_s`: how many seconds' worth may come at once."""
        self._updated_s = now_s
        self._burst_s = burst_s
        self.allow(allowance)

    def allow(self, allowance: Allowance) -> None:
        """Start afresh with this allowance and full buckets."""
        self.allowance = allowance
        self._messages = allowance.messages_per_s * self._burst_s
        self._bytes = allowance.bytes_per_s * self._burst_s

    def refill(self, now_s: float) -> None:
        """Add what the time since the last call is worth."""
        passed = now_s - self._updated_s
        self._updated_s = now_s
        most = self.allowance
        self._messages = min(most.messages_per_s * self._burst_s, self._messages + passed * most.messages_per_s)
        self._bytes = min(most.bytes_per_s * self._burst_s, self._bytes + passed * most.bytes_per_s)

    def spend(self, size: int) -> bool:
        """Take one message of `size` bytes. Returns whether nothing is owed."""
        self._messages -= 1
        self._bytes -= size
        return self._messages >= 0 and self._bytes >= 0

    def charge(self, messages: float) -> None:
        """Count a message that cost more than most as so many."""
        self._messages = max(self._messages - messages, -LONGEST_DEBT_S * self.allowance.messages_per_s)

    def debt_s(self) -> float:
        """Return the seconds until nothing is owed; 0 when nothing is."""
        most = self.allowance
        return max(0.0, -self._messages / most.messages_per_s, -self._bytes / most.bytes_per_s)
