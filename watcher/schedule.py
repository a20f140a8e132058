"""Which channel is looked at next: those in a hurry, then those with something registered, then by time."""

from __future__ import annotations

import heapq
from collections import deque

from watcher.roster import Roster, Watched

__all__ = ["Schedule"]


class Schedule:
    """The order of looks. A channel has one place: a new one voids the old. Nothing here waits or runs."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._timed: list[tuple[int, int, Watched]] = []
        self._hurried: deque[tuple[int, Watched]] = deque()
        self._loud: deque[tuple[int, Watched]] = deque()
        self._quiet: deque[tuple[int, Watched]] = deque()
        self._tickets = 0

    def _ticket(self, entry: Watched) -> int:
        self._tickets += 1
        entry.ticket = self._tickets
        return entry.ticket

    def at(self, entry: Watched, due_ns: int) -> None:
        """Look at a channel at that time."""
        heapq.heappush(self._timed, (due_ns, self._ticket(entry), entry))

    def hurry(self, entry: Watched) -> None:
        """Look at a channel before all that are merely due."""
        if entry.hurried != entry.ticket:
            entry.hurried = self._ticket(entry)
            self._hurried.append((entry.ticket, entry))

    def take(self, now_ns: int) -> Watched | None:
        """Return the channel whose turn it is, or None when no look is due."""
        while self._timed and self._timed[0][0] <= now_ns:
            _, ticket, entry = heapq.heappop(self._timed)
            # After an outage ten thousand quiet channels may be due: those where something happens come first.
            (self._quiet if entry.registered is None else self._loud).append((ticket, entry))
        for line in (self._hurried, self._loud, self._quiet):
            while line:
                ticket, entry = line.popleft()
                if entry.ticket == ticket and self._roster.holds(entry):
                    return entry
        return None

    def next_due_ns(self) -> int | None:
        """Return when the next look is due, or None when none is planned. Asked after `take` returned None."""
        while self._timed and not self._valid(*self._timed[0][1:]):
            heapq.heappop(self._timed)
        return self._timed[0][0] if self._timed else None

    def _valid(self, ticket: int, entry: Watched) -> bool:
        return entry.ticket == ticket and self._roster.holds(entry)
