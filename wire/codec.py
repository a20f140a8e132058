"""The bytes of every message: one MessagePack array, `[type, ...fields]`, with every bound checked.

The bounds are part of the decoders' types, so a value out of bounds is refused before it is built: a declared
length of 2^32 costs nothing, nesting is as deep as the type and no deeper, and there are no extension types,
floats, maps or unknown fields anywhere (docs/adr/0001-typed-messagepack.md). docs/protocol.md has the table.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Annotated, Final, Literal, cast

import msgpack
from msgspec import Meta, MsgspecError
from msgspec.msgpack import Decoder

from protocol import messages as m
from protocol.errors import InvariantBroken, Undecodable
from protocol.limits import MAX_MEMO_BYTES
from protocol.payments import PAYMENT_ID_BYTES, Batch, Payment
from protocol.tower_digest import BUCKETS, DIGEST_BYTES, ENTRY_BYTES, PAGE, read_buckets, read_entries
from protocol.types import MAX_E8S, MAX_INT64, MAX_VERSION
from wire.address import MAX_ANNOUNCED, MAX_ANNOUNCED_HOST, MAX_PORT, BadAddress, announced_address
from wire.cipher import MAX_MESSAGE_BYTES
from wire.errors import BadMessage
from wire.text import safe_text

__all__ = [
    "BATCH_OVERHEAD",
    "MAX_AGENT_BYTES",
    "MAX_BATCH_PAYMENTS",
    "MAX_MEMO_OVERHEAD",
    "MAX_PAYMENT_BYTES_WITHOUT_MEMO",
    "MAX_TEXT_BYTES",
    "OFFER_ROOM",
    "UPDATE_ROOM",
    "decode",
    "encode",
    "encoded_size_bound",
    "payments_that_fit",
]

MAX_AGENT_BYTES: Final = 64
MAX_TEXT_BYTES: Final = 256
MAX_BATCH_PAYMENTS: Final = MAX_MESSAGE_BYTES // (PAYMENT_ID_BYTES + 1)
"""3,855: no frame holds more, because each has an id and at least one byte of amount."""

MAX_PAYMENT_BYTES_WITHOUT_MEMO: Final = PAYMENT_ID_BYTES + 9
MAX_MEMO_OVERHEAD: Final = 1 + 3 + 3
"""Pair header, position, length: what a memo costs beside its own bytes."""
BATCH_OVERHEAD: Final = 1 + 3 + 3 + 3
"""Array header, then the headers of ids, amounts and memos."""
UPDATE_ROOM: Final = MAX_MESSAGE_BYTES - (1 + 1 + 66 + 9 + 19 + 1 + 2 * BATCH_OVERHEAD + 66)
"""65,352 bytes for the payments of an `Update`: what remains beside array header, type, channel, version,
allocation, finalized, the overhead of two batches and the signature."""
OFFER_ROOM: Final = MAX_MESSAGE_BYTES - (1 + 1 + 66 + BATCH_OVERHEAD)
"""65,457 bytes for the payments of an `Offer`."""

Nat64 = Annotated[int, Meta(ge=0)]  # MessagePack has no integers above 2^64-1
Number = Annotated[int, Meta(ge=1, le=MAX_INT64)]
"""A number of others that goes into a signed column of a store."""
Bucket = Annotated[int, Meta(ge=0, lt=BUCKETS)]
Buckets = Annotated[bytes, Meta(max_length=BUCKETS * (1 + DIGEST_BYTES))]
Entries = Annotated[bytes, Meta(max_length=PAGE * ENTRY_BYTES)]
Version = Annotated[int, Meta(ge=0, le=MAX_VERSION)]
Time = Annotated[int, Meta(ge=0, le=MAX_INT64)]
"""Nanoseconds: a moment until the year 2262, or a duration."""
Bytes16s = Annotated[bytes, Meta(max_length=MAX_MESSAGE_BYTES)]
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Bytes32OrNone = Annotated[bytes, Meta(max_length=32)]
Bytes64 = Annotated[bytes, Meta(min_length=64, max_length=64)]
Bytes64OrNone = Annotated[bytes, Meta(max_length=64)]
Code = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]*\Z", max_length=32)]
Agent = Annotated[str, Meta(max_length=MAX_AGENT_BYTES)]
Text = Annotated[str, Meta(max_length=MAX_TEXT_BYTES)]
Place = tuple[
    Annotated[str, Meta(min_length=1, max_length=MAX_ANNOUNCED_HOST)], Annotated[int, Meta(ge=1, le=MAX_PORT)]
]
Allocation = tuple[Nat64, Nat64]
Amounts = Annotated[tuple[Annotated[int, Meta(ge=1)], ...], Meta(max_length=MAX_BATCH_PAYMENTS)]
Position = Annotated[int, Meta(ge=0, lt=MAX_BATCH_PAYMENTS)]
Memo = Annotated[bytes, Meta(min_length=1, max_length=MAX_MEMO_BYTES)]
Memos = Annotated[tuple[tuple[Position, Memo], ...], Meta(max_length=MAX_BATCH_PAYMENTS)]
Columns = tuple[Bytes16s, Amounts, Memos]

_DECODERS: Final[dict[type[m.Message], object]] = {
    m.Hello: Decoder(tuple[Literal[1], Nat64, Bytes32, Nat64, Agent, Nat64]),
    m.ErrorMessage: Decoder(tuple[Literal[2], Code, Text, Bytes64OrNone]),
    m.Ping: Decoder(tuple[Literal[3], Nat64]),
    m.Pong: Decoder(tuple[Literal[4], Nat64]),
    m.Life: Decoder(tuple[Literal[5], Number, Bytes32, Bytes64]),
    m.LifeHeard: Decoder(tuple[Literal[7], Number, Bytes32, Bytes64]),
    m.LifeStopped: Decoder(tuple[Literal[9], Number, Bytes32, Number, Bytes32, Bytes64]),
    m.Addresses: Decoder(tuple[Literal[15], Annotated[tuple[Place, ...], Meta(max_length=MAX_ANNOUNCED)]]),
    m.ChannelProposal: Decoder(tuple[Literal[10], Bytes32, Bytes32, Bytes32, Allocation, Time, Time]),
    m.ChannelAccept: Decoder(tuple[Literal[11], Bytes32, Bytes32, Bytes32]),
    m.ChannelReject: Decoder(tuple[Literal[12], Bytes32, Code, Text]),
    m.StateSignature: Decoder(tuple[Literal[13], Bytes32, Bytes64]),
    m.ChannelReady: Decoder(tuple[Literal[14], Bytes64]),
    m.Offer: Decoder(tuple[Literal[20], Bytes64, Columns]),
    m.Decline: Decoder(tuple[Literal[21], Bytes64, Bytes16s, Code]),
    m.Update: Decoder(tuple[Literal[22], Bytes64, Version, Allocation, bool, Columns, Columns, Bytes64]),
    m.Ack: Decoder(tuple[Literal[23], Bytes64, Version, Bytes64]),
    m.Confirm: Decoder(tuple[Literal[24], Bytes64, Version]),
    m.CloseRequest: Decoder(tuple[Literal[25], Bytes64]),
    m.Resume: Decoder(tuple[Literal[30], Bytes64, m.ResumePhase, Version, Bytes32, Version, Bytes32OrNone, bool]),
    m.SignedStateMessage: Decoder(tuple[Literal[31], Bytes64, Version, Allocation, bool, Bytes64, Bytes64]),
    m.TowerState: Decoder(
        tuple[Literal[40], Bytes64, Bytes32, Bytes32, Time, Version, Allocation, bool, Bytes64, Bytes64]
    ),
    m.TowerReceipt: Decoder(tuple[Literal[42], Bytes64, Version, Bytes32, Time, Time, Bytes64]),
    m.TowerRefusal: Decoder(tuple[Literal[44], Bytes64, Version, Code, Text]),
    m.TowerForget: Decoder(tuple[Literal[46], Bytes64]),
    m.TowerRecall: Decoder(tuple[Literal[48], Bytes64]),
    m.TowerHeld: Decoder(tuple[Literal[50], Bytes64, Version, Allocation, bool, Bytes64, Bytes64]),
    m.TowerInquiry: Decoder(tuple[Literal[51], Nat64]),
    m.TowerStanding: Decoder(tuple[Literal[53], Nat64, Bytes32, Number, Nat64, Buckets]),
    m.TowerListRequest: Decoder(tuple[Literal[55], Bucket, Bytes64OrNone]),
    m.TowerList: Decoder(tuple[Literal[57], Bucket, Bytes64OrNone, Entries, bool]),
}


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one type of message is read and written."""

    name: str
    type: int
    build: Callable[..., m.Message]
    decoder: Decoder[tuple[object, ...]]
    field_names: tuple[str, ...]
    batches: tuple[int, ...]
    """Which fields are batches, counted with the type as number 0."""


