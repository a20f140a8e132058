"""A channel of two people and what they sign in it: the part that no outside client can do."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from protocol.signing import ChannelKey
from protocol.types import (
    ChannelId,
    Funding,
    Nanos,
    Params,
    ParticipantIndex,
    SignedState,
    State,
    WithdrawalRequest,
)

__all__ = ["FEE_E8S", "Channel"]

FEE_E8S: Final = 10_000
"""What the ledger takes for a transfer."""
HOUR: Final = Nanos(3600 * 1_000_000_000)


@dataclass(frozen=True)
class Channel:
    """Two channel keys, their seeds, and the params of one channel."""

    seeds: tuple[bytes, bytes]
    keys: tuple[ChannelKey, ChannelKey]
    params: Params

    @classmethod
    def new(cls) -> Channel:
        """Return a channel that nobody has seen."""
        seeds = (secrets.token_bytes(32), secrets.token_bytes(32))
        keys = (ChannelKey(seeds[0]), ChannelKey(seeds[1]))
        return cls(seeds, keys, Params(secrets.token_bytes(64), (keys[0].public, keys[1].public), HOUR))

    @property
    def id(self) -> ChannelId:
        return self.params.channel_id

    def funding(self, of: ParticipantIndex) -> Funding:
        return Funding(self.id, self.params.participants[of])

    def signed(self, version: int, allocation: tuple[int, int], *, finalized: bool = False) -> SignedState:
        state = State(self.id, version, allocation, finalized)
        return SignedState(state, (self.keys[0].sign_state(state), self.keys[1].sign_state(state)))

    def withdrawal(self, of: ParticipantIndex, receiver: bytes) -> tuple[WithdrawalRequest, bytes]:
        """Return the request of a participant's holdings for `receiver`, and its signature."""
        request = WithdrawalRequest(self.funding(of), receiver)
        return request, self.keys[of].sign_withdrawal(request)
