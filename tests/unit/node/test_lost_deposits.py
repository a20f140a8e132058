"""A deposit of which only the ledger knows: this node lost its disk after it was paid (rule 7)."""

from __future__ import annotations

import pytest

from chain.ledger import TransferArgs
from devnet.network import PERUN_CANISTER_ID as CANISTER
from perund.node.ledger_scan import first_block_since
from protocol.effects import Phase
from tests.unit.node.desk import Desk
from tests.unit.node.net import CANISTER_ACCOUNT, FEE, ICP, Fault


def deposits(desk: Desk) -> int:
    """How many blocks of the ledger pay for this side."""
    return len(desk.net.transfers(CANISTER_ACCOUNT, desk.terms.funding(desk.ours).memo))


@pytest.mark.parametrize(
    ("method", "fault"),
    [("transfer", Fault.REPLY_HELD), ("transaction_notification", Fault.HELD), ("deposit", Fault.HELD)],
)
async def test_it_is_found_and_credited_and_not_paid_again(desk: Desk, method: str, fault: Fault) -> None:
    desk.net.mint(desk.account, 10 * ICP)
    desk.net.fill(130)  # what others did before
    desk.net.advance(7200)
    await desk.channel((3 * ICP, 2 * ICP))
    await desk.crash_funding(method, fault)
    desk.net.fill(60)
    assert (deposits(desk), desk.mine()) == (1, 0)

    await desk.restore()
    await desk.fund(lambda: not desk.funding.in_flight)

    assert (deposits(desk), desk.mine()) == (1, 3 * ICP)
    (found,) = desk.store.read.deposits(1)
    assert (found.status.value, found.amount_e8s, found.fee_e8s) == ("credited", 3 * ICP, FEE)
    assert [(c.what, c.amount_e8s) for c in desk.store.read.costs(1)] == [("deposit fee", FEE)]
    assert [e.kind for e in desk.store.read.events(0, 99)][-2:] == ["channel.deposit_found", "channel.deposited"]


@pytest.mark.parametrize("copy", [False, True], ids=["from a backup", "a copy of the store"])
@pytest.mark.parametrize(
    ("method", "fault"), [("transfer", Fault.REPLY_HELD), ("transaction_notification", Fault.HELD)]
)
async def test_it_is_booked_once_however_often_it_is_searched_for(
    desk: Desk, method: str, fault: Fault, *, copy: bool
) -> None:
    """Each start searches from the opening on: what a search before it found, or the copy has on record, is no news."""
    desk.net.mint(desk.account, 10 * ICP)
    await desk.channel((3 * ICP, 2 * ICP))
    await desk.crash_funding(method, fault)
    await desk.restore(copy=copy)
    for _ in range(2):
        await desk.crash_funding("deposit", Fault.HELD)  # killed when it is found, and not credited
        await desk.restart()
    await desk.fund(lambda: not desk.funding.in_flight)

    assert (deposits(desk), desk.mine()) == (1, 3 * ICP)
    assert [i.status.value for i in desk.store.read.deposits(1)] == ["credited"]
    assert [(c.what, c.amount_e8s) for c in desk.store.read.costs(1)] == [("deposit fee", FEE)]


async def test_one_that_the_copy_gave_up_is_found_all_the_same(desk: Desk) -> None:
    """The copy was made before the ledger was asked; the life that went on without it asked."""
    desk.net.mint(desk.account, 10 * ICP)
    await desk.channel((3 * ICP, 2 * ICP))
    memo = desk.terms.funding(0).memo
    intent = await desk.transfers.plan(CANISTER_ACCOUNT, 3 * ICP, memo, 1)
    await desk.restore(copy=True)
    assert (await desk.transfers.drive(intent.number, may_ask=lambda: False)).status.value == "void"
    late = TransferArgs(CANISTER_ACCOUNT, 3 * ICP, FEE, memo, intent.created_at_ns)
    assert isinstance((await desk.ledger.transfer(late)).value, int)
    await desk.fund(lambda: not desk.funding.in_flight)
    (found,) = desk.store.read.deposits(1)
    assert (found.number, found.status.value) == (intent.number, "credited")
    assert [(c.what, c.amount_e8s) for c in desk.store.read.costs(1)] == [("deposit fee", FEE)]


async def test_what_a_stranger_pays_for_us_does_not_end_the_search(desk: Desk) -> None:
    desk.net.mint(desk.account, 10 * ICP)
    await desk.channel((3 * ICP, 2 * ICP))
    await desk.crash_funding("transfer", Fault.REPLY_HELD)
    await desk.restore()
    await desk.net.pay_in(desk.terms.funding(0), 1)
    await desk.fund(lambda: not desk.funding.in_flight)
    assert [d.status.value for d in desk.store.read.deposits(1)] == ["credited"]
    assert desk.mine() == 3 * ICP + 1


