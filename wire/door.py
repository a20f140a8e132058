"""Connections that are no sessions yet: how many at once, whose handshake begins, and who gives way."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable

from wire.limits import Limits
from wire.link import Link

__all__ = ["Door"]


class _Room:
    """Connections of one kind, and how fast their handshakes begin: one second's worth at once."""

    def __init__(self, rate_per_s: float) -> None:
        self.links: dict[Link, None] = {}
        self.origins: Counter[str] = Counter()
        self.waiting: list[Link] = []
        """Those that sent act one and were told to wait, in the order in which they did."""
        self.timer: asyncio.Handle | None = None
        self._rate_per_s = rate_per_s
        self._tokens = rate_per_s
        self._at_s = 0.0

    def take(self, now_s: float) -> bool:
        """Whether one more handshake may begin now."""
        self._tokens = min(self._rate_per_s, self._tokens + (now_s - self._at_s) * self._rate_per_s)
        self._at_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def fullest(self) -> set[str]:
        """Return the addresses that have most connections here."""
        most = max(self.origins.values())
        return {origin for origin, count in self.origins.items() if count == most}

    def next_s(self) -> float:
        """After how many seconds the next one may."""
        return max(0.001, (1 - self._tokens) / self._rate_per_s)


class Door:
    """Two rooms: for addresses where a known peer was seen, and for the others. They take nothing from each other.

    Who gives way in a full room is chosen by chance, of the address that has most in it: whoever keeps it full, at any
    rate, has to keep coming, and an honest peer is in it for a round trip. Addresses take turns by chance, and of each
    the newest handshake is begun first: when more come than can be begun, some begin in time, where a fair line would
    have all of them come too late. So one address takes little from the others, also when a peer with a little money
    was seen at it. Implements `wire.link.Gate`.
    """

    def __init__(
        self, limits: Limits, is_known: Callable[[str], bool], drop: Callable[[Link], None], rng: random.Random
    ) -> None:
        """`is_known`: whether a known peer was seen at an address; `drop`: told of who gives way."""
        self._limits = limits
        self._is_known = is_known
        self._drop = drop
        self._rng = rng
        self._rooms = {known: _Room(limits.handshakes_per_s) for known in (True, False)}
        self._room_of: dict[Link, _Room] = {}

    def __len__(self) -> int:
        """How many connections are in both rooms."""
        return len(self._room_of)

    def link_came(self, link: Link) -> None:
        """Give a new connection a place; in a full room another one loses its own."""
        known = self._is_known(link.origin)
        room = self._rooms[known]
        if not known and room.origins[link.origin] >= self._limits.handshakes_per_address:
            self._give_way(room, {link.origin})
        elif len(room.links) >= self._limits.handshakes:
            self._give_way(room, room.fullest())
        room.links[link] = None
        room.origins[link.origin] += 1
        self._room_of[link] = room

    def _give_way(self, room: _Room, origins: set[str]) -> None:
        link = self._rng.choice([link for link in room.links if link.origin in origins])
        self.left(link)
        self._drop(link)

    def left(self, link: Link) -> None:
        """Take note that a connection is gone or has become a session. Does nothing for one that has no place."""
        room = self._room_of.pop(link, None)
        if room is None:
            return
        del room.links[link]
        room.origins[link.origin] -= 1
        if not room.origins[link.origin]:
            del room.origins[link.origin]

    def may_begin(self, link: Link) -> bool:
        """Whether its handshake begins now; else it begins when its turn comes, unless it is gone by then."""
        room = self._room_of.get(link)
        if room is None:
            return True
        loop = asyncio.get_running_loop()
        if not room.waiting and room.take(loop.time()):
            return True
        room.waiting.append(link)
        if room.timer is None:
            room.timer = loop.call_later(room.next_s(), self._serve, room)
        return False

    def _serve(self, room: _Room) -> None:
        loop = asyncio.get_running_loop()
        room.timer = None
        room.waiting = [link for link in room.waiting if link in self._room_of]
        while room.waiting and room.take(loop.time()):
            origin = self._rng.choice(list({link.origin: None for link in room.waiting}))
            newest = max(place for place, link in enumerate(room.waiting) if link.origin == origin)
            room.waiting.pop(newest).go_on()
        if room.waiting:
            room.timer = loop.call_later(room.next_s(), self._serve, room)

    def close(self) -> None:
        """Begin no more handshakes."""
        for room in self._rooms.values():
            if room.timer is not None:
                room.timer.cancel()
                room.timer = None
            room.waiting.clear()
