"""What a watchtower confirms that it holds: a promise counts while its keeper confirms it.

A store can be deleted, or an older copy of it put back, and its tower starts with the same key and an honest face. So
a tower is asked when a session begins and again and again in it: it answers with the life of its store and digests of
what it holds (`protocol.tower_digest`). What they show to differ is listed, page by page, and delivered again. A tower
that does not know the question is brought everything once in each session: its receipts are the answer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final, Protocol

import structlog

from perund.tower.receipt_rows import KeptReceipt
from protocol.messages import FEATURE_STANDING, TowerInquiry, TowerList, TowerListRequest, TowerStanding
from protocol.tower_digest import BUCKETS, BucketSums, Entry, bucket_of, read_buckets, read_entries
from protocol.types import ChannelId, Nanos

__all__ = ["ASK_EVERY_S", "Keeper", "Standing"]

log = structlog.get_logger()

NS: Final = 1_000_000_000
ASK_EVERY_S: Final = 30
"""How often a tower is asked in a session: about half of the shortest challenge period that towers take."""
PATIENCE_S: Final = 45
"""A tower that has not answered for so long confirms nothing any more."""
MAX_PAGES: Final = 400
"""Pages of one bucket, 102,400 channels: more than any tower holds for a client."""


class Keeper(Protocol):
    """What following a tower's store needs of the node."""

    def chain_ns(self) -> Nanos:
        """Return the chain time."""
        ...

    def tower_life(self, tower: bytes) -> tuple[bytes, int] | None:
        """Return which life of its store a tower named last, and its writes."""
        ...

    def keep_tower_life(self, tower: bytes, life: bytes, writes: int) -> None:
        """Write down which life of its store a tower names."""
        ...

    def event(self, kind: str, channel: ChannelId | None, facts: dict[str, str | int | bool]) -> None:
        """Tell users."""
        ...


