"""Places for channels that a peer proposed and nobody has paid into yet. They are few, and held for minutes.

A key costs nothing and a proposal costs nothing, so what is promised to peers without money is bounded by key, by
address and in all. A place is given up long before the promise: what we accepted or signed is kept until its funding
deadline, and is looked at more rarely. Only when promises without a place become too many, the oldest are given up.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Final

from perund.config import Policy
from protocol.types import ChannelId

__all__ = ["LookBudget", "Places"]

SIGN_S: Final = 30.0
"""For the proposer's signature on state 0, which an honest one sends at once."""
UNSIGNED_PER_PEER: Final = 2
"""Proposals of one key that it may not have signed: an honest one signs before it proposes a third."""
SHUFFLE_S: Final = 5.0
"""When nobody has more than the newcomer would, one place is given up by chance, so often at most."""
PROMISES: Final = 10
"""So many times the number of places may wait without one."""
KNOWN_AT_ONCE: Final = 20
"""Channels that a peer with money in another one may have unfunded. They take no place of anybody."""
LOOKS_PER_S: Final = 5.0
"""At holdings of channels that wait for a peer's money, in all."""


@dataclass(slots=True)
class _Entry:
    peer: bytes
    origin: str
    since_s: float
    known: bool
    """Whether the peer had money here when it proposed."""
    channel: ChannelId | None = None
    """Set when state 0 is signed."""
    placed: bool = True


class Places:
    """Who has which place, by proposal id. Times are local seconds of a clock that does not step."""

    def __init__(self, policy: Policy, rng: random.Random | None = None) -> None:
        self._policy = policy
        self._rng = rng or random.Random()  # noqa: S311  (it chooses who gives way)
        self._entries: dict[bytes, _Entry] = {}
        self._of_channel: dict[ChannelId, bytes] = {}
        self._shuffled_s = float("-inf")

    def __len__(self) -> int:
        """How many promises there are, with a place or without."""
        return len(self._entries)

    def of(self, peer: bytes) -> int:
        """Return how many promises a peer has, with a place or without."""
        return sum(entry.peer == peer for entry in self._entries.values())

    def has_place(self, channel: ChannelId) -> bool:
        """Whether a channel is looked at often. One that is none of ours to count always is."""
        proposal_id = self._of_channel.get(channel)
        return proposal_id is None or self._entries[proposal_id].placed

    def ask(self, peer: bytes, origin: str, now_s: float, *, known: bool) -> bool:
        """Return whether one more proposal of this peer can be accepted; somebody may lose a place for it."""
        self._lapse(now_s)
        mine = [entry for entry in self._entries.values() if entry.peer == peer and entry.placed]
        if sum(entry.channel is None for entry in mine) >= UNSIGNED_PER_PEER:
            return False
        if known:
            return sum(entry.known for entry in mine) < KNOWN_AT_ONCE
        policy = self._policy
        placed = [entry for entry in self._entries.values() if entry.placed and not entry.known]
        keys = Counter(entry.peer for entry in placed)
        origins = Counter(entry.origin for entry in placed)
        if keys[peer] >= policy.max_unfunded_per_peer:
            return False
        here = [entry for entry in placed if entry.origin == origin]
        if len(here) >= policy.max_unfunded_per_address:
            return self._displace(here, keys, peer, now_s)
        if len(placed) < policy.max_unfunded:
            return True
        if not placed:
            return False  # the policy has no place for anybody
        most = max(origins.values())
        if most > origins[origin] + 1:
            fullest = self._rng.choice([place for place, count in origins.items() if count == most])
            crowd = [entry for entry in placed if entry.origin == fullest]
            self._give_up(max(crowd, key=lambda entry: (keys[entry.peer], self._rng.random())))
            return True
        return self._displace(placed, keys, peer, now_s)

    def _displace(self, crowd: list[_Entry], keys: Counter[bytes], peer: bytes, now_s: float) -> bool:
        """Take the place of a key that has more than this one would have; else of any, now and then."""
        most = max((entry for entry in crowd), key=lambda entry: (keys[entry.peer], self._rng.random()), default=None)
        if most is not None and keys[most.peer] > keys[peer] + 1:
            self._give_up(most)
            return True
        if most is None or now_s - self._shuffled_s < SHUFFLE_S:
            return False
        self._shuffled_s = now_s
        self._give_up(self._rng.choice(crowd))
        return True

    def _give_up(self, entry: _Entry) -> None:
        entry.placed = False

    def _lapse(self, now_s: float) -> None:
        for entry in self._entries.values():
            if entry.placed and now_s - entry.since_s >= self._patience_s(entry):
                self._give_up(entry)

    def _patience_s(self, entry: _Entry) -> float:
        return SIGN_S if entry.channel is None else self._policy.unfunded_place_s

    def add(self, proposal_id: bytes, peer: bytes, origin: str, now_s: float, *, known: bool) -> None:
        """Take note of an accepted proposal."""
        self._entries[proposal_id] = _Entry(peer, origin, now_s, known)

    def signed(self, proposal_id: bytes, channel: ChannelId, now_s: float) -> None:
        """Take note that state 0 of an accepted proposal is signed. One that had lost its place has none now."""
        entry = self._entries.get(proposal_id)
        if entry is not None:
            entry.channel, entry.since_s = channel, now_s
            self._of_channel[channel] = proposal_id

    def end(self, proposal_id: bytes) -> None:
        """Take note that nothing came of a proposal, or that there is money. Does nothing for one not counted."""
        entry = self._entries.pop(proposal_id, None)
        if entry is not None and entry.channel is not None:
            del self._of_channel[entry.channel]

    def overdue(self, now_s: float) -> list[tuple[bytes, ChannelId | None]]:
        """Return what is to be given up, because too many promises wait without a place: the oldest of the
        address that has most. They are forgotten here.
        """
        self._lapse(now_s)
        gone: list[tuple[bytes, ChannelId | None]] = []
        waiting = {key: entry for key, entry in self._entries.items() if not entry.placed}
        while len(waiting) > PROMISES * max(1, self._policy.max_unfunded):
            fullest = Counter(entry.origin for entry in waiting.values()).most_common(1)[0][0]
            oldest = min(
                (key for key, entry in waiting.items() if entry.origin == fullest),
                key=lambda key: waiting[key].since_s,
            )
            gone.append((oldest, waiting.pop(oldest).channel))
            self.end(oldest)
        return gone


class LookBudget:
    """How many looks at holdings all channels that wait for a peer's money may have together."""

    def __init__(self, per_s: float = LOOKS_PER_S) -> None:
        self._per_s = per_s
        self._left = per_s
        self._at_s = float("-inf")

    def take(self, now_s: float) -> bool:
        """Whether one more look may be made now."""
        self._left = min(self._per_s, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True
