"""A restored node signs nothing on the word of the only one who gains: it asks its towers, then its operator."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from perund.control import schema
from perund.control.errors import RpcError
from perund.control.methods import CHANNEL_PAY, CHANNEL_RECOVER
from perund.control.values import PaidE8s
from perund.demo.processes import NodeProcess
from protocol.messages import Ack, ChannelReady, ErrorMessage, Resume, Update
from protocol.payments import EMPTY, Payment
from tests.e2e.peer import Line, Peer
from tests.e2e.shell import perun
from tests.e2e.taker import Taker
from tests.e2e.test_recovery import restored
from tests.e2e.town import FEE, ICP, LOOK_AGAIN_S, Town, within

FAR = 2**32


@pytest_asyncio.fixture
async def proposer(town: Town) -> AsyncIterator[Peer]:
    """A peer that is participant 0."""
    peer = Peer(town.devnet)
    await town.mint(peer.account, 100 * ICP)
    yield peer
    await peer.close()


@pytest_asyncio.fixture
async def taker(town: Town) -> AsyncIterator[Taker]:
    """A peer that is participant 1."""
    peer = Taker(town.devnet)
    yield peer
    await peer.close()


def far_final(line: Line) -> Update:
    """The final state that a node that closes after a loss would get, with the shares of state 0."""
    return line.signed(Update(line.id, FAR, (50 * ICP, 0), True, EMPTY, EMPTY, bytes(64)))


async def recovery(node: NodeProcess, channel: str, accept_version: int | None = None) -> schema.Recovery:
    """What `perun recover` shows."""
    return await node.control.call(CHANNEL_RECOVER, schema.ChannelRecoverParams(channel, accept_version))


async def test_participant_1_signs_no_far_final_state_that_hides_what_it_was_paid(
    town: Town, proposer: Peer, tmp_path: Path
) -> None:
    bob = await town.node("bob")
    await proposer.dial(bob)
    line = await proposer.open(50 * ICP)
    state_0 = line.newest
    channel = line.id.hex()
    await line.pay(line.payment(30 * ICP))
    await bob.stop()
    paid, line.newest = line.newest, state_0  # from here on the peer hides it

    again = await restored(bob, tmp_path)
    await proposer.dial(again)
    resumed = await proposer.hear(Resume)
    assert (resumed.version, resumed.recovering) == (0, True)
    proposer.say(line.resume_message(), ChannelReady(line.id), far_final(line))
    await proposer.hear(ChannelReady)
    proposer.say(far_final(line))

    async def proposed() -> schema.Recovery:
        while (found := await recovery(again, channel)).proposal is None:  # noqa: ASYNC110  (asked over a socket)
            await asyncio.sleep(LOOK_AGAIN_S)
        return found

    found = await within(proposed(), "the proposal is shown")
    assert (found.proven, found.peer_version, found.at_risk_e8s) == (False, 0, 50 * ICP)
    assert found.proposal is not None and found.proposal.as_ours
    assert (found.proposal.version, found.proposal.mine_e8s) == (FAR, 0)
    view = await town.view(again, channel)
    assert view.way_out is not None and "perun recover" in view.way_out and "--accept-risk" in view.way_out
    with pytest.raises(RpcError) as refused:
        await again.control.call("channel.close", {"channel": channel})
    assert refused.value.name == "channel_recovering"
    assert not [m for m in proposer.inbox if isinstance(m, Ack)]
    last = town.row(again, channel).memory.last_signature
    assert last is not None and last.version == 0

    # The dispute that is offered instead leaves a challenge period: whoever has the newer state can still bring it.
    await again.control.call("channel.dispute", {"channel": channel, "accept_risk": True})
    await town.until(again, channel, lambda c: c.registered is not None, "state 0 registered")
    assert (await town.perun.dispute(line.params, paid)).value is None
    await town.until(again, channel, lambda c: c.registered is not None and c.registered.version == 1, "refuted")
    await town.devnet.advance(31)
    view = await town.closed(again, channel)
    assert view.payout_e8s == 30 * ICP - FEE
    await again.stop()


async def test_participant_1_signs_it_when_its_operator_says_so(town: Town, proposer: Peer, tmp_path: Path) -> None:
    bob = await town.node("bob")
    await proposer.dial(bob)
    line = await proposer.open(50 * ICP)
    channel = line.id.hex()
    await bob.stop()

    again = await restored(bob, tmp_path)
    await proposer.dial(again)
    await proposer.hear(Resume)
    proposer.say(line.resume_message(), ChannelReady(line.id), far_final(line))
    await town.until(again, channel, lambda c: c.phase == "open", "open again")
    ran = await perun("--dir", str(again.dir), "recover", channel, "--accept", "--yes")
    assert ran.code == 0, ran.err
    ack = await proposer.hear(Ack)
    assert ack.version == FAR
    await again.stop()


async def test_participant_0_proposes_no_far_final_state_that_hides_what_it_was_paid(
    town: Town, taker: Taker, tmp_path: Path
) -> None:
    alice = await town.node("alice")
    line = await taker.take(alice, 50 * ICP)
    channel, state_0 = line.id.hex(), line.newest
    await town.until(alice, channel, lambda c: c.phase == "open", "open")
    params = schema.PayParams(channel=channel, amount_e8s=PaidE8s(30 * ICP), wait=False)
    await alice.control.call(CHANNEL_PAY, params)
    line.acknowledge(line.completed(await taker.hear(Update)))
    await line.pay(Payment(b"\1" * 16, 20 * ICP))  # what it hides: state 0 would suit it if it had been paid less
    await alice.stop()

    again = await restored(alice, tmp_path)
    heard = await line.again(state_0)
    assert (heard.version, heard.recovering) == (0, True)
    taker.say(ChannelReady(line.id))
    await town.until(again, channel, lambda c: c.phase == "open", "open again")
    line.ask_to_close()
    await town.until(again, channel, lambda c: c.phase == "closing", "asked to close")
    assert not [m for m in taker.inbox if isinstance(m, Update | ErrorMessage)]
    found = await recovery(again, channel)
    assert (found.version, found.proven) == (0, False)
    with pytest.raises(RpcError) as refused:
        await recovery(again, channel, accept_version=1)
    assert refused.value.name == "version_changed"

    await recovery(again, channel, accept_version=0)
    final = await taker.hear(Update)
    assert (final.version, final.finalized, final.allocation) == (FAR, True, (50 * ICP, 0))
    assert (await recovery(again, channel)).proven
    await again.stop()
