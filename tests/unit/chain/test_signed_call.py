from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.agent import Agent
from chain.identity import Ed25519Identity
from chain.request import NEVER_FRESH, SignedCall
from protocol.errors import Undecodable
from tests.unit.chain.replica import CANISTER, BlsKey, FakeClock


def signed(arg: bytes = b"\x01") -> SignedCall:
    identity = Ed25519Identity(bytes(32))
    return Agent(["http://x"], BlsKey(1).der, identity, clock=FakeClock()).sign_call(CANISTER, "pay", arg)


def test_a_stored_call_is_the_same_call_but_never_fresh() -> None:
    call = signed()
    restored = SignedCall.from_bytes(call.to_bytes())
    for name in ("canister", "method", "request_id", "envelope", "ingress_expiry_ns", "signed_at_chain_ns"):
        assert getattr(restored, name) == getattr(call, name)
    assert restored.signed_at_mono_ns == NEVER_FRESH


def stored(**changes: Any) -> bytes:
    record = cbor2.loads(signed().to_bytes()[3:])
    return cbor2.dumps({**record, **changes})


def envelope(**changes: Any) -> bytes:
    posted = cbor2.loads(signed().envelope[3:])
    posted["content"].update(changes)
    return cbor2.dumps(posted)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        cbor2.dumps([]),
        cbor2.dumps({}),
        stored(form=2),
        stored(envelope=b""),
        stored(envelope=cbor2.dumps([])),
        stored(envelope=cbor2.dumps({"content": []})),
        stored(envelope="text"),
        stored(signed_at_chain_ns="now"),
        stored(envelope=envelope(request_type="query")),
        stored(envelope=envelope(ingress_expiry="soon")),
        stored(envelope=envelope(canister_id="x")),
        stored(envelope=envelope(method_name=b"x")),
    ],
)
def test_what_is_no_stored_call_is_refused(data: bytes) -> None:
    with pytest.raises(Undecodable):
        SignedCall.from_bytes(data)


def test_the_request_id_of_a_stored_call_is_computed_not_believed() -> None:
    changed = SignedCall.from_bytes(stored(envelope=envelope(method_name="other")))
    assert changed.method == "other"
    assert changed.request_id not in (signed().request_id, b"")


@given(st.binary(max_size=64))
def test_foreign_bytes_raise_nothing_else(data: bytes) -> None:
    with pytest.raises(Undecodable):
        SignedCall.from_bytes(data)