async def test_our_own_deposit_without_a_record_is_not_booked_as_somebody_elses(desk: Desk) -> None:
    desk.net.mint(desk.account, 10 * ICP)
    await desk.channel((3 * ICP, 2 * ICP))
    await desk.fund(lambda: desk.waiting_for == "the peer's deposit")
    await desk.restore()
    await desk.net.pay_in(desk.terms.funding(1), 2 * ICP)
    await desk.fund(lambda: desk.driver.channel.we_are_ready)
    assert desk.store.read.credits(1) == []


async def test_one_that_is_credited_is_not_searched_for(desk: Desk) -> None:
    desk.net.mint(desk.account, 10 * ICP)
    await desk.channel((3 * ICP, 2 * ICP))
    await desk.fund(lambda: desk.waiting_for == "the peer's deposit")
    await desk.restore()
    before = len(desk.net.calls)
    await desk.fund(lambda: not desk.funding.in_flight)
    assert desk.store.read.deposits(1) == ()
    assert "query_blocks" not in desk.net.calls[before:]
    assert (deposits(desk), desk.mine()) == (1, 3 * ICP)


async def test_one_that_may_still_come_is_waited_for(desk: Desk) -> None:
    """A transfer that the lost node asked for is executed until its call expires: a channel is not let go before."""
    desk.net.mint(desk.account, 10 * ICP)
    await desk.channel((3 * ICP, 2 * ICP))
    await desk.restore()
    for _ in range(3):
        assert "pays nothing" in await desk.step(desk.funding)
    assert desk.funding.in_flight
    desk.net.advance(3601)
    await desk.agent.synchronise(CANISTER)
    await desk.fund(lambda: desk.phase is Phase.LEAVING)
    assert desk.funding.in_flight, "the deadline has passed, the last call may not have expired"
    desk.net.advance(361)
    await desk.fund(lambda: not desk.funding.in_flight)
    await desk.settle()
    assert deposits(desk) == 0
    assert desk.net.ledger.balance(desk.account) == 10 * ICP


async def test_a_deposit_that_a_copy_has_decided_on_is_not_asked_for(desk: Desk) -> None:
    """The node that the copy was made of may have paid it, or another one instead (rule 7)."""
    desk.net.mint(desk.account, 10 * ICP)
    await desk.channel((3 * ICP, 2 * ICP))
    await desk.crash_funding("transfer", Fault.HELD)
    await desk.restore(copy=True)
    before = len(desk.net.calls)
    assert "whether our deposit was paid" in await desk.step(desk.funding)
    desk.net.advance(3601 + 361)
    await desk.agent.synchronise(CANISTER)
    await desk.fund(lambda: not desk.funding.in_flight)
    assert "transfer" not in desk.net.calls[before:]
    assert [i.status.value for i in desk.store.read.deposits(1)] == ["void"]
    assert desk.net.ledger.balance(desk.account) == 10 * ICP


async def test_what_was_searched_is_not_searched_again(desk: Desk) -> None:
    """The ledger of the Internet Computer has thousands of blocks before a funding deadline passes."""
    desk.net.mint(desk.account, 10 * ICP)
    await desk.channel((3 * ICP, 2 * ICP))
    desk.net.fill(260)  # six pages, made after the opening
    await desk.restore()
    before = len(desk.net.calls)
    await desk.step(desk.funding)
    first = desk.net.calls[before:].count("query_blocks")
    before = len(desk.net.calls)
    await desk.step(desk.funding)
    again = desk.net.calls[before:].count("query_blocks")
    assert first > 6
    assert again <= 2, "the length of the chain, and what is new in it"
    desk.net.fill(3)
    late = TransferArgs(CANISTER_ACCOUNT, 3 * ICP, FEE, desk.terms.funding(0).memo, desk.net.clock.now_ns())
    assert isinstance((await desk.ledger.transfer(late)).value, int)  # what the lost node asked for arrives only now
    await desk.fund(lambda: not desk.funding.in_flight)
    assert desk.mine() == 3 * ICP


async def test_the_first_block_of_a_time(desk: Desk) -> None:
    times = []
    for _ in range(7):
        desk.net.advance(10)
        times.append(desk.net.clock.now_ns())
        desk.net.fill(1)
    blocks = desk.net.ledger.blocks(0, 100)
    for moment in (0, *times, times[-1] + 10**15):
        expected = next((i for i, b in enumerate(blocks) if b.timestamp >= moment), len(blocks))
        assert await first_block_since(desk.ledger, moment) == expected
