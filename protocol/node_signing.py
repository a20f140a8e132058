"""Signatures by node keys: ECDSA over secp256k1 and SHA-256, 64 bytes, of the two that are valid the smaller S."""

from __future__ import annotations

from coincurve import PrivateKey, PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

__all__ = ["sign_as_node", "verify_as_node"]


def sign_as_node(key: PrivateKey, data: bytes) -> bytes:
    """Return 64 bytes: R and S, big endian. The same data gives the same bytes (RFC 6979)."""
    return bytes(key.sign_recoverable(data)[:64])


def verify_as_node(node: bytes, data: bytes, signature: bytes) -> bool:
    """Whether the node with this key (33 bytes) signed `data`. Only the signature with the smaller S counts."""
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
    try:
        return bool(PublicKey(node).verify(encode_dss_signature(r, s), data))
    except ValueError:  # no point of the curve, or numbers that are no signature
        return False
