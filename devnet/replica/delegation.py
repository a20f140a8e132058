"""Delegations: the root subnet's word that another subnet may sign for a range of canisters.

Source: Interface Specification, "Delegation".
"""

from __future__ import annotations

from devnet.replica import cbor
from devnet.replica.hash_tree import EMPTY, Leaf, Node, put
from devnet.replica.keys import RootKey
from devnet.replica.principals import self_authenticating

__all__ = ["delegation"]

_TIME: bytes = b"\x01"
"""Delegations are as old as the last upgrade of their subnet; nobody looks at their time."""


def delegation(root: RootKey, subnet: RootKey, low: bytes, high: bytes) -> dict[str, cbor.Value]:
    """Return the delegation, signed by `root`, to a subnet with this key and the canisters from `low` to `high`.

    The ranges stand in both places in which agents look.
    """
    subnet_id = self_authenticating(subnet.public_der)
    ranges = cbor.encode([[low, high]])
    about: Node = put(put(EMPTY, b"public_key", Leaf(subnet.public_der)), b"canister_ranges", Leaf(ranges))
    shards: Node = put(EMPTY, low, Leaf(ranges))
    tree = put(EMPTY, b"time", Leaf(_TIME))
    tree = put(tree, b"subnet", put(EMPTY, subnet_id, about))
    tree = put(tree, b"canister_ranges", put(EMPTY, subnet_id, shards))
    certificate = cbor.encode({"tree": tree.cbor(), "signature": root.sign(tree.digest)})
    return {"subnet_id": subnet_id, "certificate": certificate}
