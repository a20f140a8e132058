"""What the jobs do beside a canister of the published code, one rule at a time, in both roles."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from chain.principal import account_identifier
from chain.state_reader import INGRESS_TTL_NS
from devnet.ledger.ledger import TransferRequest
from devnet.network import PERUN_CANISTER_ID
from devnet.perun.interface import Funding as ContractFunding
from devnet.perun.ledger_port import Outgoing
from devnet.perun.phases import Credit, Settled, Unregistered
from perund.node.payout_pool import PayoutPool, most_lent_e8s
from perund.node.proven_deposit import ProvenDeposit
from perund.node.published import PublishedGuard
from perund.store.jobs import insert_withdrawal
from perund.store.rows import WithdrawalIntent
from protocol.effects import Phase
from protocol.funding import IntentStatus
from protocol.types import Funding, ParticipantIndex, WithdrawalRequest
from tests.unit.node.desk import KEYS, SECOND, Desk
from tests.unit.node.net import CANISTER_ACCOUNT, FEE, ICP, Net


@pytest.fixture(params=[0, 1], ids=["the proposer", "the acceptor"])
async def side(request: pytest.FixtureRequest, net: Net, tmp_path: Path) -> AsyncIterator[Desk]:
    """Either side of a channel, at a canister that lacks what ours has more than the published one."""
    ours: ParticipantIndex = request.param
    desk = Desk(net, tmp_path, ours)
    _published(desk)
    yield desk
    await desk.close()


def _published(desk: Desk) -> None:
    async def lacks_it() -> bool:
        return False

    desk.perun.supports_disputes_since = lacks_it  # type: ignore[method-assign]


def make_up(net: Net, funding: Funding, e8s: int) -> None:
    """Credit a funding with nothing behind it: the published code lets anybody."""
    before = net.contract._channels.get(funding.channel, Unregistered())
    net.contract._channels[funding.channel] = before.credited(Credit(funding.participant, e8s))
    asked = ContractFunding(funding.channel, funding.participant)
    assert net.contract.query_holdings(asked, net.clock.now_ns()) == e8s


async def test_a_credit_without_money_is_no_deposit_of_the_peer(side: Desk) -> None:
    terms = await side.channel((3 * ICP, 2 * ICP))
    side.net.ledger.mint(side.account, 10 * ICP, side.net.clock.now_ns())
    peers = terms.funding(terms.peer_index)
    make_up(side.net, peers, terms.allocation[terms.peer_index])
    waiting = "the peer's deposit" if side.ours == 0 else "the proposer's deposit"
    await side.fund(lambda: side.waiting_for == waiting)
    assert side.mine() == (terms.allocation[0] if side.ours == 0 else 0), "the acceptor pays on proven money only"
    assert not side.driver.channel.we_are_ready
    await side.net.pay_in(peers, terms.allocation[terms.peer_index])
    await side.fund(lambda: side.driver.channel.we_are_ready)


async def test_part_of_the_money_is_not_enough(side: Desk) -> None:
    terms = await side.channel((3 * ICP, 2 * ICP))
    side.net.ledger.mint(side.account, 10 * ICP, side.net.clock.now_ns())
    peers = terms.funding(terms.peer_index)
    await side.net.pay_in(peers, ICP)
    make_up_more = terms.allocation[terms.peer_index]
    before = side.net.contract._channels[terms.channel]
    assert isinstance(before, Unregistered)
    side.net.contract._channels[terms.channel] = before.credited(Credit(peers.participant, make_up_more))
    for _ in range(8):
        await side.step(side.funding)
    assert not side.driver.channel.we_are_ready


def pool_of(desk: Desk) -> PayoutPool:
    guard = PublishedGuard(desk.perun, desk.ledger, desk.store, desk.time)
    return PayoutPool(1, desk.terms, desk.store, desk.transfers, desk.ledger, CANISTER_ACCOUNT, guard, lambda: True)


async def filled(desk: Desk, e8s: int) -> PayoutPool:
    """A channel, and a canister whose account holds so much."""
    await desk.channel((3 * ICP, 2 * ICP))
    desk.net.ledger.mint(desk.account, 10 * ICP, desk.net.clock.now_ns())
    desk.net.ledger.mint(CANISTER_ACCOUNT, e8s, desk.net.clock.now_ns())
    return pool_of(desk)


async def test_when_the_pool_can_pay_one_side_only_participant_0_goes_first(side: Desk) -> None:
    pool = await filled(side, 5 * ICP)
    held = (4 * ICP, ICP)
    waits = 0
    while (obstacle := await pool.obstacle(held[side.ours], held[1 - side.ours], FEE)) is not None:
        assert obstacle.waiting_for.startswith("the peer's payout")
        waits += 1
    assert waits == (0 if side.ours == 0 else 5), "and nobody waits for ever"


async def test_when_the_pool_can_pay_both_nobody_waits_and_nothing_is_lent(side: Desk) -> None:
    pool = await filled(side, 5 * ICP + 2 * FEE)
    held = (4 * ICP, ICP)
    assert await pool.obstacle(held[side.ours], held[1 - side.ours], FEE) is None
    assert side.store.read.sends_to(CANISTER_ACCOUNT, pool._memo()) == []


@pytest.mark.parametrize("lacking", [1, FEE, 2 * FEE, 7 * FEE])
async def test_exactly_what_is_missing_is_lent(side: Desk, lacking: int) -> None:
    pool = await filled(side, 2 * ICP + FEE - lacking)
    progress = await pool.obstacle(2 * ICP, 0, FEE)
    assert progress is not None
    assert progress.problem == ""
    assert await pool.obstacle(2 * ICP, 0, FEE) is None
    assert side.net.ledger.balance(CANISTER_ACCOUNT) == 2 * ICP + FEE
    assert side.net.ledger.balance(side.account) == 10 * ICP - lacking - FEE
    assert [(c.what, c.amount_e8s) for c in side.store.read.costs(1)] == [
        ("transfer fee", FEE),
        ("canister fee", lacking),
    ]


async def test_more_than_a_little_is_not_lent_and_the_owner_is_told_what_to_do(side: Desk) -> None:
    missing = most_lent_e8s(2 * ICP, FEE) + 1
    pool = await filled(side, 2 * ICP + FEE - missing)
    progress = await pool.obstacle(2 * ICP, 0, FEE)
    assert progress is not None
    assert f"perun wallet send {CANISTER_ACCOUNT.hex()} '{missing} e8s'" in progress.problem
    assert side.net.ledger.balance(side.account) == 10 * ICP


async def test_what_would_cost_more_than_it_brings_is_not_lent(side: Desk) -> None:
    pool = await filled(side, 15_000)
    progress = await pool.obstacle(25_000, 0, FEE)  # 20,000 e8s and a fee, for 25,000 e8s
    assert progress is not None
    assert progress.problem
    assert side.store.read.sends_to(CANISTER_ACCOUNT, pool._memo()) == []


async def test_a_withdrawal_of_another_channel_that_may_still_run_is_waited_for(side: Desk) -> None:
    pool = await filled(side, 5 * ICP)
    request = WithdrawalRequest(side.terms.funding(side.ours), side.identity.sender)
    call = side.perun.sign_withdraw(request, KEYS[side.ours].sign_withdrawal(request))
    intent = WithdrawalIntent(7, ICP, call.to_bytes(), "open", None, None, 0)
    await side.store.write([insert_withdrawal(1, intent)])
    assert await pool.obstacle(ICP, 0, FEE) is None, "our own is followed by our own job"
    guard = PublishedGuard(side.perun, side.ledger, side.store, side.time)
    assert guard.still_running(2) == "another withdrawal of this node to end: its answer was lost"
    side.net.advance(INGRESS_TTL_NS // SECOND + 1)
    await side.agent.synchronise(side.ledger.canister_id)
    assert guard.still_running(2) == ""


async def test_a_notification_of_the_life_before_may_still_run(side: Desk) -> None:
    await side.channel((3 * ICP, 2 * ICP))
    side.net.ledger.mint(side.account, 10 * ICP, side.net.clock.now_ns())
    intent = await side.transfers.plan(CANISTER_ACCOUNT, ICP, 1, 1)
    paid = await side.transfers.drive(intent.number)
    assert replace(paid, status=IntentStatus.PAID) == paid
    await side.restart()
    _published(side)
    await side.agent.synchronise(side.ledger.canister_id)
    guard = PublishedGuard(side.perun, side.ledger, side.store, side.time)
    assert guard.still_running(1) == "a call of this node to the canister to end: its answer was lost"
    side.net.advance(INGRESS_TTL_NS // SECOND + 1)
    await side.agent.synchronise(side.ledger.canister_id)
    assert guard.still_running(1) == ""


async def emptied(desk: Desk, *paid_e8s: int) -> None:
    """The channel is settled with (4, 1) ICP. A life whose records are lost had this side paid out, as the published
    code does: without a memo. `paid_e8s`: what the ledger shows of it.
    """
    terms = await desk.channel((3 * ICP, 2 * ICP), challenge_s=1)
    for index in (0, 1):
        await desk.net.pay_in(terms.funding(index), terms.allocation[index])
    newest = desk.state(7, (4 * ICP, ICP), finalized=True)
    assert (await desk.perun.conclude(terms.params, newest)).value is None
    settled = desk.net.contract._channels[terms.channel]
    assert isinstance(settled, Settled)
    desk.net.contract._channels[terms.channel] = settled.without(terms.params.participants[desk.ours])
    desk.net.ledger.mint(CANISTER_ACCOUNT, 10 * ICP, desk.net.clock.now_ns())
    for e8s in paid_e8s:
        now_ns = desk.net.clock.now_ns()
        payout = TransferRequest(to=desk.account, amount=e8s, fee=FEE, memo=0, created_at_time=now_ns)
        assert isinstance(desk.net.ledger.transfer(PERUN_CANISTER_ID, payout, now_ns), int)
    await desk.watcher.look(terms.channel)
    await desk.fund(lambda: not desk.funding.in_flight)


async def test_a_payout_that_no_record_is_left_of_is_found_by_its_amount(side: Desk) -> None:
    share = (4 * ICP, ICP)[side.ours]
    await emptied(side, share - 1, share)
    await side.settle()
    assert side.net.ledger.balance(side.account) == 2 * share - 1
    (withdrawal,) = side.store.read.withdrawals(1)
    assert (withdrawal.status, withdrawal.received_e8s) == ("paid", share)


async def test_a_payout_that_the_ledger_does_not_show_is_a_matter_for_people(side: Desk) -> None:
    share = (4 * ICP, ICP)[side.ours]
    await emptied(side, share - 1)
    for _ in range(5):
        progress = await side.settlement.step()
    assert f"the canister took {share} e8s off the holdings" in progress.problem
    assert side.phase is not Phase.CLOSED


async def test_what_was_lent_counts_when_the_pool_is_emptied_again(side: Desk) -> None:
    """Whoever empties it each time has no more lent than once."""
    most = most_lent_e8s(2 * ICP, FEE)
    pool = await filled(side, 2 * ICP + FEE - most)
    assert await pool.obstacle(2 * ICP, 0, FEE) is not None
    assert await pool.obstacle(2 * ICP, 0, FEE) is None
    emptied = Outgoing(account_identifier(b"\x0a"), ICP, FEE, 3, side.net.clock.now_ns())
    assert isinstance(await side.net.line.inner.transfer(emptied), int)
    side.net.ledger.mint(CANISTER_ACCOUNT, ICP, side.net.clock.now_ns())  # so that one fee is lacking
    progress = await pool.obstacle(2 * ICP, 0, FEE)
    assert progress is not None
    assert f"({most} e8s were)" in progress.problem
    assert [sent.amount_e8s for sent in side.store.read.sends_to(CANISTER_ACCOUNT, pool._memo())] == [most]


async def test_what_went_elsewhere_under_the_memo_is_no_deposit_of_the_peer(side: Desk) -> None:
    """Who sends the money to itself, under its funding's memo, has paid nothing in."""
    terms = await side.channel((3 * ICP, 2 * ICP))
    peers = terms.funding(terms.peer_index)
    e8s = terms.allocation[terms.peer_index]
    make_up(side.net, peers, e8s)
    side.net.ledger.mint(CANISTER_ACCOUNT, e8s + FEE, side.net.clock.now_ns())
    away = Outgoing(account_identifier(b"\x0a"), e8s, FEE, peers.memo, side.net.clock.now_ns())
    assert isinstance(await side.net.line.inner.transfer(away), int)
    proven = ProvenDeposit(side.ledger, peers, CANISTER_ACCOUNT, side.time.chain_ns())
    assert await proven.up_to(e8s) == 0
    await side.net.pay_in(peers, e8s, credit=False)
    assert await proven.up_to(e8s) == e8s
