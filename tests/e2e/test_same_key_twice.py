"""Idempotency keys: the same key twice is one action, with other arguments an error; across a restart too."""

import asyncio
from typing import Any

import pytest

from perund.control.errors import RpcError
from perund.demo.processes import NodeProcess
from tests.e2e.town import FEE, ICP, Town, within


async def call(node: NodeProcess, method: str, **params: object) -> dict[str, Any]:
    return await within(node.control.call(method, params), method)


async def refusal(node: NodeProcess, method: str, **params: object) -> str:
    with pytest.raises(RpcError) as refused:
        await call(node, method, **params)
    return refused.value.name


async def test_send(town: Town) -> None:
    alice, bob = await town.pair()
    order = {"to": bob.info.account, "amount_e8s": str(5 * ICP), "idempotency_key": "rent"}

    first = await call(alice, "wallet.send", **order)
    assert await call(alice, "wallet.send", **order) == first
    assert await refusal(alice, "wallet.send", **{**order, "amount_e8s": "1"}) == "idempotency_conflict"
    await town.restart(alice)
    assert await call(alice, "wallet.send", **order) == first

    assert await town.balance(bob) == 305 * ICP
    assert await town.balance(alice) == 295 * ICP - FEE


async def test_open_pay_and_close(town: Town) -> None:
    alice, bob = await town.pair()
    order = {"peer": bob.address, "mine_e8s": str(50 * ICP), "theirs_e8s": "0", "challenge_s": 30,
             "idempotency_key": "channel"}  # fmt: skip

    first, second = await asyncio.gather(
        call(alice, "channel.open", **order), _once_taken_up(alice, "channel.open", **order)
    )
    assert first["channel"] == second["channel"]
    channel = first["channel"]
    assert await refusal(alice, "channel.open", **{**order, "mine_e8s": "1"}) == "idempotency_conflict"
    pay = {"channel": channel, "amount_e8s": str(ICP), "idempotency_key": "tea"}
    paid = await call(alice, "channel.pay", **pay)
    assert await call(alice, "channel.pay", **pay) == paid
    assert await refusal(alice, "channel.pay", **{**pay, "amount_e8s": "1"}) == "idempotency_conflict"
    assert await refusal(alice, "wallet.send", to=bob.info.account, amount_e8s="1", idempotency_key="tea") == (
        "idempotency_conflict"
    )
    await town.restart(alice)
    assert (await call(alice, "channel.open", **order))["channel"] == channel
    assert await call(alice, "channel.pay", **pay) == paid
    assert len(await town.payments(bob, channel)) == 1

    close = {"channel": channel, "idempotency_key": "end"}
    closed = await call(alice, "channel.close", **close)
    assert closed["phase"] == "closed"
    assert await call(alice, "channel.close", **close) == closed
    assert await refusal(alice, "channel.close", **{**close, "force_after_s": 5}) == "idempotency_conflict"
    await town.restart(alice)
    assert await call(alice, "channel.close", **close) == closed
    # What a key led to is answered also when the channel is over: who lost the answer must not pay again.
    assert await call(alice, "channel.pay", **pay) == paid
    await town.settles(channel, alice, bob)
    assert len((await call(alice, "channel.list"))["channels"]) == 1


async def _once_taken_up(node: NodeProcess, method: str, **params: object) -> dict[str, Any]:
    """Call again while the first call is being taken up: busy, until it is."""
    while True:
        try:
            return await call(node, method, **params)
        except RpcError as error:
            if error.name != "busy":
                raise
            await asyncio.sleep(0)


async def test_a_refused_opening_is_refused_again(town: Town) -> None:
    alice, bob = await town.pair()
    order = {"peer": bob.address, "mine_e8s": str(ICP), "theirs_e8s": str(ICP), "challenge_s": 30,
             "idempotency_key": "too much"}  # fmt: skip
    assert await refusal(alice, "channel.open", **order) == "policy_refused"
    assert await refusal(alice, "channel.open", **order) == "policy_refused"
    await town.restart(alice)
    assert await refusal(alice, "channel.open", **order) == "policy_refused"


async def test_a_key_of_a_call_that_was_refused_is_free(town: Town) -> None:
    alice, bob = await town.pair()
    order = {"to": bob.info.account, "amount_e8s": str(500 * ICP), "idempotency_key": "rent"}
    assert await refusal(alice, "wallet.send", **order) == "insufficient_funds"
    await town.mint(alice.info.account, 300 * ICP)
    assert (await call(alice, "wallet.send", **order))["amount_e8s"] == str(500 * ICP)
