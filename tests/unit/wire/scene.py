"""Nodes on 127.0.0.1, a peer that can misbehave, and a relay that can damage what passes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from coincurve import PrivateKey

from protocol.messages import ErrorMessage, Hello, Message, PeerMessage
from wire.cipher import Opener, Sealer
from wire.codec import decode, encode
from wire.limits import Limits, Timing
from wire.network import PeerNetwork
from wire.noise import Initiator
from wire.session import Session

LOCAL = "127.0.0.1"
HELLO = Hello(1, b"n" * 32, 0, "perund/test", 1)
PATIENCE_S = 10
"""How long a test waits for what must happen; reached only when it fails."""


@dataclass
class Recorder:
    """A handler that writes down what it hears, in order, and wakes whoever waits for it."""

    known: set[bytes] = field(default_factory=set)
    calls: list[tuple[str, Session, object]] = field(default_factory=list)
    on_message: Callable[[Session, Message], None] | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def connected(self, session: Session) -> None:
        self._note("connected", session, None)

    def received(self, session: Session, message: PeerMessage) -> None:
        self._note("received", session, message)
        if self.on_message is not None:
            self.on_message(session, message)

    def disconnected(self, session: Session, reason: str) -> None:
        self._note("disconnected", session, reason)

    def peer_error(self, session: Session, message: ErrorMessage) -> None:
        self._note("peer_error", session, message)

    def is_known(self, peer: bytes) -> bool:
        return peer in self.known

    def _note(self, name: str, session: Session, what: object) -> None:
        self.calls.append((name, session, what))
        self._changed.set()

    def names(self) -> list[str]:
        return [name for name, _, _ in self.calls]

    def messages(self) -> list[object]:
        return [what for name, _, what in self.calls if name == "received"]

    def reasons(self) -> list[str]:
        return [str(what) for name, _, what in self.calls if name == "disconnected"]

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until `holds()`, which is asked again after each call."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    async def heard(self, name: str, count: int = 1) -> None:
        await self.until(lambda: self.names().count(name) >= count)


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Return what arrives until the other side closes or resets."""
    async with asyncio.timeout(PATIENCE_S):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def shut(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


class Node:
    """A network with its recorder, listening on a port of its own."""

    def __init__(self, at: Scene, key: PrivateKey, network: PeerNetwork, handler: Recorder, port: int) -> None:
        self.at = at
        self.key = key
        self.network = network
        self.handler = handler
        self.port = port

    @property
    def id(self) -> bytes:
        return self.network.node_id

    async def plain(self, *, limit: int = 2**16) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a TCP connection to this node; the scene closes it at the end."""
        reader, writer = await asyncio.open_connection(LOCAL, self.port, limit=limit)
        self.at.writers.append(writer)
        return reader, writer

    async def dial(self, other: Node) -> Session:
        return await self.network.dial(other.id, LOCAL, other.port)


class Scene:
    """Makes nodes and closes them all at the end."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.servers: list[asyncio.Server] = []

    async def node(
        self,
        *,
        key: PrivateKey | None = None,
        hello: Hello = HELLO,
        limits: Limits | None = None,
        timing: Timing | None = None,
        port: int = 0,
    ) -> Node:
        key = key or PrivateKey()
        handler = Recorder()
        network = PeerNetwork(key, hello, handler, limits, timing or Timing(farewell_s=0.2), random.Random(1))
        _, port = await network.listen(LOCAL, port)
        node = Node(self, key, network, handler, port)
        self.nodes.append(node)
        return node

    async def silent(self) -> tuple[int, asyncio.Event]:
        """Return the port of somebody who accepts connections and says nothing, and when the first one came."""
        came = asyncio.Event()

        def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.writers.append(writer)
            came.set()

        server = await asyncio.start_server(hold, LOCAL, 0)
        self.servers.append(server)
        return server.sockets[0].getsockname()[1], came

    async def close(self) -> None:
        for server in self.servers:
            server.close()
        for node in self.nodes:
            await node.network.close()
        for writer in self.writers:
            await shut(writer)


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    try:
        yield made
    finally:
        await made.close()


class RawPeer:
    """The other end of a node's connection in the hands of a test: valid handshake, then anything."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, initiator: Initiator) -> None:
        assert initiator.secured is not None
        self.reader = reader
        self.writer = writer
        self.sealer = Sealer(initiator.secured.send_key, initiator.secured.chaining_key)
        self.opener = Opener(initiator.secured.receive_key, initiator.secured.chaining_key)

    @classmethod
    async def handshake(cls, node: Node, key: PrivateKey | None = None, *, limit: int = 2**16) -> RawPeer:
        reader, writer = await node.plain(limit=limit)
        initiator = Initiator(key or PrivateKey(), node.id)
        writer.write(initiator.begin())
        writer.write(initiator.receive(await reader.readexactly(initiator.expects)))
        return cls(reader, writer, initiator)

    @classmethod
    async def connect(cls, node: Node, key: PrivateKey | None = None, *, limit: int = 2**16) -> RawPeer:
        peer = await cls.handshake(node, key, limit=limit)
        peer.send(HELLO)
        assert isinstance(await peer.receive(), Hello)
        return peer

    def send(self, message: Message) -> None:
        self.send_bytes(encode(message))

    def send_bytes(self, data: bytes) -> None:
        self.writer.write(self.sealer.seal(data))

    async def receive(self) -> Message | None:
        """Return the next message, or None when the node has closed the connection."""
        async with asyncio.timeout(PATIENCE_S):
            while (data := self.opener.next()) is None:
                try:
                    more = await self.reader.read(65_536)
                except ConnectionError:
                    return None
                if not more:
                    return None
                self.opener.feed(more)
            return decode(data)

    async def rest(self) -> list[Message]:
        """Return everything until the node closes."""
        messages = []
        while (message := await self.receive()) is not None:
            messages.append(message)
        return messages

    async def close(self) -> None:
        await shut(self.writer)


Change = Callable[[bytes], bytes]


@asynccontextmanager
async def relay(target_port: int, to_target: Change, to_source: Change = bytes) -> AsyncIterator[int]:
    """A wire with a mind of its own: yields the port of a relay that changes what passes."""
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Change) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(change(data))
        await shut(writer)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(LOCAL, target_port)
        for args in ((reader, far_writer, to_target), (far_reader, writer, to_source)):
            task = asyncio.create_task(pump(*args))
            tasks.add(task)

    server = await asyncio.start_server(serve, LOCAL, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
