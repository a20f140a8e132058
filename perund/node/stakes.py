"""Who has money here: what certified looks showed the canister to hold for each channel.

A key and a signed channel cost nothing; holdings do. So a peer is known for what is held in its channels, and is
known again after a restart before the first look: what a look showed is durable.
"""

from __future__ import annotations

from collections.abc import Callable

from perund.store.jobs import record_held
from perund.store.store import Store
from protocol.terms import Terms
from protocol.types import ChannelId

__all__ = ["Stakes"]


class Stakes:
    """Holdings by channel and by peer, of channels that are not closed. Amounts in e8s.

    Dust is no money: a channel counts from the smallest total that a peer may propose, or from all that it was
    agreed to hold if that is less.
    """

    def __init__(self, store: Store, least_e8s: int, changed: Callable[[Terms], None]) -> None:
        """`least_e8s`: what the policy wants in a channel; `changed`: told when a channel begins or ceases to count."""
        self._store = store
        self._least_e8s = least_e8s
        self._changed = changed
        self._held: dict[ChannelId, tuple[int, int]] = {}
        self._counted: dict[bytes, dict[ChannelId, int]] = {}
        self._channels = 0

    @property
    def channels(self) -> int:
        """How many channels have money."""
        return self._channels

    def channels_with(self, peer: bytes) -> int:
        """Return how many channels with a peer have money."""
        return len(self._counted.get(peer, ()))

    def of(self, peer: bytes) -> int:
        """Return what the channels with a peer hold, both sides together: what would be lost with it."""
        return sum(self._counted.get(peer, {}).values())

    def has_money(self, terms: Terms) -> bool:
        """Whether a channel counts."""
        return terms.channel in self._counted.get(terms.peer, ())

    def take_up(self, terms: Terms, held: tuple[int, int]) -> None:
        """Take up what the store remembers of a channel."""
        self._held[terms.channel] = held
        self._count(terms, sum(held))

    def seen(self, terms: Terms, number: int, held: tuple[int, int]) -> None:
        """Take what a certified look shows of participants 0 and 1. Durable when it is news. `number`: the row."""
        if self._held.get(terms.channel, (0, 0)) == held:
            return
        self._held[terms.channel] = held
        self._store.commit((record_held(number, held),))
        self._count(terms, sum(held))

    def forget(self, terms: Terms) -> None:
        """Let go of a channel that is closed."""
        self._held.pop(terms.channel, None)
        self._count(terms, 0)

    def _count(self, terms: Terms, held_e8s: int) -> None:
        counted = self._counted.get(terms.peer, {})
        before = terms.channel in counted
        after = held_e8s >= max(1, min(terms.total, self._least_e8s))
        if after:
            self._counted.setdefault(terms.peer, {})[terms.channel] = held_e8s
        elif before:
            del counted[terms.channel]
            if not counted:
                del self._counted[terms.peer]
        if before != after:
            self._channels += 1 if after else -1
            self._changed(terms)
