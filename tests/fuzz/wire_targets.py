"""What peers send: acts of the handshake, frames, messages."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import msgpack
from coincurve import PrivateKey

from protocol import messages as m
from protocol.payments import EMPTY, Batch, Payment
from protocol.types import ChannelId, Nanos, ParticipantKey
from tests.fuzz.mutation import Tree
from tests.fuzz.target import Target
from wire.cipher import Opener, Sealer
from wire.codec import decode, encode
from wire.errors import BadFrame, BadMessage, HandshakeFailed
from wire.noise import Initiator, Responder

__all__ = ["TARGETS"]

CHANNEL = ChannelId(bytes(range(64)))
SENDER, RECEIVER = PrivateKey(b"\x11" * 32), PrivateKey(b"\x21" * 32)
SENDER_ONCE, RECEIVER_ONCE = PrivateKey(b"\x12" * 32), PrivateKey(b"\x22" * 32)
"""The keys of the published vectors."""
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "bolt8.json").read_text())

EXAMPLES: tuple[m.Message, ...] = (
    m.Hello(1, bytes(32), 0, "perund/0.1.0", 1),
    m.ErrorMessage("bad_message", "what was wrong", CHANNEL),
    m.Ping(7),
    m.Pong(2**64 - 1),
    m.ChannelProposal(bytes(32), bytes(32), ParticipantKey(bytes(32)), (5, 0), Nanos(10), Nanos(20)),
    m.ChannelAccept(bytes(32), bytes(32), ParticipantKey(bytes(32))),
    m.ChannelReject(bytes(32), "too_small", "at least 1 ICP"),
    m.StateSignature(bytes(32), bytes(64)),
    m.ChannelReady(CHANNEL),
    m.Offer(CHANNEL, Batch.of([Payment(b"a" * 16, 3, b"memo"), Payment(b"b" * 16, 2**40)])),
    m.Decline(CHANNEL, b"a" * 32, "too_small"),
    m.Update(CHANNEL, 9, (4, 6), False, Batch.of([Payment(b"a" * 16, 3, b"memo")]), EMPTY, bytes(64)),
    m.Ack(CHANNEL, 9, bytes(64)),
    m.Confirm(CHANNEL, 9),
    m.CloseRequest(CHANNEL),
    m.Resume(CHANNEL, m.ResumePhase.OPEN, 9, bytes(32), 10, bytes(32), False),
    m.SignedStateMessage(CHANNEL, 9, (4, 6), True, bytes(64), bytes(64)),
    m.TowerState(
        bytes(64),
        ParticipantKey(bytes(32)),
        ParticipantKey(b"a" * 32),
        Nanos(10),
        9,
        (4, 6),
        True,
        bytes(64),
        bytes(64),
    ),
    m.TowerReceipt(CHANNEL, 9, bytes(32), Nanos(5), Nanos(6), bytes(64)),
    m.TowerRefusal(CHANNEL, 0, "no_slot", "nothing here"),
    m.TowerForget(CHANNEL),
    m.TowerRecall(CHANNEL),
    m.TowerHeld(CHANNEL, 9, (4, 6), False, bytes(64), bytes(64)),
    m.TowerInquiry(7),
    m.TowerStanding(7, bytes(32), 3, 2, b"\x01" + b"a" * 32 + b"\x09" + b"b" * 32),
    m.TowerListRequest(9, b""),
    m.TowerList(9, b"", b"\x09" + bytes(103), True),
    m.Life(5, bytes(32), bytes(64)),
    m.LifeHeard(2**63 - 1, bytes(32), bytes(64)),
    m.LifeStopped(5, bytes(32), 6, bytes(32), bytes(64)),
    m.Addresses((("node.example", 9735), ("2001:db8::1", 1), ("9.9.9.9", 65535))),
)


def messages() -> Target:
    """The codec. What it accepts, it must write again."""
    corpus = tuple(encode(message) for message in EXAMPLES)
    trees = tuple(msgpack.unpackb(data, strict_map_key=False) for data in corpus)

    def parse(data: bytes) -> object:
        message = decode(data)
        if message is not None:
            assert decode(encode(message)) == message
        return message

    return Target(parse, (BadMessage,), corpus, trees, pack, (b"\xc7", b"\xdc\xff\xff", b"\xdd", b"\xc6"))


def pack(tree: Tree) -> bytes:
    """Return MessagePack; integers that it does not have become the largest that it has."""
    try:
        packed: bytes = msgpack.packb(tree)
    except OverflowError:
        packed = msgpack.packb(_small(tree))
    return packed


def _small(tree: Tree) -> Tree:
    match tree:
        case list():
            return [_small(item) for item in tree]
        case dict():
            return {key: _small(item) for key, item in tree.items()}
        case int():
            return min(tree, 2**64 - 1)
        case _:
            return tree


def handshake_act_1() -> Target:
    """The first bytes that a stranger sends."""
    act = Initiator(SENDER, RECEIVER.public_key.format(), SENDER_ONCE).begin()
    return Target(lambda data: responder().receive(data), (HandshakeFailed,), (act,))


def handshake_act_2() -> Target:
    """The answer of whoever was dialed."""
    act = responder().receive(handshake_act_1().corpus[0])

    def parse(data: bytes) -> object:
        side = Initiator(SENDER, RECEIVER.public_key.format(), SENDER_ONCE)
        side.begin()
        return side.receive(data)

    return Target(parse, (HandshakeFailed,), (act,))


def handshake_act_3() -> Target:
    """The act in which a dialer shows who it is. Its changes never pass: nothing else would be accepted for a key."""
    first = Initiator(SENDER, RECEIVER.public_key.format(), SENDER_ONCE)
    act_1 = first.begin()
    waiting = responder()
    act_3 = first.receive(waiting.receive(act_1))

    def parse(data: bytes) -> object:
        side = copy.copy(waiting)
        side._transcript = copy.copy(waiting._transcript)
        side.receive(data)
        assert side.secured is not None
        assert data == act_3
        return side.secured.peer

    return Target(parse, (HandshakeFailed,), (act_3,))


def responder() -> Responder:
    return Responder(RECEIVER, RECEIVER_ONCE)


def frames() -> Target:
    """The encrypted stream. What it gives out is what was sealed, in order, whatever happens on the way."""
    key, chaining_key = bytes(range(32)), bytes(range(32, 64))
    sealer = Sealer(key, chaining_key)
    sent = [b"", b"one", bytes(range(200)), b"last"]
    sealed = [sealer.seal(message) for message in sent]

    def parse(data: bytes) -> object:
        opener = Opener(key, chaining_key)
        received: list[bytes] = []
        for start in range(0, len(data), 100):
            opener.feed(data[start : start + 100])
            while (message := opener.next()) is not None:
                received.append(message)
                assert received == sent[: len(received)]
        return received

    return Target(parse, (BadFrame,), (b"".join(sealed), sealed[0] + sealed[1]))


TARGETS: tuple[Callable[[], Target], ...] = (messages, handshake_act_1, handshake_act_2, handshake_act_3, frames)
