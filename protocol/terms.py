"""What two peers agreed when they opened a channel."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from protocol.types import ChannelId, Funding, Nanos, Params, ParticipantIndex, State, other

__all__ = ["Terms", "network_hash"]


def network_hash(root_key_der: bytes, perun_canister: bytes, icp_ledger: bytes) -> bytes:
    """Return 32 bytes that name a network: root key (133 bytes of DER) and two canisters (raw principals).

    Each part is preceded by its length in one byte (the root key's in two, big endian). Source: docs/protocol.md.
    """
    return hashlib.sha256(
        b"perund-network"
        + len(root_key_der).to_bytes(2, "big")
        + root_key_der
        + bytes([len(perun_canister)])
        + perun_canister
        + bytes([len(icp_ledger)])
        + icp_ledger
    ).digest()


@dataclass(frozen=True)
class Terms:
    """The immutable facts of one channel, as one side has them.

    `proposal_id`: 32 bytes; `peer`: 33 bytes, the node key that opened it, the only session it belongs to;
    `our_share`: 32 bytes, from which our participant key is derived; `peer_share`: 32 bytes.
    """

    proposal_id: bytes
    peer: bytes
    our_index: ParticipantIndex
    params: Params
    allocation: tuple[int, int]
    """Allocation of state 0 in e8s: what each side is to deposit."""
    funding_deadline_ns: Nanos
    our_share: bytes
    peer_share: bytes

    @property
    def channel(self) -> ChannelId:
        """The channel id, 64 bytes."""
        return self.params.channel_id

    @property
    def peer_index(self) -> ParticipantIndex:
        """The peer's place in the params."""
        return other(self.our_index)

    @property
    def total(self) -> int:
        """E8s in the channel, in every state."""
        return self.allocation[0] + self.allocation[1]

    def funding(self, index: ParticipantIndex) -> Funding:
        """Return the funding of a participant."""
        return Funding(self.channel, self.params.participants[index])

    def state_0(self) -> State:
        """Return the state that both sign before any money moves."""
        return State(self.channel, 0, self.allocation, finalized=False)
