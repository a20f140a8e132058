"""The peers of a node: listening, dialing, and one session for each of them."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from typing import Final
from weakref import WeakValueDictionary

import structlog
from coincurve import PrivateKey

from protocol.messages import ErrorMessage, Hello
from wire.codec import encode
from wire.errors import (
    DialFailed,
    DialTimedOut,
    ListenFailed,
    NetworkClosed,
    NotThatPeer,
    PeerRefused,
    PeerUnreachable,
)
from wire.greeting import GREETING_ALLOWANCE, Greeting
from wire.handler import PeerHandler
from wire.keeper import Keeper
from wire.limits import Allowance, Limits, Throttle, Timing
from wire.link import Link
from wire.noise import Initiator, Responder, is_node_key
from wire.session import Session
from wire.text import safe_text

__all__ = ["PeerNetwork"]

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)

STRANGERS_BURST_S: Final = 0.05
"""What strangers together may send at once, in seconds of their rate: so long others wait for them at most."""
BACKLOG: Final = 128
"""Connections that the kernel may hold until we accept them."""


class PeerNetwork:
    """Everything between the node's channels and the network.

    There is at most one session with a peer, the newest: a peer that opens another lost the older one, even if
    we have not noticed. The exception is when both dial at the same moment: each side would call another one
    the newest. So within `handshake_s` of each other, of two sessions in opposite directions both sides keep
    the one that the smaller node key dialed.

    Limits, see `Limits`. To be used inside one event loop. Log events: `peer.connected`, `peer.disconnected`,
    `peer.refused`, `peer.greeting_failed`, `peer.dial_failed`, `network.listening`, `network.closed`.
    """

    def __init__(
        self,
        node_key: PrivateKey,
        hello: Hello,
        handler: PeerHandler,
        limits: Limits | None = None,
        timing: Timing | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Take the node's key and what it says about itself. `rng` spreads retries, nothing secret."""
        encode(hello)  # a hello out of its bounds shows itself here, not at the first peer
        self.node_id: bytes = node_key.public_key.format()
        """Our node key as peers know it: 33 bytes."""
        self._key = node_key
        self._hello = hello
        self._handler = handler
        self._limits = limits or Limits()
        self._timing = timing or Timing()
        self._sessions: dict[bytes, Session] = {}
        self._strangers: dict[bytes, None] = {}  # in order of age
        self._greetings: dict[Greeting, None] = {}
        self._settling: dict[Link, None] = {}  # in order of age: incoming links that are no sessions
        self._links: set[Link] = set()
        self._arrivals: dict[bytes, set[asyncio.Future[Session]]] = {}
        self._dialing: dict[Greeting, asyncio.Future[Session]] = {}
        self._turns: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._servers: list[asyncio.Server] = []
        self._keeper = Keeper(self, self._limits.dials, self._timing, rng or random.Random())  # noqa: S311
        self._closed = False
        now_s = asyncio.get_running_loop().time()
        self._strangers_together = Throttle(self._limits.strangers_together, now_s, STRANGERS_BURST_S)

    # Listening.

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Accept peers at this address; port 0 lets the system choose. Returns the actual host and port.

        Raises `ListenFailed` when the address cannot be used.
        """
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(self._accept, host, port, backlog=BACKLOG)
        except (OSError, ValueError, OverflowError) as error:
            raise ListenFailed(_why_not_listening(host, port, error)) from error
        self._servers.append(server)
        name = server.sockets[0].getsockname()
        log.info("network.listening", host=name[0], port=name[1], node_id=self.node_id.hex())
        return str(name[0]), int(name[1])

    def _accept(self) -> Link:
        link = Link(Responder(self._key), GREETING_ALLOWANCE, asyncio.get_running_loop())
        greeting = self._greet(link, dialed=False)
        if self._closed:
            greeting.give_up(NetworkClosed("this node is stopping"))
            return link
        if len(self._settling) >= self._limits.handshakes:
            self._drop_oldest()
        self._settling[link] = None
        greeting.expire_after(self._timing.handshake_s, asyncio.get_running_loop())
        return link

    def _drop_oldest(self) -> None:
        oldest = next(iter(self._settling))
        del self._settling[oldest]
        for greeting in self._greetings:
            if greeting.link is oldest:
                text = f"{self._limits.handshakes} handshakes are in flight and newer ones came"
                greeting.give_up(PeerRefused("too_many_peers", text))
                return
        oldest.abort()

    def _greet(self, link: Link, *, dialed: bool) -> Greeting:
        greeting = Greeting(link, self, self._hello, self._timing, dialed=dialed)
        self._greetings[greeting] = None
        self._links.add(link)
        link.gone.add_done_callback(lambda _: self._link_gone(link))
        return greeting

    def _link_gone(self, link: Link) -> None:
        self._links.discard(link)
        self._settling.pop(link, None)

    # Dialing.

    async def dial(self, peer: bytes, host: str, port: int) -> Session:
        """Return the session with this node (33 bytes), after connecting to it there if there is none.

        Does not wait behind the pauses and the queue of `keep_connected`. Raises a `DialFailed`.
        """
        if not is_node_key(peer):
            raise NotThatPeer(f"{peer.hex()} is not a node key: 33 bytes, a compressed point of secp256k1")
        if peer == self.node_id:
            raise NotThatPeer("that is this node's own key")
        turn = self._turns.get(peer)
        if turn is None:
            turn = self._turns[peer] = asyncio.Lock()
        deadline_s = self._timing.dial_s
        try:
            async with asyncio.timeout(deadline_s), turn:
                # One attempt for a peer at a time: two sessions in one direction could be kept crosswise.
                return self.session(peer) or await self._attempt(peer, host, port)
        except TimeoutError as error:
            raise DialTimedOut(f"no session with {host}:{port} within {deadline_s:g} s") from error

    async def _attempt(self, peer: bytes, host: str, port: int) -> Session:
        if self._closed:
            raise NetworkClosed("this node is stopping")
        loop = asyncio.get_running_loop()
        arrival: asyncio.Future[Session] = loop.create_future()
        link = Link(Initiator(self._key, peer), GREETING_ALLOWANCE, loop)
        greeting = self._greet(link, dialed=True)
        self._dialing[greeting] = arrival
        self._arrivals.setdefault(peer, set()).add(arrival)
        connecting = loop.create_task(self._connect(link, host, port, arrival))
        try:
            return await arrival
        finally:
            connecting.cancel()
            del self._dialing[greeting]
            waiting = self._arrivals[peer]
            waiting.discard(arrival)
            if not waiting:
                del self._arrivals[peer]
            if greeting in self._greetings:
                self._leave(greeting, arrival)

    async def _connect(self, link: Link, host: str, port: int, arrival: asyncio.Future[Session]) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: link, host, port)
        except (OSError, ValueError, OverflowError) as error:
            if not arrival.done():
                reached = PeerUnreachable(f"cannot connect to {safe_text(host)}:{port}: {_plain(error)}")
                reached.__cause__ = error
                arrival.set_exception(reached)

    def _leave(self, greeting: Greeting, arrival: asyncio.Future[Session]) -> None:
        """Decide what becomes of an attempt that is not needed any more."""
        if greeting.peer is not None and arrival.done() and not arrival.cancelled() and not arrival.exception():
            # The peer's own dial was faster here, but our hello is out: the peer may keep this one.
            greeting.expire_after(self._timing.handshake_s, asyncio.get_running_loop())
        else:
            greeting.give_up(DialTimedOut("the attempt was given up"))

    def keep_connected(self, peer: bytes, host: str, port: int) -> None:
        """Keep a session with this node, from now on until `forget`: dial again whenever there is none."""
        if not self._closed:
            self._keeper.keep(peer, host, port)

    def forget(self, peer: bytes) -> None:
        """Do not dial this node any more by ourselves. A session that exists goes on."""
        self._keeper.forget(peer)

    # Sessions.

    def session(self, peer: bytes) -> Session | None:
        """Return the session with this node, if there is one."""
        session = self._sessions.get(peer)
        return session if session is not None and session.is_open else None

    def sessions(self) -> tuple[Session, ...]:
        """Return all sessions."""
        return tuple(session for session in self._sessions.values() if session.is_open)

    async def close(self) -> None:
        """Stop listening and dialing, say goodbye to everybody, and return when no connection is left."""
        self._closed = True
        await self._keeper.close()
        for server in self._servers:
            server.close()
        for greeting in tuple(self._greetings):
            greeting.give_up(NetworkClosed("this node is stopping"))
        for session in tuple(self._sessions.values()):
            session.end_now("this node is stopping")
        gone = [link.gone for link in self._links]
        if gone:
            await asyncio.wait(gone)  # every one of them is cut after `farewell_s` at the latest
        for server in self._servers:
            await server.wait_closed()
        log.info("network.closed", node_id=self.node_id.hex())

    # What greetings and sessions call.

    def greeting_secured(self, greeting: Greeting, peer: bytes) -> PeerRefused | None:
        """Decide about room, now that the peer is known. Rules at `Limits`."""
        if greeting.dialed:
            return None
        if peer == self.node_id:
            return PeerRefused("refused", "that is this node's own key")
        if peer in self._sessions:
            return None  # it replaces one, so no room is needed
        known = self._handler.is_known(peer)
        if not known and self._count_strangers() >= self._limits.strangers:
            return PeerRefused("too_many_peers", "no room for another peer without a channel; try again later")
        if len(self._sessions) >= self._limits.connections and not (known and self._drop_stranger()):
            return PeerRefused("too_many_peers", f"all {self._limits.connections} connections are taken")
        return None

    def greeting_done(self, greeting: Greeting, peer: bytes, hello: Hello) -> PeerRefused | None:
        """Make the session, unless a simultaneous one is to be kept."""
        link = greeting.link
        old = self._sessions.get(peer)
        if old is None:
            refusal = self.greeting_secured(greeting, peer)  # others may have been faster since the handshake
            if refusal is not None:
                return refusal
        elif self._keeps(old, greeting):
            self._arrived(old)
            text = "both nodes dialed at the same moment; the other session is kept"
            return PeerRefused("duplicate_session", text)
        del self._greetings[greeting]
        greeting.settle()
        session = Session(
            link,
            peer,
            hello,
            dialed=greeting.dialed,
            handler=self._handler,
            host=self,
            timing=self._timing,
        )
        if old is not None:
            old.end_now("the peer opened a newer session")
        self._settling.pop(link, None)
        self._sessions[peer] = session
        if not greeting.dialed and not self._handler.is_known(peer):
            self._strangers[peer] = None
        link.owner = session
        link.allow(self.allowance(peer), self.shared(peer))
        log.info(
            "peer.connected",
            peer=peer.hex(),
            address=session.address,
            dialed=session.dialed,
            agent=safe_text(hello.agent, 64),
        )
        session.start()
        self._handler.connected(session)
        self._arrived(session)
        return None

    def greeting_failed(self, greeting: Greeting, error: DialFailed) -> None:
        """Tell who dialed; for those who dialed us, the log is the place."""
        self._greetings.pop(greeting, None)
        arrival = self._dialing.get(greeting)
        if arrival is not None and not arrival.done():
            session = None if greeting.peer is None else self.session(greeting.peer)
            if session is not None:
                arrival.set_result(session)
            elif not (isinstance(error, PeerRefused) and error.code == "duplicate_session"):
                arrival.set_exception(error)
            # else: the peer keeps the session that it dialed, which arrives here in a moment.
        if not greeting.dialed:
            facts = {"address": greeting.link.address, "cause": type(error).__name__, "reason": str(error)}
            if greeting.peer is None:
                log.debug("peer.greeting_failed", **facts)  # whoever scans ports must not fill the log
            else:
                log.info("peer.refused", peer=greeting.peer.hex(), **facts)

    def session_ended(self, session: Session, reason: str) -> None:
        """Forget a session and tell the handler."""
        link = session.link
        if self._sessions.get(session.peer) is session:
            del self._sessions[session.peer]
            self._strangers.pop(session.peer, None)
        if not session.dialed and not link.gone.done():
            self._settling[link] = None  # its farewell takes a place of those that are no sessions
            if len(self._settling) > self._limits.handshakes:
                self._drop_oldest()
        reason = safe_text(reason, 400)
        log.info("peer.disconnected", peer=session.peer.hex(), address=session.address, reason=reason)
        self._handler.disconnected(session, reason)

    def allowance(self, peer: bytes) -> Allowance:
        """Return what this peer may use now."""
        return self._limits.known if self._handler.is_known(peer) else self._limits.stranger

    def shared(self, peer: bytes) -> Throttle | None:
        """Return what this peer may use only together with all others without a channel."""
        return None if self._handler.is_known(peer) else self._strangers_together

    def _keeps(self, old: Session, greeting: Greeting) -> bool:
        """Whether `old` is to be kept although `greeting` is newer: see the class."""
        if old.dialed == greeting.dialed or not old.is_open:
            return False
        if asyncio.get_running_loop().time() - old.since_s > self._timing.handshake_s:
            return False
        return old.dialed == (self.node_id < old.peer)

    def _arrived(self, session: Session) -> None:
        for arrival in self._arrivals.get(session.peer, ()):
            if not arrival.done():
                arrival.set_result(session)
        self._keeper.arrived(session.peer)

    def _count_strangers(self) -> int:
        for peer in [p for p in self._strangers if self._handler.is_known(p)]:
            del self._strangers[peer]  # it opened a channel since
        return len(self._strangers)

    def _drop_stranger(self) -> bool:
        self._count_strangers()
        for peer in self._strangers:
            session = self._sessions[peer]
            session.send(ErrorMessage("too_many_peers", "a peer with a channel needs the room", b""))
            session.end_now("a peer with a channel needs the room")
            return True
        return False


def _plain(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return safe_text((isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__)


def _why_not_listening(host: str, port: int, error: Exception) -> str:
    where = f"{host}:{port}"
    match getattr(error, "errno", None):
        case errno.EADDRINUSE:
            return f"{where} is in use by another program, perhaps another node; stop it or choose another port"
        case errno.EACCES:
            return f"{where} needs privileges (ports below 1024 do); choose another port"
        case errno.EADDRNOTAVAIL:
            return f"{host} is not an address of this machine; choose one that is, or 0.0.0.0 for all"
        case _:
            return f"cannot listen on {where}: {_plain(error)}"
