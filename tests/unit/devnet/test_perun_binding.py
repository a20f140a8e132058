"""The canister in bytes: asked by another Candid implementation, with what the client's own code signs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from devnet.canister import Call, MethodNotFound, Trap
from devnet.ledger import account_identifier
from devnet.ledger.ledger import TransferRequest
from devnet.perun import PerunModule
from devnet.perun.interface import Funding as WireFunding
from devnet.perun.interface import Params as WireParams
from devnet.perun.interface import State as WireState
from devnet.perun.interface import WithdrawalRequest as WireRequest
from protocol.encoding import encode_params, encode_state, encode_withdrawal_request
from protocol.signing import ChannelKey, verify
from protocol.types import Funding, Nanos, Params, State, WithdrawalRequest
from tests.unit.devnet import interface_file
from tests.unit.devnet.scene import ALICE, FEE, HOUR, ICP, Scene

VECTORS = Path(__file__).parents[2] / "vectors"
T = 10 * ICP
KEYS = (ChannelKey(b"\x01" * 32), ChannelKey(b"\x02" * 32))
PARAMS = Params(bytes(64), (KEYS[0].public, KEYS[1].public), Nanos(HOUR))


class Client:
    """Somebody who speaks to the canister through its interface file."""

    def __init__(self) -> None:
        self.scene = Scene()
        self.module = PerunModule(self.scene.canister)

    async def call(self, method: str, *values: object) -> list[Any]:
        arg = interface_file.arguments("perun.did", method, *values)
        reply = await self.module.execute(method, arg, Call(ALICE.principal, self.scene.now_ns))
        return interface_file.results("perun.did", method, reply)

    async def fund(self, index: int, e8s: int) -> None:
        funding = Funding(PARAMS.channel_id, PARAMS.participants[index])
        block = self.scene.transfer(ALICE, e8s, funding.memo)
        assert await self.call("transaction_notification", block) == [{"Ok": e8s}]
        assert await self.call("deposit", wire_funding(funding)) == [[]]


def wire_funding(funding: Funding) -> dict[str, object]:
    return {"channel": funding.channel, "participant": funding.participant}


def wire_params() -> dict[str, object]:
    return {
        "nonce": PARAMS.nonce,
        "participants": list(PARAMS.participants),
        "challenge_duration": PARAMS.challenge_duration_ns,
    }


def wire_signed(state: State) -> dict[str, object]:
    return {
        "state": {
            "channel": state.channel,
            "version": state.version,
            "allocation": list(state.allocation),
            "finalized": state.finalized,
        },
        "sigs": [key.sign_state(state) for key in KEYS],
    }


def test_the_interface_file_and_the_methods_agree() -> None:
    declared = interface_file.methods("perun.did")
    module = Client().module
    assert set(declared) == module.updates | module.queries
    for name, func in declared.items():
        method = module.methods[name]
        assert (name in module.queries) == (func.annotations == ["query"])
        for ours, theirs in ((method.arguments, func.argTypes), (method.results, func.retTypes)):
            assert [shape.name for shape in ours] == [_text(t) for t in theirs]


def _text(kind: Any) -> str:
    """The text of a type as the canister's shapes name it."""
    name = type(kind).__name__
    if name == "RecClass":
        return _text(kind.getType())
    if name in {"RecordClass", "VariantClass"}:
        fields = ";".join(f"{label}:{_text(inner)}" for label, inner in kind._fields.items())
        return f"{'record' if name == 'RecordClass' else 'variant'} {{{fields}}}"
    if name == "TupleClass":
        return "record {" + ";".join(f"{label[1:]}:{_text(inner)}" for label, inner in kind._fields.items()) + "}"
    if name in {"VecClass", "OptClass"}:
        return f"{'vec' if name == 'VecClass' else 'opt'} {_text(kind._type)}"
    if name == "FuncClass":
        sides = (", ".join(_text(t) for t in side) for side in (kind.argTypes, kind.retTypes))
        return "func ({}) -> ({}) query".format(*sides)
    return str(kind.name)


async def test_a_channels_whole_life_in_bytes() -> None:
    client = Client()
    for index in (0, 1):
        await client.fund(index, T)
    assert await client.call("query_holdings", wire_funding(Funding(PARAMS.channel_id, KEYS[0].public))) == [[T]]
    assert await client.call("query_state", PARAMS.channel_id) == [[]]
    state = State(PARAMS.channel_id, 7, (0, 2 * T), finalized=False)
    assert await client.call("dispute", wire_params(), wire_signed(state)) == [[]]
    assert await client.call("dispute", wire_params(), wire_signed(state)) == [[{"OutdatedState": None}]]
    [[registered]] = await client.call("query_state", PARAMS.channel_id)
    assert registered["state"]["allocation"] == [0, 2 * T]
    assert bytes(registered["state"]["channel"]) == PARAMS.channel_id
    assert registered["timeout"] == client.scene.now_ns + HOUR
    [log] = await client.call("disputes_since", 0, 10)
    assert (log["head"], log["entries"][0]["state"]) == (1, registered)
    assert await client.call("conclude", wire_params(), wire_signed(state)) == [[{"NotFinalized": None}]]

    client.scene.pass_time(HOUR)
    assert await client.call("conclude", wire_params(), wire_signed(state)) == [[]]
    [events] = await client.call("query_events", PARAMS.channel_id, 1)
    assert [next(iter(event)) for event in events] == ["Funded", "Disputed", "Concluded"]
    assert events[1]["Disputed"] == registered
    request = WithdrawalRequest(Funding(PARAMS.channel_id, KEYS[1].public), ALICE.principal)
    wire = {"funding": wire_funding(request.funding), "receiver": request.receiver}
    before = client.scene.ledger.balance(ALICE.account)
    [[block], error] = await client.call("withdraw", wire, KEYS[1].sign_withdrawal(request))
    assert (block, error) == (client.scene.ledger.chain_length - 1, [])
    assert client.scene.ledger.balance(ALICE.account) == before + 2 * T - FEE
    again = await client.call("withdraw", wire, KEYS[1].sign_withdrawal(request))
    assert again == [[], [{"InsufficientFunding": None}]]


