"""A peer registers old states; the watcher puts the newest in their place, without anybody at the keyboard."""

import asyncio
import itertools
import signal

import pytest

from chain.perun import CanisterError
from perund.control.errors import NodeUnreachable, RpcError
from perund.demo.processes import NodeProcess
from tests.e2e.town import FEE, ICP, Town


async def test_every_old_version_in_order(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    old = [town.newest(alice, channel)]
    for _ in range(4):
        await town.pay(alice, channel, ICP)
        old.append(town.newest(alice, channel))
    newest = old.pop()
    params = town.row(alice, channel).terms.params
    await alice.kill()  # the cheat takes its node from the net: only bob's may save bob

    for signed in old:
        answer = (await town.perun.dispute(params, signed)).value
        assert answer in (None, CanisterError.OUTDATED_STATE)  # outdated: bob was there first
    event = await town.event(bob, "channel.refuted", channel)

    assert event.data["version"] == newest.state.version == 4
    assert await town.registered_version(channel) == 4
    for signed in old:
        assert (await town.perun.dispute(params, signed)).value is CanisterError.OUTDATED_STATE
    await town.devnet.advance(13)
    assert (await town.closed(bob, channel)).payout_e8s == 4 * ICP - 10_000
    await alice.start()
    await town.settles(channel, alice, bob)


async def test_every_old_version_in_every_order(town: Town) -> None:
    """Three old versions, six orders, a channel for each: the newest is what is registered in the end."""
    alice, bob = await town.pair()
    cheats = []
    for order in itertools.permutations(range(3)):
        channel = await town.open(alice, bob, 10)
        states = [town.newest(alice, channel)]
        for _ in range(3):
            await town.pay(alice, channel, ICP)
            states.append(town.newest(alice, channel))
        assert [signed.state.version for signed in states] == [0, 1, 2, 3]
        cheats.append((channel, town.row(alice, channel).terms.params, [states[version] for version in order]))
    await alice.kill()  # only bob's watcher may save bob

    for _, params, order_of_states in cheats:
        for signed in order_of_states:
            answer = (await town.perun.dispute(params, signed)).value
            assert answer in (None, CanisterError.OUTDATED_STATE)
    for channel, _, _ in cheats:
        await town.event(bob, "channel.refuted", channel)
        assert await town.registered_version(channel) == 3
    await town.devnet.advance(13)
    for channel, _, _ in cheats:
        assert (await town.closed(bob, channel)).payout_e8s == 3 * ICP - FEE


async def test_a_node_that_was_down_is_back_in_time(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50, challenge_s=24)
    old = town.newest(alice, channel)
    await town.pay(alice, channel, 20 * ICP)
    params = town.row(alice, channel).terms.params
    await bob.kill()
    await alice.kill()  # an honest node would refute its own operator's old state
    assert (await town.perun.dispute(params, old)).value is None
    await town.devnet.advance(10)
    assert await town.registered_version(channel) == 0

    await bob.start()
    await town.until(bob, channel, lambda c: c.registered is not None and c.registered.ours, "ours registered")

    assert await town.registered_version(channel) == 1
    await town.devnet.advance(25)
    await alice.start()
    await town.settles(channel, alice, bob)
    assert await town.balance(bob) == 320 * ICP - 10_000


async def test_both_nodes_down_and_the_refutation_after_the_timeout_is_a_loss_that_is_told(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    old = town.newest(alice, channel)
    await town.pay(alice, channel, 20 * ICP)
    params = town.row(alice, channel).terms.params
    await bob.kill()
    await alice.kill()
    assert (await town.perun.dispute(params, old)).value is None
    await town.devnet.advance(13)

    await bob.start()

    assert (await town.event(bob, "channel.settled_below_ours", channel)).data["alarm"] is True
    view = await town.closed(bob, channel)
    assert view.payout_e8s is None
    assert await town.balance(bob) == 300 * ICP
    await alice.start()
    await town.settles(channel, alice, bob)
    for node in (alice, bob):  # alice has her 20 ICP back: neither list says that they were paid
        (payment,) = await town.payments(node, channel)
        assert (payment.status, payment.code) == ("failed", "settled_without_it")
    assert int(view.mine_e8s) == 0


async def test_payments_stop_both_ways_when_a_state_is_registered(town: Town) -> None:
    alice, bob = await town.pair(contributes=50)
    channel = await town.open(alice, bob, 50, 50)
    delivered = {alice.name: 0, bob.name: 0}

    async def pay_until_refused(node: NodeProcess) -> RpcError:
        while True:
            try:
                await town.pay(node, channel, 1_000)
            except RpcError as error:
                return error
            delivered[node.name] += 1_000

    paying = asyncio.gather(pay_until_refused(alice), pay_until_refused(bob))
    await town.until(bob, channel, lambda c: c.version >= 5, "payments going on")
    await town.register(alice, channel, town.newest(alice, channel))  # the newest at this moment, soon an old one

    views = [await town.until(n, channel, lambda c: c.phase == "leaving", "leaving") for n in (alice, bob)]
    newest = max(view.version for view in views)
    for node in (alice, bob):
        with pytest.raises(RpcError) as refused:
            await town.pay(node, channel, 1)
        assert refused.value.name == "channel_not_open"
    await town.until(alice, channel, lambda c: c.registered is not None and c.registered.version == newest, "newest")
    await town.devnet.advance(13)
    errors = await paying  # a payment that was under way is decided when the channel is settled
    assert {error.name for error in errors} <= {"channel_not_open", "payment_failed"}
    await town.settles(channel, alice, bob)
    # What was acknowledged to its payer is in the settled state, and nothing else is.
    shares = town.newest(alice, channel).state.allocation
    sent = {n.name: sum(int(p.amount_e8s) for p in await town.payments(n, channel) if p.direction == "sent"
            and p.status == "delivered") for n in (alice, bob)}  # fmt: skip
    assert shares[0] == 50 * ICP - sent["alice"] + sent["bob"]
    assert sent == delivered


async def test_an_acknowledgement_that_was_withheld_and_then_registered(town: Town) -> None:
    """Bob holds version 2, alice never sees his signature, and he settles with it: her payment is delivered."""
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await town.pay(alice, channel, 1 * ICP)
    bob.signal(signal.SIGSTOP)
    paying = asyncio.create_task(town.pay(alice, channel, 7 * ICP))
    await town.until(alice, channel, lambda _: town.row(alice, channel).memory.pending is not None, "an update")
    alice.signal(signal.SIGSTOP)  # it reads nothing any more: the acknowledgement stays in the socket
    bob.signal(signal.SIGCONT)
    await town.until(bob, channel, lambda _: town.newest(bob, channel).state.version == 2, "version 2 on bob's disk")
    withheld = town.newest(bob, channel)
    await bob.kill()
    await alice.kill()
    with pytest.raises(NodeUnreachable):
        await paying

    await alice.start()
    assert town.newest(alice, channel).state.version == 1
    await town.register(alice, channel, withheld)
    await town.until(alice, channel, lambda c: c.registered is not None, "registered")
    await town.devnet.advance(13)
    view = await town.closed(alice, channel)
    assert view.payout_e8s == 42 * ICP - FEE
    assert [p.status for p in await town.payments(alice, channel)] == ["delivered", "delivered"]
    await bob.start()
    await town.settles(channel, alice, bob)
