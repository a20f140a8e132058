"""Getting the money out: what to do next, from the newest look and what is durable. Source: DESIGN, section 7."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.effects import Phase
from protocol.types import Nanos, RegisteredState, SignedState

__all__ = [
    "AwaitOperator",
    "AwaitTimeout",
    "Conclude",
    "Dispute",
    "Finished",
    "FollowWithdrawal",
    "ForceOut",
    "SettlementAction",
    "WaitForPeer",
    "Withdraw",
    "next_settlement_action",
]


@dataclass(frozen=True, slots=True)
class Conclude:
    """Settle at once with the final state."""

    signed: SignedState


@dataclass(frozen=True, slots=True)
class Dispute:
    """Register the newest fully signed state, or refute an older one with it."""

    signed: SignedState


@dataclass(frozen=True, slots=True)
class AwaitTimeout:
    """Wait until the registered state settles, at this chain time."""

    timeout_ns: Nanos


@dataclass(frozen=True, slots=True)
class WaitForPeer:
    """Wait for the final state, until this chain time; then settle alone."""

    until_ns: Nanos


@dataclass(frozen=True, slots=True)
class ForceOut:
    """Closing together took too long: settle alone."""


@dataclass(frozen=True, slots=True)
class AwaitOperator:
    """Open no dispute with a state that may be old (rule 7): the peer settles, or the operator decides."""


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take these holdings out."""

    holdings_e8s: int


@dataclass(frozen=True, slots=True)
class FollowWithdrawal:
    """A withdrawal was asked for and its end is not known: find out before anything else."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The channel is settled and what is left is not above the fee."""

    dust_e8s: int


SettlementAction = (
    Conclude | Dispute | AwaitTimeout | WaitForPeer | ForceOut | AwaitOperator | Withdraw | FollowWithdrawal | Finished
)


def next_settlement_action(
    *,
    phase: Phase,
    newest: SignedState,
    registered: RegisteredState | None,
    chain_ns: Nanos,
    holdings_e8s: int,
    owed_e8s: int,
    paid_out: bool,
    anything_held: bool,
    withdrawal_open: bool,
    fee_e8s: int,
    force_at_ns: Nanos,
    recovering: bool,
) -> SettlementAction:
    """Return what to do next for a channel that closes or leaves.

    `registered` and `holdings_e8s` (ours) are from looks, `chain_ns` from the certificate of the first;
    `owed_e8s`: our share in the registered state; `paid_out`: whether a payout is proven;
    `anything_held`: whether the canister holds anything for the channel, without which it registers nothing;
    `force_at_ns`: when closing together gives way to leaving alone; `recovering`: this node may have lost data of the
    channel (rule 7): it refutes what is lower still, and opens no dispute.
    """
    if registered is not None and registered.settled(chain_ns):
        if withdrawal_open:
            return FollowWithdrawal()
        if holdings_e8s > fee_e8s:
            return Withdraw(holdings_e8s)
        if owed_e8s > fee_e8s and not paid_out:
            return FollowWithdrawal()  # empty holdings prove nothing: a ledger block has to show the payout
        return Finished(holdings_e8s)
    if newest.state.finalized:
        return Conclude(newest)
    if registered is not None:
        if registered.state.version < newest.state.version:
            return Dispute(newest)
        return AwaitTimeout(registered.timeout_ns)
    if phase is Phase.CLOSING:
        if chain_ns < force_at_ns:
            return WaitForPeer(force_at_ns)
        return AwaitOperator() if recovering else ForceOut()
    if not anything_held:
        return Finished(0)  # never funded by anybody: there is nothing to register, and nothing to get back
    return AwaitOperator() if recovering else Dispute(newest)
