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

    A known peer has money in a channel with us. Everybody else is a stranger, and keys and connections cost a
    stranger nothing: what strangers may hold together is small, what one address may hold is a part of it, and a
    place of theirs is taken by whoever comes next. An address is an IPv4 address or an IPv6 network of 64 bits.
    """

    connections: int = 4096
    """Sessions in total. Strangers give theirs up for known peers and for those that we chose ourselves."""
    strangers: int = 100
    """Sessions that strangers opened. Those that we dialed do not count, nor those we keep a place for."""
    strangers_per_address: int = 25
    """Of these, sessions from one address."""
    handshakes: int = 512
    """Incoming connections that are not sessions yet, from addresses where no known peer was seen; and as many
    again from those where one was. In both, one that is chosen by chance gives way to a new one: an honest peer
    needs a round trip, whoever would fill this room has to come again and again.
    """
    handshakes_per_address: int = 64
    """Of the former, from one address."""
    handshakes_per_s: float = 100
    """Handshakes that are begun each second, in each of the two rooms: they take half a millisecond of ours."""
    sessions_per_s: float = 1
    """Sessions of one known peer each second, after the first `sessions_at_once`: each begins with all its channels."""
    sessions_at_once: int = 20
    farewells: int = 256
    """Sessions that have ended and wait for their last message to be read."""
    dials: int = 64
    """Attempts of `keep_connected` at the same moment."""
    stranger: Allowance = field(default_factory=lambda: Allowance(100, 64 * KIB, 64 * KIB))
    strangers_of_address: Allowance = field(default_factory=lambda: Allowance(250, 128 * KIB, 0))
    """What the strangers of one address may send together. What they leave unread is bounded for each."""
    strangers_together: Allowance = field(default_factory=lambda: Allowance(500, 256 * KIB, 0))
    """What all strangers may send together."""
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
    longest_retry_with_money_s: float = 15
    """The same for a peer that has money in a channel with us."""
    stable_after_s: float = 300
    """A session that lasted as long makes the next retry a first one."""


LONGEST_DEBT_S: Final = 10.0
"""What a message was charged for makes its sender wait no longer than this: below the silence that ends a session."""


class Throttle:
    """Two token buckets, of messages and of bytes. Spending may overdraw; `debt_s` says how long to pause."""

    __slots__ = ("_bytes", "_messages", "_updated_s", "allowance")

    def __init__(self, allowance: Allowance, now_s: float) -> None:
        self._updated_s = now_s
        self.allow(allowance)

    def allow(self, allowance: Allowance) -> None:
        """Start afresh with this allowance and full buckets."""
        self.allowance = allowance
        self._messages = allowance.messages_per_s
        self._bytes = allowance.bytes_per_s

    def refill(self, now_s: float) -> None:
        """Add what the time since the last call is worth."""
        passed = now_s - self._updated_s
        self._updated_s = now_s
        most = self.allowance
        self._messages = min(most.messages_per_s, self._messages + passed * most.messages_per_s)
        self._bytes = min(most.bytes_per_s, self._bytes + passed * most.bytes_per_s)

    @property
    def owes(self) -> bool:
        """Whether more was spent or charged than there was."""
        return self._messages < 0 or self._bytes < 0

    @property
    def is_full(self) -> bool:
        """Whether nothing was used lately, as of the last `refill`."""
        return self._messages >= self.allowance.messages_per_s and self._bytes >= self.allowance.bytes_per_s

    def spend(self, size: int) -> bool:
        """Take one message of `size` bytes. Returns whether nothing is owed."""
        self._messages -= 1
        self._bytes -= size
        return self._messages >= 0 and self._bytes >= 0

    def charge(self, seconds: float) -> None:
        """Count a message that cost more than most as so many seconds' worth of messages."""
        rate = self.allowance.messages_per_s
        self._messages = max(self._messages - seconds * rate, -LONGEST_DEBT_S * rate)

    def debt_s(self) -> float:
        """Return the seconds until nothing is owed; 0 when nothing is."""
        most = self.allowance
        return max(0.0, -self._messages / most.messages_per_s, -self._bytes / most.bytes_per_s)
