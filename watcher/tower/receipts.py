"""A watchtower's receipts: what is signed, how, and whether a receipt is real.

A receipt is a promise that its holder can show to anybody: this node key said, at that chain time, that it holds
that version of that channel for that client, and refutes what is below it until the receipt expires.
"""

from __future__ import annotations

from typing import Final

from coincurve import PrivateKey, PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from protocol.messages import TowerReceipt
from protocol.types import ChannelId, Nanos

__all__ = ["Notary", "receipt_bytes", "verify_receipt"]

TAG: Final = b"perund-tower-receipt/1"
CLIENT_BYTES: Final = 33


def receipt_bytes(network: bytes, client: bytes, receipt: TowerReceipt) -> bytes:
    """Return the 207 bytes whose SHA-256 a tower signs.

    `network`: 32 bytes, the network hash; `client`: 33 bytes, the node key that the promise is made to. Neither is
    sent, both sides know them: a receipt of another network, or for another client, does not verify. Every part
    has a fixed length, so no two receipts have the same bytes; the tag keeps them apart from whatever else a
    node key ever signs. Source: docs/protocol.md, Watchtowers.
    """
    return b"".join(
        (
            TAG,
            network,
            client,
            receipt.channel,
            receipt.version.to_bytes(8, "big"),
            receipt.state_hash,
            receipt.chain_time_ns.to_bytes(8, "big"),
            receipt.expires_ns.to_bytes(8, "big"),
        )
    )


class Notary:
    """Signs receipts with the tower's node key."""

    def __init__(self, key: PrivateKey, network: bytes) -> None:
        """`network`: 32 bytes, the network hash."""
        self._key = key
        self._network = network

    def sign(
        self, client: bytes, channel: ChannelId, version: int, digest: bytes, now_ns: Nanos, expires_ns: Nanos
    ) -> TowerReceipt:
        """Return the promise, signed. The same facts give the same bytes (RFC 6979): nothing has to be kept."""
        blank = TowerReceipt(channel, version, digest, now_ns, expires_ns, bytes(64))
        signature = self._key.sign_recoverable(receipt_bytes(self._network, client, blank))[:64]
        return TowerReceipt(channel, version, digest, now_ns, expires_ns, signature)


def verify_receipt(tower: bytes, network: bytes, client: bytes, receipt: TowerReceipt) -> bool:
    """Whether the node with the key `tower` (33 bytes) signed this receipt for `client` (33 bytes) on `network`.

    Says nothing about version, hash and times: who asked compares them with what it sent. Of the two signatures
    that ECDSA has for everything only the one with the smaller S counts.
    """
    r, s = (int.from_bytes(half, "big") for half in (receipt.signature[:32], receipt.signature[32:]))
    try:
        key = PublicKey(tower)
        return bool(key.verify(encode_dss_signature(r, s), receipt_bytes(network, client, receipt)))
    except ValueError:  # no point of the curve, or numbers that are no signature
        return False
