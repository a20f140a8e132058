"""What a backup file has in it: rows of a few kinds, gathered into one `Backup`.

A part is the content of one sealed record: a kind and its rows. Parts add up, the newer over the older, so that the
file can be appended to. Rows are read one by one: what is wrong with one of them is said, and the rest is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Literal, Self, TypeVar

import msgspec
from msgspec import Meta

from protocol.opening import Opened
from protocol.terms import Terms
from protocol.types import MAX_INT64, Nanos, Params, ParticipantKey, SignedState
from wire.address import MOST_PROVEN, Address, BadAddress

__all__ = [
    "About", "Backup", "Gathering", "SavedChannel", "SavedPeer", "about_part", "channel_part", "closed_part",
    "half_open_part", "parts_of", "peer_part", "rows_part",
]  # fmt: skip

ROWS_OF_A_PART: Final = 256

Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Bytes33 = Annotated[bytes, Meta(min_length=33, max_length=33)]
Bytes64 = Annotated[bytes, Meta(min_length=64, max_length=64)]
Natural = Annotated[int, Meta(ge=0, le=MAX_INT64)]
"""What a column of the store holds: a larger number could not be taken up."""
HalfOpen = tuple[Bytes33, Bytes32]
Row = TypeVar("Row")


class SavedChannel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A channel that can be found again: its terms and its signed state 0."""

    proposal_id: Bytes32
    peer: Bytes33
    our_index: Literal[0, 1]
    nonce: Bytes64
    participants: tuple[Bytes32, Bytes32]
    challenge_ns: Natural
    allocation: tuple[Natural, Natural]
    deadline_ns: Natural
    our_share: Bytes32
    peer_share: Bytes32
    signatures: tuple[Bytes64, Bytes64]
    opened_ns: Natural

    @classmethod
    def of(cls, terms: Terms, signatures: tuple[bytes, bytes], opened_ns: int) -> Self:
        """Return what is saved of a channel with these signatures on its state 0."""
        return cls(
            proposal_id=terms.proposal_id,
            peer=terms.peer,
            our_index=terms.our_index,
            nonce=terms.params.nonce,
            participants=terms.params.participants,
            challenge_ns=terms.params.challenge_duration_ns,
            allocation=terms.allocation,
            deadline_ns=terms.funding_deadline_ns,
            our_share=terms.our_share,
            peer_share=terms.peer_share,
            signatures=signatures,
            opened_ns=opened_ns,
        )

    @classmethod
    def of_row(cls, row: tuple[Any, ...]) -> Self:
        """Return what is saved of a row of the store: not looked at yet, a row may be damaged."""
        proposal, peer, index, nonce, key_0, key_1, challenge, e8s_0, e8s_1, deadline, ours, theirs, *rest = row
        signature_0, signature_1, opened = rest
        return cls(
            proposal, peer, index, nonce, (key_0, key_1), challenge, (e8s_0, e8s_1), deadline, ours, theirs,
            (signature_0, signature_1), opened,
        )  # fmt: skip

    def opened(self) -> Opened:
        """Return it as the opening left it. Raises `Undecodable`."""
        params = Params(
            self.nonce,
            (ParticipantKey(self.participants[0]), ParticipantKey(self.participants[1])),
            Nanos(self.challenge_ns),
        )
        terms = Terms(
            self.proposal_id, self.peer, self.our_index, params, self.allocation, Nanos(self.deadline_ns),
            self.our_share, self.peer_share,
        )  # fmt: skip
        return Opened(terms, SignedState(terms.state_0(), self.signatures), None)


class SavedPeer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a peer proved to be: an `Address`, in every backup that is read. Of one peer's the last one is the newest:
    a `perund` of before takes that one alone.
    """

    peer: Bytes33
    host: str
    port: int

    def __post_init__(self) -> None:
        try:
            Address(self.host, self.port)
        except BadAddress as error:
            raise ValueError(str(error)) from error

    @property
    def place(self) -> Address:
        """Where it was."""
        return Address(self.host, self.port)


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose file it is. `made_ms`: when it was written as a whole, by the local clock; `config`: perund.toml."""

    node_id: Annotated[str, Meta(pattern="^[0-9a-f]{66}$")]
    network: Bytes32
    made_ms: Natural
    config: str


class Backup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything in the file. `half_open`: shares of openings that we signed and the peer may have completed.

    `faults`: what is wrong with the file and was left out, for people. `torn`: its last record is incomplete, as a
    crash in the middle of an append leaves it; nothing hung on that record yet.
    """

    node_id: str
    network: bytes
    made_ms: int
    config: str
    channels: list[SavedChannel]
    peers: list[SavedPeer]
    half_open: list[HalfOpen]
    faults: list[str] = msgspec.field(default_factory=list)
    torn: bool = False


class _Version1(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a file of the first format: one record. Its rows are read one by one here too."""

    node_id: str
    network: Bytes32
    made_ms: Natural
    config: str
    channels: list[msgspec.Raw]
    peers: list[msgspec.Raw]
    half_open: list[msgspec.Raw]


