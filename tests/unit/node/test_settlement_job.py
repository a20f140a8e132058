"""Getting the money out of the real canister: together, alone, from below, through lost replies and crashes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import pytest

from devnet.ledger.ledger import TransferRequest
from devnet.network import PERUN_CANISTER_ID
from perund.node.views import channel_view
from protocol.channel import DATA_LOSS
from protocol.effects import Phase
from protocol.payments import Batch
from protocol.types import Nanos, ParticipantIndex
from tests.unit.devnet.scene import Trouble
from tests.unit.node.desk import Desk, crash_in
from tests.unit.node.net import CANISTER_ACCOUNT, FEE, ICP, Fault, Net


@pytest.fixture
async def bob(net: Net, tmp_path: Path) -> AsyncIterator[Desk]:
    (tmp_path / "bob").mkdir()
    opened = Desk(net, tmp_path / "bob", 1)
    yield opened
    await opened.close()


async def opened(desk: Desk, shares: tuple[int, int] = (3 * ICP, 2 * ICP)) -> None:
    """A channel whose deposits are in the canister, all from somebody else's wallet."""
    terms = await desk.channel(shares)
    for index, share in enumerate(shares):
        if share:
            await desk.net.pay_in(terms.funding(0 if index == 0 else 1), share)
    step = desk.driver.channel.fund_complete(desk.time.now())
    desk.driver.channel.peer_is_ready = True
    desk.driver.perform(step + desk.driver.channel._open_if_ready(desk.time.now()))
    await desk.driver.settle_writes()
    assert desk.phase is Phase.OPEN


def balance(desk: Desk) -> int:
    return desk.net.ledger.balance(desk.account)


def costs(desk: Desk) -> dict[str, int]:
    return {c.what: c.amount_e8s for c in desk.store.read.costs(1)}


def withdrawals(desk: Desk) -> list[str]:
    return [w.status for w in desk.store.read.withdrawals(1)]


async def test_a_final_state_is_concluded_and_withdrawn(desk: Desk) -> None:
    await opened(desk)
    await desk.agree(5, (4 * ICP, ICP), finalized=True)
    desk.driver.perform(desk.driver.channel.close(desk.time.now(), "asked for"))
    await desk.settle()
    assert balance(desk) == 4 * ICP - FEE
    assert costs(desk) == {"withdrawal fee": FEE}
    row = desk.store.read.channel(1)
    assert row is not None
    assert (row.settled_version, row.memory.phase) == (5, Phase.CLOSED)
    assert "dispute" not in desk.net.calls


async def test_both_sides_conclude_at_once(desk: Desk, bob: Desk) -> None:
    await opened(desk)
    await opened(bob)  # the same channel: its deposits are in twice, and the surplus is its depositor's
    for side in (desk, bob):
        await side.agree(5, (4 * ICP, ICP), finalized=True)
        side.driver.perform(side.driver.channel.close(side.time.now(), "asked for"))
    await asyncio.gather(desk.settle(), bob.settle())
    paid_in = 2 * 5 * ICP
    assert balance(desk) + balance(bob) == paid_in - 2 * FEE
    assert desk.net.contract.owed_e8s == 0
    assert withdrawals(desk) == withdrawals(bob) == ["paid"]


async def test_alone_with_the_newest_state(desk: Desk) -> None:
    await opened(desk)
    await desk.agree(7, (ICP, 4 * ICP))
    await desk.leave()
    await desk.settle()
    assert balance(desk) == ICP - FEE
    assert [c for c in desk.net.calls if c in ("dispute", "conclude", "withdraw")] == ["dispute", "withdraw"]


async def test_a_peer_that_does_not_close_together_in_time_is_left(desk: Desk) -> None:
    await opened(desk)
    desk.driver.perform(desk.driver.channel.close(desk.time.now(), "asked for"))
    assert await desk.step(desk.settlement) == "the peer to sign the final state"
    assert "dispute" not in desk.net.calls
    desk.net.advance(601)
    await desk.settle()
    assert balance(desk) == 3 * ICP - FEE
    row = desk.store.read.channel(1)
    assert row is not None
    assert row.reason == "the peer did not close together in time"


async def test_the_peer_registers_a_stale_state(desk: Desk) -> None:
    await opened(desk)
    stale = desk.state(3, (0, 5 * ICP))
    await desk.agree(7, (4 * ICP, ICP))
    assert (await desk.perun.dispute(desk.terms.params, stale)).value is None
    await desk.watcher.look(desk.terms.channel)
    assert desk.phase is Phase.LEAVING
    await desk.settle()
    assert balance(desk) == 4 * ICP - FEE


