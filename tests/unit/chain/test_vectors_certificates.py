from __future__ import annotations

import random
from typing import Any

import cbor2
import pytest

from chain import cbor
from chain.certificate import MAINNET_ROOT_KEY, CertificateVerifier, verify_bls
from chain.errors import LyingReplica
from chain.hash_tree import MalformedTree, Missing, parse_tree
from tests.unit.chain.conftest import vectors

VECTORS = vectors("ic-certificates")
CERTIFICATES = VECTORS["certificates"]
VALID = [v for v in CERTIFICATES if v["expected"] == "valid"]


def verifier(vector: dict[str, Any]) -> CertificateVerifier:
    return CertificateVerifier(bytes.fromhex(vector["root_key_der_hex"]))


def parts(vector: dict[str, Any]) -> tuple[bytes, bytes]:
    return bytes.fromhex(vector["certificate_cbor_hex"]), bytes.fromhex(vector["effective_canister_id_hex"])


def test_the_pinned_root_key_is_mainnets() -> None:
    assert VECTORS["mainnet_root_key_der_hex"] == MAINNET_ROOT_KEY.hex()


@pytest.mark.parametrize("vector", VALID, ids=lambda v: v["name"])
def test_valid_certificates(vector: dict[str, Any]) -> None:
    certificate = verifier(vector).verify(*parts(vector))
    assert certificate.tree.digest.hex() == vector["root_hash_hex"]
    assert certificate.time_ns == vector["time_ns"]
    assert certificate.delegated == vector["has_delegation"]


@pytest.mark.parametrize("vector", [v for v in CERTIFICATES if v["expected"] == "invalid"], ids=lambda v: v["name"])
def test_invalid_certificates(vector: dict[str, Any]) -> None:
    with pytest.raises(LyingReplica):
        verifier(vector).verify(*parts(vector))


def test_the_leaves_of_a_rejected_call() -> None:
    vector = next(v for v in CERTIFICATES if "leaves_hex" in v)
    certificate = verifier(vector).verify(*parts(vector))
    for path, leaf in vector["leaves_hex"].items():
        labels = path.split("/")
        # The request id, in second place, is the only binary label.
        encoded = [bytes.fromhex(x) if i == 1 else x.encode() for i, x in enumerate(labels)]
        assert certificate.lookup(*encoded) == bytes.fromhex(leaf)


def test_canister_ranges_are_inclusive() -> None:
    vector = next(v for v in CERTIFICATES if "range_checks" in v)
    encoded, _ = parts(vector)
    checked = verifier(vector)
    for check in vector["range_checks"]:
        canister = bytes.fromhex(check["canister_hex"])
        if check["authorized"]:
            checked.verify(encoded, canister)
        else:
            with pytest.raises(LyingReplica, match="not shown to host"):
                checked.verify(encoded, canister)


@pytest.mark.parametrize("vector", VALID, ids=lambda v: v["name"])
def test_no_changed_byte_gives_another_value(vector: dict[str, Any]) -> None:
    encoded, canister = parts(vector)
    good = verifier(vector).verify(encoded, canister)
    random_ = random.Random(vector["name"])
    checked, refused = verifier(vector), 0
    for _ in range(120):
        changed = bytearray(encoded)
        changed[random_.randrange(len(changed))] ^= random_.randrange(1, 256)
        try:
            certificate = checked.verify(bytes(changed), canister)
        except LyingReplica:
            refused += 1
        else:
            # Only bytes that carry no meaning may change: the hash has to be the same.
            assert (certificate.tree, certificate.time_ns, certificate.subnet_id) == (
                good.tree,
                good.time_ns,
                good.subnet_id,
            )
    assert refused >= 115


def test_a_cached_delegation_verifies_nothing_but_itself() -> None:
    vector = next(v for v in VALID if v["has_delegation"])
    encoded, canister = parts(vector)
    checked = verifier(vector)
    first = checked.verify(encoded, canister)
    assert checked.verify(encoded, canister) == first
    fields = cbor2.loads(encoded[3:])
    fields["delegation"]["subnet_id"] = first.subnet_id[:-1] + b"\x01"
    with pytest.raises(LyingReplica):
        checked.verify(cbor2.dumps(fields), canister)