_ENCODER: Final = msgspec.msgpack.Encoder()
_PART: Final = msgspec.msgpack.Decoder(tuple[str, list[msgspec.Raw]])
_ABOUT: Final = msgspec.msgpack.Decoder(About)
_CHANNEL: Final = msgspec.msgpack.Decoder(SavedChannel)
_PEER: Final = msgspec.msgpack.Decoder(SavedPeer)
_HALF_OPEN: Final = msgspec.msgpack.Decoder(HalfOpen)
_CLOSED: Final = msgspec.msgpack.Decoder(Bytes32)
_VERSION_1: Final = msgspec.msgpack.Decoder(_Version1)


class Gathering:
    """Adds parts up. `whole`: whether the part that ends a file as it was written at once has been seen."""

    def __init__(self) -> None:
        self.about: About | None = None
        self.whole = False
        self.faults: list[str] = []
        self._channels: dict[bytes, SavedChannel] = {}
        self._peers: dict[bytes, dict[Address, SavedPeer]] = {}
        self._half_open: dict[HalfOpen, None] = {}

    def take(self, part: bytes) -> None:
        """Add a part. What cannot be read of it is in `faults`."""
        try:
            kind, rows = _PART.decode(part)
        except msgspec.MsgspecError as error:
            self.faults.append(f"a record of the backup is of no form that this perund knows ({error})")
            return
        match kind:
            case "about" | "end":
                self.whole = self.whole or kind == "end"
                for about in self._rows(rows, _ABOUT, "description"):
                    self.about = about
            case "channels":
                self._take_channels(rows)
            case "closed":
                for proposal_id in self._rows(rows, _CLOSED, "closed channel"):
                    self._channels.pop(proposal_id, None)
            case "peers":
                self._take_peers(rows)
            case "half_open":
                self._half_open.update(dict.fromkeys(self._rows(rows, _HALF_OPEN, "opening")))
            case _:
                self.faults.append(f"a record of kind {ascii(kind)[:40]} is not known to this perund: use a newer one")

    def take_version_1(self, content: bytes) -> None:
        """Add the content of a file of the first format. Raises `msgspec.MsgspecError`."""
        found = _VERSION_1.decode(content)
        self.whole = True
        self.about = About(found.node_id, found.network, found.made_ms, found.config)
        self._take_channels(found.channels)
        self._take_peers(found.peers)
        self._half_open.update(dict.fromkeys(self._rows(found.half_open, _HALF_OPEN, "opening")))

    def _take_channels(self, rows: Sequence[msgspec.Raw]) -> None:
        for row in self._rows(rows, _CHANNEL, "channel"):
            self._channels[row.proposal_id] = row

    def _take_peers(self, rows: Sequence[msgspec.Raw]) -> None:
        for row in self._rows(rows, _PEER, "address of a peer"):
            places = self._peers.setdefault(row.peer, {})
            places.pop(row.place, None)
            places[row.place] = row
            if len(places) > MOST_PROVEN:
                del places[next(iter(places))]

    def _rows(self, rows: Sequence[msgspec.Raw], decoder: msgspec.msgpack.Decoder[Row], what: str) -> Iterable[Row]:
        for row in rows:
            try:
                found = decoder.decode(row)
            except (msgspec.MsgspecError, ValueError) as error:
                self.faults.append(f"a row in the backup is no {what}: {error}")
            else:
                yield found

    def backup(self, *, torn: bool = False) -> Backup | None:
        """Return everything that was taken, or None when nothing says whose it is."""
        if self.about is None:
            return None
        opened = {row.our_share for row in self._channels.values()}
        return Backup(
            node_id=self.about.node_id,
            network=self.about.network,
            made_ms=self.about.made_ms,
            config=self.about.config,
            channels=list(self._channels.values()),
            peers=[row for places in self._peers.values() for row in places.values()],
            half_open=[row for row in self._half_open if row[1] not in opened],
            faults=self.faults,
            torn=torn,
        )


def rows_part(kind: str, rows: Sequence[object]) -> bytes:
    """Return the part of these rows."""
    return _ENCODER.encode((kind, rows))


def channel_part(terms: Terms, signatures: tuple[bytes, bytes], opened_ns: int) -> bytes:
    """Return the part that adds a channel."""
    return rows_part("channels", (SavedChannel.of(terms, signatures, opened_ns),))


def closed_part(proposal_id: bytes) -> bytes:
    """Return the part that takes a channel out, whose money is here."""
    return rows_part("closed", (proposal_id,))


def half_open_part(peer: bytes, our_share: bytes) -> bytes:
    """Return the part that adds an opening in which we sign state 0."""
    return rows_part("half_open", ((peer, our_share),))


def peer_part(peer: bytes, place: Address) -> bytes:
    """Return the part that says where a peer is."""
    return rows_part("peers", (SavedPeer(peer, place.host, place.port),))


def about_part(kind: Literal["about", "end"], backup: Backup) -> bytes:
    """Return the part that says whose file it is; it stands at the begin and at the end of what is written at once."""
    return rows_part(kind, (About(backup.node_id, backup.network, backup.made_ms, backup.config),))


def parts_of(backup: Backup) -> Iterable[bytes]:
    """Yield everything in a backup, as the parts of a new file."""
    yield about_part("about", backup)
    of_kinds: tuple[tuple[str, Sequence[object]], ...] = (
        ("channels", backup.channels), ("peers", backup.peers), ("half_open", backup.half_open),
    )  # fmt: skip
    for kind, rows in of_kinds:
        for start in range(0, len(rows), ROWS_OF_A_PART):
            yield rows_part(kind, rows[start : start + ROWS_OF_A_PART])
    yield about_part("end", backup)
