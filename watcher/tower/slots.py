"""The slots of a watchtower: one for each channel of each client, counted so that room can be decided about.

Only what decisions need is in memory, some hundred bytes for each; states are in the books.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from protocol.tower_digest import PAGE, BucketSums, Entry, bucket_of
from protocol.types import ChannelId, Nanos

__all__ = ["Guarded", "Slot", "Slots"]


@dataclass(slots=True)
class Slot:
    """What a client was promised for a channel. Times are chain times."""

    client: bytes
    """33 bytes, its node key."""
    channel: ChannelId
    version: int
    digest: bytes
    """32 bytes, of the state."""
    since_ns: Nanos
    lapses_ns: Nanos
    """When it goes unless it is proven."""
    expires_ns: Nanos
    """Until when the newest receipt holds."""
    proven: bool = False
    """Whether the channel's money speaks for it."""
    told: bool = False
    """Whether its client is told that it is held: not of a settled channel, which nobody guards any more."""

    @property
    def entry(self) -> Entry:
        """What its client is told."""
        return Entry(self.channel, self.version, self.digest)


@dataclass(slots=True)
class Guarded:
    """A channel that has slots."""

    channel: ChannelId
    challenge_ns: Nanos
    slots: dict[bytes, Slot] = field(default_factory=dict)
    """By client, in the order in which they came."""
    settled_ns: Nanos | None = None
    registered: int | None = None
    """The version that the newest look showed registered."""
    alarms: dict[str, int] = field(default_factory=dict)
    """How often there was a reason for each kind of alarm, in this run."""

    @property
    def proven(self) -> bool:
        """Whether its money was seen: then it is watched."""
        return any(slot.proven for slot in self.slots.values())

    @property
    def version(self) -> int:
        """The newest version over all clients."""
        return max(slot.version for slot in self.slots.values())


@dataclass(slots=True)
class _Client:
    origin: str
    """Where it came from with its first slot."""
    slots: int = 0
    proven: int = 0
    sums: BucketSums = field(default_factory=BucketSums)
    buckets: dict[int, list[ChannelId]] = field(default_factory=dict)
    """Channels that it is told of, rising, by the bucket of `protocol.tower_digest`."""


class Slots:
    """All slots. Who changes one in a way that is counted does it here."""

    def __init__(self) -> None:
        self.channels: dict[ChannelId, Guarded] = {}
        self._clients: dict[bytes, _Client] = {}
        self.total = 0
        self.of_strangers = 0
        """Slots of clients that have no proven one."""
        self._strangers_at: Counter[str] = Counter()
        self.known_clients = 0
        """How many clients have a proven one."""

    def __iter__(self) -> Iterator[Slot]:
        for guarded in self.channels.values():
            yield from guarded.slots.values()

    @property
    def clients(self) -> int:
        """How many clients have slots."""
        return len(self._clients)

    def get(self, client: bytes, channel: ChannelId) -> Slot | None:
        """Return a client's slot for a channel."""
        guarded = self.channels.get(channel)
        return guarded.slots.get(client) if guarded is not None else None

    def count(self, client: bytes) -> int:
        """Return how many slots a client has."""
        counted = self._clients.get(client)
        return counted.slots if counted is not None else 0

    def unproven(self, client: bytes) -> int:
        """Return how many slots of a client are not proven."""
        counted = self._clients.get(client)
        return counted.slots - counted.proven if counted is not None else 0

    def is_known(self, client: bytes) -> bool:
        """Whether a client has shown money."""
        counted = self._clients.get(client)
        return counted is not None and counted.proven > 0

    def of_strangers_at(self, origin: str) -> int:
        """Return how many slots strangers from an address have."""
        return self._strangers_at[origin]

    def add(self, slot: Slot, challenge_ns: Nanos, origin: str = "") -> Guarded:
        """Take a new slot up; return its channel. `origin`: the address that its client came from; empty: unknown."""
        guarded = self.channels.get(slot.channel)
        if guarded is None:
            guarded = self.channels[slot.channel] = Guarded(slot.channel, challenge_ns)
        guarded.slots[slot.client] = slot
        self._count(slot.client, slots=1, proven=int(slot.proven), origin=origin)
        return guarded

    def prove(self, slot: Slot) -> None:
        """Note that the channel's money speaks for a slot."""
        if not slot.proven:
            slot.proven = True
            self._count(slot.client, slots=0, proven=1)

    def hold(self, slot: Slot, version: int, digest: bytes) -> None:
        """Have a slot, which was added, hold this state: its client is told of it."""
        self.hide(slot)
        slot.version, slot.digest, slot.told = version, digest, True
        counted = self._clients[slot.client]
        counted.sums.add(slot.entry)
        insort(counted.buckets.setdefault(bucket_of(slot.channel), []), slot.channel)

    def hide(self, slot: Slot) -> None:
        """Tell a client of a slot no more: it is settled, or about to go."""
        if not slot.told:
            return
        counted = self._clients[slot.client]
        counted.sums.remove(slot.entry)
        bucket = bucket_of(slot.channel)
        channels = counted.buckets[bucket]
        del channels[bisect_right(channels, slot.channel) - 1]
        if not channels:
            del counted.buckets[bucket]
        slot.told = False

    def standing(self, client: bytes) -> tuple[int, bytes]:
        """Return how many channels are held for a client, and the digests of them."""
        counted = self._clients.get(client)
        return (counted.sums.count, counted.sums.encoded) if counted is not None else (0, b"")

    def listed(self, client: bytes, bucket: int, after: bytes) -> tuple[list[Entry], bool]:
        """Return a page of what a client has in a bucket, above a channel id, and whether it is the last one."""
        counted = self._clients.get(client)
        channels = counted.buckets.get(bucket, []) if counted is not None else []
        start = bisect_right(channels, after)
        page = channels[start : start + PAGE]
        return [self.channels[channel].slots[client].entry for channel in page], start + PAGE >= len(channels)

    def remove(self, slot: Slot) -> None:
        """Forget a slot, and its channel with the last one."""
        self.hide(slot)
        guarded = self.channels[slot.channel]
        del guarded.slots[slot.client]
        if not guarded.slots:
            del self.channels[slot.channel]
        self._count(slot.client, slots=-1, proven=-int(slot.proven))

    def _count(self, client: bytes, *, slots: int, proven: int, origin: str = "") -> None:
        counted = self._clients.setdefault(client, _Client(origin or client.hex()))
        if counted.proven == 0:
            self.of_strangers -= counted.slots
            self._strangers_at[counted.origin] -= counted.slots
            if not self._strangers_at[counted.origin]:
                del self._strangers_at[counted.origin]
        else:
            self.known_clients -= 1
        counted.slots += slots
        counted.proven += proven
        self.total += slots
        if counted.proven == 0:
            self.of_strangers += counted.slots
            if counted.slots:
                self._strangers_at[counted.origin] += counted.slots
        else:
            self.known_clients += 1
        if counted.slots == 0:
            del self._clients[client]
