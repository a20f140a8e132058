"""What a watchtower holds for a client, as 256 digests: cheap to keep on both sides, and to compare.

A channel belongs to the bucket of the first byte of its id. The digest of a bucket is the sum, modulo 2^256, of the
hashes of its entries: one that comes, changes or goes costs one hash, however many there are. It tells forgetting
apart, not lying: a tower that wants to lie about what it holds can do that with any digest.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Final, NamedTuple

from protocol.errors import Undecodable
from protocol.types import ChannelId

__all__ = [
    "BUCKETS",
    "DIGEST_BYTES",
    "ENTRY_BYTES",
    "PAGE",
    "BucketSums",
    "Entry",
    "bucket_of",
    "read_buckets",
    "read_entries",
    "write_entries",
]

BUCKETS: Final = 256
DIGEST_BYTES: Final = 32
ENTRY_BYTES: Final = 64 + 8 + 32
PAGE: Final = 256
"""Entries in one `TowerList`: 26,624 bytes, which fit a frame."""
MODULUS: Final = 2**256
TAG: Final = b"perund-tower-entry/1"


class Entry(NamedTuple):
    """A state in a slot: what is known of it without having it."""

    channel: ChannelId
    version: int
    digest: bytes
    """32 bytes, of the state."""

    @property
    def encoded(self) -> bytes:
        """104 bytes: channel id, version (big endian), digest."""
        return self.channel + self.version.to_bytes(8, "big") + self.digest


def bucket_of(channel: ChannelId) -> int:
    """Return the bucket of a channel."""
    return channel[0]


class BucketSums:
    """The digests of what is held, kept up to date entry by entry."""

    __slots__ = ("_sums", "count")

    def __init__(self) -> None:
        self._sums: dict[int, int] = {}
        self.count = 0
        """How many entries there are."""

    def add(self, entry: Entry) -> None:
        """Take an entry up."""
        self._change(bucket_of(entry.channel), _hash(entry))
        self.count += 1

    def remove(self, entry: Entry) -> None:
        """Let go of an entry that was added."""
        self._change(bucket_of(entry.channel), -_hash(entry))
        self.count -= 1

    def reset(self, bucket: int, entries: Iterable[Entry]) -> None:
        """Have a bucket hold exactly these entries. `count` is not kept."""
        total = sum(_hash(entry) for entry in entries) % MODULUS
        self._change(bucket, total - self._sums.get(bucket, 0))

    def _change(self, bucket: int, by: int) -> None:
        value = (self._sums.get(bucket, 0) + by) % MODULUS
        if value:
            self._sums[bucket] = value
        else:
            self._sums.pop(bucket, None)

    @property
    def encoded(self) -> bytes:
        """33 bytes for each bucket that is not empty: its number and its digest."""
        return b"".join(bytes((b,)) + self._sums[b].to_bytes(DIGEST_BYTES, "big") for b in sorted(self._sums))

    def differing(self, theirs: dict[int, int]) -> list[int]:
        """Return the buckets whose digests differ from these."""
        return [b for b in range(BUCKETS) if self._sums.get(b, 0) != theirs.get(b, 0)]


def _hash(entry: Entry) -> int:
    return int.from_bytes(sha256(TAG + entry.encoded).digest(), "big")


def read_buckets(encoded: bytes) -> dict[int, int]:
    """Return the digests of `BucketSums.encoded`. Raises `Undecodable`."""
    size = 1 + DIGEST_BYTES
    if len(encoded) % size:
        raise Undecodable(f"{len(encoded)} bytes of digests; each has {size}")
    found = {
        encoded[start]: int.from_bytes(encoded[start + 1 : start + size], "big")
        for start in range(0, len(encoded), size)
    }
    if list(found) != sorted(encoded[::size]) or len(found) * size != len(encoded) or not all(found.values()):
        raise Undecodable("the digests do not rise by bucket, or one is empty")
    return found


def write_entries(entries: Iterable[Entry]) -> bytes:
    """Return entries as a `TowerList` has them."""
    return b"".join(entry.encoded for entry in entries)


def read_entries(bucket: int, after: bytes, encoded: bytes) -> list[Entry]:
    """Return the entries of a `TowerList`. Raises `Undecodable`: they do not rise, or are of another bucket."""
    if len(encoded) % ENTRY_BYTES:
        raise Undecodable(f"{len(encoded)} bytes of entries; each has {ENTRY_BYTES}")
    found, last = [], after
    for start in range(0, len(encoded), ENTRY_BYTES):
        part = encoded[start : start + ENTRY_BYTES]
        entry = Entry(ChannelId(part[:64]), int.from_bytes(part[64:72], "big"), part[72:])
        if bucket_of(entry.channel) != bucket or entry.channel <= last:
            raise Undecodable(f"the entries do not rise, or are not of bucket {bucket}")
        found.append(entry)
        last = entry.channel
    return found
