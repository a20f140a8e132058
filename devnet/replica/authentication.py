"""Is a request from whom it says, and in time? The checks of the real replica, in its words.

Source: Interface Specification, "Authentication".
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256K1,
    SECP256R1,
    EllipticCurve,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from devnet.replica.envelope import CallContent, Delegation, Envelope, Invocation
from devnet.replica.errors import RequestRefused
from devnet.replica.principals import ANONYMOUS, self_authenticating, to_text

__all__ = ["INGRESS_GRACE_NS", "INGRESS_WINDOW_NS", "authenticate"]

INGRESS_WINDOW_NS: Final = 5 * 60 * 1_000_000_000
"""How far ahead of chain time a request may expire."""
INGRESS_GRACE_NS: Final = 30 * 1_000_000_000
"""What is allowed on top for a client whose clock is fast."""
_MAX_DELEGATIONS: Final = 20

_ED25519: Final = bytes.fromhex("302a300506032b6570032100")
_SECP256K1: Final = bytes.fromhex("3056301006072a8648ce3d020106052b8104000a034200")
_P256: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")

Verifier = Callable[[bytes, bytes], None]
"""Takes signature and message; raises `InvalidSignature`."""


def authenticate(envelope: Envelope, now_ns: int) -> frozenset[bytes] | None:
    """Check expiry, sender, delegations and signature of a request at chain time `now_ns`.

    Returns the canisters to which its delegations limit it, None for no limit.
    Raises `RequestRefused` (400).
    """
    anonymous = envelope.content.sender == ANONYMOUS
    # An anonymous read may carry any expiry: nothing that it could replay is protected.
    if not anonymous or isinstance(envelope.content, CallContent):
        _check_expiry(envelope.content.expiry_ns, now_ns)
    try:
        if anonymous:
            _check_unsigned(envelope)
            return None
        return _check_signed(envelope, now_ns)
    except _Unauthentic as exc:
        raise RequestRefused(
            400, f"Failed to authenticate request 0x{envelope.request_id.hex()} due to: {exc}"
        ) from exc


class _Unauthentic(Exception):
    """Why a request is not from whom it says."""


def _check_expiry(expiry_ns: int, now_ns: int) -> None:
    latest_ns = now_ns + INGRESS_WINDOW_NS + INGRESS_GRACE_NS
    if not now_ns <= expiry_ns <= latest_ns:
        raise RequestRefused(
            400,
            "Invalid request expiry: Specified ingress_expiry not within expected range: "
            f"Minimum allowed expiry: {_utc(now_ns)}, Maximum allowed expiry: {_utc(latest_ns)}, "
            f"Provided expiry: {_utc(expiry_ns)}",
        )


def _utc(ns: int) -> str:
    try:
        whole = dt.datetime.fromtimestamp(ns // 1_000_000_000, tz=dt.UTC)
    except (OverflowError, ValueError):  # a nat64 reaches beyond the calendar
        return f"{ns} ns"
    return f"{whole:%Y-%m-%d %H:%M:%S}.{ns % 1_000_000_000:09d} UTC"


def _check_unsigned(envelope: Envelope) -> None:
    if envelope.public_key is not None or envelope.signature is not None or envelope.delegations:
        raise _Unauthentic("Signature is not allowed when caller is anonymous.")


def _check_signed(envelope: Envelope, now_ns: int) -> frozenset[bytes] | None:
    sender = envelope.content.sender
    if envelope.public_key is None or envelope.signature is None:
        raise _Unauthentic(f"Missing signature from user: {to_text(sender)}")
    if self_authenticating(envelope.public_key) != sender:
        raise _Unauthentic(f"The user id {to_text(sender)} does not match the public key {envelope.public_key.hex()}")
    signer, targets = _follow(envelope.public_key, envelope.delegations, now_ns)
    content = envelope.content
    if isinstance(content, Invocation) and targets is not None and content.canister_id not in targets:
        raise _Unauthentic(f"Canister {to_text(content.canister_id)} is not one of the delegation targets.")
    _verify(signer, envelope.signature, b"\x0aic-request" + envelope.request_id, "Invalid signature")
    return targets


def _follow(
    first_key: bytes, delegations: tuple[Delegation, ...], now_ns: int
) -> tuple[bytes, frozenset[bytes] | None]:
    """Return the key that signs the request and the canisters that the chain leaves it."""
    if len(delegations) > _MAX_DELEGATIONS:
        raise _Unauthentic(
            f"Chain of delegations is too long: got {len(delegations)} delegations, "
            f"but at most {_MAX_DELEGATIONS} are allowed."
        )
    signer, seen = first_key, {first_key}
    targets: frozenset[bytes] | None = None
    for link in delegations:
        if link.expiration_ns < now_ns:
            raise RequestRefused(
                400,
                f"Specified sender delegation has expired:\nProvided expiry:    {_utc(link.expiration_ns)}\n"
                f"Local replica time: {_utc(now_ns)}",
            )
        message = b"\x1aic-request-auth-delegation" + link.digest
        _verify(signer, link.signature, message, "Invalid delegation")
        if link.public_key in seen:
            raise _Unauthentic(
                "Chain of delegations contains at least one cycle: "
                f"first repeating public key encountered {link.public_key.hex()}"
            )
        seen.add(link.public_key)
        if link.targets is not None:
            targets = link.targets if targets is None else targets & link.targets
        signer = link.public_key
    return signer, targets


def _verify(public_key: bytes, signature: bytes, message: bytes, what: str) -> None:
    try:
        _verifier(public_key)(signature, message)
    except InvalidSignature as exc:
        raise _Unauthentic(f"{what}: the signature does not verify under {public_key.hex()}") from exc
    except ValueError as exc:
        raise _Unauthentic(f"{what}: {exc}") from exc


@lru_cache(maxsize=4096)
def _verifier(public_key: bytes) -> Verifier:
    """Return the check for a DER key. Raises `ValueError`: a key has one encoding, anything else is refused."""
    if public_key.startswith(_ED25519) and len(public_key) == 44:
        return Ed25519PublicKey.from_public_bytes(public_key[12:]).verify
    if public_key.startswith(_SECP256K1) and len(public_key) == 88:
        return _ecdsa(SECP256K1(), public_key[-65:])
    if public_key.startswith(_P256) and len(public_key) == 91:
        return _ecdsa(SECP256R1(), public_key[-65:])
    raise ValueError(f"the public key {public_key.hex()[:200]} is not Ed25519, secp256k1 or P-256 in DER")


def _ecdsa(curve: EllipticCurve, point: bytes) -> Verifier:
    if point[0] != 4:
        raise ValueError("the point of a public key must be uncompressed")
    key = EllipticCurvePublicKey.from_encoded_point(curve, point)

    def verify(signature: bytes, message: bytes) -> None:
        if len(signature) != 64:
            raise ValueError(f"an ECDSA signature has 64 bytes, not {len(signature)}")
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        # s may lie in either half of the range, as at the real replica: python-ecdsa makes both.
        key.verify(encode_dss_signature(r, s), message, ECDSA(SHA256()))

    return verify
