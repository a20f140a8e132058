"""What a channel needs of the store: its own memory over a restart, and who knows of payments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from protocol.effects import Phase, SignatureRecord
from protocol.messages import Update
from protocol.payments import EMPTY, Batch
from protocol.types import ChannelId, ParticipantIndex, SignedState

__all__ = ["Books", "ChannelMemory"]


class Books(Protocol):
    """What the store knows of payments."""

    def known(self, channel: ChannelId, sender: ParticipantIndex, ids: Batch) -> dict[bytes, str]:
        """Return, of these ids, those that ever were in an update or declined, with their status."""
        ...


@dataclass
class ChannelMemory:
    """What the store remembers of a channel: with its terms, all that a restart needs."""

    phase: Phase
    newest: SignedState
    last_signature: SignatureRecord | None
    pending: Update | None = None
    given_up: tuple[Update, ...] = ()
    """Participant 0's updates that it gave up unacknowledged: the peer may complete them (rule 1)."""
    settled_version: int | None = None
    """What the canister settled on, once the books are closed."""
    peer_holds: int = 0
    counted: int = 0
    """Up to this version what the peer paid counts as received (`protocol.counting`)."""
    uncounted_sent: Batch = EMPTY
    uncounted_received: Batch = EMPTY
    """The payments of the fully signed states above `counted`."""
    frozen: str = ""
    loss_end_version: int | None = None
    """The version on whose shares a loss of data may be ended: adopted, or declared the newest (rule 7)."""
    queued: Batch = EMPTY
    """Ours, neither offered nor in an update."""
    offered: Batch = EMPTY
    """Ours, offered (participant 1 only)."""
    highest_peer_id: bytes = b""
    """The largest id of the peer's payments so far: what is above it is new without a search."""
    declined: int = 0
    """How many of the peer's payments are remembered as declined."""
    declined_up_to: bytes = b""
    """Ids of the peer up to this one that are in no state count as declined."""
