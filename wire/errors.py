"""What can go wrong between peers.

* `WireError`
    * `HandshakeFailed`: the bytes of an act are not what the node we wanted would send.
    * `BadFrame`: a frame does not decrypt. Something between the peers changed it.
    * `BadMessage`: a decrypted message breaks the specification. Answered with its code.
    * `LinkLost`: the connection ended, or had to be ended.
    * `ListenFailed`: the address to listen on cannot be used.
    * `DialFailed`: no session; one subclass for each reason.
"""

from __future__ import annotations

from enum import StrEnum

from protocol.errors import PerundError

__all__ = [
    "BadFrame",
    "BadMessage",
    "DialFailed",
    "DialTimedOut",
    "HandshakeFailed",
    "HandshakeFault",
    "LinkLost",
    "ListenFailed",
    "NetworkClosed",
    "NotThatPeer",
    "OtherNetwork",
    "OtherVersion",
    "PeerRefused",
    "PeerUnreachable",
    "WireError",
]


class WireError(PerundError):
    """Base of every error of this layer."""


class HandshakeFault(StrEnum):
    """What is wrong with an act. Source: BOLT #8, the steps of receiving each act."""

    SHORT = "short"
    VERSION = "version"
    KEY = "key"
    MAC = "mac"
    KEY_MAC = "key_mac"
    """The encrypted static key of act three."""


class HandshakeFailed(WireError):
    """Act `act` (1, 2 or 3) was not acceptable. The connection is closed without an answer."""

    def __init__(self, act: int, fault: HandshakeFault, message: str) -> None:
        super().__init__(message)
        self.act = act
        self.fault = fault


class BadFrame(WireError):
    """A frame does not decrypt under the session's keys. Nothing that follows can be read."""


class BadMessage(WireError):
    """A message breaks the specification.

    `code` is a word of docs/protocol.md; the message names the type and the field, never key material.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class LinkLost(WireError):
    """The connection ended: by the peer, by the network between, or because the peer stopped reading."""


class ListenFailed(WireError):
    """The address to listen on cannot be used. The message says what to do."""


class DialFailed(WireError):
    """Base: there is no session with the peer that was to be dialed."""


class PeerUnreachable(DialFailed):
    """No connection to that host and port, or it ended before both sides had said hello."""


class NotThatPeer(DialFailed):
    """Somebody answers there who does not prove to have the expected node key."""


class OtherNetwork(DialFailed):
    """The peer serves another network: root key, canister or ledger differ."""


class OtherVersion(DialFailed):
    """The peer speaks another version of the protocol."""


class PeerRefused(DialFailed):
    """The peer, or our own limits, refused the session. `code` is a word of docs/protocol.md."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class DialTimedOut(DialFailed):
    """Connecting, handshake and hello together took too long."""


class NetworkClosed(DialFailed):
    """Our own node is stopping."""
