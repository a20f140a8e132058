"""Candid: byte for byte what Rust's `candid` crate writes, and no mercy for what it would not read."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devnet.candid import (
    BLOB,
    BOOL,
    INT,
    NAT,
    NAT8,
    NAT32,
    NAT64,
    NULL,
    PRINCIPAL,
    TEXT,
    AnyShape,
    Case,
    NotCandid,
    decode,
    encode,
    opt,
    record,
    single,
    tuple_of,
    variant,
    vec,
)
from devnet.ledger.interface import ACCOUNT, GET_BLOCKS_ARGS, TRANSFER_ARGS, TRANSFER_RESULT
from devnet.perun.interface import FULLY_SIGNED_STATE, FUNDING, PARAMS, REGISTERED_STATE, WITHDRAWAL_REQUEST, State

FOLDER = Path(__file__).parents[2] / "vectors"
VECTORS = json.loads((FOLDER / "candid.json").read_text())
BY_NAME = {vector["name"]: bytes.fromhex(vector["rust_hex"]) for vector in VECTORS["vectors"]}
STATE = record(State, channel=BLOB, version=NAT64, allocation=vec(NAT), finalized=BOOL)
SHAPES: dict[str, tuple[AnyShape, ...]] = {
    "state-64-byte-channel": (STATE,),
    "state-32-byte-channel": (STATE,),
    "params-64-byte-nonce": (PARAMS,),
    "funding": (FUNDING,),
    "withdrawal-request": (WITHDRAWAL_REQUEST,),
    "conclude-args(Params,FullySignedState)": (PARAMS, FULLY_SIGNED_STATE),
    "opt-registered-state-some": (opt(REGISTERED_STATE),),
    "opt-registered-state-none": (opt(REGISTERED_STATE),),
    "icp-transfer-args": (TRANSFER_ARGS,),
    "icp-query-blocks-args": (GET_BLOCKS_ARGS,),
    "icp-account-balance-args": (single("account", BLOB),),
    "icrc1-balance-of-arg": (ACCOUNT,),
    "icp-transfer-ok": (TRANSFER_RESULT,),
    "empty-args": (),
    "two-opts": (opt(NAT), opt(variant(A=NULL, B=TEXT))),
    "text": (TEXT,),
    "int-negative": (INT,),
    "principal-management": (PRINCIPAL,),
}


@pytest.mark.parametrize("name", SHAPES)
def test_what_rust_wrote_is_read_and_written_again(name: str) -> None:
    values = decode(BY_NAME[name], *SHAPES[name])
    assert encode(SHAPES[name], *values) == BY_NAME[name]


@pytest.mark.parametrize("name", BY_NAME)
def test_whatever_rust_wrote_can_be_skipped(name: str) -> None:
    assert decode(BY_NAME[name]) == ()


def test_a_real_canisters_reply() -> None:
    reply = bytes.fromhex(VECTORS["real_canister_replies"][0]["hex"])
    assert encode((opt(REGISTERED_STATE),), None) == reply


@pytest.mark.parametrize("name", BY_NAME)
def test_no_prefix_is_a_message(name: str) -> None:
    data = BY_NAME[name]
    for size in range(len(data)):
        with pytest.raises(NotCandid):
            decode(data[:size])
    with pytest.raises(NotCandid, match="follow"):
        decode(data + b"\x00")


@dataclass(frozen=True)
class Two:
    a: int
    b: int | None


TWO = record(Two, a=NAT, b=opt(NAT))


def test_missing_optional_fields_and_arguments_are_null_and_extra_ones_are_skipped() -> None:
    one: AnyShape = single("a", NAT)
    assert decode(encode((one,), 5), TWO) == (Two(5, None),)
    assert decode(encode((TWO, TEXT), Two(1, 2), "more"), one) == (1,)
    assert decode(b"DIDL\x00\x00", opt(NAT)) == (None,)
    with pytest.raises(NotCandid, match="missing"):
        decode(b"DIDL\x00\x00", NAT)


def test_opt_is_forgiving_and_nothing_else_is() -> None:
    assert decode(encode((NAT,), 7), opt(NAT)) == (7,)
    assert decode(encode((TEXT,), "x"), opt(NAT)) == (None,)
    assert decode(encode((opt(TEXT),), "x"), opt(NAT)) == (None,)
    assert decode(encode((NULL,), None), opt(NAT)) == (None,)
    assert decode(encode((NAT,), 300), INT) == (300,)
    for written, expected in ((NAT64, NAT), (NAT, NAT64), (INT, NAT), (TEXT, BLOB), (vec(NAT), BLOB), (NULL, NAT)):
        value: Any = {NULL: None, TEXT: "x"}.get(written, () if written not in {NAT64, NAT, INT} else 1)
        with pytest.raises(NotCandid, match="not of type"):
            decode(encode((written,), value), expected)


def test_unknown_alternatives_are_refused_outside_opt() -> None:
    wide, narrow = variant(A=NULL, B=NAT), variant(A=NULL)
    assert decode(encode((narrow,), Case("A")), wide) == (Case("A"),)
    with pytest.raises(NotCandid):
        decode(encode((wide,), Case("A")), narrow)
    assert decode(encode((wide,), Case("B", 1)), opt(narrow)) == (None,)


@pytest.mark.parametrize(
    ("why", "data"),
    [
        ("a vector of two billion nulls", "4449444c016d7f0100" + "ffffffff07"),
        ("vectors of vectors of nulls", "4449444c026d016d7f0100" + "ff7f" + "ffffffff07" * 5),
        ("a vector of a billion empty records", "4449444c026d016c000100" + "80a8d6b90f"),
        ("a blob longer than the message", "4449444c016d7b0100" + "ffffffff0f"),
        ("a table of a billion types", "4449444c" + "80a8d6b90f"),
        ("a billion arguments", "4449444c00" + "80a8d6b90f"),
        ("a record with a billion fields", "4449444c016c" + "80a8d6b90f"),
        ("a record that holds itself", "4449444c016c0100000100"),
        ("a primitive in the table", "4449444c017d0100" + "00"),
        ("a type beyond the table", "4449444c016e050100" + "00"),
        ("an unknown primitive", "4449444c000150"),
        ("fields out of order", "4449444c016c02027d017d0100" + "0000"),
        ("a field twice", "4449444c016c02017d017d0100" + "0000"),
        ("a truth value of 2", "4449444c00017e02"),
        ("an option of 2", "4449444c016e7d010002"),
        ("a text that is not UTF-8", "4449444c00017102c328"),
        ("a principal of 30 bytes", "4449444c000168" + "011e" + "00" * 30),
        ("a number without end", "4449444c00017d" + "ff" * 50),
        ("a value of type empty", "4449444c00016f"),
        ("a variant without alternatives", "4449444c016b000100" + "00"),
        ("another magic", "4449444d0000"),
        ("nothing", ""),
    ],
)
def test_bombs_and_nonsense_are_refused_at_once(why: str, data: str) -> None:
    with pytest.raises(NotCandid):
        decode(bytes.fromhex(data))


def test_deep_nesting_does_not_exhaust_the_stack() -> None:
    with pytest.raises(NotCandid, match="nested"):
        decode(b"DIDL\x01\x6e\x00\x01\x00" + b"\x01" * 100_000)


def test_a_number_of_a_megabyte_takes_no_quadratic_time() -> None:
    (number,) = decode(b"DIDL\x00\x01\x7d" + b"\xff" * 1_000_000 + b"\x01", NAT)
    assert isinstance(number, int)
    assert number.bit_length() == 7_000_001


@given(st.binary(max_size=200))
def test_strangers_bytes_are_a_message_or_not_candid(data: bytes) -> None:
    for prefix in (b"", b"DIDL", b"DIDL\x01\x6c"):
        with contextlib.suppress(NotCandid):
            decode(prefix + data, opt(FUNDING), opt(REGISTERED_STATE))


@given(st.integers(min_value=0), st.integers(), st.text(), st.binary(), st.none() | st.integers(0, 255))
def test_values_come_back(nat: int, number: int, text: str, blob: bytes, small: int | None) -> None:
    shapes = (NAT, INT, vec(tuple_of(TEXT, BLOB)), opt(NAT8))
    values = (nat, number, ((text, blob),) * 3, small)
    assert decode(encode(shapes, *values), *shapes) == values


SIMPLE: dict[str, AnyShape] = {
    "null": NULL, "bool": BOOL, "nat": NAT, "int": INT, "nat8": NAT8, "nat32": NAT32, "nat64": NAT64, "text": TEXT,
    "principal": PRINCIPAL,
}  # fmt: skip


def shape_of(kind: Any) -> AnyShape | None:
    """Return a type of the published tests, None for one that the devnet has no shape for."""
    match kind:
        case str():
            return SIMPLE.get(kind)
        case ["vec", "nat8"]:
            return BLOB
        case [("opt" | "vec") as what, inner]:
            shape = shape_of(inner)
            return None if shape is None else opt(shape) if what == "opt" else vec(shape)
        case [what, {**fields}]:
            shapes = {str(name): shape_of(part) for name, part in fields.items()}
            known = {name: shape for name, shape in shapes.items() if shape is not None and not name.startswith("_")}
            if len(known) < len(shapes):
                return None
            return record(SimpleNamespace, **known) if what == "record" else variant(**known)
    raise AssertionError(kind)


def test_the_published_conformance_tests() -> None:
    """What a canister takes for an argument (tests/vectors/candid-conformance.json)."""
    failed, made = [], 0
    for case in json.loads((FOLDER / "candid-conformance.json").read_text()):
        shapes = [shape_of(kind) for kind in case["types"]]
        known = [shape for shape in shapes if shape is not None]
        if len(known) < len(shapes):
            continue
        made += 1
        try:
            decode(bytes.fromhex(case["hex"]), *known)
            good = True
        except NotCandid:
            good = False
        if good != case["good"]:
            failed.append(case)
    assert made > 150
    assert failed == []
