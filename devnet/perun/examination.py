"""What must be true of a signed state before the canister looks at money: sizes, bounds, channel, signatures.

Everything is bounded before anything is computed from it, so that strangers pay for no work and no memory.
"""

from __future__ import annotations

from typing import Final

from devnet.perun.interface import Error, FullySignedState, Funding, Params, WithdrawalRequest
from protocol.signing import verify
from protocol.types import MAX_CHALLENGE_NS, MAX_E8S, MIN_CHALLENGE_NS

__all__ = ["MAX_PARTICIPANTS", "MIN_PARTICIPANTS", "examine_state", "examine_withdrawal", "is_funding"]

MIN_PARTICIPANTS: Final = 2
MAX_PARTICIPANTS: Final = 16
_NONCE_BYTES: Final = 64
_CHANNEL_BYTES: Final = 64
_KEY_BYTES: Final = 32


def is_funding(funding: Funding) -> bool:
    """Whether channel id (64 bytes) and participant key (32 bytes) have the right lengths."""
    return len(funding.channel) == _CHANNEL_BYTES and len(funding.participant) == _KEY_BYTES


def examine_state(params: Params, signed: FullySignedState) -> Error | None:
    """Return why no channel with these params can have this signed state, or None.

    `INVALID_INPUT`: sizes, bounds, or a state of another channel; `AUTHENTICATION`: a signature is not valid.
    """
    if not _are_params(params) or not _fits(params, signed):
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


def _are_params(params: Params) -> bool:
    keys = params.participants
    return (
        len(params.nonce) == _NONCE_BYTES
        and MIN_PARTICIPANTS <= len(keys) <= MAX_PARTICIPANTS
        and all(len(key) == _KEY_BYTES for key in keys)
        # A key that stands twice would have its deposit counted twice: [A, A] turns 10 into 20.
        and len(set(keys)) == len(keys)
        # A huge duration wrapped around in the published code and settled at once; zero cannot be refuted.
        and MIN_CHALLENGE_NS <= params.challenge_duration <= MAX_CHALLENGE_NS
    )


def _fits(params: Params, signed: FullySignedState) -> bool:
    count = len(params.participants)
    allocation = signed.state.allocation
    return (
        len(allocation) == count
        and len(signed.sigs) == count
        # The ledger counts in nat64: a larger share could be registered and never be paid out.
        and sum(allocation) <= MAX_E8S
    )
