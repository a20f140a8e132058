"""The signed and hashed encodings equal what Rust emits, byte for byte (DESIGN, section 4)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TypedDict, cast

import pytest
from ic.principal import Principal

from protocol import encoding
from protocol.errors import Undecodable
from protocol.signing import ChannelKey, verify_signed_state
from protocol.types import (
    ChannelId,
    Funding,
    Nanos,
    Params,
    ParticipantKey,
    SignedState,
    State,
    WithdrawalRequest,
)
from tests.unit.protocol import rust_candid

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "candid.json").read_text())
BY_NAME: dict[str, str] = {v["name"]: v["rust_hex"] for v in VECTORS["vectors"]}


class Rules2022(TypedDict):
    """The vector that derives everything of one channel."""

    nonce_hex: str
    participants_hex: list[str]
    signer_seeds_hex: list[str]
    challenge_duration: int
    params_candid_hex: str
    channel_id_hex: str
    version: int
    allocation: tuple[int, int]
    finalized: bool
    state_candid_hex: str
    state_signatures_hex: list[str]
    funding_candid_hex: str
    funding_memo_nat64: int
    withdrawal_receiver: str
    withdrawal_candid_hex: str
    withdrawal_signature_hex: str


RULES = cast("Rules2022", VECTORS["perun_2022_source_rules"])


def rules_params() -> Params:
    keys = [ParticipantKey(bytes.fromhex(k)) for k in RULES["participants_hex"]]
    return Params(bytes.fromhex(RULES["nonce_hex"]), (keys[0], keys[1]), Nanos(RULES["challenge_duration"]))


def rules_state() -> State:
    first, second = RULES["allocation"]
    return State(rules_params().channel_id, RULES["version"], (first, second), RULES["finalized"])


@pytest.mark.parametrize("row", VECTORS["label_hashes"], ids=lambda row: str(row["label"]))
def test_the_test_encoder_hashes_labels_as_candid_does(row: dict[str, int | str]) -> None:
    assert rust_candid.label_hash(str(row["label"])) == row["hash"]


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("State", encoding.STATE_HEADER),
        ("Params", encoding.PARAMS_HEADER),
        ("WithdrawalRequest", encoding.WITHDRAWAL_HEADER),
        ("Funding", encoding.FUNDING_HEADER),
    ],
)
def test_headers_are_those_of_rust_and_not_those_of_other_encoders(name: str, header: bytes) -> None:
    row = VECTORS["headers"][name]
    assert header.hex() == row["rust_header_hex"]
    assert header.hex() != row["icpy_and_js_header_hex"]


def test_state_with_three_shares() -> None:
    """The vector has three shares and one above nat64, which no state here can have: the test's encoder agrees
    with it, and ours agrees with the test's encoder on every state there is (tests/properties).
    """
    channel = bytes(range(64))
    value: dict[str, rust_candid.Value] = {
        "channel": channel, "version": 5, "allocation": [1000, 0, 2**64], "finalized": False,
    }  # fmt: skip
    assert rust_candid.encode(rust_candid.STATE, value).hex() == BY_NAME["state-64-byte-channel"]
    value["allocation"] = [1000, 0]
    ours = State(ChannelId(channel), 5, (1000, 0), finalized=False)
    assert ours.encoded == rust_candid.encode(rust_candid.STATE, value)


def test_state_with_a_short_channel() -> None:
    want = bytes.fromhex(BY_NAME["state-32-byte-channel"])
    value: dict[str, rust_candid.Value] = {
        "channel": want[-32:], "version": 5, "allocation": [700, 300], "finalized": True,
    }  # fmt: skip
    assert rust_candid.encode(rust_candid.STATE, value) == want
    with pytest.raises(Undecodable, match="64 bytes"):
        State(ChannelId(want[-32:]), 5, (700, 300), finalized=True)


def test_params() -> None:
    want = bytes.fromhex(BY_NAME["params-64-byte-nonce"])
    body = want[len(encoding.PARAMS_HEADER) :]
    keys = (ParticipantKey(body[2:34]), ParticipantKey(body[35:67]))
    params = Params(body[76:], keys, Nanos(int.from_bytes(body[67:75], "little")))
    assert encoding.encode_params(params) == want


def test_funding_and_withdrawal() -> None:
    want = bytes.fromhex(BY_NAME["funding"])
    body = want[len(encoding.FUNDING_HEADER) :]
    funding = Funding(ChannelId(body[34:]), ParticipantKey(body[1:33]))
    assert encoding.encode_funding(funding) == want
    want = bytes.fromhex(BY_NAME["withdrawal-request"])
    body = want[len(encoding.WITHDRAWAL_HEADER) :]
    receiver = body[2 : 2 + body[1]]
    rest = body[2 + body[1] :]
    request = WithdrawalRequest(Funding(ChannelId(rest[34:]), ParticipantKey(rest[1:33])), receiver)
    assert encoding.encode_withdrawal_request(request) == want


def test_the_arguments_of_conclude_carry_the_same_state_bytes() -> None:
    """What is signed is the state alone; its fields inside a call are the same bytes under another table."""
    both = bytes.fromhex(BY_NAME["conclude-args(Params,FullySignedState)"])
    state = bytes.fromhex(BY_NAME["state-64-byte-channel"])[len(encoding.STATE_HEADER) :]
    params = bytes.fromhex(BY_NAME["params-64-byte-nonce"])[len(encoding.PARAMS_HEADER) :]
    assert params in both
    assert state[9:] in both or state in both


def test_channel_id_memo_and_signatures_of_one_channel() -> None:
    params, state = rules_params(), rules_state()
    assert encoding.encode_params(params).hex() == RULES["params_candid_hex"]
    assert params.channel_id.hex() == RULES["channel_id_hex"]
    assert state.encoded.hex() == RULES["state_candid_hex"]
    keys = [ChannelKey(bytes.fromhex(seed)) for seed in RULES["signer_seeds_hex"]]
    assert [key.public.hex() for key in keys] == RULES["participants_hex"]
    signatures = (keys[0].sign_state(state), keys[1].sign_state(state))
    assert [s.hex() for s in signatures] == RULES["state_signatures_hex"]
    assert verify_signed_state(params, SignedState(state, signatures))
    assert not verify_signed_state(params, SignedState(state, (signatures[1], signatures[0])))

    funding = Funding(params.channel_id, params.participants[0])
    assert encoding.encode_funding(funding).hex() == RULES["funding_candid_hex"]
    assert funding.memo == RULES["funding_memo_nat64"]
    receiver = Principal.from_str(RULES["withdrawal_receiver"]).bytes  # type: ignore[no-untyped-call]
    request = WithdrawalRequest(funding, receiver)
    assert encoding.encode_withdrawal_request(request).hex() == RULES["withdrawal_candid_hex"]
    assert keys[0].sign_withdrawal(request).hex() == RULES["withdrawal_signature_hex"]


def test_a_state_of_another_channel_is_not_a_signed_state_of_this_one() -> None:
    state, other = rules_state(), rules_params()
    keys = [ChannelKey(bytes.fromhex(seed)) for seed in RULES["signer_seeds_hex"]]
    signed = SignedState(state, (keys[0].sign_state(state), keys[1].sign_state(state)))
    assert verify_signed_state(other, signed)
    assert not verify_signed_state(replace(other, nonce=b"\x01" * 64), signed)
