"""Nodes are killed in the middle of what they do, started again, and everything converges."""

import asyncio
import signal
from collections.abc import Callable

import pytest

from perund.control import schema
from perund.control.methods import CHANNEL_CLOSE, CHANNEL_OPEN, CHANNEL_PAY, PEER_CONNECT
from perund.control.values import E8s, PaidE8s, Seconds
from perund.demo.processes import NodeProcess
from tests.e2e.insisting import insist
from tests.e2e.town import ICP, LOOK_AGAIN_S, Town, within

Who = Callable[[NodeProcess, NodeProcess], NodeProcess]


def proposer(alice: NodeProcess, bob: NodeProcess) -> NodeProcess:
    return alice


def acceptor(alice: NodeProcess, bob: NodeProcess) -> NodeProcess:
    return bob


@pytest.mark.parametrize(
    ("who", "moment"),
    [
        (proposer, "channel.signed"),
        (proposer, "channel.depositing"),
        (acceptor, "channel.signed"),
        (acceptor, "channel.depositing"),
        (acceptor, "channel.deposited"),
    ],
)
async def test_killed_while_funding(town: Town, who: Who, moment: str) -> None:
    alice, bob = await town.pair(contributes=50)
    channel = await town.propose(alice, bob, 50, 50)
    node = who(alice, bob)

    await town.event(node, moment, channel)
    await town.restart(node)

    for each in (alice, bob):
        await town.until(each, channel, lambda c: c.phase == "open", "open")
    assert await town.holdings(alice, channel) == (50 * ICP, 50 * ICP), "each paid once"
    await town.pay(alice, channel, 1_000)
    await town.pay(bob, channel, 2_000)
    await town.close(bob, channel)
    await town.settles(channel, alice, bob)


async def test_killed_while_proposing_the_first_channel_with_a_peer(town: Town) -> None:
    alice, bob = await town.pair(contributes=50)
    params = schema.ChannelOpenParams(bob.address, E8s(50 * ICP), E8s(50 * ICP), Seconds(60), idempotency_key="channel")
    await alice.control.call(PEER_CONNECT, schema.PeerConnectParams(bob.address))
    bob.signal(signal.SIGSTOP)  # bob does not answer the proposal before alice is gone
    proposing = asyncio.create_task(insist(alice, CHANNEL_OPEN, params))
    await within(proposed(town, alice), "the proposal on the disk")
    await alice.kill()
    bob.signal(signal.SIGCONT)
    await alice.start()

    channel = (await within(proposing, "the channel open")).channel
    await town.close(alice, channel)
    await town.settles(channel, alice, bob)


async def proposed(town: Town, node: NodeProcess) -> None:
    while not town.reader(node).live_openings():  # noqa: ASYNC110  (a disk tells nobody)
        await asyncio.sleep(LOOK_AGAIN_S)


async def pay_stubbornly(node: NodeProcess, channel: str, count: int, amount: int) -> None:
    """Pay one after another. Who gets no answer asks again, under the same key, until it has one."""
    for number in range(count):
        params = schema.PayParams(channel, PaidE8s(amount), idempotency_key=f"{node.name} {number}")
        assert (await insist(node, CHANNEL_PAY, params)).status == "delivered"


async def test_killed_while_both_pay(town: Town) -> None:
    alice, bob = await town.pair(contributes=50)
    channel = await town.open(alice, bob, 50, 50, challenge_s=60)
    count = 60
    paying = asyncio.gather(pay_stubbornly(alice, channel, count, 300), pay_stubbornly(bob, channel, count, 200))

    for turn, node in enumerate((alice, bob, alice, bob)):
        threshold = 10 * (turn + 1)
        await town.until(node, channel, lambda c, t=threshold: c.version >= t, "payments going on")  # type: ignore[misc]
        await town.restart(node)
    await within(paying, "every payment acknowledged")

    sent, received = await town.payments(alice, channel), await town.payments(bob, channel)
    for ours, theirs, amount in ((sent, received, 300), (received, sent, 200)):
        made = {p.payment for p in ours if p.direction == "sent"}
        arrived = [p.payment for p in theirs if p.direction == "received"]
        assert len(made) == count
        assert sorted(arrived) == sorted(made), "each exactly once"
        assert {p.amount_e8s for p in ours if p.direction == "sent"} == {amount}
    assert town.newest(alice, channel).state.allocation[0] == 50 * ICP - count * 100
    await town.close(alice, channel)
    await town.settles(channel, alice, bob)


@pytest.mark.parametrize("who", [proposer, acceptor])
@pytest.mark.parametrize("moment", ["channel.closing", "channel.withdrawing"])
async def test_killed_while_closing(town: Town, who: Who, moment: str) -> None:
    alice, bob = await town.pair(contributes=50)
    channel = await town.open(alice, bob, 50, 50)
    await town.pay(bob, channel, 5 * ICP)
    node = who(alice, bob)

    await alice.control.call(CHANNEL_CLOSE, schema.ChannelCloseParams(channel, wait=False))
    await town.event(node, moment, channel)
    await town.restart(node)

    await town.settles(channel, alice, bob)
    registered = (await town.view(node, channel)).registered
    assert registered is not None
    assert registered.finalized, "closed together"


async def test_killed_while_the_challenge_period_runs_and_while_withdrawing(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await town.pay(alice, channel, 5 * ICP)
    await town.register(alice, channel, town.newest(alice, channel))
    await town.event(bob, "channel.leaving", channel)

    await asyncio.gather(town.restart(alice), town.restart(bob))
    await town.devnet.advance(13)
    await town.event(bob, "channel.withdrawing", channel)
    await town.restart(bob)

    await town.settles(channel, alice, bob)
