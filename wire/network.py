"""The peers of a node: listening, dialing, and one session for each of them."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import socket
from collections.abc import Callable, Sequence
from typing import Final
from weakref import WeakValueDictionary

import structlog
from coincurve import PrivateKey

from protocol.messages import ErrorMessage, Hello
from wire.address import Address, BadAddress
from wire.codec import encode
from wire.door import Door
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
from wire.keeper import Keeper, Target
from wire.limits import Allowance, Limits, Timing
from wire.link import Link
from wire.nearness import Nearness, connect_within
from wire.noise import Initiator, Responder, is_node_key
from wire.proving import prove
from wire.session import Session
from wire.standings import Standings
from wire.text import safe_text

__all__ = ["PeerNetwork"]

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)

MOST_OWED: Final = 4_096
BACKLOG: Final = 128
"""Connections that the kernel may hold until we accept them."""
ACCEPTED_AT_ONCE: Final = 16
"""Connections that are accepted before those that came before give way: so many more than places are open at a time."""


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
        stake: Callable[[bytes], int] | None = None,
        proven: Callable[[bytes, Address], None] = lambda _peer, _address: None,
    ) -> None:
        """Take the node's key and what it says about itself.

        `stake`: how much a known peer has at stake with us; of two, the one with less gives way when no connection
        is left. `proven`: told where a kept peer proved to be, beside the session with it. `rng` spreads retries and
        chooses who gives way, nothing secret.
        """
        encode(hello)  # a hello out of its bounds shows itself here, not at the first peer
        self.node_id: bytes = node_key.public_key.format()
        """Our node key as peers know it: 33 bytes."""
        self._key = node_key
        self._hello = hello
        self._handler = handler
        self._limits = limits or Limits()
        self._timing = timing or Timing()
        self._stake = stake or (lambda _: 0)
        self._rng = rng or random.Random()  # noqa: S311
        self._sessions: dict[bytes, Session] = {}
        self._standings = Standings(self._limits, handler.is_known, self._is_chosen, self._rng)
        self._chosen: set[bytes] = set()
        self._greetings: dict[Link, Greeting] = {}
        self._door = Door(self._limits, self._standings.known_at, self._give_way, self._rng)
        self._farewells: dict[Link, None] = {}  # in order of age: links of sessions that have ended
        self._links: set[Link] = set()
        self._arrivals: dict[bytes, set[asyncio.Future[Session]]] = {}
        self._dialing: dict[Greeting, asyncio.Future[Session]] = {}
        self._turns: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._servers: list[asyncio.Server] = []
        self._keeper = Keeper(self, self._limits.dials, self._timing, self._rng, proven)
        self._closed = False
        self._owed: dict[bytes, float] = {}
        """Until when peers have used up what they may send: a new session does not make up for it. In loop time."""

    # Listening.

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Accept peers at this address; port 0 lets the system choose. Returns the actual host and port.

        Raises `ListenFailed` when the address cannot be used.
        """
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(self._accept, host, port, backlog=ACCEPTED_AT_ONCE)
            for listening in server.sockets:
                # asyncio has one number for what it accepts in a turn of the loop and for what the kernel holds.
                with socket.fromfd(listening.fileno(), listening.family, listening.type) as same:
                    same.listen(BACKLOG)
        except (OSError, ValueError, OverflowError) as error:
            raise ListenFailed(_why_not_listening(host, port, error)) from error
        self._servers.append(server)
        name = server.sockets[0].getsockname()
        log.info("network.listening", host=name[0], port=name[1], node_id=self.node_id.hex())
        return str(name[0]), int(name[1])

    def _accept(self) -> Link:
        loop = asyncio.get_running_loop()
        link = Link(Responder(self._key), GREETING_ALLOWANCE, loop, self._door)
        greeting = self._greet(link, dialed=False)
        if self._closed:
            greeting.give_up(NetworkClosed("this node is stopping"))
            return link
        greeting.expire_after(self._timing.handshake_s, loop)
        return link

    def _give_way(self, link: Link) -> None:
        """End a connection whose place at the door another one has got."""
        greeting = self._greetings.get(link)
        if greeting is None:
            link.abort()
        else:
            greeting.give_up(PeerRefused("too_many_peers", "more connections came than there are places at the door"))

    def _greet(self, link: Link, *, dialed: bool) -> Greeting:
        greeting = Greeting(link, self, self._hello, self._timing, dialed=dialed)
        self._greetings[link] = greeting
        self._links.add(link)
        link.gone.add_done_callback(lambda _: self._link_gone(link))
        return greeting

    def _link_gone(self, link: Link) -> None:
        self._links.discard(link)
        self._farewells.pop(link, None)
        self._door.left(link)

    # Whom we keep a place for.

    def choose(self, peer: bytes) -> None:
        """Keep a place for this node (33 bytes), whether it has money here or not, until `forget`: we want it."""
        self._chosen.add(peer)

    def _is_chosen(self, peer: bytes) -> bool:
        return peer in self._chosen or self._keeper.keeps(peer)

    def seen_at(self, peer: bytes, origin: str) -> None:
        """Take note of an address where this node proved its key, perhaps before a restart. See `origin_of`."""
        self._standings.seen(peer, origin)

    # Dialing.

    async def dial(self, peer: bytes, host: str, port: int, nearest: Nearness | None = None) -> Session:
        """Return the session with this node (33 bytes), after connecting to it there if there is none.

        `nearest`: go nowhere that is nearer to this machine; None: anywhere. Does not wait behind the pauses and the
        queue of `keep_connected`. Raises a `DialFailed`.
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
            Address(host, port)
        except BadAddress as error:
            raise PeerUnreachable(str(error)) from error
        try:
            async with asyncio.timeout(deadline_s), turn:
                # One attempt for a peer at a time: two sessions in one direction could be kept crosswise.
                return self.session(peer) or await self._attempt(peer, host, port, nearest)
        except TimeoutError as error:
            raise DialTimedOut(f"no session with {Address.shown(host, port)} within {deadline_s:g} s") from error

    async def prove(self, peer: bytes, place: Address, nearest: Nearness | None = None) -> None:
        """Return when this node proved, by a handshake of its own, that it answers there. Sessions stay as they are.

        `nearest`: as in `dial`. Raises a `DialFailed`.
        """
        live = self.session(peer)
        if live is not None and live.dialed_at == place:
            return
        if not is_node_key(peer):
            raise NotThatPeer(f"{peer.hex()} is not a node key: 33 bytes, a compressed point of secp256k1")
        await prove(self._key, peer, place, self._timing.dial_s, nearest)

    def has_money_with(self, peer: bytes) -> bool:
        """Whether this node has money in a channel with us."""
        return self._handler.is_known(peer)

    async def _attempt(self, peer: bytes, host: str, port: int, nearest: Nearness | None) -> Session:
        if self._closed:
            raise NetworkClosed("this node is stopping")
        loop = asyncio.get_running_loop()
        arrival: asyncio.Future[Session] = loop.create_future()
        link = Link(Initiator(self._key, peer), GREETING_ALLOWANCE, loop)
        link.dialed = Address(host, port)
        greeting = self._greet(link, dialed=True)
        self._dialing[greeting] = arrival
        self._arrivals.setdefault(peer, set()).add(arrival)
        connecting = loop.create_task(self._connect(link, nearest, arrival))
        try:
            return await arrival
        finally:
            connecting.cancel()
            del self._dialing[greeting]
            waiting = self._arrivals[peer]
            waiting.discard(arrival)
            if not waiting:
                del self._arrivals[peer]
            if link in self._greetings:
                self._leave(greeting, arrival)

    async def _connect(self, link: Link, nearest: Nearness | None, arrival: asyncio.Future[Session]) -> None:
        assert link.dialed is not None
        host, port = link.dialed.host, link.dialed.port

        async def connect(to: str) -> None:
            await asyncio.get_running_loop().create_connection(lambda: link, to, port)

        try:
            await connect_within(link.dialed, nearest, connect)
        except (OSError, ValueError, OverflowError) as error:
            if not arrival.done():
                reached = PeerUnreachable(f"cannot connect to {safe_text(Address.shown(host, port))}: {_plain(error)}")
                reached.__cause__ = error
                arrival.set_exception(reached)

    def _leave(self, greeting: Greeting, arrival: asyncio.Future[Session]) -> None:
        """Decide what becomes of an attempt that is not needed any more."""
        if greeting.peer is not None and arrival.done() and not arrival.cancelled() and not arrival.exception():
            # The peer's own dial was faster here, but our hello is out: the peer may keep this one.
            greeting.expire_after(self._timing.handshake_s, asyncio.get_running_loop())
        else:
            greeting.give_up(DialTimedOut("the attempt was given up"))

    def keep_connected(self, peer: bytes, targets: Sequence[Target]) -> None:
        """Keep a session with this node, from now on until `forget`: dial again whenever there is none, these addresses
        in turn.
        """
        if not self._closed:
            self._keeper.keep(peer, targets)

    def keeps(self, peer: bytes) -> bool:
        """Whether this node is dialed whenever there is no session with it."""
        return self._keeper.keeps(peer)

    def forget(self, peer: bytes) -> None:
        """Do not dial this node any more by ourselves, and keep no place for it. A session that exists goes on."""
        self._chosen.discard(peer)
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
        self._door.close()
        for greeting in tuple(self._greetings.values()):
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
        favoured = self._standings.favours(peer)
        if not favoured and self._limits.strangers == 0:
            return PeerRefused("too_many_peers", "no room for a peer without money in a channel; try again later")
        if len(self._sessions) >= self._limits.connections and self._to_go(peer, favoured=favoured) is None:
            return PeerRefused("too_many_peers", f"all {self._limits.connections} connections are taken")
        return None

    def _to_go(self, peer: bytes, *, favoured: bool) -> bytes | None:
        """Return whose session ends for one with this peer when all connections are taken, or None."""
        strangers = self._standings.strangers(self._sessions)
        if len(strangers):
            return strangers.one_of_the_fullest()
        stake = self._stake(peer) if favoured else 0
        poorest = min(
            (other for other, session in self._sessions.items() if not session.dialed and not self._is_chosen(other)),
            key=self._stake,
            default=None,
        )
        return poorest if poorest is not None and self._stake(poorest) < stake else None

    def _make_room(self, peer: bytes, origin: str) -> None:
        """End the sessions that have to go for one with this peer, which was found to have a right to it."""
        favoured, limits = self._standings.favours(peer), self._limits
        strangers = self._standings.strangers(self._sessions)
        if not favoured and strangers.count(origin) >= limits.strangers_per_address:
            self._end_for(strangers.one_of(origin), "another peer from this address came")
        elif not favoured and len(strangers) >= limits.strangers:
            self._end_for(strangers.one_of_the_fullest(), "another peer came; those without money in a channel share")
        if len(self._sessions) >= limits.connections:
            goes = self._to_go(peer, favoured=favoured)
            assert goes is not None, "greeting_secured found one"
            self._end_for(goes, "a peer with more in its channels needs the room")

    def _end_for(self, peer: bytes, why: str) -> None:
        session = self._sessions[peer]
        session.send(ErrorMessage("too_many_peers", why, b""))
        session.end_now(why)

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
        if not greeting.dialed and not self._standings.may_begin(peer):
            return PeerRefused("too_many_peers", "this node key opens one session after the other; try again later")
        if old is None and not greeting.dialed:
            self._make_room(peer, link.origin)
        del self._greetings[link]
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
        self._door.left(link)
        self._sessions[peer] = session
        self._standings.came(peer, link.origin, dialed=greeting.dialed)
        link.owner = session
        link.allow(self.allowance(peer), self._standings.shared(peer, link.origin))
        owed_s = self._owed.pop(peer, 0.0) - asyncio.get_running_loop().time()
        if owed_s > 0:
            link.charge(1 + owed_s)  # the first second's worth, which is free for others, and what it owes
        self._note(peer)(
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
        self._greetings.pop(greeting.link, None)
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
                self._note(greeting.peer)("peer.refused", peer=greeting.peer.hex(), **facts)

    def session_ended(self, session: Session, reason: str) -> None:
        """Forget a session and tell the handler."""
        link = session.link
        if link.debt_s > 0:
            self._owed[session.peer] = asyncio.get_running_loop().time() + link.debt_s
            if len(self._owed) > MOST_OWED:
                del self._owed[next(iter(self._owed))]
        if self._sessions.get(session.peer) is session:
            del self._sessions[session.peer]
            self._standings.left(session.peer)
        if not session.dialed and not link.gone.done():
            self._farewells[link] = None
            if len(self._farewells) > self._limits.farewells:
                next(iter(self._farewells)).abort()
        reason = safe_text(reason, 400)
        self._note(session.peer)("peer.disconnected", peer=session.peer.hex(), address=session.address, reason=reason)
        self._handler.disconnected(session, reason)

    def allowance(self, peer: bytes) -> Allowance:
        """Return what this peer may use now."""
        return self._limits.known if self._handler.is_known(peer) else self._limits.stranger

    def _note(self, peer: bytes) -> Callable[..., object]:
        """Return how a fact about a peer is logged: strangers come and go without filling the log."""
        return log.info if self._standings.favours(peer) else log.debug

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


def _plain(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return safe_text((isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__)


def _why_not_listening(host: str, port: int, error: Exception) -> str:
    where = Address.shown(host, port)
    match getattr(error, "errno", None):
        case errno.EADDRINUSE:
            return f"{where} is in use by another program, perhaps another node; stop it or choose another port"
        case errno.EACCES:
            return f"{where} needs privileges (ports below 1024 do); choose another port"
        case errno.EADDRNOTAVAIL:
            return f"{host} is not an address of this machine; choose one that is, or 0.0.0.0 for all"
        case _:
            return f"cannot listen on {where}: {_plain(error)}"
