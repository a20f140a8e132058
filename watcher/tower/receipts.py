"""A watchtower's receipts: what is signed, how, and whether a receipt is real.

A receipt is a promise that its holder can show to anybody: this node key said, at that chain time, that it holds
that version of that channel for that client, and refutes what is below it until the receipt expires.
"""

from __future__ import annotations

from typing import Final

from coincurve import PrivateKey

from protocol.messages import TowerReceipt
from protocol.node_signing import sign_as_node, verify_as_node
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
        self.network = network

    def sign(
        self, client: bytes, channel: ChannelId, version: int, digest: bytes, now_ns: Nanos, expires_ns: Nanos
    ) -> TowerReceipt:
        """Return the promise, signed. The same facts give the same bytes (RFC 6979): nothing has to be kept."""
        blank = TowerReceipt(channel, version, digest, now_ns, expires_ns, bytes(64))
        signature = sign_as_node(self._key, receipt_bytes(self.network, client, blank))
        return TowerReceipt(channel, version, digest, now_ns, expires_ns, signature)


def verify_receipt(tower: bytes, network: bytes, client: bytes, receipt: TowerReceipt) -> bool:
    """Whether the node with the key `tower` (33 bytes) signed this receipt for `client` (33 bytes) on `network`.

    Says nothing about version, hash and times: who asked compares them with what it sent. Of the two signatures
    that ECDSA has for everything only the one with the smaller S counts.
    """
    return verify_as_node(tower, receipt_bytes(network, client, receipt), receipt.signature)