async def test_errors_of_a_notification_are_nested_variants() -> None:
    client = Client()
    failed = {"Err": {"ReceiverError": {"FailedToQuery": None}}}
    assert await client.call("transaction_notification", 99) == [failed]
    block = client.scene.transfer(ALICE, T, memo=5)
    await client.call("transaction_notification", block)
    duplicate = {"Err": {"ReceiverError": {"DuplicateTransaction": None}}}
    assert await client.call("transaction_notification", block) == [duplicate]
    request = TransferRequest(account_identifier(b"elsewhere"), 1, FEE)
    client.scene.ledger.mint(ALICE.account, ICP, 1)
    elsewhere = client.scene.ledger.transfer(ALICE.principal, request, client.scene.now_ns)
    assert await client.call("transaction_notification", elsewhere) == [{"Err": {"ReceiverError": {"Recipient": None}}}]


def test_canister_and_client_sign_and_hash_the_same_bytes() -> None:
    state = State(PARAMS.channel_id, 2**63, (127, 2**63), finalized=True)
    assert WireState(state.channel, state.version, state.allocation, finalized=True).signed_bytes() == encode_state(
        state
    )
    wire = WireParams(PARAMS.nonce, PARAMS.participants, PARAMS.challenge_duration_ns)
    assert wire.channel_id() == PARAMS.channel_id
    assert hashlib.sha512(encode_params(PARAMS)).digest() == wire.channel_id()
    request = WithdrawalRequest(Funding(PARAMS.channel_id, KEYS[0].public), b"\x04")
    funding = WireFunding(PARAMS.channel_id, KEYS[0].public)
    assert WireRequest(funding, b"\x04").signed_bytes() == encode_withdrawal_request(request)
    assert funding.memo() == request.funding.memo


def test_canister_hashes_what_the_published_rules_hash() -> None:
    rules = json.loads((VECTORS / "candid.json").read_text())["perun_2022_source_rules"]
    keys = tuple(bytes.fromhex(key) for key in rules["participants_hex"])
    params = WireParams(bytes.fromhex(rules["nonce_hex"]), keys, rules["challenge_duration"])
    assert params.channel_id().hex() == rules["channel_id_hex"]
    state = WireState(params.channel_id(), rules["version"], tuple(rules["allocation"]), rules["finalized"])
    for key, signature in zip(keys, rules["state_signatures_hex"], strict=True):
        assert verify(key, state.signed_bytes(), bytes.fromhex(signature))
    assert WireFunding(params.channel_id(), keys[0]).memo() == rules["funding_memo_nat64"]


async def test_signatures_that_only_look_valid_are_refused() -> None:
    """The canister is as strict as the real one: these pass OpenSSL, and the real canister refuses them."""
    vectors = json.loads((VECTORS / "ed25519-strict.json").read_text())["vectors"]
    tempting = [v for v in vectors if v["openssl_valid"] and not v["strict_valid"]]
    assert len(tempting) == 77
    client = Client()
    for vector in tempting:
        key = bytes.fromhex(vector["public_key_hex"])
        params = {**wire_params(), "participants": [key, KEYS[1].public]}
        wire = WireParams(PARAMS.nonce, (key, KEYS[1].public), PARAMS.challenge_duration_ns)
        state = {"channel": wire.channel_id(), "version": 1, "allocation": [0, 0], "finalized": True}
        sigs = [bytes.fromhex(vector["signature_hex"]), bytes(64)]
        answer = await client.call("conclude", params, {"state": state, "sigs": sigs})
        assert answer == [[{"Authentication": None}]]


@pytest.mark.parametrize(
    ("method", "arg"),
    [
        ("deposit", b""),
        ("deposit", b"DIDL\x00\x00"),
        ("deposit", b"DIDL\x00\x01\x71\x00"),
        ("query_state", b"DIDL\x01\x6d\x7f\x01\x00\xff\xff\xff\xff\x0f"),
        ("transaction_notification", b"DIDL\x00\x01\x7d\x05"),
        ("withdraw", b"DIDL\x00\x00"),
    ],
)
async def test_what_does_not_decode_traps_and_changes_nothing(method: str, arg: bytes) -> None:
    client = Client()
    saved = client.module.save()
    with pytest.raises(Trap, match=f"failed to decode the argument of {method}"):
        await client.module.execute(method, arg, Call(b"\x04", 1))
    assert client.module.save() == saved


async def test_unknown_methods_are_not_found() -> None:
    with pytest.raises(MethodNotFound):
        await Client().module.execute("gc", b"DIDL\x00\x00", Call(b"\x04", 1))


async def test_a_thousand_participants_and_huge_numbers_are_invalid_input_on_the_wire_too() -> None:
    client = Client()
    keys = [n.to_bytes(32, "big") for n in range(1001)]
    params = {**wire_params(), "participants": keys}
    state = {"channel": bytes(64), "version": 2**64 - 1, "allocation": [1 << 80_000] * 1001, "finalized": False}
    signed = {"state": {**state, "allocation": [1 << 80_000] * 3}, "sigs": []}
    assert await client.call("dispute", params, signed) == [[{"InvalidInput": None}]]


def test_the_module_hash_is_of_this_code() -> None:
    module = Client().module
    assert len(module.module_hash) == 32
    assert module.module_hash == Client().module.module_hash
    assert "disputes_since" in module.candid
