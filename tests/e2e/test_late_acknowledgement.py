"""Rule 4 for participant 0: an acknowledgement that comes when the canister settles without it is no money."""

from tests.e2e.guest import invited
from tests.e2e.peer import Peer
from tests.e2e.town import FEE, ICP, Town


async def test_one_that_is_withheld_until_the_canister_settled_pays_nobody(town: Town) -> None:
    """The peer pays alice 5 ICP, keeps its signature, registers state 0, and sends the signature after the timeout."""
    alice, peer = await town.node("alice"), Peer(town.devnet)
    try:
        await town.mint(peer.account, 100 * ICP)
        await peer.dial(alice)
        line = await invited(peer, alice)
        channel = line.id.hex()
        await town.until(alice, channel, lambda c: c.phase == "open", "open")
        await line.pay(1 * ICP)
        await town.until(alice, channel, lambda c: c.version == 1, "version 1")
        before = line.newest
        update = await line.offered(5 * ICP)

        assert (await town.perun.dispute(line.params, before)).value is None
        await town.until(alice, channel, lambda c: c.registered is not None, "the registration")
        await town.devnet.advance(13)
        peer.say(line.ack(update))

        view = await town.closed(alice, channel)
        assert view.payout_e8s == 11 * ICP - FEE
        assert (int(view.mine_e8s), view.version) == (11 * ICP, 1)
        payments = {int(p.amount_e8s): p for p in await town.payments(alice, channel)}
        assert payments[1 * ICP].status == "delivered"
        assert (payments[5 * ICP].status, payments[5 * ICP].code) == ("failed", "settled_without_it")
        events = [e for e in town.reader(alice).events(0, 10_000) if e.kind == "channel.updated"]
        assert [e.data["version"] for e in events] == [1], "nobody hears of money before it counts"
        await town.settles(channel, alice)
    finally:
        await peer.close()


async def test_one_that_comes_before_the_end_refutes_and_pays(town: Town) -> None:
    """Held back until the registration is seen, then sent: alice registers that state, and gets what is in it."""
    alice, peer = await town.node("alice"), Peer(town.devnet)
    try:
        await town.mint(peer.account, 100 * ICP)
        await peer.dial(alice)
        line = await invited(peer, alice)
        channel = line.id.hex()
        await town.until(alice, channel, lambda c: c.phase == "open", "open")
        update = await line.offered(5 * ICP)
        assert (await town.perun.dispute(line.params, line.newest)).value is None
        await town.until(alice, channel, lambda c: c.registered is not None, "the registration")

        peer.say(line.ack(update))

        await town.until(alice, channel, lambda c: c.registered is not None and c.registered.version == 1, "refuted")
        (payment,) = await town.payments(alice, channel)
        assert payment.status == "signed", "the canister has not settled yet"
        await town.devnet.advance(13)
        assert (await town.closed(alice, channel)).payout_e8s == 15 * ICP - FEE
        (payment,) = await town.payments(alice, channel)
        assert payment.status == "delivered"
        await town.settles(channel, alice)
    finally:
        await peer.close()
