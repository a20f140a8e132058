from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ic.principal import AccountIdentifier, Principal
from ic.utils import to_request_id
from nacl.signing import VerifyKey

from chain.answers import QueryAnswer, Rejection, Reply
from chain.errors import InvalidPrincipal
from chain.identity import Ed25519Identity, Identity, Secp256k1Identity
from chain.principal import (
    account_from_text,
    account_identifier,
    account_to_text,
    principal_from_text,
    principal_to_text,
    self_authenticating,
)
from chain.request import REQUEST_DOMAIN, call_content, hash_of_map, query_content, read_content
from tests.unit.chain.conftest import vectors

VECTORS = vectors("ic-requests")


def unhex(value: Any) -> Any:
    return [unhex(item) for item in value] if isinstance(value, list) else bytes.fromhex(value)


@pytest.mark.parametrize("vector", VECTORS["request_ids"], ids=lambda v: v["name"])
def test_request_ids(vector: dict[str, Any]) -> None:
    content = {
        key.removesuffix("_hex"): unhex(value) if key.endswith("_hex") else value
        for key, value in vector["content"].items()
    }
    assert hash_of_map(content).hex() == vector["request_id_hex"]


def test_our_contents_hash_to_the_vectors() -> None:
    ids = [v["request_id_hex"] for v in VECTORS["request_ids"]]
    arg, canister, expiry = bytes.fromhex("4449444c00fd2a"), bytes.fromhex("00000000000004d2"), 1685570400000000000
    called = call_content(canister, "hello", arg, b"\x04", expiry, bytes(range(8)))
    assert hash_of_map(called).hex() == ids[1]
    paths = [[b"request_status", bytes.fromhex(ids[0])], [b"time"]]
    assert hash_of_map(read_content(paths, b"\x04", expiry)).hex() == ids[2]
    # A query has the same fields as a call but for its type and the nonce.
    queried = query_content(canister, "hello", arg, b"\x04", expiry)
    assert hash_of_map({**queried, "request_type": "call"}).hex() == ids[0]


@pytest.mark.parametrize("vector", VECTORS["signatures"], ids=lambda v: v["alg"])
def test_request_signatures(vector: dict[str, Any]) -> None:
    identity: Identity = (
        Ed25519Identity(unhex(vector["seed_hex"]))
        if vector["alg"] == "ed25519"
        else Secp256k1Identity(unhex(vector["secret_hex"]))
    )
    assert identity.public_key_der is not None
    assert identity.public_key_der.hex() == vector["public_key_der_hex"]
    assert principal_to_text(identity.sender) == vector["principal"]
    content = {**VECTORS["request_ids"][0]["content"]}
    called = call_content(
        unhex(content["canister_id_hex"]),
        content["method_name"],
        unhex(content["arg_hex"]),
        identity.sender,
        content["ingress_expiry"],
        b"",
    )
    del called["nonce"]
    assert hash_of_map(called).hex() == vector["request_id_hex"]
    assert identity.sign(REQUEST_DOMAIN + hash_of_map(called)).hex() == vector["sender_sig_hex"]


@pytest.mark.parametrize("vector", VECTORS["delegations"], ids=["plain", "with targets"])
def test_nested_values_hash_as_delegations_do(vector: dict[str, Any]) -> None:
    delegation = {
        "pubkey": unhex(vector["pubkey_hex"]),
        "expiration": vector["expiration"],
        "targets": unhex(vector["targets_hex"]) if "targets_hex" in vector else None,
    }
    assert hash_of_map(delegation).hex() == vector["hash_hex"]


@pytest.mark.parametrize("vector", VECTORS["query_responses"], ids=["replied", "rejected", "rejected, no code"])
def test_what_a_node_signs(vector: dict[str, Any]) -> None:
    result: Reply | Rejection
    if vector["status"] == "replied":
        result = Reply(unhex(vector["reply_arg_hex"]))
    else:
        result = Rejection(vector["reject_code"], vector["reject_message"], vector["error_code"])
    request_id = unhex(vector["request_id_hex"])
    signed = hash_of_map(QueryAnswer(result, ()).signed_map(request_id, vector["timestamp"]))
    assert signed.hex() == vector["hash_hex"]
    VerifyKey(unhex(vector["node_public_key_der_hex"])[12:]).verify(
        b"\x0bic-response" + signed, unhex(vector["signature_hex"])
    )