@pytest.mark.parametrize("vector", VECTORS["bls"], ids=lambda v: v["name"])
def test_bls(vector: dict[str, Any]) -> None:
    key, message, signature = (bytes.fromhex(vector[k]) for k in ("pk_g2_hex", "msg_hex", "sig_g1_hex"))
    assert verify_bls(key, message, signature) is vector["expected"]


def test_an_infinite_signature_is_refused_for_a_good_key() -> None:
    key = bytes.fromhex(VECTORS["bls"][0]["pk_g2_hex"])
    assert not verify_bls(key, b"x", b"\xc0" + bytes(47))
    assert not verify_bls(key, b"x", b"")


TREE = VECTORS["hash_tree"]


@pytest.mark.parametrize("name", ["full_tree_cbor_hex", "pruned_tree_cbor_hex"])
def test_the_example_tree_has_its_root_hash(name: str) -> None:
    assert parse_tree(cbor.decode(bytes.fromhex(TREE[name]))).digest.hex() == TREE["root_hash_hex"]


@pytest.mark.parametrize("vector", TREE["lookups_on_pruned_tree"], ids=lambda v: "/".join(v["path"]))
def test_lookups(vector: dict[str, Any]) -> None:
    tree = parse_tree(cbor.decode(bytes.fromhex(TREE["pruned_tree_cbor_hex"])))
    expected = {"error": Missing.SUBTREE, "unknown": Missing.UNKNOWN, "absent": Missing.ABSENT}.get(vector["result"])
    value = bytes.fromhex(vector["value_hex"] or "")
    assert tree.lookup([label.encode() for label in vector["path"]]) == (expected or value)


def nested(depth: int) -> list[Any]:
    node: list[Any] = [3, b"x"]
    for _ in range(depth):
        node = [2, b"a", node]
    return node


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        [5],
        [0, 0],
        [1, [0]],
        [1, [0], [0], [0]],
        [2, "text", [0]],
        [2, b"a"],
        [3, "text"],
        [4, bytes(31)],
        [4, bytes(33)],
        [1, [2, b"b", [0]], [2, b"a", [0]]],  # out of order
        [1, [2, b"a", [0]], [2, b"a", [0]]],  # twice
        [1, [2, b"b", [0]], [1, [4, bytes(32)], [2, b"a", [0]]]],  # out of order around what is pruned
        [1, [3, b"x"], [2, b"a", [0]]],  # a value beside an edge
        nested(129),
    ],
)
def test_malformed_trees_are_refused(value: Any) -> None:
    with pytest.raises(MalformedTree):
        parse_tree(value)


def test_a_tree_may_be_as_deep_as_the_bound() -> None:
    assert parse_tree(nested(128)).lookup([b"a"] * 128) == b"x"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xd9\xd9\xf7",
        bytes.fromhex("a1"),  # cut short
        bytes.fromhex("4161ff"),  # something follows
        bytes.fromhex("d81c81d81d00"),  # shared references: a list that contains itself
        bytes.fromhex("c48221196ab3"),  # a decimal fraction
        bytes.fromhex("d823612e"),  # a regular expression
        bytes.fromhex("9f01ff"),  # an indefinite length
        bytes.fromhex("20"),  # a negative number
        bytes.fromhex("f97e00"),  # a float
        bytes.fromhex("a2616101616102"),  # a key twice
        bytes.fromhex("a10102"),  # a key that is no text
        bytes.fromhex("61ff"),  # no UTF-8
        bytes.fromhex("5bffffffffffffffff"),  # longer than everything
        bytes.fromhex("9bffffffffffffffff"),
        b"\x81" * 100_000,  # very deep
        b"\x9a\x00\x10\x00\x00" + b"\x00" * (1 << 20),  # very many
    ],
)
def test_cbor_that_means_harm_is_refused(data: bytes) -> None:
    with pytest.raises(cbor.MalformedCbor):
        cbor.decode(data)


def test_cbor_comes_back() -> None:
    value: cbor.Value = {"a": [1, 2**64 - 1, b"x", "é", None, True], "b": {"c": []}}
    assert cbor.decode(cbor.encode(value)) == value
    assert cbor.decode(cbor2.dumps(value)) == value  # the tag may be missing
