"""What the canister tells about the past: events of each channel, and one log of disputes over all channels."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

import msgspec

from devnet.perun.interface import Concluded, Disputed, Event

__all__ = ["MAX_DISPUTES_PAGE", "MAX_EVENTS_KEPT", "MAX_EVENTS_PAGE", "DisputeLog", "EventLog"]

MAX_EVENTS_PAGE: Final = 100
MAX_EVENTS_KEPT: Final = 1_000
"""Per channel. Only two participants who register a thousand states of their own get there."""
_MAX_SHARES_KEPT: Final = 16 * MAX_EVENTS_KEPT
"""Fewer events are kept of a channel with very many participants: each state has a share for each."""
MAX_DISPUTES_PAGE: Final = 1_000
_SLACK: Final = 64


class EventLog(msgspec.Struct, frozen=True, array_like=True):
    """Events of one channel, counted from 0. `first`: the index of the oldest that is kept."""

    first: int = 0
    events: tuple[Event, ...] = ()

    def appended(self, event: Event) -> EventLog:
        """Return the log with one more event, without the oldest if there are too many."""
        events = (*self.events, event)
        shares = len(event.state.allocation) if isinstance(event, Disputed) else 1
        too_many = max(0, len(events) - max(1, min(MAX_EVENTS_KEPT, _MAX_SHARES_KEPT // max(1, shares))))
        return EventLog(self.first + too_many, events[too_many:])

    def page(self, start: int) -> tuple[Event, ...]:
        """Return up to `MAX_EVENTS_PAGE` events from index `start` on, or from the oldest that is kept."""
        at = max(0, start - self.first)
        return self.events[at : at + MAX_EVENTS_PAGE]

    def since_conclusion(self) -> EventLog:
        """Return the log from `Concluded` on, at the same indices."""
        before = next((at for at, event in enumerate(self.events) if isinstance(event, Concluded)), 0)
        return EventLog(self.first + before, self.events[before:])


class DisputeLog:
    """One entry per channel that ever had a state registered; what happens to it moves it to the end.

    A reader who knows everything below an index misses nothing by asking from there on.
    """

    def __init__(self, entries: list[tuple[int, bytes]] | None = None, head: int = 0) -> None:
        self._channel_at: dict[int, bytes] = dict(entries or [])
        self._index_of = {channel: index for index, channel in self._channel_at.items()}
        self._order = list(self._channel_at)  # ascending; entries that moved on stay until there are too many
        self.head = head

    def entries(self) -> list[tuple[int, bytes]]:
        """Return all entries, by index."""
        return list(self._channel_at.items())

    def move_to_end(self, channel: bytes) -> None:
        """Give a channel the next index."""
        before = self._index_of.pop(channel, None)
        if before is not None:
            del self._channel_at[before]
        self._index_of[channel] = self.head
        self._channel_at[self.head] = channel
        self._order.append(self.head)
        self.head += 1
        if len(self._order) > 2 * len(self._channel_at) + _SLACK:
            self._order = list(self._channel_at)

    def page(self, start: int, limit: int) -> list[tuple[int, bytes]]:
        """Return up to `limit` entries (at most `MAX_DISPUTES_PAGE`) from index `start` on."""
        limit = min(limit, MAX_DISPUTES_PAGE)
        found: list[tuple[int, bytes]] = []
        at = bisect_left(self._order, start)
        while at < len(self._order) and len(found) < limit:
            channel = self._channel_at.get(self._order[at])
            if channel is not None:
                found.append((self._order[at], channel))
            at += 1
        return found
