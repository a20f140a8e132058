"""Typed calls through a real socket: every method, every error, and answers checked against the schema."""

import asyncio
from typing import Any

import msgspec
import pytest

from perund.control import methods, schema
from perund.control.api import NodeApi
from perund.control.client import ControlClient
from perund.control.errors import BY_CODE, ERRORS, RpcError
from perund.control.methods import METHODS
from perund.control.server import ControlServer
from perund.control.values import E8s, PaidColumn, PaidE8s, Seconds
from protocol.errors import CallerMistake, PeerViolation, PerundError
from tests.unit.control.node_double import CHANNEL, PEER_ID, NodeDouble

ARGUMENTS: dict[str, dict[str, Any]] = {
    "node.info": {},
    "node.health": {},
    "node.stop": {},
    "wallet.balance": {},
    "wallet.send": {"to": "aaaaa-aa", "amount_e8s": "5"},
    "peer.connect": {"peer": f"{PEER_ID}@127.0.0.1:9736"},
    "peer.list": {},
    "channel.open": {"peer": PEER_ID, "mine_e8s": "5", "theirs_e8s": "0", "challenge_s": 60},
    "channel.list": {},
    "channel.get": {"channel": CHANNEL},
    "channel.pay": {"channel": CHANNEL, "amount_e8s": "5"},
    "channel.close": {"channel": CHANNEL},
    "channel.dispute": {"channel": CHANNEL},
    "channel.withdraw": {"channel": CHANNEL},
    "channel.recover": {"channel": CHANNEL, "accept_version": 3},
    "payment.list": {},
    "payment.cancel": {"channel": CHANNEL, "payment": "0f" * 16},
    "event.subscribe": {},
    "rpc.discover": {},
}


def test_the_table_and_the_node_have_the_same_methods() -> None:
    assert set(ARGUMENTS) == set(METHODS)
    handlers = {name for name in vars(NodeApi) if "_" in name and not name.startswith("_")}
    assert handlers == {method.handler for method in METHODS.values()} - {"rpc_discover"}


@pytest.mark.parametrize("name", sorted(METHODS))
async def test_every_method_answers_what_its_schema_says(client: ControlClient, name: str) -> None:
    method: Any = METHODS[name]
    raw = await client.call(name, ARGUMENTS[name])
    decoded = method.decode_result(msgspec.Raw(msgspec.json.encode(raw)))
    if isinstance(decoded, schema.Result):
        assert set(raw) <= set(decoded.__struct_fields__)


async def test_params_go_by_position_too(client: ControlClient, node: NodeDouble) -> None:
    await client.call("channel.pay", [CHANNEL, "7", "tea"])
    assert node.calls == [
        ("channel.pay", schema.PayParams(channel=CHANNEL, amount_e8s=PaidE8s(7), memo="tea")),
    ]


async def test_typed_calls(client: ControlClient, node: NodeDouble) -> None:
    opened = await client.call(
        methods.CHANNEL_OPEN,
        schema.ChannelOpenParams(peer=PEER_ID, mine_e8s=E8s(242), theirs_e8s=E8s(194), challenge_s=Seconds(60)),
    )
    assert (opened.mine_e8s, opened.theirs_e8s) == (242, 194)
    paid = await client.call(methods.CHANNEL_PAY, schema.PayParams(channel=CHANNEL, amounts_e8s=PaidColumn((1, 2, 3))))
    assert (paid.payments, paid.first_payment) == (3, "01" * 16)


async def test_amounts_travel_as_decimal_strings(client: ControlClient) -> None:
    answer = await client.call("wallet.balance")
    assert answer["balance_e8s"] == "150000000"


