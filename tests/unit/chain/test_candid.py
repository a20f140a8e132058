from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain import candid
from chain.candid import (
    BLOB,
    BOOL,
    EMPTY,
    FUNC,
    INT,
    NAT,
    NAT8,
    NAT16,
    NAT32,
    NAT64,
    NULL,
    PRINCIPAL,
    RESERVED,
    TEXT,
    CandidType,
    CandidValue,
    certain,
    decode,
    encode,
    opt,
    record,
    variant,
    vec,
)
from chain.errors import UnencodableArgument, UnexpectedReply
from tests.unit.chain.conftest import vectors

VECTORS = {v["name"]: bytes.fromhex(v["rust_hex"]) for v in vectors("candid")["vectors"]}
STATE = record(channel=BLOB, version=NAT64, allocation=vec(NAT), finalized=BOOL)
REGISTERED = opt(record(state=STATE, timeout=NAT64))
PARAMS = record(nonce=BLOB, participants=vec(BLOB), challenge_duration=NAT64)
SIGNED = record(state=STATE, sigs=vec(BLOB))
FUNDING = record(channel=BLOB, participant=BLOB)
WITHDRAWAL = record(funding=FUNDING, receiver=PRINCIPAL)
ACCOUNT = record(owner=PRINCIPAL, subaccount=opt(BLOB))

RUST: list[tuple[str, list[CandidType]]] = [
    ("state-64-byte-channel", [STATE]),
    ("state-32-byte-channel", [STATE]),
    ("params-64-byte-nonce", [PARAMS]),
    ("funding", [FUNDING]),
    ("withdrawal-request", [WITHDRAWAL]),
    ("conclude-args(Params,FullySignedState)", [PARAMS, SIGNED]),
    ("opt-registered-state-some", [REGISTERED]),
    ("opt-registered-state-none", [REGISTERED]),
    ("icrc1-balance-of-arg", [ACCOUNT]),
    ("icp-query-blocks-args", [record(start=NAT64, length=NAT64)]),
    ("empty-args", []),
    ("two-opts", [opt(NAT), opt(variant(A=NULL, B=TEXT))]),
    ("text", [TEXT]),
    ("principal-management", [PRINCIPAL]),
]


@pytest.mark.parametrize(("name", "types"), RUST, ids=[name for name, _ in RUST])
def test_what_rust_encodes_is_read_and_means_the_same_when_we_encode_it(name: str, types: list[CandidType]) -> None:
    values = decode(types, VECTORS[name])
    assert decode(types, encode(types, values)) == values


def test_values_are_plain_python() -> None:
    assert decode([REGISTERED], VECTORS["opt-registered-state-some"]) == [
        {
            "state": {"channel": bytes(range(32)), "version": 5, "allocation": [700, 300], "finalized": True},
            "timeout": 1_700_000_000_000_000_000,
        }
    ]
    assert decode([REGISTERED], VECTORS["opt-registered-state-none"]) == [None]
    assert decode([PRINCIPAL], VECTORS["principal-management"]) == [b""]
    assert decode([opt(NAT), opt(variant(A=NULL, B=TEXT))], VECTORS["two-opts"]) == [256, {"B": "x"}]


def test_real_replies_of_a_rust_canister() -> None:
    unknown, funding = (bytes.fromhex(r["hex"]) for r in vectors("candid")["real_canister_replies"])
    assert decode([REGISTERED], unknown) == [None]
    (value,) = decode([opt(FUNDING)], funding)
    assert isinstance(value, dict)
    assert {k: len(v) for k, v in value.items()} == {"channel": 32, "participant": 32}


def test_unknown_fields_are_skipped_and_optional_ones_may_be_missing() -> None:
    wire = record(a=NAT, b=BLOB, c=vec(record(x=TEXT, y=opt(BLOB))), d=BOOL)
    value: CandidValue = {"a": 1, "b": b"\xff" * 300, "c": [{"x": "é", "y": b"z"}, {"x": "", "y": None}], "d": True}
    assert decode([record(a=NAT, d=BOOL, e=opt(NAT))], encode([wire], [value])) == [{"a": 1, "d": True, "e": None}]
    with pytest.raises(UnexpectedReply, match="field e is missing"):
        decode([record(e=NAT)], encode([wire], [value]))


