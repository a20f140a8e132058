"""An independent reading of certificates, from the interface specification: what the replica must satisfy."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import cbor2
from pyblst import BlstP1Element, BlstP2Element, final_verify, miller_loop  # type: ignore[attr-defined]

DST = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
G2 = bytes.fromhex(
    "93e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e"
    "024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8"
)
BLS_DER = bytes.fromhex("308182301d060d2b0601040182dc7c0503010201060c2b0601040182dc7c05030201036100")
ABSENT = "absent"
UNKNOWN = "unknown"

Tree = list[Any]


def untag(raw: bytes) -> Any:
    assert raw[:3] == b"\xd9\xd9\xf7", "the Internet Computer tags its CBOR"
    return cbor2.loads(raw[3:])


def domain(name: str) -> bytes:
    return bytes([len(name)]) + name.encode()


def root_hash(tree: Tree) -> bytes:
    match tree:
        case [0]:
            return sha256(domain("ic-hashtree-empty")).digest()
        case [1, left, right]:
            return sha256(domain("ic-hashtree-fork") + root_hash(left) + root_hash(right)).digest()
        case [2, bytes(label), below]:
            return sha256(domain("ic-hashtree-labeled") + label + root_hash(below)).digest()
        case [3, bytes(value)]:
            return sha256(domain("ic-hashtree-leaf") + value).digest()
        case [4, bytes(digest)] if len(digest) == 32:
            return digest
    raise AssertionError(f"not a hash tree: {tree}")


def level(tree: Tree) -> list[Tree]:
    if tree[0] == 1:
        return level(tree[1]) + level(tree[2])
    return [] if tree[0] == 0 else [tree]


def check_order(tree: Tree) -> None:
    nodes = level(tree)
    labels = [node[1] for node in nodes if node[0] == 2]
    assert labels == sorted(set(labels)), "labels rise strictly"
    for node in nodes:
        if node[0] == 2:
            check_order(node[2])


def lookup(tree: Tree, path: Sequence[bytes]) -> bytes | str | Tree:
    if not path:
        return {0: ABSENT, 3: tree[1] if len(tree) > 1 else b"", 4: UNKNOWN}.get(tree[0], tree)
    nodes = level(tree)
    if nodes and nodes[0][0] == 3:
        return ABSENT
    for node in nodes:
        if node[0] == 2 and node[1] == path[0]:
            return lookup(node[2], path[1:])
    before = [i for i, node in enumerate(nodes) if node[0] == 2 and node[1] < path[0]]
    after = [i for i, node in enumerate(nodes) if node[0] == 2 and node[1] > path[0]]
    low = max(before) if before else -1
    high = min(after) if after else len(nodes)
    return ABSENT if high - low == 1 else UNKNOWN


class Certificate:
    """A certificate whose signature has been checked with a root key."""

    def __init__(self, raw: bytes, root_key_der: bytes) -> None:
        fields = untag(raw)
        assert set(fields) == {"tree", "signature"}, "the root subnet needs no delegation"
        self.tree: Tree = fields["tree"]
        check_order(self.tree)
        assert root_key_der[:37] == BLS_DER
        assert len(root_key_der) == 133
        message = domain("ic-state-root") + root_hash(self.tree)
        signature = BlstP1Element.uncompress(fields["signature"])
        hashed = BlstP1Element.hash_to_group(message, DST)
        key = BlstP2Element.uncompress(root_key_der[37:])
        generator = BlstP2Element.uncompress(G2)
        assert final_verify(miller_loop(signature, generator), miller_loop(hashed, key)), "signature"

    def lookup(self, *path: bytes) -> bytes | str | Tree:
        return lookup(self.tree, path)

    def value(self, *path: bytes) -> bytes:
        found = self.lookup(*path)
        assert isinstance(found, bytes), f"{path} is {found}"
        return found

    @property
    def time_ns(self) -> int:
        return uleb(self.value(b"time"))


def uleb(raw: bytes) -> int:
    return sum((byte & 0x7F) << (7 * i) for i, byte in enumerate(raw))


def hash_of_map(fields: dict[str, Any]) -> bytes:
    def value_hash(value: Any) -> bytes:
        match value:
            case bytes():
                return sha256(value).digest()
            case str():
                return sha256(value.encode()).digest()
            case int():
                number, out = value, bytearray()
                while number > 127:
                    out.append(number % 128 + 128)
                    number //= 128
                return sha256(bytes([*out, number])).digest()
            case list():
                return sha256(b"".join(map(value_hash, value))).digest()
            case dict():
                return hash_of_map(value)
        raise AssertionError(value)

    pairs = sorted(sha256(key.encode()).digest() + value_hash(value) for key, value in fields.items())
    return sha256(b"".join(pairs)).digest()
