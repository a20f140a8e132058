"""Machines that were paused as a whole: their clocks stood still, and the chain went on. They do not know it."""

from __future__ import annotations

import asyncio
import signal

import pytest

from perund.control import schema
from perund.control.methods import WALLET_SEND
from perund.control.values import PaidE8s
from perund.demo.processes import NodeProcess
from tests.e2e.town import FEE, ICP, Town

HOUR_S = 3600


async def pause(town: Town, hours: float, *nodes: NodeProcess) -> None:
    """Stop the processes, and have so much time pass for all others."""
    for node in nodes:
        node.signal(signal.SIGSTOP)
    await town.devnet.advance(hours * HOUR_S)
    for node in nodes:
        node.signal(signal.SIGCONT)


@pytest.mark.parametrize("hours", [0.2, 13])
async def test_the_next_proposal_is_judged_by_the_time_that_it_is(town: Town, hours: float) -> None:
    """It lies within twelve hours of the chain's time, not of the time that the acceptor remembers; and what the
    proposer asks the ledger before it is not refused for a time of before.
    """
    alice, bob = await town.pair()
    await pause(town, hours, alice, bob)
    channel = await town.propose(alice, bob, 50)
    await town.until(bob, channel, lambda c: c.phase == "open", "open")
    assert bob.log.read_text().count("opening.refused") == 0


async def test_a_send_a_payment_and_a_close_right_after_it(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50, challenge_s=60)
    await pause(town, 13, alice, bob)
    sent = await alice.control.call(WALLET_SEND, schema.SendParams(to=bob.info.account, amount_e8s=PaidE8s(5 * ICP)))
    assert sent.amount_e8s == 5 * ICP
    await town.pay(alice, channel, 7 * ICP)
    bob.signal(signal.SIGSTOP)
    await pause(town, 13, alice)
    closing = asyncio.create_task(town.close(alice, channel))
    waits = "the peer to sign the final state"
    await town.until(alice, channel, lambda c: c.phase == "closing" and c.waiting_for == waits, waits)
    bob.signal(signal.SIGCONT)
    view = await closing
    assert view.payout_e8s == 43 * ICP - FEE
    for node in (alice, bob):
        assert "channel.leaving" not in await town.events(node, channel), "the peer has ten minutes from now on"
        assert "HTTP 4" not in node.log.read_text()