def test_further_values_are_skipped_and_missing_ones_refused() -> None:
    assert decode([NAT], encode([NAT, BLOB], [5, b"xyz"])) == [5]
    with pytest.raises(UnexpectedReply, match="1 values; 2"):
        decode([NAT, NAT], encode([NAT], [5]))


NAT_LIST = "4449444c026e016c02007d01000100"
"""`type List = opt record { nat; List }` and one argument of it."""


@pytest.mark.parametrize(
    ("kind", "sent", "value", "read"),
    [
        (opt(NAT), NAT, 1, 1),
        (opt(NAT), opt(TEXT), "x", None),
        (opt(NAT), TEXT, "x", None),
        (opt(NAT), NULL, None, None),
        (certain(NAT), NAT, 1, 1),
        (certain(NAT), NULL, None, None),
        (opt(INT), NAT, 1, 1),
        (INT, NAT, 2**70, 2**70),
        (RESERVED, record(a=TEXT), {"a": "x"}, None),
        (opt(record(a=NAT)), opt(record(a=TEXT)), {"a": "x"}, None),
        (record(a=opt(record(b=NAT))), record(a=record(b=NAT)), {"a": {"b": 1}}, {"a": {"b": 1}}),
        (record(a=opt(NAT), b=NULL, c=RESERVED), record(z=TEXT), {"z": "x"}, {"a": None, "b": None, "c": None}),
        (variant(a=NAT, c=TEXT), variant(a=NAT, b=BLOB), {"a": 1}, {"a": 1}),
        (opt(variant(a=NAT)), variant(a=NAT, b=BLOB), {"b": b"x"}, None),
        (vec(opt(NAT)), vec(NAT), [1, 2], [1, 2]),
        (vec(opt(NAT)), vec(NULL), [None] * 1_000, [None] * 1_000),
        (vec(opt(NAT)), vec(TEXT), ["x", "y"], [None, None]),
        (BLOB, vec(EMPTY), [], b""),
        (vec(NAT8), BLOB, b"abc", [97, 98, 99]),
        (vec(TEXT), vec(NAT), [], []),
        (record(_0=NAT), record(_0=NAT, _1=TEXT), {"_0": 1, "_1": "x"}, {"_0": 1}),
    ],
)
def test_a_value_is_read_at_the_expected_type(
    kind: CandidType, sent: CandidType, value: CandidValue, read: CandidValue
) -> None:
    assert decode([kind], encode([sent], [value])) == [read]
    # In a record, in a vector, and before something else, which must be found behind it.
    around = encode([vec(record(x=sent, y=NAT)), TEXT], [[{"x": value, "y": 7}], "end"])
    assert decode([vec(record(x=kind, y=NAT)), TEXT], around) == [[{"x": read, "y": 7}], "end"]


def test_reserved_says_nothing() -> None:
    one = bytes.fromhex("4449444c000170")
    assert decode([opt(NAT)], one) == [None]
    assert decode([RESERVED], one) == [None]
    for kind in (certain(NAT), NULL, NAT):
        with pytest.raises(UnexpectedReply):
            decode([kind], one)


def test_values_at_the_end_may_be_missing_or_too_many() -> None:
    assert decode([NAT, opt(TEXT), NULL, RESERVED], encode([NAT], [5])) == [5, None, None, None]
    with pytest.raises(UnexpectedReply):
        decode([NAT, certain(TEXT)], encode([NAT], [5]))


def test_types_that_contain_themselves_are_read_over() -> None:
    three = bytes.fromhex(NAT_LIST) + bytes.fromhex("01" + "01" + "01" + "02" + "01" + "03" + "00")
    assert decode([], three) == []
    assert decode([opt(TEXT)], three) == [None]
    assert decode([opt(record(_0=NAT))], three) == [{"_0": 1}]
    with pytest.raises(UnexpectedReply):
        decode([certain(TEXT)], three)


def test_a_kind_of_type_that_is_not_known_is_read_over() -> None:
    data = bytes.fromhex("4449444c0167" + "03414243" + "02" + "007e" + "0500" + "68656c6c6f" + "01")
    assert decode([opt(NAT), BOOL], data) == [None, True]


