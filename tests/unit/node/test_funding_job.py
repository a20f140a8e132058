"""Paying one's deposit, on the real canister and ledger: once, in turn, in time, also after crashes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from devnet.network import PERUN_CANISTER_ID as CANISTER
from devnet.perun.interface import Funding as ContractFunding
from perund.node.transfers import WalletTooLow
from protocol.channel import DATA_LOSS
from protocol.effects import Phase
from protocol.funding import IntentStatus
from protocol.types import Funding, ParticipantIndex
from tests.unit.node.desk import Desk, crash_in
from tests.unit.node.net import CANISTER_ACCOUNT, FEE, ICP, Fault, Net


@pytest.fixture
async def bob(net: Net, tmp_path: Path) -> AsyncIterator[Desk]:
    """The acceptor."""
    (tmp_path / "bob").mkdir()
    opened = Desk(net, tmp_path / "bob", 1)
    yield opened
    await opened.close()


def deposits(desk: Desk) -> int:
    """How many blocks of the ledger pay for this side."""
    return len(desk.net.transfers(CANISTER_ACCOUNT, desk.terms.funding(desk.ours).memo))


def statuses(desk: Desk) -> list[str]:
    return [i.status.value for i in desk.store.read.deposits(1)]


async def funded(desk: Desk) -> None:
    """Both deposits are in, and this side has seen it."""
    await desk.fund(lambda: desk.driver.channel.we_are_ready)


async def test_the_proposer_pays_first_and_is_ready_when_both_are_in(desk: Desk) -> None:
    desk.net.mint(desk.account, 10 * ICP)
    terms = await desk.channel((3 * ICP, 2 * ICP))
    await desk.fund(lambda: desk.waiting_for == "the peer's deposit")
    assert desk.mine() == 3 * ICP
    assert statuses(desk) == ["credited"]
    assert not desk.driver.channel.we_are_ready
    await desk.net.pay_in(terms.funding(1), 2 * ICP)
    await funded(desk)
    assert deposits(desk) == 1
    assert [c.amount_e8s for c in desk.store.read.costs(1)] == [FEE]
    kinds = [e.kind for e in desk.store.read.events(0, 99)]
    assert kinds == ["channel.depositing", "channel.deposited"]


async def test_the_acceptor_pays_when_a_look_shows_the_proposers_deposit(bob: Desk) -> None:
    bob.net.mint(bob.account, 10 * ICP)
    terms = await bob.channel((3 * ICP, 2 * ICP))
    for _ in range(3):
        assert await bob.step(bob.funding) == "the proposer's deposit"
    await bob.net.pay_in(terms.funding(0), 3 * ICP, credit=False)
    assert await bob.step(bob.funding) == "the proposer's deposit"  # on the ledger is not in the canister
    assert statuses(bob) == []
    await bob.net.pay_in(terms.funding(0), 3 * ICP)
    await funded(bob)
    assert (deposits(bob), bob.mine()) == (1, 2 * ICP)


async def test_who_puts_nothing_in_pays_nothing(bob: Desk) -> None:
    terms = await bob.channel((3 * ICP, 0))
    await bob.net.pay_in(terms.funding(0), 3 * ICP)
    await funded(bob)
    assert deposits(bob) == 0
    assert bob.store.read.costs(1) == []


async def test_a_look_precedes_the_money(desk: Desk) -> None:
    """Rule 3: before the first e8 leaves, the channel is watched and was looked at."""
    desk.net.mint(desk.account, 10 * ICP)
    await desk.channel((3 * ICP, 0))
    await desk.fund(lambda: deposits(desk) == 1)
    assert desk.net.calls.index("query_state") < desk.net.calls.index("transfer")


async def test_a_gift_is_not_paid_again(desk: Desk) -> None:
    """What is paid is the share less what a look shows, whoever put it there."""
    desk.net.mint(desk.account, 10 * ICP)
    terms = await desk.channel((3 * ICP, 0))
    await desk.net.pay_in(terms.funding(0), ICP)
    await funded(desk)
    assert [i.amount_e8s for i in desk.store.read.deposits(1)] == [2 * ICP]
    assert desk.mine() == 3 * ICP


async def test_a_wallet_that_is_too_small_is_said_and_tried_again(desk: Desk) -> None:
    terms = await desk.channel((3 * ICP, 0))
    with pytest.raises(WalletTooLow):
        await desk.step(desk.funding)
    desk.net.mint(desk.account, 3 * ICP + FEE)
    await funded(desk)
    assert desk.net.held(terms.funding(0)) == 3 * ICP


# --- crashes ----------------------------------------------------------------------------------------------

METHODS = ["query_holdings", "query_state", "transfer", "transaction_notification", "deposit"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fault", [Fault.HELD, Fault.REPLY_HELD])
async def test_killed_while_any_request_is_on_its_way_it_pays_once(desk: Desk, method: str, fault: Fault) -> None:
    desk.net.mint(desk.account, 10 * ICP)
    await desk.channel((3 * ICP, 0))
    met = desk.net.disturb(method, fault)
    await crash_in(asyncio.ensure_future(funded(desk)), met)
    await desk.restart()
    await funded(desk)
    assert deposits(desk) == 1
    assert desk.mine() == 3 * ICP
    assert statuses(desk) == ["credited"]
    assert desk.net.ledger.balance(desk.account) == 10 * ICP - 3 * ICP - FEE  # rule 6


async def test_restarted_after_every_single_step_it_pays_once(desk: Desk) -> None:
    desk.net.mint(desk.account, 10 * ICP)
    await desk.channel((3 * ICP, 0))
    for _ in range(20):
        await desk.step(desk.funding)
        if desk.driver.channel.we_are_ready:
            break
        await desk.restart()
    assert desk.driver.channel.we_are_ready
    assert (deposits(desk), statuses(desk)) == (1, ["credited"])


async def test_our_deposit_credited_by_somebody_else(desk: Desk) -> None:
    """Notifying and crediting is open to everybody: it is ours all the same, and is not paid or credited twice."""
    desk.net.mint(desk.account, 10 * ICP)
    terms = await desk.channel((3 * ICP, 0))
    await desk.fund(lambda: statuses(desk) == ["paid"])
    block = desk.store.read.deposits(1)[0].block
    assert block is not None
    await desk.net.contract.transaction_notification(block, desk.net.clock.now_ns())
    await _credit(desk.net, terms.funding(0))
    await desk.restart()
    await funded(desk)
    assert (deposits(desk), statuses(desk), desk.mine()) == (1, ["credited"], 3 * ICP)


async def _credit(net: Net, funding: Funding) -> None:
    assert net.contract.deposit(ContractFunding(funding.channel, funding.participant), net.clock.now_ns()) is None


async def test_a_credit_whose_reply_was_lost_and_whose_money_was_withdrawn_is_known_as_credited(desk: Desk) -> None:
    """Holdings prove nothing then: they are empty because the settlement was faster than the bookkeeping."""
    desk.net.mint(desk.account, 10 * ICP)
    await desk.channel((3 * ICP, 0))
    met = desk.net.disturb("deposit", Fault.REPLY_HELD)
    await crash_in(asyncio.ensure_future(funded(desk)), met)
    await desk.restart()
    assert statuses(desk) == ["paid"]
    await desk.leave()
    await desk.settle(lambda: desk.mine() == 0)
    assert statuses(desk) == ["paid"]
    await desk.fund(lambda: not desk.funding.in_flight)
    assert statuses(desk) == ["credited"]
    await desk.settle()
    assert desk.net.ledger.balance(desk.account) == 10 * ICP - 2 * FEE


# --- the end of an opening --------------------------------------------------------------------------------


async def test_after_the_deadline_nothing_is_paid(desk: Desk) -> None:
    desk.net.mint(desk.account, 10 * ICP)
    await desk.channel((3 * ICP, 2 * ICP))
    desk.net.advance(3601)
    await desk.agent.synchronise(CANISTER)
    await desk.fund(lambda: desk.phase is Phase.LEAVING)
    assert deposits(desk) == 0
    await desk.settle()
    assert desk.net.ledger.balance(desk.account) == 10 * ICP
    assert "dispute" not in desk.net.calls  # nothing is held: there is nothing to register


async def test_after_the_deadline_what_was_put_in_comes_back(desk: Desk) -> None:
    desk.net.mint(desk.account, 10 * ICP)
    await desk.channel((3 * ICP, 2 * ICP))
    await desk.fund(lambda: desk.waiting_for == "the peer's deposit")
    desk.net.advance(3601)
    await desk.fund(lambda: desk.phase is Phase.LEAVING)
    await desk.settle()
    assert desk.net.ledger.balance(desk.account) == 10 * ICP - 2 * FEE
    assert [c.what for c in desk.store.read.costs(1)] == ["deposit fee", "withdrawal fee"]


async def test_a_peer_that_never_says_ready_is_left_at_the_deadline(desk: Desk) -> None:
    desk.net.mint(desk.account, 10 * ICP)
    await desk.channel((3 * ICP, 0))
    await funded(desk)
    assert await desk.step(desk.funding) == "the peer to see both deposits"
    desk.net.advance(3601)
    await desk.agent.synchronise(CANISTER)
    await desk.fund(lambda: desk.phase is Phase.LEAVING)
    await desk.settle()
    assert desk.net.ledger.balance(desk.account) == 10 * ICP - 2 * FEE


async def test_a_state_registered_during_the_funding_ends_it(desk: Desk) -> None:
    desk.net.mint(desk.account, 10 * ICP)
    terms = await desk.channel((3 * ICP, 2 * ICP))
    await desk.net.pay_in(terms.funding(1), 2 * ICP)
    assert (await desk.perun.dispute(terms.params, desk.state(0, terms.allocation))).value is None
    await desk.watcher.look(terms.channel)  # as a round of the watcher does
    assert await desk.step(desk.funding) == "settlement"
    assert deposits(desk) == 0
    assert desk.phase is Phase.LEAVING


async def test_a_state_registered_between_the_holdings_and_ready_is_seen(desk: Desk) -> None:
    """`ready` needs a request signed after the holdings were seen; an older look would not do."""
    desk.net.mint(desk.account, 10 * ICP)
    terms = await desk.channel((3 * ICP, 0))
    await desk.fund(lambda: desk.mine() == 3 * ICP and not desk.funding.in_flight)
    assert (await desk.perun.dispute(terms.params, desk.state(0, terms.allocation))).value is None
    assert desk.driver.channel.look is not None
    assert desk.driver.channel.look.version is None
    await desk.step(desk.funding)
    assert not desk.driver.channel.we_are_ready
    assert desk.phase is Phase.LEAVING


async def test_a_deposit_in_flight_when_the_channel_settles_is_credited_and_comes_back(desk: Desk) -> None:
    desk.net.mint(desk.account, 10 * ICP)
    terms = await desk.channel((3 * ICP, 2 * ICP))
    met = desk.net.disturb("transfer", Fault.REPLY_HELD)
    await crash_in(asyncio.ensure_future(funded(desk)), met)
    await desk.net.pay_in(terms.funding(1), 2 * ICP)
    assert (await desk.perun.dispute(terms.params, desk.state(0, terms.allocation))).value is None
    desk.net.advance(61)  # settled, before our money is in
    await desk.restart()
    await desk.watcher.look(terms.channel)
    await desk.settle(lambda: desk.waiting_for.startswith("a deposit of ours in flight"))
    asked = desk.net.calls.count("transfer")
    assert await desk.step(desk.funding) == "the ledger to say whether our deposit was paid"
    desk.net.advance(5 * 60)  # until the request has expired; then the ledger's blocks decide
    await desk.fund(lambda: not desk.funding.in_flight)
    assert desk.net.calls.count("transfer") == asked  # nothing more is paid, not even the same again
    assert statuses(desk) == ["credited"]
    await desk.settle()
    assert deposits(desk) == 1
    assert desk.net.ledger.balance(desk.account) == 10 * ICP - 2 * FEE


async def test_a_deposit_that_the_ledger_never_made_lets_the_channel_end(desk: Desk) -> None:
    desk.net.mint(desk.account, 10 * ICP)
    await desk.channel((3 * ICP, 0))
    met = desk.net.disturb("transfer", Fault.HELD)
    await crash_in(asyncio.ensure_future(funded(desk)), met)
    desk.net.advance(25 * 3600)
    await desk.restart()
    await desk.fund(lambda: desk.phase is Phase.LEAVING)
    assert [i.status for i in desk.store.read.deposits(1)] == [IntentStatus.VOID]
    await desk.settle()
    assert desk.net.ledger.balance(desk.account) == 10 * ICP


@pytest.mark.parametrize("moment", ["balance", "chain_length", "sign_transfer"])
@pytest.mark.parametrize("ours", [0, 1], ids=["the proposer", "the acceptor"])
async def test_what_stops_a_node_stops_a_deposit_that_is_decided_on(
    net: Net, tmp_path: Path, ours: ParticipantIndex, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer life is shown to it, or a loss, between the decision and the request."""
    desk = Desk(net, tmp_path, ours)
    net.mint(desk.account, 10 * ICP)
    terms = await desk.channel((3 * ICP, 2 * ICP))
    if ours == 1:
        await net.pay_in(terms.funding(0), 3 * ICP)
    asked: Callable[..., object] = getattr(desk.ledger, moment)

    def stopped_meanwhile(*args: object) -> object:
        monkeypatch.undo()
        desk.driver.perform(desk.driver.channel.freeze(DATA_LOSS, "another life", desk.time.now()))
        return asked(*args)

    monkeypatch.setattr(desk.ledger, moment, stopped_meanwhile)
    await desk.fund(lambda: desk.driver.channel.recovering)
    for _ in range(3):
        await desk.step(desk.funding)
    assert deposits(desk) == 0
    assert net.ledger.balance(desk.account) == 10 * ICP
    assert set(statuses(desk)) <= {"void"}
    assert "nothing" in desk.waiting_for
    await desk.close()


