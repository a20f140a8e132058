"""A session: one authenticated connection whose two sides have said hello and match."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from protocol.messages import ErrorMessage, Hello, Message, Ping, Pong
from wire.address import Address
from wire.codec import decode, encode
from wire.errors import BadMessage, WireError
from wire.handler import PeerHandler
from wire.limits import Allowance, Timing
from wire.link import Link
from wire.nearness import Nearness

__all__ = ["Session", "SessionHost"]

IDLE_COST_S: Final = 0.000_4
"""What a message counts as that has no effect, in seconds of the peer's rate: a session needs one now and then."""
COMPLAINT_COST_S: Final = 0.01
"""What a complaint counts as: it is shown to people, who read slowly."""


class SessionHost(Protocol):
    """What a session asks of its network."""

    def session_ended(self, session: Session, reason: str) -> None:
        """Forget the session and tell the handler. Exactly once."""

    def allowance(self, peer: bytes) -> Allowance:
        """Return what this peer may use now."""


class Session:
    """The peer's side of a conversation, as the node sees it.

    `send` never waits and never fails: what cannot be delivered is repeated after the next `Resume`, which is
    the protocol's own answer to every kind of loss.
    """

    def __init__(
        self,
        link: Link,
        peer: bytes,
        hello: Hello,
        *,
        dialed: bool,
        handler: PeerHandler,
        host: SessionHost,
        timing: Timing,
    ) -> None:
        self.peer = peer
        """The peer's node key: 33 bytes, a compressed point."""
        self.hello = hello
        """What the peer said about itself."""
        self.dialed = dialed
        """Whether this node dialed."""
        self.link = link
        loop = asyncio.get_running_loop()
        self.since_s = loop.time()
        """Loop time when both had said hello."""
        self.fault: str | None = None
        """What the peer did wrong, a word of docs/protocol.md, when that is why we ended the session."""
        self._loop = loop
        self._handler = handler
        self._host = host
        self._timing = timing
        self._closing = False
        self._ended: asyncio.Future[str] = loop.create_future()
        self._pings = 0
        self._silent_since_s: float | None = None
        self._timer: asyncio.Handle | None = None

    def __repr__(self) -> str:
        return f"Session({self.peer.hex()}, {self.address})"

    @property
    def address(self) -> str:
        """Where the peer is, for people: `host:port` as seen from here."""
        return self.link.address

    @property
    def dialed_at(self) -> Address | None:
        """The address at which the peer proved to be by this session's handshake; None when it dialed us."""
        return self.link.dialed

    @property
    def nearness(self) -> Nearness | None:
        """How near to this machine the peer's IP address is; None when it has none."""
        return self.link.nearness

    @property
    def origin(self) -> str:
        """Its address, as far as places are counted by it."""
        return self.link.origin

    @property
    def is_open(self) -> bool:
        """Whether what is sent now can still arrive."""
        return not self._closing

    def start(self) -> None:
        """Take over the link and watch for silence. For the network, after the handler knows the session."""
        self._timer = self._loop.call_later(self._timing.ping_after_s, self._check_silence)

    def send(self, message: Message) -> None:
        """Queue one message: in order, encrypted, in one write with whatever else this turn of the loop sends.

        Does nothing once the session is closing. Raises `InvariantBroken` for a message out of its bounds.
        """
        if not self._closing:
            self.link.send(encode(message))

    def fail(self, code: str, text: str, channel: bytes = b"") -> None:
        """Tell the peer what it did wrong and end the session. `code`: a word of docs/protocol.md."""
        self.fault = code
        self.send(ErrorMessage(code, text, channel))
        self.close(f"{code}: {text}")

    def charge(self, seconds: float) -> None:
        """Count the message that is being handled as so many seconds' worth of what the peer may send: it cost more
        than most.
        """
        self.link.charge(seconds)

    def hold(self) -> None:
        """Read nothing more from the peer until `release`: what it made us do is not done yet."""
        self.link.hold()

    def release(self) -> None:
        """Read on."""
        self.link.release()

    def close(self, reason: str) -> None:
        """End the session; what was sent is still delivered to a peer that reads.

        Nothing is received from now on; the handler hears `disconnected` in the next turn of the loop, so that
        this can be called from inside any of its calls.
        """
        if not self._closing:
            self._stop()
            self.link.close(farewell_s=self._timing.farewell_s)
            self._loop.call_soon(self._end, reason)

    def end_now(self, reason: str) -> None:
        """End the session and tell the handler before this returns. For the network, when another replaces it."""
        self._stop()
        self.link.close(farewell_s=self._timing.farewell_s)
        self._end(reason)

    async def closed(self) -> str:
        """Wait for the end and return its reason."""
        return await asyncio.shield(self._ended)

    def link_secured(self, peer: bytes) -> None:
        """Never happens: the handshake was over before the session began."""
        raise AssertionError(f"a second handshake with {peer.hex()}")

    def link_message(self, data: bytes) -> None:
        """Decode one message and hand it on."""
        try:
            message = decode(data)
        except BadMessage as error:
            self.fail(error.code, str(error))
            return
        match message:
            case Ping():
                self.charge(IDLE_COST_S)
                self.send(Pong(message.nonce))
            case Pong() | None:
                self.charge(IDLE_COST_S)  # a sign of life is all that a pong is; an unknown odd type may be ignored
            case Hello():
                self.fail("bad_message", "a second Hello")
            case ErrorMessage(code="duplicate_session"):
                self.close("the peer keeps another session with this node")
            case ErrorMessage():
                self.charge(COMPLAINT_COST_S)
                self._handler.peer_error(self, message)
            case _:
                self._handler.received(self, message)

    def link_lost(self, error: WireError) -> None:
        """End with the link."""
        self._stop()
        self._end(str(error))

    def link_throttled(self) -> Allowance:
        """Return what this peer may use now."""
        return self._host.allowance(self.peer)

    def _check_silence(self) -> None:
        now_s = self._loop.time()
        silence_s = now_s - self.link.heard_s
        if silence_s >= self._timing.dead_after_s:
            self._stop()
            self.link.abort()
            self._end(f"the peer was silent for {silence_s:.0f} s")
            return
        if silence_s >= self._timing.ping_after_s:
            if self._silent_since_s != self.link.heard_s:  # one ping for each silence
                self._silent_since_s = self.link.heard_s
                self._pings += 1
                self.send(Ping(self._pings))
            due_s = self.link.heard_s + self._timing.dead_after_s
        else:
            due_s = self.link.heard_s + self._timing.ping_after_s
        self._timer = self._loop.call_at(due_s, self._check_silence)

    def _stop(self) -> None:
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self, reason: str) -> None:
        if not self._ended.done():
            self._ended.set_result(reason)
            self._host.session_ended(self, reason)