async def test_a_stale_state_that_settled_is_a_loss_that_is_alarmed_and_withdrawn(desk: Desk) -> None:
    await opened(desk)
    stale = desk.state(3, (ICP, 4 * ICP))
    await desk.agree(7, (4 * ICP, ICP))
    assert (await desk.perun.dispute(desk.terms.params, stale)).value is None
    desk.net.advance(61)
    await desk.watcher.look(desk.terms.channel)
    await desk.settle()
    assert balance(desk) == ICP - FEE
    alarms = [e.kind for e in desk.store.read.events(0, 99) if e.data.get("alarm")]
    assert alarms == ["channel.settled_below_ours"]


async def test_our_own_proposal_that_settled_unacknowledged_is_what_the_channel_shows(desk: Desk) -> None:
    await opened(desk)
    await desk.watcher.look(desk.terms.channel)
    desk.driver.channel.connected = True  # and nothing comes back
    desk.driver.perform(desk.driver.channel.pay(Batch(b"\x01" * 16, (ICP,)), desk.time.now()))
    assert desk.driver.channel.pending is not None
    await desk.driver.settle_writes()
    assert (await desk.perun.dispute(desk.terms.params, desk.state(1, (2 * ICP, 3 * ICP)))).value is None
    await desk.watcher.look(desk.terms.channel)
    await desk.settle()
    row = desk.store.read.channel(1)
    assert row is not None
    assert row.memory.newest.state.version == 0
    for driver in (desk.driver, None):
        view = channel_view(row, desk.store.read, driver, (), desk.time.chain_ns(), 0)
        assert (view.version, view.mine_e8s, view.theirs_e8s) == (1, 2 * ICP, 3 * ICP)
        assert view.payout_e8s == view.mine_e8s - FEE


async def test_a_canister_that_holds_nothing_is_not_asked_to_register(desk: Desk) -> None:
    await desk.channel((3 * ICP, 2 * ICP))
    await desk.leave()
    await desk.settle()
    assert [c for c in desk.net.calls if c in ("dispute", "withdraw")] == []
    assert costs(desk) == {}


async def test_who_put_nothing_into_an_under_funded_channel_is_owed_nothing(bob: Desk) -> None:
    """Only the proposer paid. State 0 promises us a share, but gives back what each side put in."""
    terms = await bob.channel((3 * ICP, 2 * ICP))
    await bob.net.pay_in(terms.funding(0), 3 * ICP)
    await bob.leave()
    await bob.settle()
    assert balance(bob) == 0
    assert "withdraw" not in bob.net.calls
    assert bob.net.calls.count("query_blocks") == 0  # and the ledger is not searched for a payout


async def test_dust_is_booked(desk: Desk) -> None:
    await opened(desk)
    await desk.agree(7, (FEE, 5 * ICP - FEE))
    await desk.leave()
    await desk.settle()
    assert "withdraw" not in desk.net.calls
    assert costs(desk) == {"dust": FEE}


async def test_one_e8_more_than_dust_is_withdrawn(desk: Desk) -> None:
    await opened(desk)
    await desk.agree(7, (FEE + 1, 5 * ICP - FEE - 1))
    await desk.leave()
    await desk.settle()
    assert balance(desk) == 1
    assert costs(desk) == {"withdrawal fee": FEE}


# --- withdrawals ------------------------------------------------------------------------------------------


async def leaving(desk: Desk) -> None:
    """A channel that has settled on version 7, of which 4 ICP are ours."""
    await opened(desk)
    await desk.agree(7, (4 * ICP, ICP))
    await desk.leave()
    await desk.settle(lambda: desk.waiting_for.startswith("the challenge period"))
    desk.net.advance(61)
    await desk.agent.synchronise(desk.ledger.canister_id)


async def settled(desk: Desk) -> None:
    await desk.settle()


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.REPLY_LOST, Fault.HTTP_500])
async def test_a_withdrawal_that_is_lost_on_the_way(desk: Desk, fault: Fault) -> None:
    await leaving(desk)
    desk.net.disturb("withdraw", fault, 2)
    await desk.settle()
    assert balance(desk) == 4 * ICP - FEE
    assert withdrawals(desk) == ["paid"]