def _kind(message: type[m.Message], decoder: object) -> _Kind:
    names = tuple(f.name for f in fields(message))
    batches = tuple(i for i, f in enumerate(fields(message), 1) if f.type in (Batch, "Batch"))
    # The element types differ from message to message; each decoder has checked them when it returns.
    typed = cast("Decoder[tuple[object, ...]]", decoder)
    return _Kind(message.__name__, message.TYPE, message, typed, names, batches)


_BY_CLASS: Final = {message: _kind(message, decoder) for message, decoder in _DECODERS.items()}
_BY_TYPE: Final = {kind.type: kind for kind in _BY_CLASS.values()}
_PACKER: Final = msgpack.Packer()


def decode(data: bytes) -> m.Message | None:
    """Return the message, or None for one that may be ignored: its type is unknown and odd.

    Raises `BadMessage` for everything else that is not exactly a message of the specification, with the code
    `unknown_message` for an unknown even type and `bad_message` otherwise.
    """
    number = _message_type(data)
    kind = _BY_TYPE.get(number)
    if kind is None:
        if number % 2:
            return None
        raise BadMessage("unknown_message", f"message type {number} is unknown and, being even, not to be ignored")
    try:
        values = kind.decoder.decode(data)
        if kind.batches:
            row = list(values)
            for index in kind.batches:
                row[index] = _batch(cast("Columns", values[index]))
            message = kind.build(*row[1:])
        else:
            message = kind.build(*values[1:])
        _check(message)
    except (MsgspecError, UnicodeDecodeError, Undecodable) as error:
        raise BadMessage("bad_message", f"{kind.name} (type {number}): {error}") from error
    return message


