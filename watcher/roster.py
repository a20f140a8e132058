"""Who is watched, and what is known of each."""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from protocol.types import ChannelId, Nanos, RegisteredState

__all__ = ["LONGEST_INTERVAL_NS", "SHORTEST_INTERVAL_NS", "Roster", "Watched", "interval_of"]

LONGEST_INTERVAL_NS: Final = 600 * 1_000_000_000
SHORTEST_INTERVAL_NS: Final = 250_000_000


def interval_of(challenge_ns: int, looks_per_challenge: int) -> int:
    """Return the time between looks, in nanoseconds: so many in each challenge period, and not rarely either."""
    return min(max(challenge_ns // looks_per_challenge, SHORTEST_INTERVAL_NS), LONGEST_INTERVAL_NS)


@dataclass(slots=True, eq=False)
class Watched:
    """One channel. Times are local elapsed nanoseconds unless they say otherwise."""

    channel: ChannelId
    challenge_ns: Nanos
    interval_ns: int
    since_ns: int
    """Since when it is watched."""
    looked_ns: int | None = None
    """When the request of its newest look was signed."""
    registered: RegisteredState | None = None
    """What is known to be registered: a channel that has it is not quiet, and has looks of its own."""
    learned_ns: int = 0
    """When `registered` was learned: only a request signed after that can show less."""
    failures: int = 0
    ticket: int = 0
    """Names its newest place in the schedule; older ones are void."""
    hurried: int = -1
    """The ticket with which it stands in the line of those in a hurry."""
    looking: bool = False
    """Whether a look of its round is under way."""
    again: bool = False
    """A look was asked for while one was under way, whose request may be older than the suspicion."""
    hints_from_ns: int = 0
    """Hints about it are heard from then on: a replica that lies costs one look in each interval."""
    doubted_from_ns: int = 0
    """What is shown of it without a proof is held against our newest from then on."""
    unproven_sent: int = 0
    """How often our newest was sent on a hint, lately."""
    unproven_sent_ns: int = 0
    unproven_from_ns: int = 0
    """Not before then again, whatever is shown."""
    unproven_told_ns: int | None = None
    refutation: asyncio.Task[None] | None = None
    warned: int = 0
    """How many warnings of the margin were given for `warned_timeout_ns`."""
    warned_timeout_ns: int = 0

    @property
    def place(self) -> float:
        """Where it stands in every period, 0 to 1: channel ids are hashes, so looks are spread evenly."""
        return int.from_bytes(self.channel[:8], "big") / 2**64

    def next_slot_ns(self, period_ns: int, now_ns: int) -> int:
        """Return the next moment of its own in periods of that length: after `now_ns`, at most a period later."""
        offset = int(self.place * period_ns)
        return offset + ((now_ns - offset) // period_ns + 1) * period_ns


class Roster:
    """The channels that are watched."""

    def __init__(self, looks_per_challenge: int) -> None:
        self._looks = looks_per_challenge
        self._entries: dict[ChannelId, Watched] = {}
        self._challenges: Counter[int] = Counter()
        self._shortest: list[int] = []
        self.shortest_since_ns = 0
        """When the shortest challenge period became so short, or the first channel came."""

    def add(self, channel: ChannelId, challenge_ns: Nanos, now_ns: int) -> Watched | None:
        """Watch a channel. Returns None if it is watched already."""
        if channel in self._entries:
            return None
        before = self.shortest_challenge_ns
        entry = Watched(channel, challenge_ns, interval_of(challenge_ns, self._looks), now_ns)
        self._entries[channel] = entry
        if not self._challenges[challenge_ns]:
            heapq.heappush(self._shortest, challenge_ns)
        self._challenges[challenge_ns] += 1
        if before is None or challenge_ns < before:
            self.shortest_since_ns = now_ns
        return entry

    def remove(self, channel: ChannelId) -> Watched | None:
        """Watch a channel no more; return it, or None if it was not watched."""
        entry = self._entries.pop(channel, None)
        if entry is not None:
            self._challenges[entry.challenge_ns] -= 1
        return entry

    def get(self, channel: bytes) -> Watched | None:
        """Return a channel, if it is watched."""
        return self._entries.get(ChannelId(channel))

    def holds(self, entry: Watched) -> bool:
        """Whether this very entry is watched still."""
        return self._entries.get(entry.channel) is entry

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Watched]:
        return iter(list(self._entries.values()))

    @property
    def shortest_challenge_ns(self) -> int | None:
        """The shortest challenge period among them, or None when nothing is watched."""
        while self._shortest and not self._challenges[self._shortest[0]]:
            del self._challenges[heapq.heappop(self._shortest)]
        return self._shortest[0] if self._shortest else None

    @property
    def interval_ns(self) -> int | None:
        """The time between looks that the shortest challenge period asks for."""
        shortest = self.shortest_challenge_ns
        return interval_of(shortest, self._looks) if shortest is not None else None
