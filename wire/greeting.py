"""From a new connection to a session: handshake, then one `Hello` from each side."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from protocol.messages import ErrorMessage, Hello
from wire.codec import decode, encode
from wire.errors import (
    BadMessage,
    DialFailed,
    DialTimedOut,
    HandshakeFailed,
    NotThatPeer,
    OtherNetwork,
    OtherVersion,
    PeerRefused,
    PeerUnreachable,
    WireError,
)
from wire.limits import Allowance, Timing
from wire.link import Link
from wire.text import safe_text

__all__ = ["GREETING_ALLOWANCE", "Greeting", "GreetingHost", "check_hello"]

GREETING_ALLOWANCE: Final = Allowance(messages_per_s=10, bytes_per_s=65_536, unread_bytes=65_536)
"""One hello needs no more."""


class GreetingHost(Protocol):
    """Who decides about new peers."""

    def greeting_secured(self, greeting: Greeting, peer: bytes) -> PeerRefused | None:
        """Return why this peer gets no session now, or None."""

    def greeting_done(self, greeting: Greeting, peer: bytes, hello: Hello) -> PeerRefused | None:
        """Take over the link and settle the greeting, or return why there is no session after all.

        The peer is authenticated and its `Hello` matches ours.
        """

    def greeting_failed(self, greeting: Greeting, error: DialFailed) -> None:
        """Take note that there will be no session. The link is closing."""


def check_hello(ours: Hello, theirs: Hello) -> DialFailed | None:
    """Return why two nodes cannot talk, naming both sides' values, or None when they can."""
    if theirs.protocol_version != ours.protocol_version:
        return OtherVersion(
            f"the peer speaks version {theirs.protocol_version} of the protocol, this node version "
            f"{ours.protocol_version}; the older of the two needs an upgrade"
        )
    if theirs.network != ours.network:
        return OtherNetwork(
            f"the peer serves the network {theirs.network.hex()}, this node {ours.network.hex()}: "
            f"root key, Perun canister or ledger differ; compare the two configurations"
        )
    return None


class Greeting:
    """A link's first owner. Ends in a session, by `settle`, or in one call of `greeting_failed`."""

    def __init__(self, link: Link, host: GreetingHost, hello: Hello, timing: Timing, *, dialed: bool) -> None:
        self.link = link
        self.dialed = dialed
        """Whether this node dialed."""
        self.peer: bytes | None = None
        self._host = host
        self._hello = hello
        self._timing = timing
        self._ended = False
        self._expiry: asyncio.Handle | None = None
        link.owner = self

    def expire_after(self, delay_s: float, loop: asyncio.AbstractEventLoop) -> None:
        """Give up when the peer's `Hello` is not here in `delay_s` seconds."""
        self._expiry = loop.call_later(delay_s, self._expire, delay_s)

    def give_up(self, error: DialFailed) -> None:
        """End without a session, at once. Does nothing when the greeting is over."""
        if not self._ended:
            self.link.abort()
            self._end(error)

    def refuse(self, code: str, error: DialFailed) -> None:
        """End without a session, and tell the peer why. The handshake is complete."""
        self.link.send(encode(ErrorMessage(code, str(error), b"")))
        self.link.close(farewell_s=self._timing.farewell_s)
        self._end(error)

    def settle(self) -> None:
        """End with a session, which owns the link now."""
        self._stop()

    def link_secured(self, peer: bytes) -> None:
        """Say hello, unless the host has no room for this peer."""
        self.peer = peer
        refusal = self._host.greeting_secured(self, peer)
        if refusal is not None:
            self.refuse(refusal.code, refusal)
            return
        self.link.send(encode(self._hello))

    def link_message(self, data: bytes) -> None:
        """Take the peer's first message that counts: its hello, or why it has none for us."""
        try:
            message = decode(data)
        except BadMessage as error:
            self.refuse(error.code, PeerUnreachable(f"the peer's first message is malformed: {error}"))
            return
        match message:
            case Hello():
                self._compare(message)
            case ErrorMessage():
                self.link.close(farewell_s=self._timing.farewell_s)
                self._end(_refused(message))
            case None:
                pass
            case _:
                text = f"{type(message).__name__} came before Hello"
                self.refuse("bad_message", PeerUnreachable(f"the peer broke the protocol: {text}"))

    def link_lost(self, error: WireError) -> None:
        """Say for people what a connection that ends this early means."""
        if isinstance(error, HandshakeFailed) and self.dialed:
            self._end(NotThatPeer(f"no handshake with the node that was dialed: {error}"))
        elif self.dialed and self.peer is None:
            self._end(
                NotThatPeer(
                    f"the handshake was cut off ({error}): the node there probably has another key than the "
                    f"one that was dialed, or it is not a peer, or it is full"
                )
            )
        else:
            self._end(PeerUnreachable(f"the connection ended before the session began: {error}"))

    def link_throttled(self) -> Allowance:
        """Return the smallest allowance."""
        return GREETING_ALLOWANCE

    def _compare(self, hello: Hello) -> None:
        problem = check_hello(self._hello, hello)
        if problem is not None:
            self.refuse("wrong_version" if isinstance(problem, OtherVersion) else "wrong_network", problem)
            return
        assert self.peer is not None
        refusal = self._host.greeting_done(self, self.peer, hello)
        if refusal is not None:
            self.refuse(refusal.code, refusal)

    def _expire(self, delay_s: float) -> None:
        self.give_up(DialTimedOut(f"the peer did not finish handshake and hello within {delay_s:g} s"))

    def _stop(self) -> None:
        self._ended = True
        if self._expiry is not None:
            self._expiry.cancel()

    def _end(self, error: DialFailed) -> None:
        if not self._ended:
            self._stop()
            self._host.greeting_failed(self, error)


def _refused(message: ErrorMessage) -> DialFailed:
    text = f"the peer answered {message.code}: {safe_text(message.text)}"
    match message.code:
        case "wrong_network":
            return OtherNetwork(text)
        case "wrong_version":
            return OtherVersion(text)
        case _:
            return PeerRefused(message.code, text)
