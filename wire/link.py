"""One TCP connection: the handshake, then encrypted messages in order, with bounds both ways.

A link knows no message. It hands bytes to its owner, who is first a greeting and then a session.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from wire.address import Address
from wire.cipher import FRAME_OVERHEAD, Opener, Sealer
from wire.errors import BadFrame, HandshakeFailed, LinkLost, WireError
from wire.limits import Allowance, Throttle
from wire.nearness import Nearness, nearness_of
from wire.noise import Initiator, Responder
from wire.origin import origin_of
from wire.text import safe_text

__all__ = ["Gate", "Link", "LinkOwner"]

TURN_MESSAGES: Final = 64
"""Messages handed over in one turn of the event loop; then others have theirs."""
TURN_S: Final = 0.002
"""The same in seconds: some messages cost a hundred times what others do."""
FLUSH_BYTES: Final = 256 * 1024
"""Frames of one turn are joined into one write, up to this much."""
SLOW_BYTES: Final = 1024 * 1024
SLOW_S: Final = 60.0
"""Who leaves `SLOW_BYTES` unread for so long loses the link: many who each keep below their bound would hold much."""


class LinkOwner(Protocol):
    """Who is told what happens on a link. After `Link.close` or `link_lost` it is told nothing more."""

    def link_secured(self, peer: bytes) -> None:
        """Take note that the handshake is complete: the other end has this node key (33 bytes)."""

    def link_message(self, data: bytes) -> None:
        """Take one decrypted message."""

    def link_lost(self, error: WireError) -> None:
        """Take note that the link failed and is closed. At most once."""

    def link_throttled(self) -> Allowance:
        """Return the peer's present allowance: it may have become a known one."""


class Gate(Protocol):
    """Who lets connections in."""

    def link_came(self, link: Link) -> None:
        """Take note of a connection, now that its address is known. May abort it."""

    def may_begin(self, link: Link) -> bool:
        """Return whether its handshake may begin now: it costs us something. Else the gate calls `go_on`, once."""
        ...