@pytest.mark.parametrize("name", ["construct", "prim", "spacebomb", "overshoot"])
def test_the_published_conformance_tests(name: str) -> None:
    """Every assertion about bytes at types that this module has (tests/vectors/candid-conformance.json)."""
    failed = []
    cases = [case for case in vectors("candid-conformance") if case["file"] == name]
    assert len(cases) > 5
    for case in cases:
        kinds = [_type_of(text) for text in case["types"]]
        try:
            decode(kinds, bytes.fromhex(case["hex"]))
            good = True
        except UnexpectedReply:
            good = False
        if good != case["good"]:
            failed.append((case["name"], case["types"], case["hex"], case["good"]))
    assert failed == []


def _type_of(kind: Any) -> CandidType:
    match kind:
        case str():
            return SIMPLE[kind]
        case ["vec", "nat8"]:
            return BLOB
        case ["opt", inner]:
            return opt(_type_of(inner))
        case ["vec", inner]:
            return vec(_type_of(inner))
        case ["record", {**fields}]:
            return record(**{str(label): _type_of(part) for label, part in fields.items()})
        case ["variant", {**fields}]:
            return variant(**{str(label): _type_of(part) for label, part in fields.items()})
    raise AssertionError(kind)


SIMPLE: dict[str, CandidType] = {
    "null": NULL, "bool": BOOL, "nat": NAT, "int": INT, "nat8": NAT8, "nat16": NAT16, "nat32": NAT32, "nat64": NAT64,
    "text": TEXT, "reserved": RESERVED, "empty": EMPTY, "principal": PRINCIPAL,
}  # fmt: skip


@pytest.mark.parametrize(
    ("types", "sent", "value"),
    [
        (NAT, NAT64, 5),
        (NAT64, NAT, 5),
        (NAT64, NAT32, 5),
        (BLOB, TEXT, "x"),
        (BLOB, vec(NAT64), [1]),
        (vec(NAT), BLOB, b"x"),
        (certain(NAT), opt(TEXT), "x"),
        (certain(NAT), TEXT, "x"),
        (certain(record(a=NAT)), opt(record(b=NAT)), {"b": 1}),
        (certain(variant(a=NAT)), opt(variant(b=NAT)), {"b": 1}),
        (opt(record(a=certain(NAT))), record(a=TEXT), {"a": "x"}),
        (NAT, INT, 1),
        (EMPTY, NAT, 1),
        (record(a=NAT), variant(a=NAT), {"a": 1}),
        (variant(a=NAT), variant(b=NAT), {"b": 1}),
        (PRINCIPAL, BLOB, b"x"),
        (FUNC, PRINCIPAL, b"x"),
        (BOOL, NAT8, 1),
        (TEXT, BLOB, b"x"),
        (vec(NAT), opt(NAT), 1),
    ],
)
def test_another_type_is_refused(types: CandidType, sent: CandidType, value: CandidValue) -> None:
    with pytest.raises(UnexpectedReply):
        decode([types], encode([sent], [value]))


@pytest.mark.parametrize(
    ("what", "hexed"),
    [
        ("nothing", ""),
        ("no magic", "4449444d0000"),
        ("a vector of 2^60 nulls", "4449444c016d7f0100" + "808080808080808010"),
        ("a vector of reserved", "4449444c016d700100" + "ffffffff0f"),
        ("a vector of empty records", "4449444c026d016c000100" + "ffffffff0f"),
        ("a vector of records of nulls", "4449444c026d016c02007f017f0100" + "ffffffff0f"),
        ("a record that contains itself", "4449444c016c0100000100"),
        ("options nested without end", "4449444c016e000100" + "01" * 1_000 + "00"),
        (
            "records that double thirty times",
            "4449444c" + "1e" + "".join(f"6c0200{n:02x}01{n:02x}" for n in range(1, 30)) + "6c00" + "0100",
        ),
        ("a type index out of range", "4449444c016e05010000"),
        ("an argument type out of range", "4449444c00010500"),
        ("a primitive in the table", "4449444c017d010000"),
        ("an unknown type", "4449444c01670100"),
        ("fields out of order", "4449444c016c02017d007d01000000"),
        ("a field twice", "4449444c016c02007d007d01000000"),
        ("a field above 32 bits", "4449444c016c01808080808010" + "7d010000"),
        ("too many types", "4449444c" + "8101" + "6e7d" * 129 + "0000"),
        ("a header that never ends", "4449444c" + "80" * 100),
        ("a number cut short", "4449444c00017d80"),
        ("a number that never ends", "4449444c00017d" + "80" * 70_000),
        ("bytes that follow", "4449444c00017d0500"),
        ("a blob longer than the bytes", "4449444c016d7b0100ff"),
        ("a blob of 2^60 bytes", "4449444c016d7b0100808080808080808010"),
        ("a bool of 2", "4449444c00017e02"),
        ("an option of 2", "4449444c016e7d01000200"),
        ("a variant's case that is not there", "4449444c016b01017f010001"),
        ("an opaque principal", "4449444c00016800"),
        ("text that is not UTF-8", "4449444c00017101ff"),
        ("a signed number that never ends", "4449444c00017c" + "ff" * 100),
    ],
)
def test_hostile_bytes_are_refused_quickly(what: str, hexed: str) -> None:
    data = bytes.fromhex(hexed)
    started = time.perf_counter()
    for kind in (NAT, BLOB, vec(NULL), opt(NAT), TEXT, PRINCIPAL, BOOL, vec(record()), record(a=opt(NAT))):
        with pytest.raises(UnexpectedReply):
            decode([kind], data)
    # Some types skip what they do not expect: what is skipped is as hostile.
    with pytest.raises(UnexpectedReply):
        decode([], data)
    assert time.perf_counter() - started < 1.0, what


