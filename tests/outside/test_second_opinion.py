"""Where our code and ic-py do the same, they say the same: Candid both ways, lookups in certificates.

Principals, account identifiers and request ids are compared in tests/unit/chain/test_vectors_requests.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from chain.cbor import Value
from chain.hash_tree import Missing, parse_tree
from devnet.candid import (
    BLOB,
    BOOL,
    INT,
    NAT,
    NAT8,
    NAT32,
    NAT64,
    PRINCIPAL,
    TEXT,
    AnyShape,
    Case,
    decode,
    encode,
    opt,
    record,
    variant,
    vec,
)
from tests.unit.chain.replica import Tree, prune, tree_of

# ic-py has no types.
candid: Any = import_module("ic.candid")
certificate: Any = import_module("ic.certificate")
Types: Any = candid.Types


@dataclass(frozen=True)
class Kind:
    """One Candid type as the devnet and as ic-py have it, its values, and how theirs is made of ours and back."""

    ours: AnyShape
    theirs: Any
    values: st.SearchStrategy[Any]
    to_theirs: Callable[[Any], Any] = lambda value: value
    to_ours: Callable[[Any], Any] = lambda value: value


SIMPLE = st.sampled_from(
    [
        Kind(NAT, Types.Nat, st.integers(0, 2**100)),
        Kind(INT, Types.Int, st.integers(-(2**100), 2**100)),
        Kind(NAT8, Types.Nat8, st.integers(0, 2**8 - 1)),
        Kind(NAT32, Types.Nat32, st.integers(0, 2**32 - 1)),
        Kind(NAT64, Types.Nat64, st.integers(0, 2**64 - 1)),
        Kind(BOOL, Types.Bool, st.booleans()),
        Kind(TEXT, Types.Text, st.text(max_size=8)),
        Kind(PRINCIPAL, Types.Principal, st.binary(max_size=29), lambda raw: raw, lambda principal: principal.bytes),
        Kind(BLOB, Types.Vec(Types.Nat8), st.binary(max_size=40), lambda raw: raw, bytes),
    ]
)
NAMES = st.lists(st.from_regex(r"[A-Za-z][a-z0-9]{0,6}", fullmatch=True), min_size=1, max_size=4, unique=True)


def opt_of(inner: Kind) -> Kind:
    return Kind(
        opt(inner.ours),
        Types.Opt(inner.theirs),
        st.none() | inner.values,
        lambda value: [] if value is None else [inner.to_theirs(value)],
        lambda value: inner.to_ours(value[0]) if value else None,
    )


def vec_of(inner: Kind) -> Kind:
    return Kind(
        vec(inner.ours),
        Types.Vec(inner.theirs),
        st.lists(inner.values, max_size=4).map(tuple),
        lambda values: [inner.to_theirs(value) for value in values],
        lambda values: tuple(inner.to_ours(value) for value in values),
    )


def record_of(fields: dict[str, Kind]) -> Kind:
    return Kind(
        record(SimpleNamespace, **{name: kind.ours for name, kind in fields.items()}),
        Types.Record({name: kind.theirs for name, kind in fields.items()}),
        st.builds(SimpleNamespace, **{name: kind.values for name, kind in fields.items()}),
        lambda value: {name: kind.to_theirs(getattr(value, name)) for name, kind in fields.items()},
        lambda value: SimpleNamespace(**{name: kind.to_ours(value[name]) for name, kind in fields.items()}),
    )


def variant_of(cases: dict[str, Kind]) -> Kind:
    return Kind(
        variant(**{name: kind.ours for name, kind in cases.items()}),
        Types.Variant({name: kind.theirs for name, kind in cases.items()}),
        st.one_of([st.builds(Case, st.just(name), kind.values) for name, kind in cases.items()]),
        lambda case: {case.name: cases[case.name].to_theirs(case.value)},
        lambda value: next(Case(name, cases[name].to_ours(inner)) for name, inner in value.items()),
    )


def composite(inner: st.SearchStrategy[Kind]) -> st.SearchStrategy[Kind]:
    named = NAMES.flatmap(lambda names: st.fixed_dictionaries(dict.fromkeys(names, inner)))
    return st.one_of(
        # An opt of an opt cannot be told from none where None stands for it.
        inner.filter(lambda kind: not kind.ours.name.startswith("opt")).map(opt_of),
        inner.map(vec_of),
        named.map(record_of),
        named.map(variant_of),
    )


@st.composite
def messages(draw: st.DrawFn) -> tuple[list[Kind], list[Any]]:
    kinds = draw(st.lists(st.recursive(SIMPLE, composite, max_leaves=6), max_size=3))
    return kinds, [draw(kind.values) for kind in kinds]


@given(messages())
@settings(max_examples=150, deadline=None)
def test_what_ic_py_writes_the_devnet_reads(message: tuple[list[Kind], list[Any]]) -> None:
    kinds, values = message
    written = candid.encode(
        [{"type": kind.theirs, "value": kind.to_theirs(value)} for kind, value in zip(kinds, values, strict=True)]
    )
    assert decode(written, *(kind.ours for kind in kinds)) == tuple(values)


@given(messages())
@settings(max_examples=150, deadline=None)
def test_what_the_devnet_writes_ic_py_reads(message: tuple[list[Kind], list[Any]]) -> None:
    kinds, values = message
    written = encode(tuple(kind.ours for kind in kinds), *values)
    read = candid.decode(written, [kind.theirs for kind in kinds])
    assert [kind.to_ours(one) for kind, one in zip(kinds, (entry["value"] for entry in read), strict=True)] == values


LABELS = st.binary(min_size=1, max_size=3)
TREES: st.SearchStrategy[Tree] = st.dictionaries(
    LABELS, st.recursive(st.binary(max_size=5), lambda inner: st.dictionaries(LABELS, inner, max_size=4), max_leaves=8)
)


@given(TREES, st.lists(LABELS, max_size=3), st.data())
@settings(max_examples=150, deadline=None)
def test_what_is_at_a_path_of_a_certificate(tree: Tree, hidden: list[bytes], data: st.DataObject) -> None:
    """ic-py finds the same values. It answers None to everything else, where we tell absent from hidden."""
    nodes = tree_of(tree)
    for label in hidden:
        nodes = prune(nodes, label)
    path = data.draw(st.sampled_from(sorted(paths(tree))) | st.lists(LABELS, min_size=1, max_size=3).map(tuple))
    as_cbor: Value = nodes
    found = parse_tree(as_cbor).lookup(path)
    assert (None if isinstance(found, Missing) else found) == certificate.lookup(list(path), {"tree": nodes})


def paths(tree: Tree | bytes, above: tuple[bytes, ...] = ()) -> set[tuple[bytes, ...]]:
    below = set() if isinstance(tree, bytes) else {p for label in tree for p in paths(tree[label], (*above, label))}
    return below | {above} if above else below | {(b"nothing",)}
