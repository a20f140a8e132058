"""Signatures and keys are judged as the canister judges them (rule 4)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict, cast

import pytest

from protocol.signing import is_usable_key, verify


class Vector(TypedDict):
    name: str
    group: str
    public_key_hex: str
    message_hex: str
    signature_hex: str
    strict_valid: bool
    openssl_valid: bool


class Key(TypedDict):
    public_key_hex: str
    canister_decodes: bool
    small_order: bool
    canonical: bool
    note: str


FILE = json.loads((Path(__file__).parents[2] / "vectors" / "ed25519-strict.json").read_text())
VECTORS = cast("list[Vector]", FILE["vectors"])
KEYS = cast("list[Key]", FILE["public_key_decoding"])


def test_the_vectors_are_all_there() -> None:
    assert len(VECTORS) == FILE["counts"]["vectors"] == 301
    assert sum(v["strict_valid"] for v in VECTORS) == FILE["counts"]["strict_valid"]
    assert any(v["openssl_valid"] and not v["strict_valid"] for v in VECTORS)  # these would cost money


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"].replace(" ", "-"))
def test_verify_decides_as_the_canister(vector: Vector) -> None:
    key, message = bytes.fromhex(vector["public_key_hex"]), bytes.fromhex(vector["message_hex"])
    assert verify(key, message, bytes.fromhex(vector["signature_hex"])) is vector["strict_valid"]


def test_verify_refuses_wrong_lengths_without_an_error() -> None:
    vector = next(v for v in VECTORS if v["strict_valid"])
    key, message, signature = (
        bytes.fromhex(h) for h in (vector["public_key_hex"], vector["message_hex"], vector["signature_hex"])
    )
    assert verify(key, message, signature)
    for bad in (b"", signature[:-1], signature + b"\0"):
        assert not verify(key, message, bad)
    for bad in (b"", key[:-1], key + b"\0"):
        assert not verify(bad, message, signature)
    assert not verify(key, message + b"\0", signature)


def test_no_key_is_usable_that_the_canister_does_not_decode_or_that_has_small_order() -> None:
    usable = [k for k in KEYS if is_usable_key(bytes.fromhex(k["public_key_hex"]))]
    assert usable
    for key in usable:
        assert key["canister_decodes"], key["note"]
        assert not key["small_order"], key["note"]
        assert key["canonical"], key["note"]
    for encoding in FILE["small_order_encodings"]:
        assert not is_usable_key(bytes.fromhex(encoding["encoding_hex"]))


def test_what_is_refused_beyond_the_canister_is_never_an_honest_key() -> None:
    """The canister decodes them, but they are non-canonical or outside the prime-order group: no secret key
    has such a public key, so nobody who follows the protocol ever shows one.
    """
    refused = [
        k for k in KEYS
        if k["canister_decodes"] and not k["small_order"] and not is_usable_key(bytes.fromhex(k["public_key_hex"]))
    ]  # fmt: skip
    assert len(refused) == 57
    assert sum(not k["canonical"] for k in refused) == 20
    mixed = [k for k in refused if k["canonical"]]
    order = 2**252 + 27742317777372353535851937790883648493
    for key in mixed:
        assert not _has_order(bytes.fromhex(key["public_key_hex"]), order), key["note"]


def test_lengths_other_than_32_are_no_keys() -> None:
    good = bytes.fromhex(next(v for v in VECTORS if v["strict_valid"])["public_key_hex"])
    assert is_usable_key(good)
    assert not is_usable_key(good[:-1])
    assert not is_usable_key(good + b"\0")
    assert not is_usable_key(b"")


# --- the curve, in plain integers: an opinion that does not come from libsodium ----------------------------

P = 2**255 - 19
D = -121665 * pow(121666, P - 2, P) % P
Point = tuple[int, int]


def _decompress(encoded: bytes) -> Point:
    number = int.from_bytes(encoded, "little")
    y, sign = number & (2**255 - 1), number >> 255
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if x * x % P != x2:
        x = x * pow(2, (P - 1) // 4, P) % P
    assert x * x % P == x2, "not on the curve"
    return (P - x if x & 1 != sign else x), y % P


def _add(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    product = D * x1 * x2 * y1 * y2
    x3 = (x1 * y2 + x2 * y1) * pow(1 + product, P - 2, P)
    y3 = (y1 * y2 + x1 * x2) * pow(1 - product, P - 2, P)
    return x3 % P, y3 % P


def _has_order(encoded: bytes, order: int) -> bool:
    point, total = _decompress(encoded), (0, 1)
    while order:
        if order & 1:
            total = _add(total, point)
        point, order = _add(point, point), order >> 1
    return total == (0, 1)
