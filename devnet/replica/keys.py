"""The network's keys: the BLS key that signs certificates and the Ed25519 key that signs query answers.

Both are of this devnet alone: generated once, kept with its state, without worth anywhere else.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pyblst import BlstP1Element, BlstP2Element  # type: ignore[attr-defined]  # it has no types

from devnet.replica.principals import self_authenticating

__all__ = ["NodeKey", "RootKey"]

_DER_BLS: Final = bytes.fromhex("308182301d060d2b0601040182dc7c0503010201060c2b0601040182dc7c05030201036100")
_DER_ED25519: Final = bytes.fromhex("302a300506032b6570032100")
_DST: Final = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
_GROUP_ORDER: Final = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
_G2_GENERATOR: Final = bytes.fromhex(
    "93e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e"
    "024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8"
)


@dataclass(frozen=True)
class RootKey:
    """The subnet's BLS12-381 key, signatures in G1. `secret`: a scalar between 1 and the group's order."""

    secret: int = field(repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.secret < _GROUP_ORDER:
            raise ValueError("a BLS secret key lies between 1 and the order of the group")

    @classmethod
    def generate(cls) -> RootKey:
        """Return a fresh key."""
        return cls(1 + secrets.randbelow(_GROUP_ORDER - 1))

    @classmethod
    def from_bytes(cls, saved: bytes) -> RootKey:
        """Return the key that `to_bytes` gave. Raises `ValueError`."""
        return cls(int.from_bytes(saved, "big"))

    def to_bytes(self) -> bytes:
        """Return the secret scalar as 32 bytes, big endian."""
        return self.secret.to_bytes(32, "big")

    @cached_property
    def public_der(self) -> bytes:
        """The public key as clients pin it: 133 bytes of DER."""
        point: bytes = BlstP2Element.uncompress(_G2_GENERATOR).scalar_mul(self.secret).compress()
        return _DER_BLS + point

    @cached_property
    def subnet_id(self) -> bytes:
        """The principal of the one subnet, which is the root subnet."""
        return self_authenticating(self.public_der)

    def sign(self, root_hash: bytes) -> bytes:
        """Return the signature (48 bytes) of a state tree's root hash.

        It takes 0.2 ms and holds the interpreter's lock: a thread would only add its switches, so callers
        sign where they are and share one signature between all that wait (see `rounds`).
        """
        message = b"\x0dic-state-root" + root_hash
        signature: bytes = BlstP1Element.hash_to_group(message, _DST).scalar_mul(self.secret).compress()
        return signature


@dataclass(frozen=True)
class NodeKey:
    """The Ed25519 key of the one node. `seed`: 32 bytes."""

    seed: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> NodeKey:
        """Return a fresh key."""
        return cls(secrets.token_bytes(32))

    @cached_property
    def _private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    @cached_property
    def public_der(self) -> bytes:
        """The public key, 44 bytes of DER."""
        return _DER_ED25519 + self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @cached_property
    def node_id(self) -> bytes:
        """The node's principal."""
        return self_authenticating(self.public_der)

    def sign(self, response_hash: bytes) -> bytes:
        """Return the signature (64 bytes) of a query response's hash."""
        return self._private.sign(b"\x0bic-response" + response_hash)
