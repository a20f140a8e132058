"""The keys of a node, all derived from its 24 words.

HKDF-SHA512 over the 64-byte BIP-39 seed, salt `perund/keys/1`, one label per purpose. Labels and outputs are
pinned by tests: changing one would lose access to money.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

import coincurve
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from perund.mnemonic import entropy_of, phrase_of, seed_of

__all__ = ["SHARE_BYTES", "Keys"]

SALT: Final = b"perund/keys/1"
SHARE_BYTES: Final = 32
_SECP256K1_ORDER: Final = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141


def _derive(secret: bytes, label: bytes, length: int = 32) -> bytes:
    return HKDF(algorithm=SHA512(), length=length, salt=SALT, info=label).derive(secret)


class Keys:
    """What the phrase gives: the node key, the wallet's identity, channel keys, the backup key.

    It prints only the public node id.
    """

    def __init__(self, entropy: bytes) -> None:
        """Take the 32 bytes of the phrase."""
        seed = seed_of(entropy)
        # 64 bytes reduced to 1..order-1: uniform to 2^-256, and never an invalid scalar.
        scalar = int.from_bytes(_derive(seed, b"node key", 64)) % (_SECP256K1_ORDER - 1) + 1
        self.node_key: coincurve.PrivateKey = coincurve.PrivateKey.from_int(scalar)
        self.wallet_seed: bytes = _derive(seed, b"wallet identity")
        self.backup_key: bytes = _derive(seed, b"backup key")
        self._participants = _derive(seed, b"participant keys")
        self._entropy = entropy

    @classmethod
    def from_phrase(cls, phrase: str) -> Keys:
        """Derive from 24 words. Raises `PhraseError`."""
        return cls(entropy_of(phrase))

    def __repr__(self) -> str:
        return f"Keys(node_id={self.node_id})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("keys are not pickled: they would land in a file or a pipe")

    @property
    def phrase(self) -> str:
        """The 24 words. For the one moment in which they are written down."""
        return phrase_of(self._entropy)

    @cached_property
    def node_id(self) -> str:
        """The node's public key, compressed, as 66 hex digits."""
        return bytes(self.node_key.public_key.format(compressed=True)).hex()

    def participant_seed(self, share: bytes) -> bytes:
        """Return the 32-byte Ed25519 seed for the channel with one's own 32-byte nonce share.

        The share is public and the peer can return it: phrase and share are enough to get back a channel key.
        """
        if len(share) != SHARE_BYTES:
            raise ValueError(f"a nonce share has {SHARE_BYTES} bytes, not {len(share)}")
        return _derive(self._participants, b"participant key" + share)