_recent: tuple[m.Message, bytes] | None = None
"""What was encoded last: an update is stored first and then sent, byte for byte the same."""


def encode(message: m.Message) -> bytes:
    """Return the bytes of a message, at most 65,535.

    Texts for people (`ErrorMessage.text`, `ChannelReject.text`, `TowerRefusal.text`, `Hello.agent`) are made
    printable and cut to their bound; everything else out of its bounds is a defect of ours and raises
    `InvariantBroken`: the peer would end the session over it.
    """
    global _recent  # noqa: PLW0603
    if _recent is not None and _recent[0] is message:
        return _recent[1]
    kind = _BY_CLASS[type(message)]
    row = [kind.type, *(getattr(message, name) for name in kind.field_names)]
    for index, name in enumerate(kind.field_names, 1):
        if name == "text":
            row[index] = safe_text(row[index], MAX_TEXT_BYTES)
        elif name == "agent":
            row[index] = safe_text(row[index], MAX_AGENT_BYTES)
    for index in kind.batches:
        row[index] = _columns(row[index])
    try:
        data: bytes = _PACKER.pack(row)
        kind.decoder.decode(data)
        _check(message, ours=True)
    except (MsgspecError, ValueError, OverflowError, TypeError, Undecodable) as error:
        raise InvariantBroken(f"a {kind.name} outside the specification was to be sent: {error}") from error
    if len(data) > MAX_MESSAGE_BYTES:
        raise InvariantBroken(f"a {kind.name} of {len(data)} bytes was to be sent; {MAX_MESSAGE_BYTES} fit a frame")
    _recent = (message, data)
    return data


def encoded_size_bound(batch: Batch) -> int:
    """Return what `batch` takes in a message at most, in bytes."""
    memos = sum(map(len, batch.memos.values())) + MAX_MEMO_OVERHEAD * len(batch.memos)
    return BATCH_OVERHEAD + MAX_PAYMENT_BYTES_WITHOUT_MEMO * len(batch) + memos


