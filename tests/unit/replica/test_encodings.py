"""The vectors: request ids, signatures, principals, query hashes, certificates' keys, CBOR."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devnet.replica import cbor, principals
from devnet.replica.admin import account_of
from devnet.replica.authentication import _verifier
from devnet.replica.keys import NodeKey, RootKey
from devnet.replica.request_id import hash_of_map

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "ic-requests.json").read_text())


def from_hex(value: Any) -> Any:
    """Return a vector's content with its `_hex` fields as bytes."""
    if isinstance(value, dict):
        return {
            key.removesuffix("_hex"): from_hex_value(field) if key.endswith("_hex") else field
            for key, field in value.items()
        }
    return value


def from_hex_value(value: Any) -> Any:
    return [from_hex_value(each) for each in value] if isinstance(value, list) else bytes.fromhex(value)


@pytest.mark.parametrize("vector", VECTORS["request_ids"], ids=lambda vector: vector["name"])
def test_request_ids(vector: dict[str, Any]) -> None:
    assert hash_of_map(from_hex(vector["content"])).hex() == vector["request_id_hex"]


@pytest.mark.parametrize("vector", VECTORS["signatures"], ids=lambda vector: vector["alg"])
def test_request_signatures(vector: dict[str, Any]) -> None:
    verify = _verifier(bytes.fromhex(vector["public_key_der_hex"]))
    message = bytes.fromhex(vector["signed_bytes_hex"])
    verify(bytes.fromhex(vector["sender_sig_hex"]), message)
    if "also_accepted_by_replica_hex" in vector:
        verify(bytes.fromhex(vector["also_accepted_by_replica_hex"]), message)
    sender = principals.self_authenticating(bytes.fromhex(vector["public_key_der_hex"]))
    assert principals.to_text(sender) == vector["principal"]


@pytest.mark.parametrize("vector", VECTORS["delegations"])
def test_delegation_hashes(vector: dict[str, Any]) -> None:
    fields = {key: value for key, value in vector.items() if key != "hash_hex"}
    assert hash_of_map(from_hex(fields)).hex() == vector["hash_hex"]


@pytest.mark.parametrize("vector", VECTORS["query_responses"])
def test_query_response_hashes(vector: dict[str, Any]) -> None:
    response: dict[str, Any] = {
        "status": vector["status"],
        "timestamp": vector["timestamp"],
        "request_id": bytes.fromhex(vector["request_id_hex"]),
    }
    if vector["status"] == "replied":
        response["reply"] = {"arg": bytes.fromhex(vector["reply_arg_hex"])}
    else:
        response |= {key: vector[key] for key in ("reject_code", "reject_message", "error_code")}
    assert hash_of_map(response).hex() == vector["hash_hex"]


@pytest.mark.parametrize("vector", VECTORS["principals"], ids=lambda vector: vector["text"])
def test_principals(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(vector["hex"])
    assert principals.to_text(raw) == vector["text"]
    assert principals.from_text(vector["text"]) == raw


@pytest.mark.parametrize("text", ["", "aaaaa", "aaaaa-ab", "aaaaaaa", "em77e-bvlzu-ar", "em77ebvlzuaq", "ü", "a" * 200])
def test_texts_that_are_no_principal(text: str) -> None:
    with pytest.raises(principals.NotAPrincipal):
        principals.from_text(text)


def test_account_of_a_principal() -> None:
    for vector in VECTORS["account_identifiers"]:
        if set(vector["subaccount_hex"]) == {"0"}:
            assert account_of(vector["principal"]).hex() == vector["account_hex"]


def test_keys_are_what_they_were_saved_as_and_keep_their_secret() -> None:
    root = RootKey.generate()
    assert RootKey.from_bytes(root.to_bytes()).public_der == root.public_der
    assert len(root.public_der) == 133
    node = NodeKey.generate()
    assert len(node.public_der) == 44
    for shown, secret in ((repr(root), str(root.secret)), (repr(node), repr(node.seed))):
        assert secret not in shown


values = st.recursive(
    st.one_of(st.integers(0, 2**80), st.binary(max_size=300), st.text(max_size=30), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=20,
)


@given(values)
def test_cbor_agrees_with_another_implementation(value: Any) -> None:
    encoded = cbor.encode(value)
    assert encoded[:3] == cbor.SELF_DESCRIBED
    assert cbor2.loads(encoded[3:]) == value
    assert cbor.decode(encoded) == value
    assert cbor.decode(cbor2.dumps(value)) == value


def test_cbor_of_indefinite_length() -> None:
    assert cbor.decode(bytes.fromhex("bf6161 9f01 5f4101 4102 ff ff ff".replace(" ", ""))) == {"a": [1, b"\x01\x02"]}


@given(st.binary(max_size=60))
def test_cbor_of_any_bytes_is_a_value_or_an_error(raw: bytes) -> None:
    try:
        value = cbor.decode(raw)
    except cbor.NotCbor:
        return
    assert cbor.decode(cbor.encode(value)) == value