def test_a_principal_has_at_most_29_bytes() -> None:
    with pytest.raises(UnexpectedReply, match="30 bytes"):
        decode([PRINCIPAL], bytes.fromhex("4449444c000168011e") + bytes(30))


def test_large_replies_are_refused_and_large_blobs_read_at_once() -> None:
    large = encode([BLOB], [b"\xff" * 1_000_000])
    started = time.perf_counter()
    assert decode([BLOB], large) == [b"\xff" * 1_000_000]
    assert decode([], large) == []  # skipped
    assert time.perf_counter() - started < 0.5
    with pytest.raises(UnexpectedReply, match="at most 1000"):
        decode([BLOB], large, limit=1000)


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for prefix in (b"", b"DIDL", b"DIDL\x01\x6d\x7b\x01\x00", b"DIDL\x00\x01\x7d"):
        try:
            decode([BLOB], prefix + data)
        except UnexpectedReply:
            continue


NAMES = st.sampled_from(["a", "b", "to", "memo", "state"])
TYPED: st.SearchStrategy[tuple[CandidType, Any]] = st.recursive(
    st.one_of(
        st.tuples(st.just(NAT), st.integers(0, 2**100)),
        st.tuples(st.just(NAT64), st.integers(0, 2**64 - 1)),
        st.tuples(st.just(BLOB), st.binary(max_size=20)),
        st.tuples(st.just(TEXT), st.text(max_size=10)),
        st.tuples(st.just(BOOL), st.booleans()),
        st.tuples(st.just(PRINCIPAL), st.binary(max_size=29)),
    ),
    lambda inner: st.one_of(
        inner.map(lambda tv: (opt(tv[0]), tv[1])),
        inner.map(lambda tv: (vec(tv[0]), [tv[1], tv[1]])),
        st.dictionaries(NAMES, inner, min_size=1, max_size=3).map(
            lambda d: (record(**{k: t for k, (t, _) in d.items()}), {k: v for k, (_, v) in d.items()})
        ),
        st.tuples(NAMES, inner).map(lambda nv: (variant(**{nv[0]: nv[1][0]}), {nv[0]: nv[1][1]})),
    ),
    max_leaves=6,
)


@given(TYPED)
def test_every_value_comes_back(typed: tuple[CandidType, Any]) -> None:
    kind, value = typed
    assert decode([kind], encode([kind], [value])) == [value]


@pytest.mark.parametrize(
    ("kind", "value"),
    [(NAT64, 2**64), (NAT64, -1), (NAT, -1), (BLOB, "x"), (PRINCIPAL, bytes(30)), (record(a=NAT), {}), (NAT, None)],
)
def test_what_candid_cannot_express_is_not_sent(kind: CandidType, value: CandidValue) -> None:
    with pytest.raises(UnencodableArgument):
        encode([kind], [value])


def test_method_references_are_read() -> None:
    # func (nat64) -> (nat) query, as the ledger names its archives
    data = (
        bytes.fromhex("4449444c016a01780" + "17d01010100" + "01" + "010a" + "00000000000000020101" + "0a")
        + b"get_blocks"
    )
    assert candid.decode([FUNC], data) == [[bytes.fromhex("00000000000000020101"), "get_blocks"]]