@pytest.mark.parametrize("vector", VECTORS["principals"], ids=lambda v: v["text"])
def test_principals(vector: dict[str, str]) -> None:
    assert principal_to_text(unhex(vector["hex"])) == vector["text"]
    assert principal_from_text(vector["text"]).hex() == vector["hex"]
    assert principal_from_text(vector["text"].upper()).hex() == vector["hex"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "aaaaa",
        "aaaaaaa",  # without its dash
        "aaaaa--aa",
        "-aaaaa-aa",
        "aaaaa-ab",
        "em77e-bvlzu-ar",  # the checksum is wrong
        "em77ebvlzuaq",
        "em77e bvlzu-aq",
        "ryjl3-tyaaa-aaaaa-aaaba-cai0",
        "éaaaa-aa",
        "a" * 64,
        principal_to_text(bytes(29)).replace("-", ""),
    ],
)
def test_what_is_no_principal(text: str) -> None:
    with pytest.raises(InvalidPrincipal):
        principal_from_text(text)


def test_thirty_bytes_are_no_principal() -> None:
    with pytest.raises(InvalidPrincipal, match="at most 29"):
        principal_to_text(bytes(30))
    with pytest.raises(InvalidPrincipal):
        principal_from_text(str(Principal(bytes(30))))  # type: ignore[no-untyped-call]


@given(st.binary(max_size=29))
def test_principal_text_agrees_with_ic_py_and_comes_back(principal: bytes) -> None:
    assert principal_to_text(principal) == Principal(principal).to_str()  # type: ignore[no-untyped-call]
    assert principal_from_text(principal_to_text(principal)) == principal


@pytest.mark.parametrize("vector", VECTORS["account_identifiers"], ids=["anonymous", "canister", "subaccount"])
def test_account_identifiers(vector: dict[str, str]) -> None:
    account = account_identifier(principal_from_text(vector["principal"]), unhex(vector["subaccount_hex"]))
    assert account_to_text(account) == vector["account_hex"]
    assert account_from_text(vector["account_hex"]) == account


@given(st.binary(max_size=29), st.integers(0, 2**256 - 1))
def test_account_identifiers_agree_with_ic_py(owner: bytes, subaccount: int) -> None:
    theirs = AccountIdentifier.new(Principal(owner), subaccount)  # type: ignore[no-untyped-call]
    assert account_identifier(owner, subaccount.to_bytes(32, "big")) == theirs.bytes


@given(st.integers(0, 31), st.integers(1, 255))
def test_a_mistyped_account_is_refused(place: int, flip: int) -> None:
    account = bytearray(account_identifier(b"\x04"))
    account[place] ^= flip
    with pytest.raises(InvalidPrincipal, match="no account identifier"):
        account_from_text(account.hex())


@pytest.mark.parametrize("text", ["", "00" * 31, "00" * 33, "zz" * 32, " ".join(["1c"] * 32)])
def test_what_is_no_account(text: str) -> None:
    with pytest.raises(InvalidPrincipal):
        account_from_text(text)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8), st.one_of(st.binary(), st.text(), st.integers(0, 2**80)), max_size=6
    )
)
def test_request_ids_agree_with_ic_py(content: dict[str, bytes | str | int]) -> None:
    assert hash_of_map(content) == to_request_id(content)  # type: ignore[no-untyped-call]


def test_self_authenticating_is_the_root_subnet_of_mainnet() -> None:
    root = bytes.fromhex(vectors("ic-certificates")["mainnet_root_key_der_hex"])
    assert (
        principal_to_text(self_authenticating(root))
        == "tdb26-jop6k-aogll-7ltgs-eruif-6kk7m-qpktf-gdiqx-mxtrf-vb5e6-eqe"
    )
