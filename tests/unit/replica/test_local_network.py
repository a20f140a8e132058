"""The network that users get: ledger and Perun canister where clients expect them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from devnet.replica.principals import from_text
from devnet.server import Ready, run_devnet
from tests.unit.replica.client import Client, Ed25519Key

# ic-py has no types.
Agent: Any = import_module("ic.agent").Agent
Canister: Any = import_module("ic.canister").Canister
IcClient: Any = import_module("ic.client").Client
Identity: Any = import_module("ic.identity").Identity

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@asynccontextmanager
async def devnet_in(state: Path | None) -> AsyncIterator[Ready]:
    stop = asyncio.Event()
    ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(run_devnet("127.0.0.1", 0, state, ready.set_result, stop))
    try:
        yield await asyncio.wait_for(ready, 10)
    finally:
        stop.set()
        await asyncio.wait_for(running, 10)


def canister(info: Ready, name: str, identity: Any) -> Any:
    """Return the canister as ic-py builds it from the interface that is served. Blocks."""
    return Canister(agent=Agent(identity, IcClient(url=info["url"])), canister_id=info[name])


async def test_the_ready_line_says_where_everything_is(session: aiohttp.ClientSession) -> None:
    async with devnet_in(None) as info:
        assert set(info) == {"url", "root_key", "perun_canister", "icp_ledger"}
        assert info["icp_ledger"] == "ryjl3-tyaaa-aaaaa-aaaba-cai"
        assert info["perun_canister"] == "bkyz2-fmaaa-aaaaa-qaaaq-cai"
        assert (await Client(session, info["url"]).root_key()).hex() == info["root_key"]


async def test_money_is_minted_sent_and_still_there_after_a_restart(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    alice = Identity()
    hers = alice.sender().to_account_id().bytes
    his = Identity().sender().to_account_id().bytes
    transfer = {
        "memo": 7,
        "amount": {"e8s": 300},
        "fee": {"e8s": 10_000},
        "from_subaccount": [],
        "to": list(his),
        "created_at_time": [],
    }

    def send(info: Ready) -> Any:
        return canister(info, "icp_ledger", alice).transfer(transfer)

    def balances(info: Ready) -> list[int]:
        ledger = canister(info, "icp_ledger", alice)
        return [ledger.account_balance({"account": list(whose)})[0]["e8s"] for whose in (hers, his)]

    async with devnet_in(tmp_path) as info:
        client = Client(session, info["url"])
        assert await client.admin("mint", account=hers.hex(), e8s=50_000) == (200, {"block": 0})
        assert await asyncio.to_thread(send, info) == [{"Ok": 1}]
        assert await asyncio.to_thread(balances, info) == [39_700, 300]
    async with devnet_in(tmp_path) as info:
        assert await asyncio.to_thread(balances, info) == [39_700, 300]


async def test_more_money_than_there_can_be_is_refused(session: aiohttp.ClientSession) -> None:
    async with devnet_in(None) as info:
        client = Client(session, info["url"])
        assert (await client.admin("mint", account="2vxsx-fae", e8s=2**64 - 1))[0] == 200
        status, answer = await client.admin("mint", account="2vxsx-fae", e8s=1)
        assert (status, "the ledger refuses to mint" in answer["error"]) == (400, True)


async def test_the_perun_canister_answers_and_asks_the_ledger(session: aiohttp.ClientSession) -> None:
    async with devnet_in(None) as info:

        def ask() -> tuple[Any, Any]:
            perun = canister(info, "perun_canister", Identity())
            return perun.query_state([0] * 64), perun.transaction_notification(12345)

        state, notified = await asyncio.to_thread(ask)
        assert state == [[]]
        assert list(notified[0]) == ["Err"]


async def test_both_canisters_have_certified_code(session: aiohttp.ClientSession) -> None:
    async with devnet_in(None) as info:
        alice = Client(session, info["url"], Ed25519Key())
        for name in ("perun_canister", "icp_ledger"):
            path = [b"canister", from_text(info[name]), b"module_hash"]
            certificate = await alice.read_state(path, canister=info[name])
            assert len(certificate.value(*path)) == 32
