"""What comes again and again is shown a few times, then ever more rarely, with a count of what was not shown."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

__all__ = ["Repeats"]

MOST_KEYS: Final = 4_096
"""Things remembered: who can name new ones for nothing must not fill the memory."""


@dataclass(slots=True)
class _Seen:
    shown: int
    last_s: float
    next_s: float
    pause_s: float
    hidden: int = 0
    newest: object = None
    """What came with the newest that was not shown."""


class Repeats:
    """Decides for each thing whether it is shown now.

    The first `at_once` are. Then one is after each pause, which doubles from `first_pause_s` to `longest_pause_s`.
    What did not come for `forget_s` seconds starts afresh. Times are seconds of any clock that does not go back.
    """

    def __init__(self, at_once: int, first_pause_s: float, longest_pause_s: float, forget_s: float) -> None:
        self._at_once = at_once
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._forget_s = forget_s
        self._seen: dict[Hashable, _Seen] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def take(self, key: Hashable, now_s: float, facts: object = None) -> int | None:
        """Return how many of this were not shown since the last one that was; None when this one is not either.

        `facts` are kept for `overdue` when it is not.
        """
        seen = self._seen.pop(key, None)
        if seen is None or now_s - seen.last_s >= self._forget_s:
            hidden = seen.hidden if seen is not None else 0
            seen = _Seen(0, now_s, now_s, self._first_pause_s)
        else:
            hidden = seen.hidden
        self._seen[key] = seen  # the newest last: the one that is forgotten for room came longest ago
        if len(self._seen) > MOST_KEYS:
            del self._seen[next(iter(self._seen))]
        seen.last_s = now_s
        if seen.shown < self._at_once:
            seen.shown += 1
            seen.next_s = now_s + seen.pause_s
        elif now_s >= seen.next_s:
            seen.pause_s = min(seen.pause_s * 2, self._longest_pause_s)
            seen.next_s = now_s + seen.pause_s
        else:
            seen.hidden += 1
            seen.newest = facts
            return None
        seen.hidden, seen.newest = 0, None
        return hidden

    def overdue(self, now_s: float) -> list[tuple[Hashable, int, object]]:
        """Return the things whose pause is over without another one, with their counts and the newest facts; count
        afresh.
        """
        found = []
        for key, seen in self._seen.items():
            if seen.hidden and now_s >= seen.next_s:
                found.append((key, seen.hidden, seen.newest))
                seen.hidden, seen.newest = 0, None
                seen.next_s = now_s + seen.pause_s
        return found