@pytest.mark.parametrize(
    ("name", "params", "why"),
    [
        ("channel.pay", {"channel": CHANNEL, "amount_e8s": "-5"}, "not an amount"),
        ("channel.pay", {"channel": CHANNEL, "amount_e8s": "0"}, "at least 1"),
        ("channel.pay", {"channel": CHANNEL, "amount_e8s": 5}, "decimal string"),
        ("channel.pay", {"channel": CHANNEL, "amount_e8s": "1.5"}, "not an amount"),
        ("channel.pay", {"channel": CHANNEL, "amount_e8s": "1e3"}, "not an amount"),
        ("channel.pay", {"channel": CHANNEL, "amount_e8s": "9223372036854775808"}, "2^63-1"),
        ("wallet.send", {"to": "a" * 64, "amount_e8s": "18446744073709551615"}, "2^63-1"),
        ("event.subscribe", {"after": 2**63}, "<= 9223372036854775807"),
        ("channel.pay", {"channel": CHANNEL, "amount_e8s": "9" * 400_000}, "not an amount"),
        ("channel.pay", {"channel": CHANNEL, "amount_e8s": "٥"}, "not an amount"),
        ("channel.pay", {"channel": CHANNEL}, "give one of"),
        ("channel.pay", {"channel": CHANNEL, "amount_e8s": "5", "amounts_e8s": ["5"]}, "give one of"),
        ("channel.pay", {"channel": CHANNEL, "amounts_e8s": []}, "a list of 1"),
        ("channel.pay", {"channel": CHANNEL, "amounts_e8s": ["5", ""]}, "decimal string"),
        ("channel.pay", {"channel": CHANNEL, "amounts_e8s": ["5", 5]}, "decimal string"),
        ("channel.pay", {"channel": CHANNEL, "amounts_e8s": ["5", "0"]}, "1 to 2"),
        ("channel.pay", {"channel": CHANNEL, "amounts_e8s": ["5"], "memo": "x"}, "single"),
        ("channel.pay", {"channel": CHANNEL, "amount_e8s": "5", "memo": "é" * 200}, "at most 256"),
        ("channel.pay", {"channel": "abc", "amount_e8s": "5"}, "channel"),
        ("channel.pay", {"channel": CHANNEL, "amount_e8s": "5", "payment_id": "xyz"}, "payment_id"),
        ("channel.pay", {"channel": CHANNEL, "amount_e8s": "5", "extra": 1}, "unknown field `extra`"),
        ("channel.pay", [CHANNEL, "5", None, None, None, True, None, None, None, 9], "9 arguments at most"),
        ("channel.pay", None, "Expected"),
        ("channel.open", {"peer": PEER_ID, "mine_e8s": "0", "theirs_e8s": "0", "challenge_s": 60}, "can pay nothing"),
        ("channel.open", {"peer": PEER_ID, "mine_e8s": "5", "theirs_e8s": "0", "challenge_s": 0}, "duration"),
        ("channel.open", {"peer": PEER_ID, "mine_e8s": "5", "theirs_e8s": "0", "challenge_s": True}, "duration"),
        ("channel.open", {"peer": "x", "mine_e8s": "5", "theirs_e8s": "0", "challenge_s": 60}, "peer"),
        ("channel.list", {"limit": 0}, "limit"),
        ("channel.list", {"limit": 10_000}, "limit"),
        ("node.info", {"x": 1}, "unknown field"),
        ("event.subscribe", {"after": -1}, "after"),
    ],
)
async def test_wrong_params_are_refused_and_reach_nobody(
    client: ControlClient, node: NodeDouble, name: str, params: Any, why: str
) -> None:
    with pytest.raises(RpcError, match=why.replace("^", r"\^")) as caught:
        await client._raw(name, params) if params is None else await client.call(name, params)
    assert (caught.value.code, caught.value.name) == (-32602, "invalid_params")
    assert len(caught.value.message) < 400
    assert node.calls == []


async def test_durations_are_numbers_or_decimal_strings(client: ControlClient, node: NodeDouble) -> None:
    for challenge in (60, "60"):
        await client.call("channel.open", [PEER_ID, "5", "0", challenge])
    assert [params.challenge_s for _, params in node.calls] == [60, 60]


@pytest.mark.parametrize("kind", [k for k in ERRORS if k.code > 0], ids=lambda kind: kind.name)
async def test_every_error_of_the_table_reaches_the_caller_whole(
    client: ControlClient, node: NodeDouble, kind: Any
) -> None:
    node.error = CallerMistake(kind.name, "what happened")
    for name in ("channel.pay", "channel.get"):
        with pytest.raises(RpcError, match="what happened") as caught:
            await client.call(name, ARGUMENTS[name])
        error = caught.value
        assert (error.code, error.name, error.hint, error.retryable) == (
            kind.code,
            kind.name,
            kind.hint,
            kind.retryable,
        )


def test_codes_and_names_are_unique() -> None:
    assert len(BY_CODE) == len({kind.name for kind in ERRORS}) == len(ERRORS)


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (PeerViolation("bad_signature", "the peer's signature is wrong"), "peer_violation"),
        (PerundError("something typed"), "refused"),
        (CallerMistake("a_word_without_a_row", "why"), "a_word_without_a_row"),
        (ZeroDivisionError("secret inside"), "internal_error"),
    ],
)
async def test_other_errors(client: ControlClient, node: NodeDouble, error: Exception, name: str) -> None:
    node.error = error
    with pytest.raises(RpcError) as caught:
        await client.call("channel.get", ARGUMENTS["channel.get"])
    assert caught.value.name == name
    assert "secret inside" not in str(caught.value)


async def test_many_payments_over_one_connection_are_answered_in_order(client: ControlClient, node: NodeDouble) -> None:
    answers = await client.pay_many(CHANNEL, range(1, 5_001), window=700)
    assert len(answers) == 5_000
    assert all(isinstance(answer, schema.PayResult) for answer in answers)
    assert [params.amount_e8s for _, params in node.calls] == list(range(1, 5_001))


async def test_answers_find_their_calls_in_any_order(client: ControlClient, node: NodeDouble) -> None:
    node.hold = True
    ids = [f"{number:032x}" for number in range(20)]
    calls = [
        asyncio.ensure_future(client.call("channel.pay", {**ARGUMENTS["channel.pay"], "payment_id": one}))
        for one in ids
    ]
    await client.call("node.info")
    for params, reply in reversed(node.replies):
        node.pay(params, reply)
    assert [answer["payment"] for answer in await asyncio.gather(*calls)] == ids


async def test_openrpc_describes_every_method_with_its_types(client: ControlClient, server: ControlServer) -> None:
    document = await client.call("rpc.discover")
    assert document["openrpc"].startswith("1.")
    described = {method["name"]: method for method in document["methods"]}
    assert set(described) == set(METHODS)
    pay = described["channel.pay"]
    assert [param["name"] for param in pay["params"]][:2] == ["channel", "amount_e8s"]
    assert pay["result"]["schema"] == {"$ref": "#/components/schemas/PayResult"}
    assert "insufficient_balance" in {error["data"]["name"] for error in pay["errors"]}

    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if "$ref" in value else set()
            return own.union(*map(references, value.values()))
        return set().union(*map(references, value)) if isinstance(value, list) else set()

    for reference in references(document):
        assert reference.rpartition("/")[2] in document["components"]["schemas"]