async def test_money_leaves_when_the_peer_has_resumed_in_this_life(desk: Desk) -> None:
    """A copy of this node would pay before it can be told that it is one."""
    desk.net.mint(desk.account, 10 * ICP)
    await desk.channel((3 * ICP, 2 * ICP))
    desk.driver.peer_resumed = False
    for _ in range(3):
        assert await desk.step(desk.funding) == "the peer to be there, before money leaves"
    assert deposits(desk) == 0
    desk.driver.peer_resumed = True
    await desk.fund(lambda: desk.waiting_for == "the peer's deposit")
    assert deposits(desk) == 1


@pytest.mark.parametrize("fault", [Fault.HELD, Fault.REPLY_HELD])
async def test_what_was_decided_before_the_deadline_is_not_paid_after_it(desk: Desk, fault: Fault) -> None:
    """The machine sleeps between the decision and the ledger. What was paid is found, and nothing is paid any more."""
    desk.net.mint(desk.account, 10 * ICP)
    terms = await desk.channel((3 * ICP, 2 * ICP))
    met = desk.net.disturb("transfer", fault)
    await crash_in(asyncio.ensure_future(desk.fund(lambda: False)), met)
    desk.net.advance(3601)
    before = len(desk.net.calls)
    await desk.restart()
    await desk.fund(lambda: desk.phase is Phase.LEAVING and not desk.funding.in_flight)
    assert "transfer" not in desk.net.calls[before:]
    paid = fault is Fault.REPLY_HELD
    assert len(desk.net.transfers(CANISTER_ACCOUNT, terms.funding(0).memo)) == paid
    assert [i.status.value for i in desk.store.read.deposits(1)] == ["credited" if paid else "void"]
