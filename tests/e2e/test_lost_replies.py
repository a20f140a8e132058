"""Replies of the Internet Computer that get lost: what was asked for happens once, and the books know it."""

import asyncio

from perund.control import schema
from perund.control.methods import CHANNEL_CLOSE
from tests.e2e.town import ICP, Town


async def test_replies_are_lost_while_funding(town: Town) -> None:
    alice, bob = await town.pair(contributes=50)
    channel = await town.propose(alice, bob, 50, 50)
    await town.event(alice, "channel.depositing", channel)

    await town.order_fault("drop", "call", 12)  # done, and nobody is told

    for node in (alice, bob):
        await town.until(node, channel, lambda c: c.phase == "open", "open")
    assert await town.holdings(alice, channel) == (50 * ICP, 50 * ICP)
    await town.close(alice, channel)
    await town.settles(channel, alice, bob)


async def test_replies_are_lost_while_withdrawing(town: Town) -> None:
    alice, bob = await town.pair(contributes=50)
    channel = await town.open(alice, bob, 50, 50)
    await town.pay(alice, channel, 3 * ICP)

    await alice.control.call(CHANNEL_CLOSE, schema.ChannelCloseParams(channel, wait=False))
    await town.order_fault("drop", "call", 15)

    await town.settles(channel, alice, bob)
    assert await town.balance(alice) == 297 * ICP - 20_000


async def test_an_overloaded_network_and_kills_at_once(town: Town) -> None:
    alice, bob = await town.pair(contributes=50)
    channel = await town.propose(alice, bob, 50, 50)
    await town.order_fault("reject", "call", 10)
    await town.event(bob, "channel.signed", channel)
    await asyncio.gather(town.restart(alice), town.restart(bob))
    await town.order_fault("http_503", "call", 10)
    for node in (alice, bob):
        await town.until(node, channel, lambda c: c.phase == "open", "open")
    await town.pay(bob, channel, ICP)
    await alice.control.call(CHANNEL_CLOSE, schema.ChannelCloseParams(channel, wait=False))
    await town.order_fault("drop", "call", 4)
    await town.event(alice, "channel.withdrawing", channel)
    await town.restart(alice)
    await town.settles(channel, alice, bob)
