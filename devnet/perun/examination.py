"""What must be true of a signed state before the canister looks at money: sizes, channel, signatures.

A deposit names a channel by the hash of its params, so nobody can judge the params before the money is in. What all
participants signed can therefore always be settled, whatever the params are: bounds refuse only channels without
money, so that strangers pay for no work and no memory, and bend only the timer of a dispute.
"""

from __future__ import annotations

from typing import Final

import msgspec

from devnet.perun.interface import Error, FullySignedState, Funding, Params, State, WithdrawalRequest
from protocol.signing import verify
from protocol.types import MAX_CHALLENGE_NS, MAX_E8S, MAX_NAT64, MIN_CHALLENGE_NS

__all__ = [
    "MAX_PARTICIPANTS",
    "MIN_PARTICIPANTS",
    "as_registered",
    "examine_state",
    "examine_withdrawal",
    "is_funding",
    "timeout_of",
]

MIN_PARTICIPANTS: Final = 2
MAX_PARTICIPANTS: Final = 16
_NONCE_BYTES: Final = 64
_CHANNEL_BYTES: Final = 64
_KEY_BYTES: Final = 32


def is_funding(funding: Funding) -> bool:
    """Whether channel id (64 bytes) and participant key (32 bytes) have the right lengths."""
    return len(funding.channel) == _CHANNEL_BYTES and len(funding.participant) == _KEY_BYTES


def timeout_of(params: Params, now_ns: int) -> int:
    """Return when a state that is registered now can no longer be refuted, in ns of chain time.

    A duration below the bounds is raised (nobody could refute within 1 ns) and one above them lowered; the sum fits
    in a nat64. In the published code a huge duration wrapped around, and settled at once.
    """
    duration_ns = min(max(params.challenge_duration, MIN_CHALLENGE_NS), MAX_CHALLENGE_NS)
    return min(now_ns + duration_ns, MAX_NAT64)


def as_registered(state: State) -> State:
    """Return a signed state as it is kept: no share of it above what the ledger counts (only state 0 may have one)."""
    allocation = tuple(min(e8s, MAX_E8S) for e8s in state.allocation)
    return state if allocation == state.allocation else msgspec.structs.replace(state, allocation=allocation)


def examine_state(params: Params, signed: FullySignedState, *, has_money: bool) -> Error | None:
    """Return why no channel with these params can have this signed state, or None.

    `has_money`: whether anything was credited to the channel. `INVALID_INPUT`: counts that do not fit, a state of
    another channel, a total that can never be there, and, without money in it, unusual params; `AUTHENTICATION`: a
    signature is not valid.
    """
    if not _fits(params, signed) or not (has_money or _is_usual(params, signed)):
        return Error.INVALID_INPUT
    if signed.state.channel != params.channel_id():
        return Error.INVALID_INPUT
    message = signed.state.signed_bytes()
    if not all(verify(key, message, sig) for key, sig in zip(params.participants, signed.sigs, strict=True)):
        return Error.AUTHENTICATION
    return None


def examine_withdrawal(request: WithdrawalRequest, signature: bytes) -> Error | None:
    """Return why a withdrawal is not one that its participant asked for, or None."""
    if not is_funding(request.funding):
        return Error.INVALID_INPUT
    if not verify(request.funding.participant, request.signed_bytes(), signature):
        return Error.AUTHENTICATION
    return None


def _is_usual(params: Params, signed: FullySignedState) -> bool:
    keys = params.participants
    return (
        len(params.nonce) == _NONCE_BYTES
        and MIN_PARTICIPANTS <= len(keys) <= MAX_PARTICIPANTS
        and all(len(key) == _KEY_BYTES for key in keys)
        and len(set(keys)) == len(keys)
        and MIN_CHALLENGE_NS <= params.challenge_duration <= MAX_CHALLENGE_NS
        and sum(signed.state.allocation) <= MAX_E8S
    )


def _fits(params: Params, signed: FullySignedState) -> bool:
    count = len(params.participants)
    allocation = signed.state.allocation
    return (
        len(allocation) == count
        and len(signed.sigs) == count
        # The ledger counts in nat64: such a total is never covered. State 0 may lack money: it gives back what is in.
        and (signed.state.version == 0 or sum(allocation) <= MAX_E8S)
    )
