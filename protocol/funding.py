"""Paying our deposit, once: what to do next, from what is certified and what is durable.

An intent (amount, fee, memo, `created_at_time`) is durable before the ledger is called, so the same transfer
can be asked for again and the ledger answers `TxDuplicate`. What is paid is our share, less what the canister
holds for us, less every intent that is not proven void. Source: DESIGN, section 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from protocol.types import Nanos

__all__ = [
    "Abort",
    "Complete",
    "Credit",
    "DepositIntent",
    "FundingAction",
    "IntentStatus",
    "Pay",
    "PayNew",
    "Wait",
    "next_funding_action",
]


class IntentStatus(StrEnum):
    """How far a deposit is."""

    OPEN = "open"
    """Asked for, or to be asked for; it may have been paid."""
    PAID = "paid"
    """A ledger block shows it."""
    CREDITED = "credited"
    """The canister holds it for us."""
    VOID = "void"
    """Proven never to have happened, and that it never will."""


@dataclass(frozen=True, slots=True)
class DepositIntent:
    """A deposit that we decided to make. Amounts in e8s, `created_at_ns` in chain time."""

    number: int
    """Its place in the store; unique."""
    amount_e8s: int
    fee_e8s: int
    memo: int
    created_at_ns: Nanos
    status: IntentStatus
    block: int | None


@dataclass(frozen=True, slots=True)
class PayNew:
    """Make an intent of this amount durable, then pay it."""

    amount_e8s: int


@dataclass(frozen=True, slots=True)
class Pay:
    """Ask the ledger (again) for the transfer of this intent."""

    intent: DepositIntent


@dataclass(frozen=True, slots=True)
class Credit:
    """Tell the canister the block of this intent, and credit it."""

    intent: DepositIntent


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again later. `what`: for whom or what, for people."""

    what: str


@dataclass(frozen=True, slots=True)
class Complete:
    """Both deposits are certified: confirm that nothing is registered, then say `ready`."""


@dataclass(frozen=True, slots=True)
class Abort:
    """Pay nothing more, and get back what is in."""

    reason: str


FundingAction = PayNew | Pay | Credit | Wait | Complete | Abort


def next_funding_action(
    *,
    ours: int,
    shares: tuple[int, int],
    holdings: tuple[int, int],
    intents: tuple[DepositIntent, ...],
    registered: bool,
    aborting: bool,
    recovering: bool,
    chain_ns: Nanos,
    deadline_ns: Nanos,
) -> FundingAction:
    """Return what to do next for our deposit.

    `holdings` and `registered` come from looks (rule 5); `shares` is the allocation of state 0;
    `aborting`: the opening failed already, so that only what is in flight is finished; `recovering`: this node may
    have lost data of the channel.
    """
    open_intents = [i for i in intents if i.status is IntentStatus.OPEN]
    paid = [i for i in intents if i.status is IntentStatus.PAID]
    if paid:
        return Credit(paid[0])  # also after a failure: what is in flight is credited, so that it can be withdrawn
    if open_intents:
        return Pay(open_intents[0])  # an intent that may have been paid is followed to its end
    if aborting:
        return Wait("settlement")
    if registered:
        return Abort("a state was registered before both deposits were complete")
    if holdings[0] >= shares[0] and holdings[1] >= shares[1]:
        return Complete()
    if recovering and (any(holdings) or chain_ns < deadline_ns):
        # Rule 7: it funds nothing, and it gives nothing up that may have gone on without it.
        return Wait("the peer: this node may have lost data of the channel, and pays nothing")
    if chain_ns >= deadline_ns:
        return Abort("the funding deadline passed before both deposits were complete")
    if holdings[ours] < sum(i.amount_e8s for i in intents if i.status is IntentStatus.CREDITED):
        return Wait("a look that shows what was credited")  # an older look would have it paid once more
    missing = shares[ours] - holdings[ours]
    if missing <= 0:
        return Wait("the peer's deposit")
    if ours == 1 and holdings[0] < shares[0]:
        return Wait("the proposer's deposit")  # the proposer pays first
    return PayNew(missing)
