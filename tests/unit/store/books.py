"""A store on a disk, with one channel in it, and what a restart would find there."""

from __future__ import annotations

import shutil
from pathlib import Path

from perund.store.errors import StorageFailed
from perund.store.jobs import insert_channel
from perund.store.reading import Reader, open_reader
from perund.store.rows import ChannelRow
from perund.store.store import Store
from protocol.effects import SignatureRecord
from protocol.opening import Opened
from protocol.payments import Batch, Payment
from protocol.signing import ChannelKey
from protocol.terms import Terms
from protocol.types import ChannelId, Nanos, Params, ParticipantIndex, SignedState, State

NETWORK = b"\x11" * 32
PEER = b"\x02" + b"\x22" * 32
KEYS = (ChannelKey(b"\x01" * 32), ChannelKey(b"\x02" * 32))
FORCE_AFTER_NS = 600 * 10**9


def terms_of(seed: int = 0, ours: ParticipantIndex = 0, peer: bytes = PEER) -> Terms:
    """Terms of a channel of 1000 and 500 e8s; each seed gives another channel."""
    mark = seed.to_bytes(4, "big")
    params = Params(mark * 16, (KEYS[0].public, KEYS[1].public), Nanos(60 * 10**9))
    return Terms(mark * 8, peer, ours, params, (1000, 500), Nanos(2 * 10**18), b"\x33" * 32, b"\x44" * 32)


def signed(channel: ChannelId, version: int, mine: int, theirs: int, *, finalized: bool = False) -> SignedState:
    state = State(channel, version, (mine, theirs), finalized)
    return SignedState(state, (KEYS[0].sign_state(state), KEYS[1].sign_state(state)))


def opened(terms: Terms) -> Opened:
    return Opened(terms, signed(terms.channel, 0, *terms.allocation), None)


def payment(number: int, amount_e8s: int = 5, memo: bytes = b"") -> Payment:
    return Payment(number.to_bytes(16, "big"), amount_e8s, memo)


def batch(*numbers: int, memo: bytes = b"") -> Batch:
    return Batch.of([payment(number, 10 + number, memo) for number in numbers])


def signature_of(state: State) -> SignatureRecord:
    return SignatureRecord(state.channel, state.version, state.digest, state.finalized)


class Books:
    """A store and its failures. `reopen` is a restart, `as_after_a_power_cut` what one would find on the disk now."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "perund.db"
        self.failures: list[StorageFailed] = []
        self.store = Store(self.path, NETWORK, self.failures.append)
        self.copies = 0

    async def add(self, terms: Terms, number: int = 1) -> Terms:
        self.store.name(terms.channel, number)
        await self.store.write(insert_channel(opened(terms), number, NETWORK, Nanos(7), FORCE_AFTER_NS))
        return terms

    def row(self, number: int = 1) -> ChannelRow:
        found = self.store.read.channel(number)
        assert found is not None
        return found

    def reopen(self) -> None:
        self.store.close()
        self.store.read._database.close()
        self.store = Store(self.path, NETWORK, self.failures.append)

    def as_after_a_power_cut(self) -> Reader:
        """Copy database and log as they are on the disk at this moment, and read the copy."""
        self.copies += 1
        copy = self.directory / f"copy-{self.copies}"
        copy.mkdir()
        for name in ("perund.db", "perund.db-wal"):
            if (self.directory / name).exists():
                shutil.copy(self.directory / name, copy / name)
        return open_reader(copy / "perund.db")

    def status(self, number: int, sender: ParticipantIndex = 0, channel: int = 1) -> str:
        row = self.store.read.payment(channel, sender, payment(number).id)
        return row.status if row is not None else "absent"
