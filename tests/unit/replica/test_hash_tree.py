"""Hash trees: the specification's example, and properties of insertion, removal and proofs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devnet.replica.hash_tree import EMPTY, Leaf, Node, get, put, remove, witness
from tests.unit.replica.certificate_check import ABSENT, UNKNOWN, check_order, lookup, root_hash

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "ic-certificates.json").read_text())["hash_tree"]

labels = st.one_of(
    st.binary(max_size=3),
    st.text("ab", max_size=5).map(str.encode),  # many common beginnings
    st.binary(min_size=32, max_size=32),
)
maps = st.dictionaries(labels, st.binary(max_size=5), max_size=40)


def build(entries: dict[bytes, bytes]) -> Node:
    tree: Node = EMPTY
    for label, value in entries.items():
        tree = put(tree, label, Leaf(value))
    return tree


def test_the_check_used_here_agrees_with_the_specification() -> None:
    for name in ("full_tree_cbor_hex", "pruned_tree_cbor_hex"):
        assert root_hash(cbor2.loads(bytes.fromhex(VECTORS[name]))).hex() == VECTORS["root_hash_hex"]
    pruned = cbor2.loads(bytes.fromhex(VECTORS["pruned_tree_cbor_hex"]))
    for case in VECTORS["lookups_on_pruned_tree"]:
        found = lookup(pruned, [label.encode() for label in case["path"]])
        expected = bytes.fromhex(case["value_hex"]) if case["value_hex"] else case["result"]
        assert (found == expected) if case["result"] != "error" else isinstance(found, list)


@given(maps)
def test_hash_and_order_hold_and_the_shape_depends_on_the_content_only(entries: dict[bytes, bytes]) -> None:
    tree = build(entries)
    check_order(tree.cbor())  # type: ignore[arg-type]
    assert tree.digest == root_hash(tree.cbor())  # type: ignore[arg-type]
    assert tree.digest == build(dict(sorted(entries.items()))).digest
    assert tree.digest == build(dict(sorted(entries.items(), reverse=True))).digest


@given(maps, st.data())
def test_a_witness_shows_what_is_asked_and_proves_what_is_absent(
    entries: dict[bytes, bytes], data: st.DataObject
) -> None:
    asked = data.draw(st.lists(st.one_of(labels, st.sampled_from([*entries, b"x"])), min_size=1, max_size=5))
    tree = build(entries)
    shown: Any = witness(tree, [[label] for label in asked]).cbor()
    assert root_hash(shown) == tree.digest
    for label in asked:
        assert lookup(shown, [label]) == entries.get(label, ABSENT)


@given(maps, st.data())
def test_removing_is_the_opposite_of_putting(entries: dict[bytes, bytes], data: st.DataObject) -> None:
    extra = data.draw(labels.filter(lambda label: label not in entries))
    tree = build(entries)
    bigger = put(tree, extra, Leaf(b"extra"))
    assert get(bigger, extra) is not None
    assert get(tree, extra) is None  # older versions do not change
    assert remove(bigger, extra).digest == tree.digest
    with pytest.raises(KeyError):
        remove(tree, extra)


@given(maps, st.data())
def test_what_was_not_asked_stays_hidden(entries: dict[bytes, bytes], data: st.DataObject) -> None:
    if not entries:
        return
    asked = data.draw(st.sampled_from(list(entries)))
    shown: Any = witness(build(entries), [[asked]]).cbor()
    for label in entries:
        if label != asked:
            assert lookup(shown, [label]) == UNKNOWN


def test_paths_through_several_levels() -> None:
    inner = build({b"x": b"1", b"y": b"2"})
    tree = put(build({b"time": b"now", b"zoo": b"hidden"}), b"canister", inner)
    shown: Any = witness(tree, [[b"canister", b"x"], [b"canister", b"z"], [b"time", b"deeper"], [b"no", b"way"]]).cbor()
    assert root_hash(shown) == tree.digest
    assert lookup(shown, [b"canister", b"x"]) == b"1"
    assert lookup(shown, [b"canister", b"z"]) == ABSENT
    assert lookup(shown, [b"time", b"deeper"]) == ABSENT
    assert lookup(shown, [b"no", b"way"]) == ABSENT
    assert lookup(shown, [b"zoo"]) == UNKNOWN
    whole: Any = witness(tree, [[b"canister"]]).cbor()
    assert lookup(whole, [b"canister", b"y"]) == b"2"
