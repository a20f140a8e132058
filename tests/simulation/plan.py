"""What kind of town a seed makes, and what can end a life in it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

__all__ = ["FUSED_KINDS", "KINDS", "LATE_KINDS", "RARE_KINDS", "Plan", "plan"]

FUSED_KINDS: Final = (
    "disk.ask", "disk.write", "disk.written", "disk.then",
    "send.ChannelProposal", "sent.ChannelProposal", "send.ChannelAccept", "sent.ChannelAccept",
    "send.StateSignature", "sent.StateSignature", "send.ChannelReady", "sent.ChannelReady",
    "send.Resume", "sent.Resume", "send.Update", "sent.Update", "send.Ack", "sent.Ack",
    "send.Offer", "sent.Offer", "send.Decline", "sent.Decline", "send.SignedStateMessage", "sent.SignedStateMessage",
    "send.ChannelReject", "sent.ChannelReject", "send.ErrorMessage", "sent.ErrorMessage",
    "send.Confirm", "sent.Confirm", "send.CloseRequest", "sent.CloseRequest",
    "call.transfer", "answered.transfer", "call.notify", "answered.notify", "call.deposit", "answered.deposit",
    "call.dispute", "answered.dispute", "call.conclude", "answered.conclude", "call.withdraw", "answered.withdraw",
    "backup.write", "backup.written", "call.disputes_since", "answered.disputes_since",
    "call.query_state", "answered.query_state", "call.query_holdings", "answered.query_holdings",
    "call.fee", "answered.fee", "call.balance", "answered.balance", "call.blocks", "answered.blocks",
    "call.chain_length", "answered.chain_length", "call.time", "answered.time",
)  # fmt: skip
"""The kinds of effect at which a fuse may end a life."""
KINDS: Final = (
    *(kind for kind in FUSED_KINDS if not kind.endswith(".Decline")),
    "send.Life", "sent.Life",
    "call.hint", "answered.hint", "call.code", "answered.code", "call.interface", "answered.interface",
)  # fmt: skip
"""Every kind of effect of a node: each must have been a crash point."""
RARE_KINDS: Final = (
    "send.LifeHeard", "sent.LifeHeard", "send.LifeStopped", "sent.LifeStopped", "send.Decline", "sent.Decline",
)  # fmt: skip
"""Those of an old copy beside a node, and of declines: too seldom to be a crash point in every few towns."""
LATE_KINDS: Final = (
    "send.CloseRequest", "sent.CloseRequest", "call.dispute", "answered.dispute", "call.conclude", "answered.conclude",
    "call.withdraw", "answered.withdraw", "call.blocks", "answered.blocks", "disk.write", "disk.written",
)  # fmt: skip
"""Those of a channel's end, which a life seldom reaches."""


@dataclass(frozen=True)
class Plan:
    """What kind of town a seed makes."""

    houses: int
    steps: int
    challenge_s: int
    funding_s: int
    force_after_s: int
    pace_s: float
    crashing: float
    """How likely a life has a fuse."""
    log: bool
    """Whether the canister keeps a log of registrations."""
    byzantine: int | None
    """Which of the houses lies, if any."""
    losing: float
    """How likely a step costs a house its disk."""
    copying: bool
    """Whether an old copy of a house is started beside it."""


def plan(rng: random.Random) -> Plan:
    byzantine = rng.choice((0, 1)) if rng.random() < 0.35 else None
    return Plan(
        houses=3 if rng.random() < 0.1 and byzantine is None else 2,
        steps=rng.randint(30, 70),
        challenge_s=rng.choice((120, 300)) if byzantine is None else 400,
        funding_s=rng.choice((60, 300, 3_000)),
        force_after_s=rng.choice((20, 120)),
        pace_s=rng.choice((0.01, 0.1, 1.0)),
        crashing=rng.choice((0.0, 0.6, 0.9, 1.0)),
        log=rng.random() < 0.5,
        byzantine=byzantine,
        losing=rng.choice((0.0, 0.0, 0.0, 0.006, 0.03) if byzantine is None else (0.0, 0.0, 0.01, 0.03, 0.03)),
        copying=byzantine is None and rng.random() < 0.25,
    )
