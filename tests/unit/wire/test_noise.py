"""The handshake and the frames, against every published vector of BOLT #8."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from coincurve import PrivateKey

from protocol.errors import InvariantBroken
from wire.cipher import MAX_MESSAGE_BYTES, Opener, Sealer
from wire.errors import BadFrame, HandshakeFailed, HandshakeFault
from wire.noise import Initiator, Responder, Secured, is_node_key

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "bolt8.json").read_text(encoding="utf-8"))
FAULTS = {
    "ACT1_READ_FAILED": (1, HandshakeFault.SHORT),
    "ACT1_BAD_VERSION": (1, HandshakeFault.VERSION),
    "ACT1_BAD_PUBKEY": (1, HandshakeFault.KEY),
    "ACT1_BAD_TAG": (1, HandshakeFault.MAC),
    "ACT2_READ_FAILED": (2, HandshakeFault.SHORT),
    "ACT2_BAD_VERSION 1": (2, HandshakeFault.VERSION),
    "ACT2_BAD_PUBKEY": (2, HandshakeFault.KEY),
    "ACT2_BAD_TAG": (2, HandshakeFault.MAC),
    "ACT3_READ_FAILED": (3, HandshakeFault.SHORT),
    "ACT3_BAD_VERSION 1": (3, HandshakeFault.VERSION),
    "ACT3_BAD_CIPHERTEXT": (3, HandshakeFault.KEY_MAC),
    "ACT3_BAD_PUBKEY": (3, HandshakeFault.KEY),
    "ACT3_BAD_TAG": (3, HandshakeFault.MAC),
}


def unhex(vector: dict[str, Any], key: str) -> bytes:
    return bytes.fromhex(vector[key])


def private(vector: dict[str, Any], key: str) -> PrivateKey:
    return PrivateKey(unhex(vector, key))


def named(vector: dict[str, Any]) -> str:
    return str(vector["name"])


def check_keys(secured: Secured | None, expected: dict[str, Any]) -> None:
    assert secured is not None
    assert secured.send_key.hex() == expected["sk"]
    assert secured.receive_key.hex() == expected["rk"]
    assert secured.chaining_key.hex() == VECTORS["message_encryption_test"]["ck"]


@pytest.mark.parametrize("vector", VECTORS["initiator_tests"], ids=named)
def test_initiator(vector: dict[str, Any]) -> None:
    side = Initiator(private(vector, "ls_priv"), unhex(vector, "rs_pub"), private(vector, "e_priv"))
    assert side.begin() == unhex(vector, "expected_act_one_output")
    if "expected_error" in vector:
        with pytest.raises(HandshakeFailed) as raised:
            side.receive(unhex(vector, "act_two_input"))
        assert (raised.value.act, raised.value.fault) == FAULTS[vector["expected_error"]]
        assert side.secured is None
        return
    assert side.receive(unhex(vector, "act_two_input")) == unhex(vector, "expected_act_three_output")
    check_keys(side.secured, vector["expected_keys"])


@pytest.mark.parametrize("vector", VECTORS["responder_tests"], ids=named)
def test_responder(vector: dict[str, Any]) -> None:
    side = Responder(private(vector, "ls_priv"), private(vector, "e_priv"))
    assert side.begin() == b""
    expected_error: str = vector.get("expected_error", "")
    if "act_three_input" not in vector:
        with pytest.raises(HandshakeFailed) as raised:
            side.receive(unhex(vector, "act_one_input"))
        assert (raised.value.act, raised.value.fault) == FAULTS[expected_error]
        return
    assert side.receive(unhex(vector, "act_one_input")) == unhex(vector, "expected_act_two_output")
    if expected_error:
        with pytest.raises(HandshakeFailed) as raised:
            side.receive(unhex(vector, "act_three_input"))
        assert (raised.value.act, raised.value.fault) == FAULTS[expected_error]
        assert side.secured is None
        return
    assert side.receive(unhex(vector, "act_three_input")) == b""
    check_keys(side.secured, vector["expected_keys"])
    assert side.secured is not None
    assert side.secured.peer == private(VECTORS["initiator_tests"][0], "ls_priv").public_key.format()


def test_every_vector_with_an_error_is_covered() -> None:
    errors = {
        v["expected_error"] for v in VECTORS["initiator_tests"] + VECTORS["responder_tests"] if "expected_error" in v
    }
    assert errors == set(FAULTS)


def test_1002_messages_cross_two_key_rotations() -> None:
    vector = VECTORS["message_encryption_test"]
    sealer = Sealer(unhex(vector, "sk"), unhex(vector, "ck"))
    opener = Opener(unhex(vector, "sk"), unhex(vector, "ck"))
    message = unhex(vector, "message")
    frames = [sealer.seal(message) for _ in range(vector["count"])]
    for index, expected in vector["expected"].items():
        assert frames[int(index)].hex() == expected
    digest = hashlib.sha256(b"".join(frames)).hexdigest()
    assert digest == vector["expected_sha256_of_all_1002_outputs_concatenated"]

    for frame in frames:
        opener.feed(frame)
    opened = []
    while (plain := opener.next()) is not None:
        opened.append(plain)
    assert opened == [message] * vector["count"]


def test_frames_arrive_in_any_pieces() -> None:
    key = bytes(range(32))
    sealer, opener = Sealer(key, key), Opener(key, key)
    sent = [b"", b"x", bytes(MAX_MESSAGE_BYTES), b"last"]
    stream = b"".join(map(sealer.seal, sent))
    for size in (1, 17, 18, 19, 4096):
        fresh = Opener(key, key)
        got = []
        for start in range(0, len(stream), size):
            fresh.feed(stream[start : start + size])
            while (plain := fresh.next()) is not None:
                got.append(plain)
        assert got == sent
    opener.feed(stream[:-1])
    assert [opener.next() for _ in range(4)] == [*sent[:3], None]


@pytest.mark.parametrize("position", [0, 1, 17, 18, 20, 22, 38])
def test_a_changed_byte_is_noticed_and_nothing_is_read_after_it(position: int) -> None:
    key = bytes(32)
    sealer, opener = Sealer(key, key), Opener(key, key)
    frame = bytearray(sealer.seal(b"hello") + sealer.seal(b"again"))
    frame[position] ^= 1
    opener.feed(frame)
    for _ in range(2):
        with pytest.raises(BadFrame):
            opener.next()


def test_a_repeated_frame_is_noticed() -> None:
    sealer, opener = Sealer(bytes(32), bytes(32)), Opener(bytes(32), bytes(32))
    frame = sealer.seal(b"pay once")
    opener.feed(frame + frame)
    assert opener.next() == b"pay once"
    with pytest.raises(BadFrame):
        opener.next()


def test_a_message_that_fits_no_frame_is_never_sealed() -> None:
    with pytest.raises(InvariantBroken, match="65536"):
        Sealer(bytes(32), bytes(32)).seal(bytes(MAX_MESSAGE_BYTES + 1))


def test_fresh_handshakes_agree_and_never_repeat_keys() -> None:
    alice, bob = PrivateKey(), PrivateKey()
    seen = set()
    for _ in range(2):
        initiator, responder = Initiator(alice, bob.public_key.format()), Responder(bob)
        responder.receive(initiator.receive(responder.receive(initiator.begin())))
        a, b = initiator.secured, responder.secured
        assert a is not None
        assert b is not None
        assert (a.send_key, a.receive_key) == (b.receive_key, b.send_key)
        assert (a.peer, b.peer) == (bob.public_key.format(), alice.public_key.format())
        seen |= {a.send_key, a.receive_key}
    assert len(seen) == 4


def test_keys_stay_out_of_what_is_printed() -> None:
    secured = Secured(b"\x02" * 33, b"\xaa" * 32, b"\xbb" * 32, b"\xcc" * 32)
    text = repr(secured)
    assert "send_key" not in text
    assert "\\xaa" not in text


def test_an_act_that_is_not_due_is_our_own_defect() -> None:
    responder = Responder(PrivateKey())
    with pytest.raises(HandshakeFailed):
        responder.receive(bytes(50))
    with pytest.raises(InvariantBroken):
        responder.receive(bytes(50))
    with pytest.raises(InvariantBroken):
        Initiator(PrivateKey(), bytes(33))


def test_node_keys_are_compressed_points() -> None:
    key = PrivateKey().public_key
    assert is_node_key(key.format())
    assert not is_node_key(key.format(compressed=False))
    assert not is_node_key(b"\x04" + key.format()[1:])
    assert not is_node_key(b"\x02" + b"\xff" * 32)
    assert not is_node_key(b"")
