"""Sessions between real sockets on 127.0.0.1: who gets one, what passes, and how each of them ends."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator

import pytest
from coincurve import PrivateKey
from structlog.testing import capture_logs
from structlog.typing import EventDict

from protocol.errors import InvariantBroken
from protocol.messages import Ack, ChannelAccept, Confirm, ErrorMessage, Hello, Message, Offer, Ping, Pong
from protocol.payments import Batch, Payment
from protocol.types import ChannelId, ParticipantKey
from tests.unit.wire.scene import HELLO, LOCAL, PATIENCE_S, Node, RawPeer, Scene, ended, relay, scene
from wire import link as link_module
from wire.address import Address
from wire.cipher import Sealer
from wire.codec import encode
from wire.errors import (
    DialFailed,
    DialTimedOut,
    ListenFailed,
    NetworkClosed,
    NotThatPeer,
    OtherNetwork,
    OtherVersion,
    PeerRefused,
    PeerUnreachable,
)
from wire.keeper import Target
from wire.limits import Allowance, Limits, Throttle, Timing
from wire.noise import Initiator
from wire.session import Session
from wire.text import safe_text

CHANNEL = ChannelId(bytes(range(64)))
FULL = Offer(CHANNEL, Batch.of([Payment(os.urandom(16), 2**64 - 1) for _ in range(2600)]))
"""A message that all but fills a frame."""


@pytest.fixture
async def at() -> AsyncIterator[Scene]:
    async with scene() as made:
        yield made


def numbered(number: int) -> Confirm:
    return Confirm(CHANNEL, number)


async def settled(node: Node, other: Node) -> Session:
    """Return the session once both have it."""
    await node.handler.until(lambda: node.network.session(other.id))
    await other.handler.until(lambda: other.network.session(node.id))
    session = node.network.session(other.id)
    assert session is not None
    return session


async def logged(logs: list[EventDict], event: str, count: int) -> None:
    """Wait until the log has so many entries of this event."""
    async with asyncio.timeout(PATIENCE_S):
        while [entry["event"] for entry in logs].count(event) < count:  # noqa: ASYNC110  (a log wakes nobody)
            await asyncio.sleep(0)


# Getting a session.


async def test_two_nodes_know_each_other_by_key_and_hello(at: Scene) -> None:
    alice = await at.node(hello=Hello(1, b"n" * 32, 3, "alice", 10))
    bob = await at.node(hello=Hello(1, b"n" * 32, 4, "bob", 20))
    session = await alice.dial(bob)
    assert (session.peer, session.hello.agent, session.dialed) == (bob.id, "bob", True)
    await bob.handler.heard("connected")
    back = bob.network.session(alice.id)
    assert back is not None
    assert (back.peer, back.hello, back.dialed) == (alice.id, Hello(1, b"n" * 32, 3, "alice", 10), False)
    assert alice.network.sessions() == (session,)
    assert await alice.dial(bob) is session
    transport = session.link._transport
    assert transport is not None
    assert transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    ("hello", "error", "words"),
    [
        (Hello(1, b"m" * 32, 0, "bob", 1), OtherNetwork, [b"m".hex() * 32, b"n".hex() * 32]),
        (Hello(2, b"n" * 32, 0, "bob", 1), OtherVersion, ["version 2", "version 1"]),
    ],
)
async def test_another_network_or_version_is_named_to_both(
    at: Scene, hello: Hello, error: type[DialFailed], words: list[str]
) -> None:
    alice, bob = await at.node(), await at.node(hello=hello)
    with capture_logs() as logs:
        with pytest.raises(error) as raised:
            await alice.dial(bob)
        await logged(logs, "peer.refused", 1)
    refusal = next(entry for entry in logs if entry["event"] == "peer.refused")
    assert refusal["cause"] == error.__name__
    for word in words:
        assert word in str(raised.value)
        assert word in refusal["reason"]
    assert alice.handler.names() == bob.handler.names() == []


@pytest.mark.parametrize(
    ("hello", "code"),
    [(Hello(1, b"m" * 32, 0, "x", 1), "wrong_network"), (Hello(9, b"n" * 32, 0, "x", 1), "wrong_version")],
)
async def test_a_peer_hears_why_its_hello_is_refused(at: Scene, hello: Hello, code: str) -> None:
    node = await at.node()
    peer = await RawPeer.handshake(node)
    peer.send(hello)
    said, error = await peer.rest()
    assert said == HELLO
    assert isinstance(error, ErrorMessage)
    assert error.code == code
    assert node.handler.names() == []


async def test_the_wrong_key_is_not_that_peer(at: Scene) -> None:
    alice, bob = await at.node(), await at.node()
    with pytest.raises(NotThatPeer, match="another key"):
        await alice.network.dial(PrivateKey().public_key.format(), LOCAL, bob.port)
    assert bob.handler.names() == []


async def test_a_dial_that_reaches_nobody_says_so(at: Scene) -> None:
    alice, bob = await at.node(), await at.node()
    await bob.network.close()
    with pytest.raises(PeerUnreachable, match="refused"):
        await alice.dial(bob)
    with pytest.raises(PeerUnreachable, match=r"\[::1\]:9"):  # as it is written, and can be given back
        await alice.network.dial(bob.id, "::1", 9)
    for host, port in (("a\0b", 1), ("no.such.host.invalid", 1), ("a" * 70 + ".example", 1), (LOCAL, 70_000)):
        with pytest.raises(PeerUnreachable):
            await alice.network.dial(bob.id, host, port)
    with pytest.raises(NotThatPeer, match="own key"):
        await alice.dial(alice)
    with pytest.raises(NotThatPeer, match="node key"):
        await alice.network.dial(b"\x05" * 33, LOCAL, bob.port)


async def test_a_dial_to_somebody_silent_ends(at: Scene) -> None:
    alice = await at.node(timing=Timing(dial_s=0.05))
    port, _ = await at.silent()
    with pytest.raises(DialTimedOut):
        await alice.network.dial(PrivateKey().public_key.format(), LOCAL, port)
    assert not alice.network._dialing
    assert not alice.network._arrivals


async def test_a_caller_that_stops_waiting_leaves_nothing_behind(at: Scene) -> None:
    alice = await at.node()
    port, came = await at.silent()
    dialing = asyncio.create_task(alice.network.dial(PrivateKey().public_key.format(), LOCAL, port))
    await came.wait()
    dialing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialing
    assert not alice.network._greetings
    assert not alice.network._arrivals


async def test_a_port_in_use_says_what_to_do(at: Scene) -> None:
    alice, bob = await at.node(), await at.node()
    with pytest.raises(ListenFailed, match="in use"):
        await bob.network.listen(LOCAL, alice.port)
    with pytest.raises(ListenFailed, match="not an address of this machine"):
        await bob.network.listen("192.0.2.1", 0)
    with pytest.raises(ListenFailed):
        await bob.network.listen(LOCAL, 70_000)


# What passes.


async def test_thousands_of_messages_arrive_in_order_both_ways(at: Scene) -> None:
    alice, bob = await at.node(), await at.node()
    for node, other in ((alice, bob), (bob, alice)):
        node.handler.known.add(other.id)
    session = await alice.dial(bob)
    await settled(alice, bob)
    back = bob.network.session(alice.id)
    assert back is not None
    sent = [FULL if n % 100 == 0 else numbered(n) for n in range(2000)]
    for message in sent:
        session.send(message)
        back.send(message)
    for node in (alice, bob):
        await node.handler.heard("received", len(sent))
        assert node.handler.messages() == sent


async def test_what_one_turn_of_the_loop_sends_leaves_in_one_write(at: Scene) -> None:
    alice, bob = await at.node(), await at.node()
    session = await alice.dial(bob)
    real = session.link._transport
    assert real is not None
    write, writes = real.write, []

    class Spy:
        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def write(self, data: bytes) -> None:
            writes.append(len(data))
            write(data)

    session.link._transport = Spy()  # type: ignore[assignment]
    for number in range(100):
        session.send(numbered(number))
    await bob.handler.heard("received", 100)
    assert len(writes) == 1


async def test_an_answer_given_inside_of_received_arrives(at: Scene) -> None:
    alice, bob = await at.node(), await at.node()
    bob.handler.on_message = lambda session, message: session.send(message)
    session = await alice.dial(bob)
    session.send(numbered(1))
    await alice.handler.heard("received")
    assert alice.handler.messages() == [numbered(1)]


async def test_a_complaint_of_the_peer_is_not_a_message(at: Scene) -> None:
    alice, bob = await at.node(), await at.node()
    session = await alice.dial(bob)
    session.fail("state_conflict", "version 7 differs", CHANNEL)
    await bob.handler.heard("disconnected")
    assert bob.handler.names() == ["connected", "peer_error", "disconnected"]
    assert bob.handler.calls[1][2] == ErrorMessage("state_conflict", "version 7 differs", CHANNEL)
    assert await session.closed() == "state_conflict: version 7 differs"
    session.send(numbered(1))  # too late, and no error
    assert alice.handler.names() == ["connected", "disconnected"]


# What is refused.


async def test_bytes_that_are_no_handshake_end_the_connection(at: Scene) -> None:
    node = await at.node()
    for garbage in (b"GET / HTTP/1.1\r\nHost: peer\r\nAccept: everything, please\r\n\r\n", bytes(50), os.urandom(300)):
        reader, writer = await node.plain()
        writer.write(garbage)
        assert await ended(reader) == b""
    assert node.handler.names() == []
    assert not node.network._greetings


async def test_a_connection_that_says_nothing_is_closed(at: Scene) -> None:
    node = await at.node(timing=Timing(handshake_s=0.05))
    reader, _ = await node.plain()
    assert await ended(reader) == b""
    peer = await RawPeer.handshake(node)  # a handshake without a hello is not enough
    assert await peer.rest() == [HELLO]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "bad_message"),
        (b"\xff" * 100, "bad_message"),
        (b"\x93\x17\xdd\xff\xff\xff\xff", "bad_message"),
        (bytes(65_535), "bad_message"),
        (b"\x91\x62", "unknown_message"),
        (b"\x96\x01\x01\xc4\x20" + b"n" * 32 + b"\x00\xa1x\x01", "bad_message"),
    ],
    ids=["empty", "garbage", "bomb", "oversized zeros", "unknown even type", "second hello"],
)
async def test_a_malformed_message_is_answered_and_ends_the_session(at: Scene, data: bytes, code: str) -> None:
    node = await at.node()
    peer = await RawPeer.connect(node)
    peer.send(numbered(1))
    peer.send_bytes(data)
    peer.send(numbered(2))
    (error,) = await peer.rest()
    assert isinstance(error, ErrorMessage)
    assert error.code == code
    await node.handler.heard("disconnected")
    assert node.handler.messages() == [numbered(1)]
    assert node.handler.names() == ["connected", "received", "disconnected"]


async def test_an_unknown_odd_message_is_ignored(at: Scene) -> None:
    node = await at.node()
    peer = await RawPeer.connect(node)
    peer.send_bytes(b"\x92\x63\xa6future")
    peer.send(numbered(1))
    await node.handler.heard("received")
    assert node.handler.names() == ["connected", "received"]


async def test_a_message_before_hello_is_answered(at: Scene) -> None:
    node = await at.node()
    peer = await RawPeer.handshake(node)
    peer.send(numbered(1))
    _, error = await peer.rest()
    assert isinstance(error, ErrorMessage)
    assert error.code == "bad_message"
    assert node.handler.names() == []


@pytest.mark.parametrize("towards", ["listener", "dialer"])
async def test_a_bit_that_flips_on_the_way_ends_the_session_on_both_sides(at: Scene, towards: str) -> None:
    alice, bob = await at.node(), await at.node()
    damaging = False

    def damage(data: bytes) -> bytes:
        return data[:-1] + bytes((data[-1] ^ 1,)) if damaging else data

    changes = (damage, bytes) if towards == "listener" else (bytes, damage)
    async with relay(bob.port, *changes) as port:
        await alice.network.dial(bob.id, LOCAL, port)
        session = await settled(alice, bob) if towards == "listener" else await settled(bob, alice)
        damaging = True
        session.send(numbered(1))
        victim, other = (bob, alice) if towards == "listener" else (alice, bob)
        await victim.handler.heard("disconnected")
        await other.handler.heard("disconnected")
    assert "does not decrypt" in victim.handler.reasons()[0]
    assert victim.handler.messages() == []


async def test_a_bit_that_flips_in_the_handshake_is_not_that_peer(at: Scene) -> None:
    alice, bob = await at.node(), await at.node()
    async with relay(bob.port, bytes, lambda data: data[:20] + bytes((data[20] ^ 1,)) + data[21:]) as port:
        with pytest.raises(NotThatPeer):
            await alice.network.dial(bob.id, LOCAL, port)


# How sessions end.


async def test_a_peer_that_does_not_read_loses_its_session(at: Scene) -> None:
    node = await at.node(limits=Limits(stranger=Allowance(500, 2**18, 2**20)))
    peer = await RawPeer.connect(node)
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await node.handler.heard("connected")
    (session,) = node.network.sessions()
    sent = 0
    while session.is_open:
        session.send(FULL)
        sent += 1
        await asyncio.sleep(0)  # a turn of the loop
        assert sent < 1000
    assert "does not read" in await session.closed()
    assert node.handler.names() == ["connected", "disconnected"]


@pytest.mark.parametrize("reads", [False, True])
async def test_a_peer_that_reads_too_slowly_loses_its_session(
    at: Scene, monkeypatch: pytest.MonkeyPatch, *, reads: bool
) -> None:
    """Below its bound, and alive: of many such peers each would hold what the bound allows, for ever."""
    monkeypatch.setattr(link_module, "SLOW_S", 1.0)
    key = PrivateKey()
    node = await at.node()
    node.handler.known.add(key.public_key.format())
    peer = await RawPeer.connect(node, key, limit=2**26)
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await node.handler.heard("connected")
    (session,) = node.network.sessions()
    transport = session.link._transport
    assert transport is not None
    sent = 0
    while transport.get_write_buffer_size() <= link_module.SLOW_BYTES:
        session.send(FULL)
        sent += 1
        await asyncio.sleep(0)  # a turn of the loop
    if reads:
        peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert [await peer.receive() for _ in range(sent)] == [FULL] * sent
        assert session.link._slow_due is None
        assert session.is_open
    else:
        peer.send(Ping(1))
        assert "reads too slowly" in await asyncio.wait_for(session.closed(), PATIENCE_S)


async def test_a_burst_within_the_bound_is_not_a_peer_that_does_not_read(at: Scene) -> None:
    node = await at.node()
    peer = await RawPeer.connect(node, limit=2**21)
    await node.handler.heard("connected")
    (session,) = node.network.sessions()
    for _ in range(12):
        session.send(FULL)
    assert [await peer.receive() for _ in range(12)] == [FULL] * 12
    assert session.is_open


async def test_silence_is_asked_about_and_then_ends_the_session(at: Scene) -> None:
    node = await at.node(timing=Timing(ping_after_s=0.03, dead_after_s=0.09))
    peer = await RawPeer.connect(node)
    assert await peer.rest() == [Ping(1)]  # one question for each silence
    await node.handler.heard("disconnected")
    assert "silent" in node.handler.reasons()[0]


async def test_a_peer_that_answers_pings_stays(at: Scene) -> None:
    node = await at.node(timing=Timing(ping_after_s=0.02, dead_after_s=5))
    peer = await RawPeer.connect(node)
    for number in range(1, 5):
        # The next question comes only after a new silence, so each answer was heard.
        assert await peer.receive() == Ping(number)
        peer.send(Pong(number))
        peer.send(Ping(1000 + number))
        assert await peer.receive() == Pong(1000 + number)
        node.network.sessions()[0]._check_silence()
    assert node.handler.names() == ["connected"]


async def test_nothing_is_received_after_close(at: Scene) -> None:
    alice, bob = await at.node(), await at.node()
    bob.handler.on_message = lambda session, _: session.close("enough")
    session = await alice.dial(bob)
    for number in range(10):
        session.send(numbered(number))
    await bob.handler.heard("disconnected")
    await alice.handler.heard("disconnected")
    assert bob.handler.names() == ["connected", "received", "disconnected"]
    assert bob.handler.reasons() == ["enough"]


async def test_an_internal_error_ends_the_session_and_is_reported(at: Scene) -> None:
    alice, bob = await at.node(), await at.node()
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context.get("exception")))

    def defect(session: Session, message: object) -> None:
        raise InvariantBroken("two states of one version")

    bob.handler.on_message = defect
    session = await alice.dial(bob)
    session.send(numbered(1))
    session.send(numbered(2))
    await bob.handler.heard("disconnected")
    await alice.handler.heard("disconnected")
    assert bob.handler.names() == ["connected", "received", "disconnected"]
    assert [type(error) for error in reported] == [InvariantBroken]


async def test_closing_the_network_ends_everything(at: Scene) -> None:
    alice, bob = await at.node(), await at.node()
    await alice.dial(bob)
    await settled(alice, bob)
    await bob.network.close()
    assert bob.handler.reasons() == ["this node is stopping"]
    await alice.handler.heard("disconnected")
    assert not bob.network._links
    with pytest.raises(NetworkClosed):
        await bob.dial(alice)
    with pytest.raises(PeerUnreachable):
        await alice.dial(bob)


async def test_a_session_ends_well_whose_peer_cut_the_connection_a_moment_ago(at: Scene) -> None:
    """The event loop has not told it yet: the socket is not connected any more, and cannot be shut."""
    bob = await at.node()
    initiator = Initiator(PrivateKey(), bob.id)

    def greet() -> socket.socket:
        raw = socket.create_connection((LOCAL, bob.port))
        raw.sendall(initiator.begin())
        raw.sendall(initiator.receive(raw.recv(initiator.expects, socket.MSG_WAITALL)))
        assert initiator.secured is not None
        sealer = Sealer(initiator.secured.send_key, initiator.secured.chaining_key)
        raw.sendall(sealer.seal(encode(HELLO)))
        return raw

    raw = await asyncio.to_thread(greet)
    await bob.handler.heard("connected")
    (session,) = bob.network.sessions()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()
    session.end_now("this node is stopping")
    async with asyncio.timeout(PATIENCE_S):
        await bob.network.close()
    assert bob.handler.reasons() == ["this node is stopping"]


async def test_closing_ends_a_dial_in_flight(at: Scene) -> None:
    alice = await at.node()
    port, came = await at.silent()
    dialing = asyncio.create_task(alice.network.dial(PrivateKey().public_key.format(), LOCAL, port))
    await came.wait()
    await alice.network.close()
    with pytest.raises(NetworkClosed):
        await dialing


# One session for each peer.


async def test_the_newest_session_replaces_the_older_one(at: Scene) -> None:
    node = await at.node()
    key = PrivateKey()
    old = await RawPeer.connect(node, key)
    old.send(numbered(1))
    await node.handler.heard("received")
    new = await RawPeer.connect(node, key)
    old.send(numbered(2))
    new.send(numbered(3))
    await node.handler.heard("received", 2)
    assert node.handler.names() == ["connected", "received", "disconnected", "connected", "received"]
    assert node.handler.messages() == [numbered(1), numbered(3)]
    first, second = node.handler.calls[0][1], node.handler.calls[3][1]
    assert node.handler.calls[2][1] is first
    assert node.network.sessions() == (second,)
    assert await old.receive() is None
    assert not first.is_open


async def test_simultaneous_dials_become_one_session(at: Scene) -> None:
    for _ in range(15):
        alice, bob = await at.node(), await at.node()
        await asyncio.gather(alice.dial(bob), bob.dial(alice))
        small, large = (alice, bob) if alice.id < bob.id else (bob, alice)

        def agreed(small: Node = small, large: Node = large) -> bool:
            ours, theirs = small.network.session(large.id), large.network.session(small.id)
            return ours is not None and theirs is not None and ours.dialed != theirs.dialed

        await small.handler.until(agreed)
        await large.handler.until(agreed)
        ours, theirs = small.network.session(large.id), large.network.session(small.id)
        assert ours is not None
        assert theirs is not None
        ours.send(numbered(1))
        theirs.send(numbered(2))
        await large.handler.until(lambda large=large: numbered(1) in large.handler.messages())  # type: ignore[misc]
        await small.handler.until(lambda small=small: numbered(2) in small.handler.messages())  # type: ignore[misc]
        for node in (small, large):
            assert node.handler.names().count("connected") <= 2
            assert len(node.network.sessions()) == 1
        assert ours.is_open
        assert theirs.is_open


async def test_a_peer_that_lost_our_dial_gets_through_after_the_moment_of_doubt(at: Scene) -> None:
    small, large = sorted((PrivateKey(), PrivateKey()), key=lambda key: key.public_key.format())
    alice = await at.node(key=small, timing=Timing(handshake_s=0.2, farewell_s=0.2))
    bob = await at.node(key=large)
    first = await alice.dial(bob)
    peer = await RawPeer.handshake(alice, large)
    peer.send(HELLO)
    said, error = await peer.rest()
    assert said == HELLO
    assert isinstance(error, ErrorMessage)
    assert error.code == "duplicate_session"  # it could have been a dial of the same moment
    answer: Message | None = error
    while answer != Pong(5):
        assert isinstance(answer, ErrorMessage)
        peer = await RawPeer.handshake(alice, large)
        peer.send(HELLO)
        peer.send(Ping(5))
        assert await peer.receive() == HELLO
        answer = await peer.receive()
    peer.send(numbered(1))
    assert "newer session" in await first.closed()
    await alice.handler.heard("received")
    assert alice.handler.names() == ["connected", "disconnected", "connected", "received"]


async def test_many_dials_to_one_peer_are_one_session(at: Scene) -> None:
    alice, bob = await at.node(), await at.node()
    alice.network.keep_connected(bob.id, [at_port(bob.port)])
    sessions = await asyncio.gather(*(alice.dial(bob) for _ in range(10)))
    assert len(set(sessions)) == 1
    await settled(alice, bob)
    assert bob.handler.names() == alice.handler.names() == ["connected"]


# Keeping connected.


def at_port(port: int) -> Target:
    return Target(Address(LOCAL, port))


QUICK = Timing(first_retry_s=0.01, longest_retry_s=0.05, farewell_s=0.2)


async def test_a_kept_peer_is_dialed_again_when_it_comes_back(at: Scene) -> None:
    alice, bob = await at.node(timing=QUICK), await at.node()
    alice.network.keep_connected(bob.id, [at_port(bob.port)])
    await alice.handler.heard("connected")
    for round_ in (2, 3):
        await bob.network.close()
        await alice.handler.heard("disconnected", round_ - 1)
        bob = await at.node(key=bob.key, port=bob.port)
        await alice.handler.heard("connected", round_)
    alice.network.forget(bob.id)
    session = alice.network.session(bob.id)
    assert session is not None
    assert session.is_open


async def test_pauses_between_dials_grow_to_a_bound(at: Scene) -> None:
    alice, bob = await at.node(timing=QUICK), await at.node()
    await bob.network.close()
    with capture_logs() as logs:
        alice.network.keep_connected(bob.id, [at_port(bob.port)])
        await logged(logs, "peer.dial_failed", 6)
        alice.network.forget(bob.id)
    assert [entry["event"] for entry in logs[:6]] == ["peer.dial_failed"] * 6
    assert [entry["retry_within_s"] for entry in logs[:6]] == [0.01, 0.02, 0.04, 0.05, 0.05, 0.05]
    assert logs[0]["cause"] == "PeerUnreachable"


async def test_a_session_of_any_origin_ends_the_pause(at: Scene) -> None:
    alice = await at.node(timing=Timing(first_retry_s=3600, longest_retry_s=3600))
    bob = await at.node()
    closed_port = bob.port
    await bob.network.close()
    with capture_logs() as logs:
        alice.network.keep_connected(bob.id, [at_port(closed_port)])
        await logged(logs, "peer.dial_failed", 1)
    bob = await at.node(key=bob.key)
    await bob.dial(alice)
    await alice.handler.heard("connected")
    assert await alice.dial(bob) is alice.network.session(bob.id)


async def test_a_forgotten_peer_is_not_dialed(at: Scene) -> None:
    alice, bob = await at.node(timing=QUICK), await at.node()
    alice.network.keep_connected(bob.id, [at_port(bob.port)])
    await settled(alice, bob)
    alice.network.forget(bob.id)
    (session,) = alice.network.sessions()
    session.close("test")
    await bob.handler.heard("disconnected")
    assert not alice.network._keeper._kept
    assert bob.handler.names() == ["connected", "disconnected"]


async def test_at_most_so_many_dials_are_in_flight(at: Scene) -> None:
    alice = await at.node(limits=Limits(dials=2), timing=Timing(dial_s=0.05, first_retry_s=3600))
    peers = [PrivateKey().public_key.format() for _ in range(6)]
    most = 0
    port, _ = await at.silent()
    with capture_logs() as logs:
        for peer in peers:
            alice.network.keep_connected(peer, [at_port(port)])
        async with asyncio.timeout(PATIENCE_S):
            while len(logs) < len(peers):
                most = max(most, len(alice.network._dialing))
                await asyncio.sleep(0)
    assert most == 2


# Limits.


async def refusal(node: Node) -> ErrorMessage:
    """Return what a stranger that comes now is told instead of hello."""
    peer = await RawPeer.handshake(node)
    (error,) = await peer.rest()
    assert isinstance(error, ErrorMessage)
    return error


async def test_strangers_have_a_count_of_their_own(at: Scene) -> None:
    node = await at.node(limits=Limits(strangers=1))
    stranger = await RawPeer.connect(node)
    await node.handler.heard("connected")
    second = await RawPeer.connect(node)  # the newer one has the place
    await node.handler.heard("disconnected")
    (told,) = await stranger.rest()
    assert isinstance(told, ErrorMessage)
    assert told.code == "too_many_peers"
    friend_key = PrivateKey()
    node.handler.known.add(friend_key.public_key.format())
    await RawPeer.connect(node, friend_key)
    await node.handler.heard("connected", 3)
    other = await at.node()
    await node.dial(other)  # whom we dial is no stranger
    assert len(node.network.sessions()) == 3
    await second.close()
    await node.handler.heard("disconnected", 2)
    await RawPeer.connect(node)
    await node.handler.heard("connected", 5)
    assert len(node.network.sessions()) == 3


async def test_a_stranger_that_opens_a_channel_leaves_the_count(at: Scene) -> None:
    node = await at.node(limits=Limits(strangers=1))
    key = PrivateKey()
    await RawPeer.connect(node, key)
    await node.handler.heard("connected")
    node.handler.known.add(key.public_key.format())
    await RawPeer.connect(node)
    await node.handler.heard("connected", 2)
    assert len(node.network.sessions()) == 2


async def test_a_stranger_gives_way_to_a_known_peer(at: Scene) -> None:
    node = await at.node(limits=Limits(connections=1))
    stranger = await RawPeer.connect(node)
    await node.handler.heard("connected")
    key = PrivateKey()
    node.handler.known.add(key.public_key.format())
    await RawPeer.connect(node, key)
    await node.handler.heard("connected", 2)
    assert node.handler.names() == ["connected", "disconnected", "connected"]
    (told,) = await stranger.rest()
    assert isinstance(told, ErrorMessage)
    assert told.code == "too_many_peers"
    assert (await refusal(node)).code == "too_many_peers"


async def test_a_dialer_is_told_that_there_is_no_room(at: Scene) -> None:
    node, other = await at.node(limits=Limits(strangers=0)), await at.node()
    with pytest.raises(PeerRefused, match="no room") as raised:
        await other.dial(node)
    assert raised.value.code == "too_many_peers"


async def test_stalled_handshakes_do_not_keep_others_out(at: Scene) -> None:
    node = await at.node(limits=Limits(handshakes=3))
    stalled = [await node.plain() for _ in range(6)]
    for _ in range(3):
        await RawPeer.connect(node)
    await node.handler.heard("connected", 3)
    gone = [asyncio.create_task(ended(reader)) for reader, _ in stalled]
    while sum(task.done() for task in gone) < 3:  # chance has chosen which of them
        await asyncio.wait([task for task in gone if not task.done()], return_when=asyncio.FIRST_COMPLETED)
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    assert len(node.network._door) <= 3


async def test_a_peer_above_its_allowance_is_slowed_down_and_loses_nothing(at: Scene) -> None:
    node = await at.node(limits=Limits(stranger=Allowance(200, 2**20, 2**20)))
    peer = await RawPeer.connect(node)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    for number in range(300):
        peer.send(numbered(number))
    await node.handler.heard("received", 300)
    assert loop.time() - began_s >= 0.45  # 300 are 100 more than the bucket has: half a second's worth
    assert node.handler.messages() == [numbered(number) for number in range(300)]
    assert node.handler.names().count("disconnected") == 0


async def test_a_peer_with_a_channel_is_not_slowed_down(at: Scene) -> None:
    key = PrivateKey()
    node = await at.node(limits=Limits(stranger=Allowance(1, 1, 2**20)))
    peer = await RawPeer.connect(node, key)
    await node.handler.heard("connected")
    node.handler.known.add(key.public_key.format())  # since it is connected
    for number in range(5000):
        peer.send(numbered(number))
    await node.handler.heard("received", 5000)


def test_a_bucket_pays_its_debt_with_time() -> None:
    throttle = Throttle(Allowance(10, 1000, 0), 0)
    assert all(throttle.spend(1) for _ in range(10))
    assert throttle.debt_s() == 0
    assert not throttle.spend(1)
    assert throttle.debt_s() == pytest.approx(0.1)
    throttle.refill(0.1)
    assert throttle.debt_s() == 0
    throttle.refill(100)
    assert not throttle.spend(1500)
    assert throttle.debt_s() == pytest.approx(0.5)


async def test_one_peer_with_much_to_say_does_not_stop_the_others(at: Scene) -> None:
    node, talker, other = await at.node(), await at.node(), await at.node()
    node.handler.known |= {talker.id, other.id}
    talking, quiet = await talker.dial(node), await other.dial(node)
    await node.handler.heard("connected", 2)
    for number in range(3000):
        talking.send(numbered(number))
    quiet.send(Ack(CHANNEL, 1, bytes(64)))
    await node.handler.heard("received", 3001)
    place = node.handler.messages().index(Ack(CHANNEL, 1, bytes(64)))
    assert place < 3000


# Words of strangers.


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain words, ünïcode", "plain words, ünïcode"),
        ("line\nbreak\r\t", "line\\nbreak\\r\\t"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("\u202eevil", "\\u202eevil"),
        ("\ud800", "\\ud800"),
    ],
)
def test_words_of_strangers_are_safe_to_show(text: str, safe: str) -> None:
    assert safe_text(text) == safe


def test_words_of_strangers_are_bounded() -> None:
    assert safe_text("é" * 10, 10) == "ééé..."
    assert len(safe_text("\n" * 10**6)) <= 256
    assert len(safe_text("\u202e" * 300).encode()) <= 256


async def test_an_opening_message_is_received_too(at: Scene) -> None:
    alice, bob = await at.node(), await at.node()
    session = await alice.dial(bob)
    accept = ChannelAccept(bytes(32), bytes(32), ParticipantKey(bytes(32)))
    session.send(accept)
    await bob.handler.heard("received")
    assert bob.handler.messages() == [accept]
