"""The ledger's fee is the ledger's: it changes under running nodes, and their money goes in and out all the same."""

from __future__ import annotations

import asyncio
import itertools
from typing import Final

import aiohttp
import pytest

from devnet.ledger.accounts import MINTING_ACCOUNT
from perund.control import schema
from perund.control.client import ControlClient
from perund.control.errors import RpcError
from perund.control.methods import CHANNEL_CLOSE, NODE_HEALTH, WALLET_SEND
from perund.control.values import PaidE8s
from perund.demo.processes import NodeProcess
from tests.e2e.town import FEE, ICP, LOOK_AGAIN_S, Town, within

DEARER: Final = 3 * FEE


async def change_fee(town: Town, e8s: int) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{town.devnet.url}/_devnet/fee", json={"e8s": e8s}) as answer,
    ):
        assert answer.status == 200, await answer.text()


async def problem(node: NodeProcess, code: str) -> schema.Problem:
    """Return the problem that a node has, when it has it."""

    async def look() -> schema.Problem:
        while True:
            health = await node.control.call(NODE_HEALTH, schema.NoParams())
            for found in health.problems:
                if found.code == code:
                    return found
            await asyncio.sleep(LOOK_AGAIN_S)

    return await within(look(), f"{node.name}: {code}")


async def test_a_fee_that_rises_is_taken_out_of_the_payouts(town: Town) -> None:
    alice, bob = await town.pair(contributes=50)
    channel = await town.open(alice, bob, 100, 20)
    await town.pay(alice, channel, 7 * ICP)
    await change_fee(town, DEARER)
    await town.close(alice, channel)
    await town.settles(channel, alice, bob)
    for node in (alice, bob):
        costs = {cost.what: int(cost.e8s) for cost in (await town.view(node, channel)).costs}
        assert costs == {"deposit fee": FEE, "withdrawal fee": DEARER}
    again = await town.open(alice, bob, 10)  # and what is paid in later costs what it costs
    costs = {cost.what: int(cost.e8s) for cost in (await town.view(alice, again)).costs}
    assert costs == {"deposit fee": DEARER}


async def test_an_absurd_fee_is_not_paid_and_said_until_it_falls(town: Town) -> None:
    """Nobody gives his holdings up because they are below it, and health says since when nothing goes out."""
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 100)
    await town.pay(alice, channel, 7 * ICP)
    await change_fee(town, 200 * ICP)
    params = schema.ChannelCloseParams(channel)
    closing = [asyncio.ensure_future(node.control.call(CHANNEL_CLOSE, params)) for node in (alice, bob)]
    for node in (alice, bob):
        stuck = await problem(node, "settlement_stuck")
        assert stuck.channel == channel
        assert f"a fee of {200 * ICP} e8s, more than fees.max_fee_e8s = 100000" in stuck.message
        assert (await problem(node, "settlement_stuck")).since == stuck.since, "it tells since when"
    assert sum(await town.holdings(alice, channel)) == 100 * ICP
    await change_fee(town, FEE)
    await within(asyncio.gather(*closing), "the money out")
    await town.settles(channel, alice, bob)
    for node in (alice, bob):
        health = await node.control.call(NODE_HEALTH, schema.NoParams())
        assert "settlement_stuck" not in {found.code for found in health.problems}


async def test_a_node_that_starts_under_an_absurd_fee_says_so_and_opens_nothing(town: Town) -> None:
    await change_fee(town, ICP)
    alice, bob = await town.pair()
    for node in (alice, bob):
        found = await problem(node, "ledger_unusable")
        assert "fees.max_fee_e8s" in found.message
    with pytest.raises(RpcError, match="max_fee_e8s"):
        await town.propose(alice, bob, 5)


async def test_money_is_not_burned_by_a_slip(town: Town) -> None:
    """A transfer to the minting account is a burn, at a fee of 0: refused here, not repeated for a day."""
    alice = await town.node("alice")
    async with await ControlClient.connect(alice.dir) as control:
        with pytest.raises(RpcError, match="minting account"):
            await control.call(WALLET_SEND, schema.SendParams(to=MINTING_ACCOUNT.hex(), amount_e8s=PaidE8s(ICP)))
    assert await town.balance(alice) == 300 * ICP


async def test_a_fee_that_changes_all_the_time_costs_what_is_booked(town: Town) -> None:
    """Also none at all: between what a transfer read, asked for and paid it may be another each time."""
    alice, bob = await town.pair(contributes=50)

    async def flap() -> None:
        for e8s in itertools.cycle((FEE, DEARER, 0, 9 * FEE)):
            await change_fee(town, e8s)
            await asyncio.sleep(LOOK_AGAIN_S)

    flapping = asyncio.ensure_future(flap())
    channels = [await town.open(alice, bob, 10 + n, 5) for n in range(2)]
    for channel in channels:
        await town.pay(alice, channel, ICP)
    await asyncio.gather(*(town.close(alice, channel) for channel in channels))
    views = [await town.closed(node, channel) for node in (alice, bob) for channel in channels]
    flapping.cancel()
    costs = sum(int(cost.e8s) for view in views for cost in view.costs)
    assert await town.balance(alice) + await town.balance(bob) + costs == 600 * ICP
    assert await town.canister_balance() == 0