def payments_that_fit(
    from_0: Sequence[Payment], from_1: Sequence[Payment] = (), room: int = UPDATE_ROOM
) -> tuple[int, int]:
    """Return how many of the first payments of each list fit together into `room` bytes.

    Each list gets up to half of the room if it needs that much, and what the other leaves. With `OFFER_ROOM`
    and one list it answers for an `Offer`.
    """
    sizes_0, sizes_1 = _running_sizes(from_0), _running_sizes(from_1)
    half = room // 2
    if sizes_1[-1] <= half:
        return _fitting(sizes_0, room - sizes_1[-1]), len(from_1)
    count_0 = _fitting(sizes_0, half)
    return count_0, _fitting(sizes_1, room - sizes_0[count_0])


def _running_sizes(payments: Iterable[Payment]) -> list[int]:
    return list(
        accumulate(
            (MAX_PAYMENT_BYTES_WITHOUT_MEMO + (MAX_MEMO_OVERHEAD + len(p.memo) if p.memo else 0) for p in payments),
            initial=0,
        )
    )


def _fitting(sizes: list[int], room: int) -> int:
    return bisect_right(sizes, room) - 1


def _message_type(data: bytes) -> int:
    """Return the type that `data` begins with: headers in their shortest form, as every encoder writes them."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise BadMessage("bad_message", f"a message of {len(data)} bytes; at most {MAX_MESSAGE_BYTES} are allowed")
    start = 1 if data and 0x91 <= data[0] <= 0x9F else 3 if data and data[0] == 0xDC else len(data)
    head = data[start : start + 3]
    if head and head[0] < 0x80:
        return head[0]
    if len(head) > 1 and head[0] == 0xCC and head[1] >= 0x80:
        return head[1]
    if len(head) > 2 and head[0] == 0xCD and head[1]:
        return int.from_bytes(head[1:3], "big")
    raise BadMessage("bad_message", "a message that is not an array which begins with a type of 0 to 65535")


def _columns(batch: Batch) -> Columns:
    return batch.ids, batch.amounts_e8s, tuple(sorted(batch.memos.items()))


def _batch(columns: Columns) -> Batch:
    ids, amounts, memos = columns
    by_position = dict(memos)
    if len(memos) > 1 and list(by_position) != sorted(position for position, _ in memos):
        raise Undecodable("the positions of the memos do not rise")
    return Batch(ids, amounts, by_position)


def _check(message: m.Message, *, ours: bool = False) -> None:
    """Check what the decoders' types cannot say. Our own texts are made safe instead."""
    match message:
        case m.Update() | m.SignedStateMessage() | m.ChannelProposal() | m.TowerState() | m.TowerHeld():
            if sum(message.allocation) > MAX_E8S:
                raise Undecodable("the allocation is above 2^64-1 e8s in total")
        case m.Hello() if not ours:
            _check_text(message.agent, MAX_AGENT_BYTES)
        case m.ChannelReject() | m.TowerRefusal() if not ours:
            _check_text(message.text, MAX_TEXT_BYTES)
        case m.ErrorMessage():
            if not ours:
                _check_text(message.text, MAX_TEXT_BYTES)
            if len(message.channel) not in (0, 64):
                raise Undecodable(f"a channel of {len(message.channel)} bytes; 64 or none are allowed")
        case m.Addresses():
            _check_places(message.places)
        case m.TowerStanding():
            read_buckets(message.buckets)
        case m.TowerListRequest() | m.TowerList():
            if len(message.after) not in (0, 64):
                raise Undecodable(f"a channel of {len(message.after)} bytes; 64 or none are allowed")
            if isinstance(message, m.TowerList):
                read_entries(message.bucket, message.after, message.entries)
        case m.Decline():
            if len(message.ids) % PAYMENT_ID_BYTES:
                raise Undecodable(f"{len(message.ids)} bytes of ids; each has {PAYMENT_ID_BYTES}")
        case m.Resume():
            if len(message.pending_hash) not in (0, 32):
                raise Undecodable(f"a pending hash of {len(message.pending_hash)} bytes; 32 or none are allowed")
        case _:
            pass


def _check_places(places: tuple[tuple[str, int], ...]) -> None:
    try:
        found = {announced_address(host, port) for host, port in places}
    except BadAddress as error:
        raise Undecodable(str(error)) from error
    if len(found) < len(places):
        raise Undecodable("an address twice")


def _check_text(text: str, limit: int) -> None:
    if not text.isprintable():
        raise Undecodable("a text with characters that cannot be printed")
    if len(text.encode()) > limit:
        raise Undecodable(f"a text of {len(text.encode())} bytes; at most {limit} are allowed")
