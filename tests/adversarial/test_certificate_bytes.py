"""One wrong byte in a certificate: no change of any byte gives another verdict than refusal, or another value.

A seeded sample runs always; every byte with every other value runs with `-m long`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, Final

import pytest

from chain.certificate import CertificateVerifier
from chain.errors import LyingReplica
from tests.unit.chain.conftest import vectors

CERTIFICATES: Final = vectors("ic-certificates")["certificates"]
SAMPLE: Final = 150
SLICE: Final = 16
"""Bytes whose mutations are one test of the long run."""


def verdict(vector: dict[str, Any], encoded: bytes) -> tuple[str, int] | None:
    """Return root hash and time of what a certificate proves, None if it proves nothing."""
    verifier = CertificateVerifier(bytes.fromhex(vector["root_key_der_hex"]))
    try:
        certificate = verifier.verify(encoded, bytes.fromhex(vector["effective_canister_id_hex"]))
    except LyingReplica:
        return None
    return certificate.tree.digest.hex(), certificate.time_ns


def original(vector: dict[str, Any]) -> bytes:
    return bytes.fromhex(vector["certificate_cbor_hex"])


GENUINE: Final = {v["root_hash_hex"] for v in CERTIFICATES if v["expected"] == "valid"}


def check(vector: dict[str, Any], mutations: Iterable[tuple[int, int]]) -> None:
    """Change one byte at a time, by place and exclusive or."""
    encoded = original(vector)
    good = verdict(vector, encoded)
    for place, flip in mutations:
        changed = bytearray(encoded)
        changed[place] ^= flip
        found = verdict(vector, bytes(changed))
        if found is None:
            continue
        if good is not None:
            assert found == good, f"byte {place} ^ {flip:#x} proves something else"
        else:
            # A corrupted vector may be mended by the very byte that it was corrupted in.
            assert found[0] in GENUINE, f"byte {place} ^ {flip:#x} makes an invalid certificate prove something new"


@pytest.mark.parametrize("vector", CERTIFICATES, ids=lambda v: v["name"])
def test_every_vector_has_its_verdict(vector: dict[str, Any]) -> None:
    assert (verdict(vector, original(vector)) is not None) is (vector["expected"] == "valid")


@pytest.mark.parametrize("vector", CERTIFICATES, ids=lambda v: v["name"])
def test_a_sample_of_wrong_bytes_proves_nothing_new(vector: dict[str, Any]) -> None:
    chance = random.Random(vector["name"])
    size = len(original(vector))
    check(vector, ((chance.randrange(size), chance.randrange(1, 256)) for _ in range(SAMPLE)))


def _slices() -> list[Any]:
    return [
        pytest.param(vector, start, id=f"{vector['name']}-{start}")
        for vector in CERTIFICATES
        for start in range(0, len(original(vector)), SLICE)
    ]


@pytest.mark.long
@pytest.mark.timeout(900)  # seconds of work, which a busy machine can stretch
@pytest.mark.parametrize(("vector", "start"), _slices())
def test_no_wrong_byte_proves_anything_new(vector: dict[str, Any], start: int) -> None:
    end = min(start + SLICE, len(original(vector)))
    check(vector, ((place, flip) for place in range(start, end) for flip in range(1, 256)))
