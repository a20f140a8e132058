"""Certificates: what a subnet of the Internet Computer signed, verified down to the pinned root key.

BLS12-381 with signatures in G1. Nothing is read from a certificate before `CertificateVerifier.verify` returned
it. Freshness is the agent's business: it knows when it asked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Final

from pyblst import (  # type: ignore[attr-defined]
    BlstP1Element,
    BlstP2Element,
    final_verify,
    miller_loop,
)

from chain import cbor
from chain.cbor import MalformedCbor, Value
from chain.errors import LyingReplica
from chain.hash_tree import HashTree, MalformedTree, Missing, parse_tree
from chain.principal import principal_to_text, self_authenticating
from protocol.types import MAX_INT64

__all__ = ["MAINNET_ROOT_KEY", "Certificate", "CertificateVerifier", "key_of_der", "uleb128_value", "verify_bls"]

BLS_DER_PREFIX: Final = bytes.fromhex("308182301d060d2b0601040182dc7c0503010201060c2b0601040182dc7c05030201036100")
MAINNET_ROOT_KEY: Final = BLS_DER_PREFIX + bytes.fromhex(
    "814c0e6ec71fab583b08bd81373c255c3c371b2e84863c98a4f1e08b74235d14"
    "fb5d9c0cd546d9685f913a0c0b2cc5341583bf4b4392e467db96d65b9bb4cb71"
    "7112f8472e0d5a4d14505ffd7484b01291091c5f87b98883463f98091a0baaae"
)
"""The key of the Internet Computer itself, pinned."""
STATE_ROOT_DOMAIN: Final = b"\x0dic-state-root"
BLS_DST: Final = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
G2_GENERATOR: Final = BlstP2Element.uncompress(
    bytes.fromhex(
        "93e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e"
        "024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8"
    )
)
INFINITY_G1: Final = b"\xc0" + bytes(47)
INFINITY_G2: Final = b"\xc0" + bytes(95)
MAX_CACHED_DELEGATIONS: Final = 64


def verify_bls(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the 48-byte signature over the message is by the 96-byte key.

    The points at infinity are refused: with an infinite key, an infinite signature fits every message.
    """
    if len(public_key) != 96 or len(signature) != 48 or signature == INFINITY_G1 or public_key == INFINITY_G2:
        return False
    try:
        key = _key_point(public_key)
        point = BlstP1Element.uncompress(signature)  # checks the subgroup too
    except ValueError:
        return False
    hashed = BlstP1Element.hash_to_group(message, BLS_DST)
    return bool(final_verify(miller_loop(point, G2_GENERATOR), miller_loop(hashed, key)))


@lru_cache(maxsize=MAX_CACHED_DELEGATIONS)
def _key_point(public_key: bytes) -> BlstP2Element:
    return BlstP2Element.uncompress(public_key)


def key_of_der(der: bytes) -> bytes:
    """Return the 96-byte key of a 133-byte DER public key. Raises `LyingReplica` for any other form."""
    if len(der) != len(BLS_DER_PREFIX) + 96 or not der.startswith(BLS_DER_PREFIX):
        raise LyingReplica("a subnet key is not in the form of the Internet Computer (133 bytes of DER)")
    return der[len(BLS_DER_PREFIX) :]


