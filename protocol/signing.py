"""Ed25519 channel keys, verified exactly as strictly as the canister does (rule 4).

The canister uses `verify_strict` of ed25519-dalek. libsodium (PyNaCl) decides the same on every vector of
tests/vectors/ed25519-strict.json; OpenSSL does not: it accepts small-order keys and R, and states signed so
would be refused when the money is at stake.
"""

from __future__ import annotations

from typing import Final

from nacl.bindings import crypto_core_ed25519_is_valid_point
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from protocol.encoding import encode_withdrawal_request
from protocol.types import Params, ParticipantKey, SignedState, State, WithdrawalRequest

__all__ = ["ChannelKey", "is_usable_key", "verify", "verify_signed_state"]

SIGNATURE_LENGTH: Final = 64


class ChannelKey:
    """A participant's secret key. It never prints itself."""

    __slots__ = ("_key", "public")

    def __init__(self, seed: bytes) -> None:
        """Take a 32-byte seed."""
        self._key = SigningKey(seed)
        self.public = ParticipantKey(bytes(self._key.verify_key))

    def __repr__(self) -> str:
        return f"ChannelKey({self.public.hex()})"

    def sign_state(self, state: State) -> bytes:
        """Return 64 bytes over the state. Callers hold rule 1: one content per version, durable first."""
        return self._key.sign(state.encoded).signature

    def sign_withdrawal(self, request: WithdrawalRequest) -> bytes:
        """Return 64 bytes that let the canister pay the holdings out to the request's receiver."""
        return self._key.sign(encode_withdrawal_request(request)).signature


def is_usable_key(key: bytes) -> bool:
    """Whether signatures by this 32-byte key can ever be accepted by the canister.

    Refuses what does not decode, small-order keys (they never verify strictly) and keys outside the
    prime-order group (an honest key is never there).
    """
    return len(key) == 32 and bool(crypto_core_ed25519_is_valid_point(key))


def verify(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the canister would accept this signature."""
    if len(signature) != SIGNATURE_LENGTH or len(key) != 32:
        return False
    try:
        VerifyKey(key).verify(message, signature)
    except BadSignatureError:
        return False
    return True


def verify_signed_state(params: Params, signed: SignedState) -> bool:
    """Whether the canister would accept this signed state for these params (signatures and channel id)."""
    return signed.state.channel == params.channel_id and all(
        verify(key, signed.state.encoded, signature)
        for key, signature in zip(params.participants, signed.signatures, strict=True)
    )
