"""The admin calls: time, money, and the words for wrong input."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.replica.certificate_check import hash_of_map
from tests.unit.replica.client import MINUTE_NS
from tests.unit.replica.conftest import NAMES, Devnet
from tests.unit.replica.counter import from_nat64, nat64

HOUR_NS = 60 * MINUTE_NS
ACCOUNT = "1c7a48ba6a562aa9eaa2481a9049cdf0433b9738c992d698c31d8abf89cadc79"
"""The default account of 2vxsx-fae."""


async def test_advance_moves_every_clock_of_the_network(devnet: Devnet) -> None:
    alice = devnet.client()
    before = (await devnet.anonymous().read_state([b"time"])).time_ns
    status, answer = await alice.admin("advance", seconds=3600)
    assert status == 200
    assert answer["time_ns"] >= before + HOUR_NS
    alice.clock_ns = lambda: answer["time_ns"]
    canister = from_nat64(await alice.call("time"))
    certified = (await alice.read_state([b"time"])).time_ns
    signed = (await alice.query("get"))["signatures"][0]["timestamp"]
    for time_ns in (canister, certified, signed):
        assert HOUR_NS <= time_ns - before < HOUR_NS + MINUTE_NS


async def test_advance_takes_decimals_exactly(devnet: Devnet) -> None:
    client = devnet.anonymous()
    _, first = await client.admin("advance", seconds=1)
    async with client.session.post(client.url + "/_devnet/advance", data=b'{"seconds": 86400.5}') as response:
        second = await response.json()
    assert 86_400_500_000_000 <= second["time_ns"] - first["time_ns"] < 86_400_500_000_000 + MINUTE_NS


async def test_requests_sign_against_the_advanced_time(devnet: Devnet) -> None:
    alice = devnet.client()
    await alice.admin("advance", seconds=3600)
    answer = await alice.send(alice.content("call", method_name="add", arg=nat64(1)))
    assert (answer.status, answer.text.startswith("Invalid request expiry: ")) == (400, True)


async def test_a_request_is_forgotten_five_minutes_after_its_expiry(devnet: Devnet) -> None:
    alice = devnet.client()
    content = alice.content("call", method_name="add", arg=nat64(1))  # expires in 4 minutes
    path = [b"request_status", hash_of_map(content)]
    await alice.send(content)
    await alice.admin("advance", seconds=8 * 60)
    alice.clock_ns = lambda: content["ingress_expiry"] + 4 * MINUTE_NS
    assert (await alice.read_state(path)).value(*path, b"status") == b"replied"
    await alice.admin("advance", seconds=2 * 60)
    alice.clock_ns = lambda: content["ingress_expiry"] + 6 * MINUTE_NS
    assert (await alice.read_state(path)).lookup(*path) == "absent"
    answer = await alice.send(content)  # and it can never run again
    assert (answer.status, devnet.counter.total) == (400, 1)


async def test_mint_credits_an_account_or_a_principal(devnet: Devnet) -> None:
    client = devnet.anonymous()
    assert await client.admin("mint", account=ACCOUNT, e8s=500) == (200, {"block": 0})
    assert await client.admin("mint", account="2vxsx-fae", e8s=2**64 - 1) == (200, {"block": 1})
    assert devnet.counter.minted == [(ACCOUNT, 500), (ACCOUNT, 2**64 - 1)]


async def test_a_network_whose_ledger_has_one_fee_says_so(devnet: Devnet) -> None:
    status, answer = await devnet.anonymous().admin("fee", e8s=20_000)
    assert (status, answer["error"]) == (400, "the ledger of this network has one fee for ever")


async def test_info_is_the_ready_line(devnet: Devnet) -> None:
    async with devnet.session.get(devnet.url + "/_devnet/info") as response:
        info = await response.json()
    root_key = (await devnet.anonymous().root_key()).hex()
    assert info == {"url": devnet.url, "root_key": root_key, **NAMES}
    assert len(info["root_key"]) == 266


NO_SECONDS: list[Any] = [0, -1, True, "60", None, [], 1e-10, 1e300]
NO_AMOUNTS: list[Any] = [0, -5, 1.5, "7", True, None, 2**64]
NO_ACCOUNTS: list[Any] = [None, 5, "", "aaaaa", "ff" * 32, "z" * 64, " " * 64]
WRONG: list[tuple[str, Any]] = [
    *(("advance", {"seconds": value}) for value in NO_SECONDS),
    ("advance", {}),
    ("advance", []),
    *(("mint", {"account": ACCOUNT, "e8s": value}) for value in NO_AMOUNTS),
    *(("fee", {"e8s": value}) for value in NO_AMOUNTS[1:]),
    *(("mint", {"account": value, "e8s": 1}) for value in NO_ACCOUNTS),
]


@pytest.mark.parametrize(("call", "fields"), WRONG)
async def test_wrong_input_is_told(devnet: Devnet, call: str, fields: Any) -> None:
    async with devnet.session.post(f"{devnet.url}/_devnet/{call}", json=fields) as response:
        assert response.status == 400
        answer = await response.json()
    assert list(answer) == ["error"]
    assert len(answer["error"]) > 20
    assert devnet.counter.minted == []


@pytest.mark.parametrize("body", [b"", b"{", b'{"seconds": NaN}', b'{"seconds": Infinity}', b"[" * 50_000, b"\xff"])
async def test_bodies_that_are_not_json_are_told(devnet: Devnet, body: bytes) -> None:
    async with devnet.session.post(devnet.url + "/_devnet/advance", data=body) as response:
        assert response.status == 400
        assert json.loads(await response.read())["error"]