class Standing:
    """What one tower holds, as far as it has said, and how sure that is."""

    def __init__(self, tower: bytes, keeper: Keeper, receipts: dict[ChannelId, KeptReceipt], now_ns: int) -> None:
        """`tower`: its node key; `receipts`: the newest that it signed for each channel, by reference."""
        self.doubted_ns = now_ns
        """When, in local time, it was last unknown what the tower holds."""
        self._tower = tower
        self._keeper = keeper
        self._receipts = receipts
        self._held: dict[ChannelId, Entry] = {}
        self._sums = BucketSums()
        """Of what it should hold: also of channels that are not ours any more, after a list."""
        for channel, receipt in receipts.items():
            self._hold(Entry(channel, receipt.version, receipt.digest))
        self._sure: set[int] = set()
        """Buckets that it has confirmed in this session."""
        self._answered: set[ChannelId] = set()
        """Channels that it has signed a receipt for in this session."""
        self._able: bool | None = None  # None: no session
        self._store = ""
        self._open: int | None = None
        self._due_ns = self._asked_ns = 0
        self._to_list: list[int] = []
        self._listing: TowerListRequest | None = None
        self._listed: list[Entry] = []
        self._forgotten: set[ChannelId] = set()
        self._said = False

    # --- what is asked of it -----------------------------------------------------------------------------

    def confirms(self, channel: ChannelId, version: int, digest: bytes) -> bool:
        """Whether the tower has said in this session that it holds exactly this state."""
        return self._held.get(channel) == Entry(channel, version, digest) and self.is_sure(channel)

    def is_sure(self, channel: ChannelId) -> bool:
        """Whether the tower has said in this session what it holds of a channel."""
        return channel in self._answered or bucket_of(channel) in self._sure

    def is_asked(self, channel: ChannelId) -> bool:
        """Whether the tower is being asked what it holds of a channel."""
        return bool(self._able) and not self.is_sure(channel)

    @property
    def settled(self) -> bool:
        """Whether nothing is left to ask now: what it holds is known."""
        return self._open is None and self._listing is None and not self._to_list

    # --- sessions ----------------------------------------------------------------------------------------

    def session_began(self, features: int) -> bool:
        """The tower is there. Returns whether it can be asked: else everything is to be delivered again."""
        self._able = bool(features & FEATURE_STANDING)
        self._due_ns, self._said = 0, False
        return self._able

    def session_ended(self, now_ns: int) -> None:
        """Nothing is confirmed any more: who comes back may have forgotten."""
        if self._able is not None:
            self._able = None
            self._doubt_all(now_ns)

    def _doubt_all(self, now_ns: int) -> None:
        self.doubted_ns = now_ns
        self._sure.clear()
        self._answered.clear()
        self._open = self._listing = None
        self._to_list.clear()
        self._listed.clear()

    def _hold(self, entry: Entry) -> None:
        self._let_go(entry.channel)
        self._held[entry.channel] = entry
        self._sums.add(entry)

    def _let_go(self, channel: ChannelId) -> None:
        held = self._held.pop(channel, None)
        if held is not None:
            self._sums.remove(held)

    def promised(self, entry: Entry) -> None:
        """Take note of a receipt of this session."""
        self._hold(entry)
        self._answered.add(entry.channel)
        if entry.channel in self._forgotten and not self._said:
            # It took it again, so it was not settled: it had promised to hold this, and had forgotten.
            self._said = True
            facts: dict[str, str | int | bool] = {
                "tower": self._tower.hex(), "channels": len(self._forgotten), "store": self._store, "alarm": True,
            }  # fmt: skip
            self._keeper.event("tower.forgot", None, facts)
        self._forgotten.discard(entry.channel)

    def forget(self, channel: ChannelId) -> None:
        """A channel is closed."""
        self._let_go(channel)
        self._answered.discard(channel)
        self._forgotten.discard(channel)

    # --- asking ------------------------------------------------------------------------------------------

    def next(self, now_ns: int) -> TowerInquiry | TowerListRequest | None:
        """Return what to ask now, if anything."""
        if not self._able:
            return None
        if (self._open is not None or self._listing is not None) and now_ns - self._asked_ns >= PATIENCE_S * NS:
            self._doubt_all(now_ns)
            self._due_ns = now_ns
        if self._open is not None or self._listing is not None:
            return None
        if self._to_list:
            self._listed.clear()
            self._listing, self._asked_ns = TowerListRequest(self._to_list[0], b""), now_ns
            return self._listing
        if now_ns < self._due_ns:
            return None
        self._open = int.from_bytes(os.urandom(8), "big")
        self._asked_ns, self._due_ns = now_ns, now_ns + ASK_EVERY_S * NS
        return TowerInquiry(self._open)

    def received(self, message: TowerStanding | TowerList, now_ns: int) -> tuple[str | None, TowerListRequest | None]:
        """Take an answer. Returns why it is nonsense, if it is, and what to ask next at once."""
        if isinstance(message, TowerStanding):
            if message.nonce != self._open:
                # One that was given up comes late; what it says may be over.
                return None, None
            self._open = None
            self._stand(message, now_ns)
            return None, None
        asked = self._listing
        if asked is None or (message.bucket, message.after) != (asked.bucket, asked.after):
            return None, None
        return self._list(message, now_ns)

    def _stand(self, standing: TowerStanding, now_ns: int) -> None:
        known = self._keeper.tower_life(self._tower)
        if known is None or known[0] != standing.life:
            self._store = "another store" if known is not None else "the first one"
        elif standing.writes < known[1]:
            self._store = "an older copy"
        else:
            self._store = "the same store"
        if known != (standing.life, standing.writes):
            self._keeper.keep_tower_life(self._tower, standing.life, standing.writes)
        differing = self._sums.differing(read_buckets(standing.buckets))
        self._sure = set(range(BUCKETS)).difference(differing)
        self._answered = {channel for channel in self._answered if bucket_of(channel) in self._sure}
        self._to_list = differing
        if differing:
            self.doubted_ns = now_ns
            log.info("tower.differs", tower=self._tower.hex()[:16], buckets=len(differing), store=self._store)

    def _list(self, page: TowerList, now_ns: int) -> tuple[str | None, TowerListRequest | None]:
        entries = read_entries(page.bucket, page.after, page.entries)
        last = b"" if page.complete or not entries else entries[-1].channel
        self._compare(page, {entry.channel: entry for entry in entries}, last)
        self._listed += entries
        if not page.complete:
            if not entries or len(self._listed) > MAX_PAGES * 256:
                return "a list of what it holds has no end", None
            self._listing, self._asked_ns = TowerListRequest(page.bucket, last), now_ns
            return None, self._listing
        self._sums.reset(page.bucket, self._listed)
        self._sure.add(page.bucket)
        self._to_list.remove(page.bucket)
        self._listing = None
        self._listed.clear()
        return None, None

    def _compare(self, page: TowerList, theirs: dict[ChannelId, Entry], last: bytes) -> None:
        """Have `_held` say what a page says, and note what the tower had promised and has not."""
        chain_ns = self._keeper.chain_ns()
        known = self._held.keys() | self._receipts.keys()
        for channel in [c for c in known if bucket_of(c) == page.bucket and c > page.after and (not last or c <= last)]:
            entry, receipt = theirs.get(channel), self._receipts.get(channel)
            has = entry.version if entry is not None else -1
            if receipt is not None and has < receipt.version and chain_ns < receipt.expires_ns:
                self._forgotten.add(channel)
                if entry is not None and self._store == "the same store":
                    self._store = "an older copy"  # what is in a slot never becomes older by itself
            if entry is not None:
                self._held[channel] = entry
            else:
                self._held.pop(channel, None)

    def doubtful(self, channels: Iterator[ChannelId]) -> int:
        """Return of how many of these channels the tower has not said in this session that it holds them."""
        return sum(not self.is_sure(channel) or channel not in self._held for channel in channels)
