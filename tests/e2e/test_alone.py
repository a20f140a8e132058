"""A peer that is gone costs time and named fees, nothing else."""

import asyncio
import signal

import pytest

from perund.control import schema
from perund.control.errors import RpcError
from perund.control.methods import CHANNEL_DISPUTE
from perund.demo.processes import NodeProcess
from tests.e2e.town import FEE, ICP, Town


async def dispute(node: NodeProcess, channel: str) -> schema.Channel:
    return await node.control.call(CHANNEL_DISPUTE, schema.ChannelDisputeParams(channel))


async def test_the_peer_dies_after_we_paid(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await town.pay(alice, channel, 7 * ICP)
    await bob.kill()

    assert (await dispute(alice, channel)).phase == "leaving"
    await town.until(alice, channel, lambda c: c.registered is not None and c.registered.ours, "ours registered")
    await town.restart(alice)
    await town.devnet.advance(13)

    view = await town.closed(alice, channel)
    assert [(cost.what, cost.e8s) for cost in view.costs] == [("deposit fee", FEE), ("withdrawal fee", FEE)]
    assert await town.balance(alice) == 300 * ICP - 7 * ICP - 2 * FEE
    await bob.start()  # and what bob was paid is bob's
    await town.settles(channel, alice, bob)
    assert await town.balance(bob) == 307 * ICP - FEE


async def test_a_close_that_the_peer_does_not_answer_goes_the_other_way(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await town.pay(alice, channel, 7 * ICP)
    await bob.kill()

    closing = asyncio.create_task(town.close(alice, channel, force_after_s=2))
    await town.until(alice, channel, lambda c: c.phase == "leaving", "leaving alone")
    await town.until(alice, channel, lambda c: c.registered is not None, "registered")
    await town.devnet.advance(13)

    view = await closing
    assert view.phase == "closed"
    assert view.close_reason is not None
    assert view.payout_e8s == 43 * ICP - FEE
    await bob.start()
    await town.settles(channel, alice, bob)


async def test_a_close_waits_for_a_peer_that_comes_back(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await town.pay(alice, channel, 7 * ICP)
    await bob.kill()

    closing = asyncio.create_task(town.close(alice, channel))
    await town.until(alice, channel, lambda c: c.phase == "closing", "closing")
    await bob.start()

    assert (await closing).phase == "closed"
    await town.settles(channel, alice, bob)
    assert "channel.leaving" not in await town.events(alice, channel), "closed together, without a challenge period"


async def test_a_final_state_whose_acknowledgement_is_withheld_costs_time_only(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await town.pay(alice, channel, 7 * ICP)
    bob.signal(signal.SIGSTOP)  # bob receives the final state and says nothing

    closing = asyncio.create_task(town.close(alice, channel, force_after_s=2))
    await town.until(alice, channel, lambda c: c.phase == "leaving", "leaving alone")
    assert town.newest(alice, channel).state.finalized is False
    await bob.kill()
    await town.until(alice, channel, lambda c: c.registered is not None, "registered")
    await town.devnet.advance(13)

    assert (await closing).payout_e8s == 43 * ICP - FEE, "the same as together"
    await bob.start()
    await town.settles(channel, alice, bob)


async def test_both_sides_dispute(town: Town) -> None:
    alice, bob = await town.pair(contributes=50)
    channel = await town.open(alice, bob, 50, 50)
    await town.pay(alice, channel, 7 * ICP)
    await town.pay(bob, channel, 1 * ICP)

    await asyncio.gather(dispute(alice, channel), dispute(bob, channel))
    for node in (alice, bob):
        await town.until(node, channel, lambda c: c.registered is not None and c.registered.ours, "ours registered")
    await town.devnet.advance(13)

    await town.settles(channel, alice, bob)
    assert await town.balance(alice) == 294 * ICP - 2 * FEE
    assert await town.balance(bob) == 306 * ICP - 2 * FEE


async def test_an_acceptor_that_never_deposits(town: Town) -> None:
    alice, bob = await town.pair(contributes=50)
    channel = await town.propose(alice, bob, 50, 50, funding_timeout_s=60)
    bob.signal(signal.SIGSTOP)
    await town.event(alice, "channel.deposited", channel)
    await bob.kill()
    assert (await town.holdings(alice, channel))[1] == 0, "bob was stopped before it paid"

    await town.devnet.advance(61)
    await town.until(alice, channel, lambda c: c.phase == "leaving", "giving up")
    await town.until(alice, channel, lambda c: c.registered is not None, "state 0 registered")
    await town.devnet.advance(13)

    view = await town.closed(alice, channel)
    assert view.payout_e8s == 50 * ICP - FEE
    assert "deadline" in str(view.close_reason)
    await bob.start()
    await town.settles(channel, alice, bob)
    assert await town.balance(bob) == 300 * ICP, "bob put nothing in and lost nothing"


async def test_the_caller_of_open_is_told_when_the_peer_never_deposits(town: Town) -> None:
    alice, bob = await town.pair(contributes=50)
    opening = asyncio.create_task(town.propose(alice, bob, 50, 50, funding_timeout_s=60, wait=True))
    channel = str((await town.event(alice, "channel.signed")).data["channel"])
    await bob.kill()
    with pytest.raises(RpcError) as refused:
        await town.close(alice, channel)
    assert refused.value.name == "channel_not_open", "what is being funded is not closed together"
    await town.event(alice, "channel.deposited", channel)

    await town.devnet.advance(61)

    with pytest.raises(RpcError, match="deadline") as refused:
        await opening
    assert refused.value.name == "opening_failed"
    await town.until(alice, channel, lambda c: c.registered is not None, "state 0 registered")
    await town.devnet.advance(13)
    await town.settles(channel, alice)
    assert await town.balance(alice) == 300 * ICP - 2 * FEE
