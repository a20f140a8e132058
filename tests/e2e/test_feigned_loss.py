"""A peer keeps its acknowledgement, feigns a loss, and shows our own update completed: no hostage is taken by that."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from perund.control import schema
from perund.control.methods import CHANNEL_CLOSE, CHANNEL_PAY
from perund.control.values import PaidE8s, Seconds
from perund.demo.processes import NodeProcess
from protocol.messages import Ack, ErrorMessage, Update
from protocol.types import SignedState
from tests.e2e.peer import Peer
from tests.e2e.taker import Taken, Taker
from tests.e2e.town import FEE, ICP, Town


@pytest_asyncio.fixture
async def taker(town: Town) -> AsyncIterator[Taker]:
    """A peer that accepts channels."""
    peer = Taker(town.devnet)
    yield peer
    await peer.close()


async def feign(town: Town, alice: NodeProcess, taker: Taker) -> tuple[Taken, SignedState]:
    """Alice pays 5 ICP; the peer keeps its acknowledgement and says that it lost data. Returns what it keeps."""
    line = await taker.take(alice, 6 * ICP)
    await town.until(alice, line.id.hex(), lambda c: c.phase == "open", "open")
    params = schema.PayParams(channel=line.id.hex(), amount_e8s=PaidE8s(5 * ICP), wait=False)
    await alice.control.call(CHANNEL_PAY, params)
    kept = line.completed(await taker.hear(Update))
    await line.again(recovering=True)
    line.ask_to_close()
    assert (await taker.hear(Update)).version == 1  # once more, before it was asked to close
    final = await taker.hear(Update)
    assert (final.version, final.finalized, final.allocation) == (2**32, True, (6 * ICP, 0))
    return line, kept


@pytest.mark.parametrize("way", ["a signed state", "an acknowledgement", "after a restart"])
async def test_what_we_gave_up_comes_back_and_the_money_comes_out_without_the_peer(
    town: Town, taker: Taker, way: str
) -> None:
    alice = await town.node("alice")
    line, kept = await feign(town, alice, taker)
    channel = line.id.hex()
    if way == "after a restart":
        await town.restart(alice)
        await line.again(kept, recovering=True)
    if way == "an acknowledgement":
        taker.say(Ack(line.id, kept.state.version, kept.signatures[1]))
    else:
        line.show(kept)
    await town.event(alice, "channel.acknowledged_late", channel)
    view = await town.view(alice, channel)
    assert view.version == 1
    assert view.frozen is None and view.recovering is None
    assert view.way_out is not None and "by itself" in view.way_out
    [payment] = await town.payments(alice, channel)
    assert payment.status == "signed", "the peer can complete the final state as well: the canister decides"
    assert not [m for m in taker.inbox if isinstance(m, ErrorMessage)]

    # The peer says nothing more: the node settles alone, and its share arrives.
    await taker.network.close()
    await alice.control.call(CHANNEL_CLOSE, schema.ChannelCloseParams(channel, force_after_s=Seconds(1), wait=False))
    await town.until(alice, channel, lambda c: c.registered is not None, "version 1 registered")
    assert await town.registered_version(channel) == 1
    await town.devnet.advance(13)
    view = await town.closed(alice, channel)
    assert view.payout_e8s == 1 * ICP - FEE
    [payment] = await town.payments(alice, channel)
    assert payment.status == "delivered"


async def test_what_we_gave_up_is_registered_by_the_peer(town: Town, taker: Taker) -> None:
    alice = await town.node("alice")
    line, kept = await feign(town, alice, taker)
    channel = line.id.hex()
    answer = (await town.perun.dispute(line.params, kept)).value
    assert answer is None, answer
    view = await town.until(alice, channel, lambda c: c.registered is not None, "it is seen")
    assert view.frozen is None
    await town.devnet.advance(13)
    view = await town.closed(alice, channel)
    assert view.payout_e8s == 1 * ICP - FEE
    [payment] = await town.payments(alice, channel)
    assert payment.status == "delivered"


async def test_a_violation_freezes_the_channel_and_the_money_comes_out_by_itself(
    town: Town, taker: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERUND_CLOSE_FORCE_AFTER_S", "1")
    alice, bob = await asyncio.gather(town.node("alice"), town.node("bob"))
    line = await taker.take(alice, 6 * ICP)
    await town.until(alice, line.id.hex(), lambda c: c.phase == "open", "open")
    taker.say(Ack(line.id, 7, bytes(64)))  # of nothing: participant 1 breaks the protocol
    proposer = Peer(town.devnet)
    await town.mint(proposer.account, 60 * ICP)
    await proposer.dial(bob)
    theirs = await proposer.open(10 * ICP)
    await town.until(bob, theirs.id.hex(), lambda c: c.phase == "open", "open")
    proposer.say(theirs.update())  # an update without a payment: participant 0 does
    for node, channel in ((alice, line.id.hex()), (bob, theirs.id.hex())):
        view = await town.until(node, channel, lambda c: c.frozen is not None, "frozen")
        assert view.way_out is not None
        await town.until(node, channel, lambda c: c.registered is not None, "registered, by nobody else")
    await proposer.close()
    await town.devnet.advance(31)
    view = await town.closed(alice, line.id.hex())
    assert view.payout_e8s == 6 * ICP - FEE
    await town.closed(bob, theirs.id.hex())
