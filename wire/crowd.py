"""The sessions of strangers: counted by address, and who of them gives way."""

from __future__ import annotations

import random
from collections import Counter

__all__ = ["Crowd"]


class Crowd:
    """Node keys with the addresses that they came from. Which of them are strangers, the network decides."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._origins: dict[bytes, str] = {}
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._origins)

    def __contains__(self, peer: bytes) -> bool:
        return peer in self._origins

    def peers(self) -> tuple[bytes, ...]:
        """Return everybody."""
        return tuple(self._origins)

    def add(self, peer: bytes, origin: str) -> None:
        """Count one more; once is enough."""
        self.remove(peer)
        self._origins[peer] = origin
        self._counts[origin] += 1

    def remove(self, peer: bytes) -> None:
        """Count one less, if it is counted."""
        origin = self._origins.pop(peer, None)
        if origin is not None:
            self._counts[origin] -= 1
            if not self._counts[origin]:
                del self._counts[origin]

    def count(self, origin: str) -> int:
        """Return how many came from an address."""
        return self._counts[origin]

    def one_of(self, origin: str) -> bytes:
        """Return one of those from an address, by chance."""
        return self._rng.choice([peer for peer, found in self._origins.items() if found == origin])

    def one_of_the_fullest(self) -> bytes:
        """Return one of those from the address that has most, by chance."""
        most = max(self._counts.values())
        return self.one_of(self._rng.choice([origin for origin, count in self._counts.items() if count == most]))