class Link(asyncio.Protocol):
    """The `asyncio` protocol of one connection. Its states: handshake, open, closing, gone.

    Frames that are sent in one turn of the loop leave in one write. Reading pauses while a backlog is worked
    off or the peer is above its allowance, so what a peer can make us hold is bounded.
    """

    owner: LinkOwner

    def __init__(
        self,
        handshake: Initiator | Responder,
        allowance: Allowance,
        loop: asyncio.AbstractEventLoop,
        gate: Gate | None = None,
    ) -> None:
        """`gate`: who decides when the handshake begins; None: at once."""
        self.gone: asyncio.Future[None] = loop.create_future()
        """Done when the connection does not exist any more."""
        self.heard_s = loop.time()
        """Loop time when bytes last arrived."""
        self.address = "unconnected"
        """Where the other end is, for people."""
        self.dialed: Address | None = None
        """What we dialed, when we did: once the link is secured, the peer has proved that it is there."""
        self.nearness: Nearness | None = None
        """How near its IP address is, once it is connected."""
        self.origin = ""
        """Its address, as far as places are counted by it: see `origin_of`."""
        self.closing = False
        self.unread_limit = allowance.unread_bytes
        self._loop = loop
        self._handshake = handshake
        self._acts = bytearray()
        self._sealer: Sealer | None = None
        self._opener: Opener | None = None
        self._gate = gate
        self._throttle = Throttle(allowance, self.heard_s)
        self._shared: tuple[Throttle, ...] = ()
        self._held = False
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._corked = False
        self._flush_due: asyncio.Handle | None = None
        self._pump_due: asyncio.Handle | None = None
        self._cut_due: asyncio.Handle | None = None
        self._slow_due: asyncio.Handle | None = None

    def allow(self, allowance: Allowance, shared: tuple[Throttle, ...] = ()) -> None:
        """Change what the peer may use. `shared`: what it uses together with others, and within its own."""
        self.unread_limit = allowance.unread_bytes
        self._throttle.allow(allowance)
        self._shared = shared

    def charge(self, seconds: float) -> None:
        """Count the message that was just handed over as so many seconds' worth of the peer's."""
        self._throttle.charge(seconds)

    @property
    def debt_s(self) -> float:
        """After how many seconds the peer is read on, as far as it alone decides."""
        return self._throttle.debt_s()

    def hold(self) -> None:
        """Hand over and read nothing more until `release`."""
        self._held = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def release(self) -> None:
        """Go on after `hold`, in the next turn of the loop."""
        if self._held:
            self._held = False
            if not self.closing and self._pump_due is None and self._transport is not None:
                self._pump_later(0)

    # What the owner does.

    def send(self, data: bytes) -> None:
        """Encrypt and queue one message. Does nothing when the link is closing.

        A peer that leaves too much unread loses the link in the next turn of the loop.
        """
        if self.closing:
            return
        assert self._sealer is not None, "the handshake is complete before an owner sends"
        frame = self._sealer.seal(data)
        self._out.append(frame)
        self._out_bytes += len(frame)
        if self._out_bytes >= FLUSH_BYTES:
            self._flush()
            self._check_unread()
        elif not self._corked and self._flush_due is None:
            self._flush_due = self._loop.call_soon(self._flush)

    def close(self, *, farewell_s: float) -> None:
        """End the link; what was sent is still delivered if the peer reads it within `farewell_s` seconds.

        Only our direction is shut at first and what arrives is thrown away: a socket that is closed with unread
        bytes in it resets the connection, and the peer may never see our last message.
        """
        if self.closing:
            return
        self._flush()
        self.closing = True
        self._cancel_pump()
        transport = self._transport
        if transport is None or transport.is_closing() or farewell_s <= 0:
            self.abort()
            return
        transport.resume_reading()
        try:
            transport.write_eof()
        except OSError:  # the other end has cut it, and the event loop has not told us yet
            self.abort()
            return
        self._cut_due = self._loop.call_later(farewell_s, self.abort)

    def abort(self) -> None:
        """Cut the connection at once."""
        self.closing = True
        self._cancel_pump()
        if self._transport is not None:
            self._transport.abort()
        elif not self.gone.done():
            self.gone.set_result(None)

    # What asyncio does.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake. (asyncio has set TCP_NODELAY.)"""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=SLOW_BYTES)
        name = transport.get_extra_info("peername")
        self.address = Address.shown(name[0], name[1]) if isinstance(name, tuple) else str(name)
        self.origin = origin_of(str(name[0]) if isinstance(name, tuple) else str(name))
        self.nearness = nearness_of(str(name[0])) if isinstance(name, tuple) else None
        if not self.closing and self._gate is not None:
            self._gate.link_came(self)
        if self.closing:
            transport.abort()
            return
        self.heard_s = self._loop.time()
        first = self._handshake.begin()
        if first:
            transport.write(first)

    def data_received(self, data: bytes) -> None:
        """Advance the handshake, or hand over the messages that are complete."""
        if self.closing:
            return
        self.heard_s = self._loop.time()
        if self._opener is not None:
            self._opener.feed(data)
            if self._pump_due is None:
                self._pump()
            return
        self._acts += data
        self._step()

    def eof_received(self) -> None:
        """Let asyncio close the transport: a peer that has ended its direction is gone."""

    def pause_writing(self) -> None:
        """Give the peer a while to read."""
        self._slow_due = self._loop.call_later(SLOW_S, self._too_slow)

    def resume_writing(self) -> None:
        """The peer has caught up."""
        if self._slow_due is not None:
            self._slow_due.cancel()
            self._slow_due = None

    def _too_slow(self) -> None:
        self._fail(LinkLost(f"the peer reads too slowly: {SLOW_BYTES} bytes waited for {SLOW_S:g} s"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, unless it knows."""
        self.resume_writing()
        if self._cut_due is not None:
            self._cut_due.cancel()
        if self._flush_due is not None:
            self._flush_due.cancel()
        if not self.closing:
            why = "the peer closed the connection" if exc is None else f"the connection broke: {safe_text(str(exc))}"
            self._fail(LinkLost(why))
        if not self.gone.done():
            self.gone.set_result(None)

    def go_on(self) -> None:
        """Begin the handshake for which the gate had us wait."""
        if not self.closing and self._transport is not None and not self._transport.is_closing():
            self._gate = None
            self._transport.resume_reading()
            self._step()

    # How it works.

    def _step(self) -> None:
        try:
            self._advance()
        except HandshakeFailed as error:
            self._fail(error)

    def _advance(self) -> None:
        handshake = self._handshake
        while handshake.secured is None:
            if len(self._acts) < handshake.expects:
                return
            if self._gate is not None:
                if not self._gate.may_begin(self):
                    assert self._transport is not None
                    self._transport.pause_reading()
                    return
                self._gate = None
            act = bytes(self._acts[: handshake.expects])
            del self._acts[: handshake.expects]
            answer = handshake.receive(act)
            if answer:
                assert self._transport is not None
                self._transport.write(answer)
        secured = handshake.secured
        self._sealer = Sealer(secured.send_key, secured.chaining_key)
        self._opener = Opener(secured.receive_key, secured.chaining_key)
        self._opener.feed(self._acts)
        self._acts.clear()
        self.owner.link_secured(secured.peer)
        self._pump()

    def _pump(self) -> None:
        """Hand over messages: as many as there are, as one turn allows, and as the peer is allowed."""
        self._pump_due = None
        if self.closing or self._held:
            return
        assert self._opener is not None
        now_s = self._loop.time()
        for throttle in (self._throttle, *self._shared):
            throttle.refill(now_s)
        if self._throttle.owes:  # what was charged while it was held
            self._pause()
            return
        self._corked = True
        try:
            self._hand_over(self._opener, now_s + TURN_S)
        except BadFrame as error:
            self._fail(error)
        except BaseException:
            # A defect in the owner: the event loop reports it, and nothing more is read from this peer.
            self._fail(LinkLost("an internal error while a message was handled"))
            raise
        finally:
            self._corked = False
        self._flush()

    def _hand_over(self, opener: Opener, until_s: float) -> None:
        for _ in range(TURN_MESSAGES):
            data = opener.next()
            if data is None:
                if self._transport is not None and not self._transport.is_closing():
                    self._transport.resume_reading()
                return
            in_time = self._throttle.spend(len(data) + FRAME_OVERHEAD)
            for throttle in self._shared:
                in_time = throttle.spend(len(data) + FRAME_OVERHEAD) and in_time
            self.owner.link_message(data)
            if self.closing or self._held:
                return
            if not in_time or self._throttle.owes:
                self._pause()
                return
            if self._loop.time() >= until_s:
                break
        self._pump_later(0)

    def _pause(self) -> None:
        allowance = self.owner.link_throttled()
        if allowance != self._throttle.allowance:
            self.allow(allowance)
        self._pump_later(max(throttle.debt_s() for throttle in (self._throttle, *self._shared)))

    def _pump_later(self, delay_s: float) -> None:
        assert self._transport is not None
        self._transport.pause_reading()
        loop = self._loop
        self._pump_due = loop.call_later(delay_s, self._pump) if delay_s > 0 else loop.call_soon(self._pump)

    def _cancel_pump(self) -> None:
        if self._pump_due is not None:
            self._pump_due.cancel()
            self._pump_due = None

    def _flush(self) -> None:
        if self._flush_due is not None:
            self._flush_due.cancel()
            self._flush_due = None
        if not self._out:
            return
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self._out_bytes = 0
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
            self._check_unread()

    def _check_unread(self) -> None:
        if self._transport is None or self.closing:
            return
        unread = self._transport.get_write_buffer_size()
        if unread > self.unread_limit:
            self.closing = True  # nothing more is sent or read; the owner is told outside of its own call
            self._loop.call_soon(self._lose, LinkLost(f"the peer does not read: {unread} bytes wait for it"))

    def _fail(self, error: WireError) -> None:
        if not self.closing:
            self.closing = True
            self._lose(error)

    def _lose(self, error: WireError) -> None:
        self.abort()
        self.owner.link_lost(error)
