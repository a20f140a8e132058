"""Who is a stranger among the peers, what strangers use together, and where known peers were seen."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Final

from wire.crowd import Crowd
from wire.limits import Limits, Throttle
from wire.session import Session

__all__ = ["Standings"]

COUNTED_AGAIN_S: Final = 1.0
"""Whose last channel closed is a stranger again: found out so often, and when anybody asks, at most."""
SEEN: Final = 10_000
"""Known peers whose address is remembered; the oldest goes."""


class Standings:
    """What the network knows of its peers' standing. A stranger has no money here, and nobody chose it."""

    def __init__(
        self,
        limits: Limits,
        is_known: Callable[[bytes], bool],
        is_chosen: Callable[[bytes], bool],
        rng: random.Random,
    ) -> None:
        self._limits = limits
        self._is_known = is_known
        self._is_chosen = is_chosen
        self._crowd = Crowd(rng)
        self._counted_s = float("-inf")
        self._together = Throttle(limits.strangers_together, 0.0)
        self._of_address: dict[str, Throttle] = {}
        self._seen: dict[bytes, str] = {}
        self._known_at: frozenset[str] = frozenset()
        self._known_at_s = float("-inf")
        self._begun: dict[bytes, tuple[float, float]] = {}
        """Of known peers: how many sessions each may still begin, and when that was counted."""

    def favours(self, peer: bytes) -> bool:
        """Whether a peer is no stranger: it has money here, or we chose it."""
        return self._is_known(peer) or self._is_chosen(peer)

    # --- sessions ----------------------------------------------------------------------------------------

    def came(self, peer: bytes, origin: str, *, dialed: bool) -> None:
        """Take note of a session."""
        if self.favours(peer):
            self.seen(peer, origin)
        elif not dialed:
            self._crowd.add(peer, origin)

    def left(self, peer: bytes) -> None:
        """Take note of a session's end."""
        self._crowd.remove(peer)

    def strangers(self, sessions: Mapping[bytes, Session]) -> Crowd:
        """Return those whose sessions are strangers', as it is now."""
        now_s = asyncio.get_running_loop().time()
        for peer in self._crowd.peers():
            if self.favours(peer):
                self._crowd.remove(peer)
        if now_s - self._counted_s >= COUNTED_AGAIN_S or not len(self._crowd):
            self._counted_s = now_s
            for peer, session in sessions.items():
                if not session.dialed and peer not in self._crowd and not self.favours(peer):
                    self._crowd.add(peer, session.link.origin)
        return self._crowd

    def may_begin(self, peer: bytes) -> bool:
        """Whether a known peer may begin a session now; strangers are slowed down at the door."""
        if not self._is_known(peer):
            return True
        now_s, limits = asyncio.get_running_loop().time(), self._limits
        left, at_s = self._begun.get(peer, (float(limits.sessions_at_once), now_s))
        left = min(limits.sessions_at_once, left + (now_s - at_s) * limits.sessions_per_s)
        if left < 1:
            return False
        if len(self._begun) >= SEEN:
            self._begun = {other: entry for other, entry in self._begun.items() if self._is_known(other)}
        self._begun[peer] = (left - 1, now_s)
        return True

    def shared(self, peer: bytes, origin: str) -> tuple[Throttle, ...]:
        """Return what a peer uses together with others: nothing, unless it is a stranger."""
        if self.favours(peer):
            return ()
        throttle = self._of_address.get(origin)
        if throttle is None:
            now_s = asyncio.get_running_loop().time()
            if len(self._of_address) >= 2 * self._limits.strangers:
                for other, idle in list(self._of_address.items()):
                    idle.refill(now_s)
                    if idle.is_full and not self._crowd.count(other):
                        del self._of_address[other]
            throttle = self._of_address[origin] = Throttle(self._limits.strangers_of_address, now_s)
        return throttle, self._together

    # --- addresses ---------------------------------------------------------------------------------------

    def seen(self, peer: bytes, origin: str) -> None:
        """Remember where a peer proved its key. It counts while the peer is known."""
        self._seen.pop(peer, None)
        self._seen[peer] = origin
        if len(self._seen) > SEEN:
            del self._seen[next(iter(self._seen))]
        self._known_at_s = float("-inf")

    def known_at(self, origin: str) -> bool:
        """Whether a peer that is known now was seen at an address."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._known_at_s >= COUNTED_AGAIN_S:
            self._known_at_s = now_s
            self._known_at = frozenset(place for peer, place in self._seen.items() if self.favours(peer))
        return origin in self._known_at
