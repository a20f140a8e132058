"""Connections between nodes: ordered and authenticated, late, and cut at any message.

What is lost is always the end of what was sent, in each direction for itself; each side notices in its own time,
and a new session may replace one whose end was not noticed.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from protocol.messages import ErrorMessage, Hello, Message
from tests.simulation.power import LIFE, Life, PowerCut
from wire.codec import decode, encode
from wire.errors import PeerUnreachable
from wire.handler import PeerHandler
from wire.keeper import Target

if TYPE_CHECKING:
    from tests.simulation.faults import Faults
    from tests.simulation.rules import Rules

__all__ = ["Road", "SimNetwork", "SimSession"]

TICK_S: Final = 1e-6
UNNOTICED_S: Final = 3.0
"""At most so long until a side notices that its session is over."""


class SimSession:
    """One side of a connection, with the interface of `wire.session.Session`."""

    def __init__(self, network: SimNetwork, link: _Link, peer: SimNetwork) -> None:
        self.network = network
        self.link = link
        self.peer = peer.node_id
        self.hello = peer.hello
        self.is_open = False
        """Not before it began: a side that never did hears of no end."""
        self.dialed = False
        self.address = self.origin = "simulated"
        self.dialed_at = None

    def send(self, message: Message) -> None:
        life = self.network.life
        if not self.is_open:
            if not life.alive:
                raise PowerCut
            return
        name = type(message).__name__
        life.effect(f"send.{name}")
        for part in life.house.outgoing(message):
            data = encode(part)
            life.house.rules.leaves(life, part)
            self.link.carry(self, data)
        life.effect(f"sent.{name}")

    def close(self, reason: str) -> None:
        """This side ends it; the other one hears of it in its own time."""
        self.link.cut()
        self.network.life.house.loop.call_soon(self.end, reason)

    def fail(self, code: str, text: str, channel: bytes = b"") -> None:
        """Nobody here sends what is no message."""
        raise AssertionError(f"{code}: {text}")

    def charge(self, seconds: float) -> None:
        """Nobody floods here."""

    def hold(self) -> None:
        """What is on its way arrives all the same."""

    def release(self) -> None:
        """As `hold`."""

    def end(self, reason: str) -> None:
        """This side knows that it is over."""
        if self.is_open:
            self.is_open = False
            self.network.session_ended(self, reason)


class SimNetwork:
    """The sessions of one life, with the part of `wire.network.PeerNetwork` that the node uses."""

    def __init__(self, life: Life, node_id: bytes, hello: Hello, handler: PeerHandler, road: Road) -> None:
        self.life = life
        self.node_id = node_id
        self.hello = hello
        self.handler = handler
        self._road = road
        self._sessions: dict[bytes, SimSession] = {}

    def session(self, peer: bytes) -> SimSession | None:
        return self._sessions.get(peer)

    def sessions(self) -> tuple[SimSession, ...]:
        return tuple(self._sessions.values())

    async def dial(self, peer: bytes, host: str, port: int) -> SimSession:
        raise PeerUnreachable(f"nobody answers at {host}:{port}")

    def keep_connected(self, peer: bytes, targets: Sequence[Target]) -> None:
        """The road keeps everybody connected."""

    def keeps(self, peer: bytes) -> bool:
        """Everybody is."""
        return True

    def forget(self, peer: bytes) -> None:
        """The road keeps everybody connected but a copy that is to leave the others alone."""
        if self.life.house.is_double:
            self._road.leave_alone(self.life.house.road_name)

    def choose(self, peer: bytes) -> None:
        """The road has room for everybody."""

    def seen_at(self, peer: bytes, origin: str) -> None:
        """The road has no addresses."""

    def began(self, session: SimSession) -> None:
        """A session is there; it takes the place of an older one."""
        old = self._sessions.get(session.peer)
        if old is not None:
            old.end("the peer opened a newer session")
            old.link.cut()  # the other end of it, which may be another copy of the peer, notices in its own time
        self._sessions[session.peer] = session
        if self.life.house.tell is not None:
            self.life.house.tell(f"{self.life.house.name} has a session")
        self.handler.connected(session)  # type: ignore[arg-type]  # the part of a session that handlers use

    def session_ended(self, session: SimSession, reason: str) -> None:
        if self.life.house.tell is not None:
            self.life.house.tell(f"{self.life.house.name} lost a session: {reason}")
        if self._sessions.get(session.peer) is session:
            del self._sessions[session.peer]
        self.handler.disconnected(session, reason)  # type: ignore[arg-type]  # as above


class _Link:
    """One connection."""

    def __init__(self, road: Road, first: SimNetwork, second: SimNetwork) -> None:
        self._road = road
        self._loop = road.loop
        self.whole = True
        self.sides = (SimSession(first, self, second), SimSession(second, self, first))
        now = self._loop.time()
        self._arrives = [now + road.faults_of(side).travel_s() for side in self.sides]
        for side, at in zip(self.sides, self._arrives, strict=True):
            self._loop.call_at(at, self._begin, side, context=side.network.life.context)

    def _begin(self, side: SimSession) -> None:
        if self.whole and side.network.life.alive:
            side.is_open = True
            side.network.began(side)

    def carry(self, sender: SimSession, data: bytes) -> None:
        """Take bytes from one side to the other, after all that were sent before."""
        if not self.whole:
            return
        if self._road.faults_of(sender).cuts():
            keeps_this = self._road.rng.random() < 0.5
            if not keeps_this:
                self.cut()
                return
            self._send(sender, data)
            self._loop.call_at(
                self._arrives[1 - self.sides.index(sender)] + TICK_S, self.cut, context=self._road.context
            )
            return
        self._send(sender, data)

    def _send(self, sender: SimSession, data: bytes) -> None:
        place = 1 - self.sides.index(sender)
        receiver = self.sides[place]
        # Timers of one moment run in any order: messages arrive one after the other.
        at = max(self._arrives[place] + TICK_S, self._loop.time() + self._road.faults_of(sender).travel_s())
        self._arrives[place] = at
        self._loop.call_at(at, self._arrive, receiver, data, context=receiver.network.life.context)

    def _arrive(self, receiver: SimSession, data: bytes) -> None:
        if not self.whole or not receiver.is_open or not receiver.network.life.alive:
            return
        message = decode(data)
        assert message is not None
        house = receiver.network.life.house
        house.note_received(message)
        if house.tell is not None:
            house.tell(f"{house.name} receives {message}")
        if isinstance(message, ErrorMessage):
            receiver.network.handler.peer_error(receiver, message)  # type: ignore[arg-type]  # as in `began`
        else:
            receiver.network.handler.received(receiver, message)  # type: ignore[arg-type]  # as in `began`

    def cut(self) -> None:
        """Break. What did not arrive is lost; each side notices when it notices."""
        if not self.whole:
            return
        self.whole = False
        for side in self.sides:
            life = side.network.life
            if life.alive:
                pause = self._road.rng.choice((0.0, self._road.rng.uniform(0, UNNOTICED_S)))
                self._loop.call_later(pause, self._notice, side, context=life.context)
        self._road.link_ended(self)

    def _notice(self, side: SimSession) -> None:
        if side.network.life.alive:
            side.end("the connection broke")


class Road:
    """Connects everybody with everybody, again and again."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rng: random.Random, rules: Rules) -> None:
        self.loop = loop
        self.rng = rng
        self.rules = rules
        self.healed = False
        self.context = contextvars.copy_context()
        """That of the world: connections belong to no life."""
        self._links: dict[tuple[str, str], _Link] = {}
        self._blocked: dict[tuple[str, str], float] = {}
        self._networks: dict[str, SimNetwork] = {}

    def faults_of(self, side: SimSession) -> Faults:
        return side.network.life.house.faults

    def add(self, name: str, network: SimNetwork) -> None:
        """A node is up."""
        self._networks[name] = network
        for other, there in self._networks.items():
            if there.node_id != network.node_id:
                self._connect_later(*sorted((name, other)))

    def remove(self, name: str) -> None:
        """A node is down."""
        self._networks.pop(name, None)
        for pair, link in list(self._links.items()):
            if name in pair:
                link.cut()

    def leave_alone(self, name: str) -> None:
        """A node dials nobody any more; the connections that it has go on."""
        self._networks.pop(name, None)

    def link_ended(self, link: _Link) -> None:
        for pair, known in list(self._links.items()):
            if known is link:
                del self._links[pair]
                self._connect_later(*pair)

    def cut(self, first: str, second: str, for_s: float) -> None:
        """Cut two nodes off from each other for a while."""
        a, b = sorted((first, second))
        self._blocked[a, b] = self.loop.time() + for_s
        link = self._links.get((a, b))
        if link is not None:
            link.cut()

    def _connect_later(self, first: str, second: str) -> None:
        pause = 0.05 if self.healed else self.rng.choice((0.02, self.rng.uniform(0.02, 1.5)))
        wait = 0.0 if self.healed else max(0.0, self._blocked.get((first, second), 0.0) - self.loop.time())
        self.loop.call_later(pause + wait, self._connect, first, second, context=self.context)

    def _connect(self, first: str, second: str) -> None:
        assert LIFE.get() is None, "connections belong to the world"
        a, b = self._networks.get(first), self._networks.get(second)
        if a is None or b is None or not (a.life.alive and b.life.alive) or (first, second) in self._links:
            return
        if not self.healed and self._blocked.get((first, second), 0.0) > self.loop.time():
            self._connect_later(first, second)
            return
        self._links[first, second] = _Link(self, a, b)
