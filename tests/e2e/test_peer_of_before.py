"""A peer of before the newer messages: it says feature bits 0 and 1 at most, and takes only what it knows."""

from __future__ import annotations

import asyncio

import pytest
from coincurve import PrivateKey

from perund.control import schema
from perund.control.methods import CHANNEL_PAY
from perund.control.values import PaidE8s
from protocol.messages import (
    FEATURE_RECALL,
    FEATURE_TOWER,
    Addresses,
    Confirm,
    Hello,
    LifeMessage,
    Offer,
    PeerMessage,
    StandingMessage,
)
from tests.e2e.peer import Line, Peer
from tests.e2e.town import FEE, ICP, Town, within
from wire.network import PeerNetwork
from wire.session import Session


class PeerOfBefore(Peer):
    """It remembers everything that it was told, and what of that it would not know."""

    def __init__(self, town: Town, features: int) -> None:
        super().__init__(town.devnet)
        hello = Hello(1, self.network_hash, features, "perund/0.1.0", 1)
        self.network = PeerNetwork(PrivateKey(), hello, self)
        self.strange: list[PeerMessage] = []

    def received(self, session: Session, message: PeerMessage) -> None:
        if isinstance(message, LifeMessage | StandingMessage | Addresses):
            self.strange.append(message)
        super().received(session, message)


async def paid_by_node(town: Town, peer: Peer, line: Line, e8s: int) -> schema.PayResult:
    """The node pays as participant 1: the peer takes the offer into an update."""
    params = schema.PayParams(channel=line.id.hex(), amount_e8s=PaidE8s(e8s))
    paying = asyncio.create_task(town.nodes["bob"].control.call(CHANNEL_PAY, params))
    offer = await peer.hear(Offer)
    update = line.update(from_1=offer.payments)
    await line.exchange(update)
    peer.say(Confirm(line.id, update.version))
    return await within(paying, "paid")


@pytest.mark.parametrize("features", [0, FEATURE_TOWER | FEATURE_RECALL])
async def test_it_opens_pays_both_ways_reconnects_and_closes(town: Town, features: int) -> None:
    bob = await town.node("bob")
    peer = PeerOfBefore(town, features)
    try:
        await town.mint(peer.account, 60 * ICP)
        await peer.dial(bob)
        line = await peer.open(50 * ICP)
        await line.pay(line.payment(5 * ICP))
        assert (await paid_by_node(town, peer, line, ICP)).status == "delivered"

        await town.restart(bob)
        await peer.dial(bob)
        await line.resume()
        await line.pay(line.payment(2 * ICP))
        assert (await paid_by_node(town, peer, line, ICP)).status == "delivered"

        peer.say(line.update(finalized=True))
        view = await town.closed(bob, line.id.hex())
        assert view.payout_e8s is not None
        assert int(view.payout_e8s) == 5 * ICP - FEE
        assert peer.strange == [], "it was told what it had not said that it takes"
    finally:
        await peer.close()
