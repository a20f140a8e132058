"""What the node's channels must offer to the network of peers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from protocol.messages import ErrorMessage, PeerMessage

if TYPE_CHECKING:
    from wire.session import Session

__all__ = ["PeerHandler"]


class PeerHandler(Protocol):
    """Receives what peers say. Every call is synchronous, in order, and made by the event loop's thread.

    For one peer the calls are `connected`, then any of the others, then `disconnected`; after that nothing of
    that session is heard, and the next `connected` is another session. An exception out of a call is a
    defect: it ends the session and reaches the event loop's exception handler.
    """

    def connected(self, session: Session) -> None:
        """Take note of a session: authenticated, of our network and version. `session.send` works."""

    def received(self, session: Session, message: PeerMessage) -> None:
        """Take one message. It has the right form; whether it makes sense is to be decided here."""

    def disconnected(self, session: Session, reason: str) -> None:
        """Take note of the session's end. Nothing can be sent any more."""

    def peer_error(self, session: Session, message: ErrorMessage) -> None:
        """Take the peer's complaint. The session goes on unless the peer ends it, which it mostly does."""

    def is_known(self, peer: bytes) -> bool:
        """Whether this node (33 bytes) has a channel with us, and so a right to room. Called often."""
        ...
