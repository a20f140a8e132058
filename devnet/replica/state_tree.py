"""The state tree of the one subnet, which is also the root: certificates need no delegation.

Source: Interface Specification, "The system state tree".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from devnet.canister import CanisterModule
from devnet.replica import cbor
from devnet.replica.hash_tree import EMPTY, Leaf, Node, put
from devnet.replica.keys import NodeKey, RootKey
from devnet.replica.request_id import uleb128

__all__ = ["FIRST_CANISTER", "LAST_CANISTER", "StateTree"]

FIRST_CANISTER: Final = bytes.fromhex("00000000000000000101")
LAST_CANISTER: Final = bytes.fromhex("ffffffffffffffff0101")
"""The subnet's range: every canister id there is, so that no client misses the one it looks for."""

Tree = Mapping[bytes, "Tree | bytes"]


class StateTree:
    """What never changes is built once; time and request statuses are put in for each round.

    `controllers`: who may replace the code of a canister, raw principals by canister id; nobody unless it is set.
    `installed_ns`: when each was last installed, or a snapshot of it put back, in chain time; a canister that is not
    in it has code from before account was kept of that. What a canister is made of is read for each round: a test
    replaces code while clients look on.
    """

    def __init__(self, root_key: RootKey, node_key: NodeKey, canisters: Mapping[bytes, CanisterModule]) -> None:
        self.controllers: dict[bytes, tuple[bytes, ...]] = {}
        self.installed_ns: dict[bytes, int] = {}
        self._canisters = canisters
        self._shown: dict[bytes, tuple[bytes, str, tuple[bytes, ...], int | None]] = {}
        self._codes: Node = EMPTY
        ranges = cbor.encode([[FIRST_CANISTER, LAST_CANISTER]])
        subnet_id = root_key.subnet_id
        self._fixed = _level(
            {
                b"subnet": {
                    subnet_id: {
                        b"public_key": root_key.public_der,
                        b"canister_ranges": ranges,
                        b"type": b"application",
                        b"node": {node_key.node_id: {b"public_key": node_key.public_der}},
                    }
                },
                # Exactly one shard: with more, current JavaScript agents look into the wrong one.
                b"canister_ranges": {subnet_id: {FIRST_CANISTER: ranges}},
            }
        )

    def at(self, time_ns: int, request_statuses: Node) -> Node:
        """Return the whole tree at a moment. An empty log of requests has no label."""
        tree = put(self._fixed, b"canister", self._code())
        tree = put(tree, b"time", Leaf(uleb128(time_ns)))
        return tree if request_statuses is EMPTY else put(tree, b"request_status", request_statuses)

    def _code(self) -> Node:
        for canister_id, module in self._canisters.items():
            controllers, installed_ns = self.controllers.get(canister_id, ()), self.installed_ns.get(canister_id)
            code = (module.module_hash, module.candid, controllers, installed_ns)
            if self._shown.get(canister_id) != code:
                self._shown[canister_id] = code
                self._codes = put(self._codes, canister_id, _canister(*code))
        return self._codes


def _canister(module_hash: bytes, candid: str, controllers: tuple[bytes, ...], installed_ns: int | None) -> Node:
    about: Tree = {b"module_hash": module_hash, b"controllers": cbor.encode(list(controllers))}
    if installed_ns is not None:
        about = {**about, b"last_install_timestamp": uleb128(installed_ns)}
    # Code without an interface has no such section: its absence is certified.
    return _level({**about, b"metadata": {b"candid:service": candid.encode()}} if candid else about)


def _level(tree: Tree) -> Node:
    level: Node = EMPTY
    for label, below in tree.items():
        level = put(level, label, Leaf(below) if isinstance(below, bytes) else _level(below))
    return level
