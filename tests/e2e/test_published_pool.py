"""Two real nodes on a network with the published canister: its pool loses nobody's money; every e8 is explained."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from perund.control import schema
from perund.control.methods import CHANNEL_CLOSE
from perund.demo.processes import DevnetProcess, NodeProcess
from tests.e2e.test_fee_change import change_fee, problem
from tests.e2e.town import FEE, ICP, Town, within


class PublishedDevnet(DevnetProcess):
    """The devnet's process with another network in it."""

    async def _spawn(self, *arguments: str, stdout: int | None = None) -> asyncio.subprocess.Process:
        assert arguments[:2] == ("perund.cli.daemon", "devnet")
        return await super()._spawn("tests.adversarial.published_devnet", stdout=stdout)


@pytest.fixture
async def town(tmp_path: Path, cabinet: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Town]:
    monkeypatch.setattr("tests.e2e.town.DevnetProcess", PublishedDevnet)
    monkeypatch.setenv("PERUND_POLICY_MIN_CHALLENGE_S", "1")
    monkeypatch.setenv("PERUND_LOG_FORMAT", "console")
    town = await Town(tmp_path, cabinet).found()
    try:
        yield town
    finally:
        await town.leave()


async def costs(town: Town, node: NodeProcess, channel: str) -> dict[str, int]:
    return {cost.what: int(cost.e8s) for cost in (await town.view(node, channel)).costs}


async def test_both_sides_of_the_only_channel_get_all_of_it(town: Town) -> None:
    """The pool is what both put in: it has no fee for anybody, and the last payout lacks two."""
    alice, bob = await town.pair(contributes=50)
    channel = await town.open(alice, bob, 100, 20)
    await town.pay(alice, channel, 7 * ICP)
    await town.close(alice, channel)
    lent = 0
    for node, put_in, share in ((alice, 100, 93), (bob, 20, 27)):
        view = await town.closed(node, channel)
        assert view.payout_e8s is not None
        assert int(view.payout_e8s) == share * ICP, "in full"
        spent = await costs(town, node, channel)
        assert await town.balance(node) == (300 - put_in + share) * ICP - sum(spent.values())
        assert spent["withdrawal fee"] == 0
        lent += spent.get("canister fee", 0)
    assert lent in (2 * FEE, 4 * FEE), "by who came last; by both when neither saw the other"
    assert await town.canister_balance() == lent - 2 * FEE


async def test_while_the_fee_is_another_the_holdings_stay_and_health_says_why(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 100)
    await town.pay(alice, channel, 7 * ICP)
    await change_fee(town, 2 * FEE)
    closing = asyncio.ensure_future(alice.control.call(CHANNEL_CLOSE, schema.ChannelCloseParams(channel)))
    for node in (alice, bob):
        stuck = await problem(node, "settlement_stuck")
        assert stuck.channel == channel
        assert "this canister pays out with 10000 e8s" in stuck.message
    assert await town.holdings(alice, channel) == (93 * ICP, 7 * ICP)
    await change_fee(town, FEE)
    await within(closing, "the money out")
    for node in (alice, bob):
        await town.closed(node, channel)
        assert (await costs(town, node, channel))["withdrawal fee"] == 0