METHODS = ["query_state", "query_holdings", "transfer_fee", "query_blocks", "withdraw"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fault", [Fault.HELD, Fault.REPLY_HELD])
async def test_killed_while_any_request_is_on_its_way(desk: Desk, method: str, fault: Fault) -> None:
    await leaving(desk)
    met = desk.net.disturb(method, fault)
    await crash_in(asyncio.ensure_future(settled(desk)), met)
    await desk.restart()
    await desk.settle()
    assert balance(desk) == 4 * ICP - FEE
    assert costs(desk) == {"withdrawal fee": FEE}
    row = desk.store.read.withdrawals(1)[-1]
    assert (row.status, row.received_e8s) == ("paid", 4 * ICP - FEE)


@pytest.mark.parametrize("fault", [Fault.HELD, Fault.REPLY_HELD])
async def test_a_reply_that_is_asked_for_when_the_network_has_forgotten_it(desk: Desk, fault: Fault) -> None:
    """Then empty holdings prove nothing: the ledger's block does."""
    await leaving(desk)
    met = desk.net.disturb("withdraw", fault)
    await crash_in(asyncio.ensure_future(settled(desk)), met)
    desk.net.fill(70)
    desk.net.advance(25 * 3600)
    await desk.restart()
    await desk.settle()
    assert balance(desk) == 4 * ICP - FEE
    expected = ["paid"] if fault is Fault.REPLY_HELD else ["void", "paid"]
    assert withdrawals(desk) == expected


async def test_a_payout_of_another_channel_is_not_taken_for_this_ones(desk: Desk) -> None:
    """The memo tells them apart: payer, receiver and amount are the same."""
    await leaving(desk)
    met = desk.net.disturb("withdraw", Fault.REPLY_HELD)
    desk.net.ledger.mint(CANISTER_ACCOUNT, 5 * ICP, desk.net.clock.now_ns())
    now_ns = desk.net.clock.now_ns()
    other = TransferRequest(to=desk.account, amount=4 * ICP - FEE, fee=FEE, memo=77, created_at_time=now_ns)
    block = desk.net.ledger.transfer(PERUN_CANISTER_ID, other, now_ns)
    assert isinstance(block, int)
    await crash_in(asyncio.ensure_future(settled(desk)), met)
    await desk.close()
    database = apsw.Connection(str(desk.path))
    database.execute("DELETE FROM withdrawal")  # its record is lost: the ledger is searched from the settlement on
    database.close()
    desk.open()
    await desk.settle()
    (found,) = desk.store.read.withdrawals(1)
    assert found.status == "paid"
    assert (found.block, found.received_e8s) == (block + 1, 4 * ICP - FEE)


async def test_a_channel_is_not_finished_while_a_deposit_of_ours_is_in_flight(desk: Desk) -> None:
    """It is paid and not credited yet: what is credited after the settlement is withdrawn as well."""
    desk.net.mint(desk.account, 10 * ICP)
    terms = await desk.channel((3 * ICP, 2 * ICP))
    met = desk.net.disturb("transaction_notification", Fault.HELD)
    await crash_in(asyncio.ensure_future(desk.fund(lambda: False)), met)
    desk.net.calm()
    await desk.restart()
    await desk.net.pay_in(terms.funding(1), 2 * ICP)
    await desk.leave()
    await desk.settle(lambda: desk.waiting_for == "a deposit of ours in flight, to withdraw it as well")
    await desk.fund(lambda: not desk.funding.in_flight)
    await desk.settle()
    assert balance(desk) == 10 * ICP - 2 * FEE


async def test_restarted_after_every_single_step(desk: Desk) -> None:
    await opened(desk)
    await desk.agree(7, (4 * ICP, ICP))
    await desk.leave()
    for _ in range(40):
        waiting_for = await desk.step(desk.settlement)
        if desk.phase is Phase.CLOSED:
            break
        if waiting_for.startswith("the challenge period"):
            desk.net.advance(61)
        await desk.restart()
    assert desk.phase is Phase.CLOSED
    assert balance(desk) == 4 * ICP - FEE
    assert withdrawals(desk) == ["paid"]
    row = desk.store.read.channel(1)
    assert row is not None
    assert row.settled_version == 7


async def test_a_withdrawal_that_the_canister_refuses_is_asked_for_again(desk: Desk) -> None:
    await leaving(desk)
    desk.net.line.troubles.append(Trouble.REFUSED)  # the ledger says that the canister's account is empty
    await desk.settle()
    assert balance(desk) == 4 * ICP - FEE
    assert withdrawals(desk) == ["undecided", "paid"]


@pytest.mark.parametrize("trouble", [Trouble.LOST_BEFORE, Trouble.LOST_AFTER])
async def test_a_payout_that_the_canister_does_not_know_the_fate_of(desk: Desk, trouble: Trouble) -> None:
    """Its money is in no holdings meanwhile. The canister goes on with it only when it is asked again."""
    await leaving(desk)
    desk.net.line.troubles += [trouble, Trouble.LOST_BEFORE]
    await desk.settle()
    assert balance(desk) == 4 * ICP - FEE
    assert desk.store.read.withdrawals(1)[-1].received_e8s in (4 * ICP - FEE, None)
    assert withdrawals(desk).count("paid") == 1
    assert costs(desk) == {"withdrawal fee": FEE}


async def test_what_is_credited_after_the_settlement_comes_back_too(desk: Desk) -> None:
    """Somebody pays for our funding when the channel has settled, before we have withdrawn."""
    await leaving(desk)
    await desk.net.pay_in(desk.terms.funding(0), 2 * ICP)
    await desk.settle()
    assert balance(desk) == 6 * ICP - FEE


async def test_a_channel_with_lost_data_refutes_and_opens_no_dispute(desk: Desk) -> None:
    """Rule 7: our newest state may be an old one, and registering it would be a lie."""
    await opened(desk)
    await desk.agree(7, (4 * ICP, ICP))
    channel = desk.driver.channel
    desk.driver.perform(channel.freeze("data_loss", "the peer holds version 9", desk.time.now()))
    await desk.leave("the peer did not close together in time")
    for _ in range(3):
        assert "opens no dispute" in await desk.step(desk.settlement)
    assert "dispute" not in desk.net.calls
    assert (await desk.perun.dispute(desk.terms.params, desk.state(2, (0, 5 * ICP)))).value is None
    await desk.settle()
    assert balance(desk) == 4 * ICP - FEE


async def test_waiting_is_bounded_by_what_is_waited_for(desk: Desk) -> None:
    """A nap may not be longer than a sixth of the challenge period, whatever is left of it."""
    await opened(desk)
    await desk.leave()
    await desk.step(desk.settlement)
    progress = await desk.settlement.step()
    assert progress.waiting_for == "the challenge period to end"
    assert 0 < progress.at_most_s <= 10
    assert desk.settlement._until(Nanos(5), "x").at_most_s < 0.1


@pytest.mark.parametrize("ours", [0, 1], ids=["the proposer", "the acceptor"])
async def test_a_life_that_another_one_has_followed_takes_nothing_out(
    net: Net, tmp_path: Path, ours: ParticipantIndex
) -> None:
    """Both would withdraw, and lend for it: the newer one does. It still sees how the channel ends."""
    desk = Desk(net, tmp_path, ours)
    await opened(desk)
    await desk.agree(5, (2 * ICP, 3 * ICP), finalized=True)
    desk.driver.channel.outlived = True
    desk.driver.perform(desk.driver.channel.freeze(DATA_LOSS, "another life", desk.time.now()))
    await desk.leave()
    waiting = "the newer life of this node, which takes the money out"
    await desk.settle(lambda: desk.waiting_for == waiting)
    for _ in range(3):
        assert await desk.step(desk.settlement) == waiting
    assert "withdraw" not in net.calls
    await desk.restart()  # its operator says that this is the one to keep
    await desk.settle()
    assert balance(desk) == (2 * ICP, 3 * ICP)[ours] - FEE
    await desk.close()


@pytest.mark.parametrize("moment", ["balance", "chain_length", "sign_transfer"])
@pytest.mark.parametrize("ours", [0, 1], ids=["the proposer", "the acceptor"])
async def test_a_newer_life_stops_a_lending_that_is_decided_on(
    net: Net, tmp_path: Path, ours: ParticipantIndex, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published canister lacks the fee of the payout, and the newer life lends it as well."""

    async def lacks_it() -> bool:
        return False

    desk = Desk(net, tmp_path, ours)
    await opened(desk)
    net.mint(desk.account, ICP)
    await desk.agree(5, (5 * ICP, 0) if ours == 0 else (0, 5 * ICP), finalized=True)
    desk.perun.supports_disputes_since = lacks_it  # type: ignore[method-assign]
    asked: Callable[..., object] = getattr(desk.ledger, moment)
    shown = False

    def stopped_meanwhile(*args: object) -> object:
        nonlocal shown
        shown = True
        monkeypatch.undo()
        desk.driver.perform(desk.driver.channel.outlive("another life", desk.time.now()))
        return asked(*args)

    monkeypatch.setattr(desk.ledger, moment, stopped_meanwhile)
    await desk.leave()
    waiting = "the newer life of this node, which takes the money out"
    await desk.settle(lambda: desk.waiting_for == waiting)
    assert shown
    assert balance(desk) == ICP, "the fee of the payout stays here"
    assert "withdraw" not in net.calls
    await desk.close()