def uleb128_value(encoded: bytes) -> int:
    """Return the number in an unsigned LEB128 of at most 64 bits that fills these bytes."""
    number = 0
    for place, byte in enumerate(encoded):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            if place != len(encoded) - 1 or number >= 2**64:
                break
            return number
    raise LyingReplica("a certified number is malformed")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A verified certificate.

    `tree`: what it shows of the state; `time_ns`: chain time when it was made; `subnet_id`: whose state it is;
    `delegated`: whether that subnet acted for the root by a delegation, whose canister ranges were checked.
    """

    tree: HashTree
    time_ns: int
    subnet_id: bytes
    delegated: bool

    def lookup(self, *path: bytes) -> bytes | Missing:
        """Return the value at the path, or why there is none."""
        return self.tree.lookup(path)

    def hosts(self, canister: bytes) -> bool:
        """Whether this certificate itself shows that its subnet hosts the canister."""
        return _in_ranges(self.tree, self.subnet_id, canister)


class CertificateVerifier:
    """Verifies certificates against one root key. `root_key`: 133 bytes of DER."""

    def __init__(self, root_key: bytes) -> None:
        self._root_key = key_of_der(root_key)
        self.root_subnet_id: Final = self_authenticating(root_key)
        # Delegations change with replica upgrades only, and verifying one costs as much as the certificate.
        self._delegations: OrderedDict[bytes, tuple[bytes, HashTree]] = OrderedDict()

    def verify(self, encoded: bytes, canister: bytes) -> Certificate:
        """Return the certificate in these bytes, for a request about `canister`. Raises `LyingReplica`.

        `canister`: the effective canister id. With a delegation, it must be in the delegated ranges. Without, the
        signer is the root subnet, and whether the canister is there has to be shown by `Certificate.hosts`.
        """
        fields = _decoded(encoded)
        tree = _tree(fields)
        try:
            subnet_id, key, granted = self._signer(fields)
            if granted is not None:
                _check_ranges(granted, subnet_id, canister)
            _check_signature(fields, tree, key)
            return Certificate(tree, _time(tree), subnet_id, delegated=granted is not None)
        except LyingReplica as error:
            error.unproven = tree
            raise

    def verify_of_subnet(self, encoded: bytes, subnet_id: bytes) -> Certificate:
        """Return the certificate in these bytes, for a request about that subnet. Raises `LyingReplica`."""
        fields = _decoded(encoded)
        tree = _tree(fields)
        signer, key, granted = self._signer(fields)
        if signer != subnet_id:
            raise LyingReplica(
                f"a certificate of the subnet {principal_to_text(signer)} where that of the subnet "
                f"{principal_to_text(subnet_id)} was asked for"
            )
        _check_signature(fields, tree, key)
        return Certificate(tree, _time(tree), subnet_id, delegated=granted is not None)

    def _signer(self, fields: Mapping[str, Value]) -> tuple[bytes, bytes, HashTree | None]:
        """Return the subnet that signs, its key, and what it was granted (None: it is the root itself)."""
        delegation = fields.get("delegation")
        return (self.root_subnet_id, self._root_key, None) if delegation is None else self._delegated(delegation)

    def _delegated(self, delegation: Value) -> tuple[bytes, bytes, HashTree]:
        match delegation:
            case {"subnet_id": bytes(subnet_id), "certificate": bytes(encoded)}:
                pass
            case _:
                raise LyingReplica("the certificate's delegation is malformed")
        # The verifier has one root key, so the bytes and the subnet are the whole question.
        name = sha256(subnet_id + encoded).digest()
        known = self._delegations.get(name)
        if known is None:
            known = self._verify_delegation(subnet_id, encoded)
            self._delegations[name] = known
            if len(self._delegations) > MAX_CACHED_DELEGATIONS:
                self._delegations.popitem(last=False)
        else:
            self._delegations.move_to_end(name)
        return subnet_id, *known

    def _verify_delegation(self, subnet_id: bytes, encoded: bytes) -> tuple[bytes, HashTree]:
        fields = _decoded(encoded)
        if fields.get("delegation") is not None:
            raise LyingReplica("a delegation of a delegation; the protocol allows one level")
        tree = _tree(fields)
        _check_signature(fields, tree, self._root_key)
        der = tree.lookup((b"subnet", subnet_id, b"public_key"))
        if isinstance(der, Missing):
            raise LyingReplica("the delegation does not show its subnet's key")
        return key_of_der(der), tree


def _decoded(encoded: bytes) -> Mapping[str, Value]:
    try:
        value = cbor.decode(encoded)
    except MalformedCbor as exc:
        raise LyingReplica(f"a certificate is malformed: {exc}") from exc
    if not isinstance(value, Mapping):
        raise LyingReplica("a certificate is no map")
    return value


def _tree(fields: Mapping[str, Value]) -> HashTree:
    try:
        return parse_tree(fields.get("tree"))
    except MalformedTree as exc:
        raise LyingReplica(f"the hash tree of a certificate is malformed: {exc}") from exc


def _check_signature(fields: Mapping[str, Value], tree: HashTree, key: bytes) -> None:
    signature = fields.get("signature")
    if not isinstance(signature, bytes) or not verify_bls(key, STATE_ROOT_DOMAIN + tree.digest, signature):
        raise LyingReplica(
            "the signature of a certificate does not verify: the server is dishonest, or the configured root key "
            "belongs to another network"
        )


def _time(tree: HashTree) -> int:
    leaf = tree.lookup((b"time",))
    if isinstance(leaf, Missing):
        raise LyingReplica("a certificate without its time")
    time_ns = uleb128_value(leaf)
    if time_ns > MAX_INT64:
        raise LyingReplica("a certificate of a time that no clock shows")
    return time_ns


def _in_ranges(tree: HashTree, subnet_id: bytes, canister: bytes) -> bool:
    """Whether the tree shows the canister among the subnet's, in shards if there are any, else in one list."""
    shards = tree.subtree((b"canister_ranges", subnet_id))
    if isinstance(shards, HashTree):
        leaf: bytes | Missing = Missing.ABSENT
        for start, shard in shards.children():
            if start <= canister:
                leaf = shard.lookup(())
    else:
        leaf = tree.lookup((b"subnet", subnet_id, b"canister_ranges"))
    return isinstance(leaf, bytes) and any(low <= canister <= high for low, high in _ranges(leaf))


def _check_ranges(granted: HashTree, subnet_id: bytes, canister: bytes) -> None:
    if not _in_ranges(granted, subnet_id, canister):
        raise LyingReplica(f"the certificate is by a subnet that is not shown to host {principal_to_text(canister)}")


def _ranges(leaf: bytes) -> list[tuple[bytes, bytes]]:
    try:
        value = cbor.decode(leaf)
    except MalformedCbor as exc:
        raise LyingReplica(f"certified canister ranges are malformed: {exc}") from exc
    ranges: list[tuple[bytes, bytes]] = []
    for item in value if isinstance(value, Sequence) else ():
        match item:
            case [bytes(low), bytes(high)]:
                ranges.append((low, high))
            case _:
                raise LyingReplica("certified canister ranges are malformed")
    return ranges
