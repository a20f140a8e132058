"""Lives of a node: what each start says of itself, and what proves that two of them ran at once.

A life is a number that rises with every start and a random nonce, signed by the node's key. The signature makes it
a proof that others can show: nobody but the node's own key can tell it of a life that it did not begin. Source:
docs/protocol.md, Lives; docs/adr/0012-lives-of-a-node.md.
"""

from __future__ import annotations

from typing import Final

from coincurve import PrivateKey

from protocol.messages import Life, LifeHeard, LifeStopped
from protocol.node_signing import sign_as_node, verify_as_node

__all__ = ["outlives", "same_life", "sign_life", "sign_stop", "verify_life", "verify_stop"]

LIFE_TAG: Final = b"perund-life/1"
STOP_TAG: Final = b"perund-life-stopped/1"

AnyLife = Life | LifeHeard


def _life_bytes(network: bytes, number: int, nonce: bytes) -> bytes:
    return b"".join((LIFE_TAG, network, number.to_bytes(8, "big"), nonce))


def _stop_bytes(network: bytes, stop: LifeStopped) -> bytes:
    return b"".join(
        (
            STOP_TAG,
            network,
            stop.number.to_bytes(8, "big"),
            stop.nonce,
            stop.by_number.to_bytes(8, "big"),
            stop.by_nonce,
        )
    )


def sign_life(key: PrivateKey, network: bytes, number: int, nonce: bytes) -> Life:
    """Return what a life says of itself. `network`: 32 bytes, the network hash; `nonce`: 32 random bytes."""
    return Life(number, nonce, sign_as_node(key, _life_bytes(network, number, nonce)))


def verify_life(node: bytes, network: bytes, life: AnyLife) -> bool:
    """Whether the node with this key (33 bytes) began this life on this network."""
    return verify_as_node(node, _life_bytes(network, life.number, life.nonce), life.signature)


def sign_stop(key: PrivateKey, network: bytes, ours: Life, by: AnyLife) -> LifeStopped:
    """Return our word that the life `ours` signs nothing any more, because it was shown the life `by`."""
    blank = LifeStopped(ours.number, ours.nonce, by.number, by.nonce, bytes(64))
    signature = sign_as_node(key, _stop_bytes(network, blank))
    return LifeStopped(ours.number, ours.nonce, by.number, by.nonce, signature)


def verify_stop(node: bytes, network: bytes, stop: LifeStopped) -> bool:
    """Whether the node with this key (33 bytes) gave that word on this network."""
    return verify_as_node(node, _stop_bytes(network, stop), stop.signature)


def same_life(first: AnyLife, second: AnyLife) -> bool:
    """Whether both are one life."""
    return (first.number, first.nonce) == (second.number, second.nonce)


def outlives(other: AnyLife, ours: AnyLife) -> bool:
    """Whether a life that has heard of `other` must stop: it is newer, or began from the same store at another place.

    >>> outlives(Life(7, b"a", b""), Life(6, b"b", b"")), outlives(Life(6, b"a", b""), Life(6, b"b", b""))
    (True, True)
    >>> outlives(Life(5, b"a", b""), Life(6, b"b", b"")), outlives(Life(6, b"b", b""), Life(6, b"b", b""))
    (False, False)
    """
    return other.number > ours.number or (other.number == ours.number and other.nonce != ours.nonce)
