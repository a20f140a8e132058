"""What the ledger's blocks prove, and what they do not: other people's money and other channels' is never taken for
ours, and blocks that were not read to the tip, or are older than what is asked, are no proof that nothing happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from chain.clock import Certified
from chain.ledger import BlockPage, TransferArgs
from chain.principal import account_identifier
from devnet.network import PERUN_CANISTER_ID as CANISTER
from devnet.perun.ledger_port import Outgoing
from perund.node.ledger_scan import find_block
from perund.store.jobs import insert_withdrawal
from perund.store.rows import WithdrawalIntent
from protocol.effects import Phase
from protocol.funding import IntentStatus
from tests.unit.node.desk import Desk, crash_in
from tests.unit.node.net import CANISTER_ACCOUNT, FEE, ICP, Fault

THERE = account_identifier(b"\x09")
HOUR = 3600


@contextmanager
def pages(desk: Desk, *, empty: bool = False, not_after_ns: int | None = None) -> Iterator[None]:
    """The ledger's certified pages are `empty` though the chain goes on, or of a chain time before `not_after_ns`."""
    real = desk.ledger.blocks

    async def blocks(start: int, length: int) -> Certified[BlockPage]:
        answer = await real(start, length)
        if empty and length > 1:  # a single block is asked for by who looks for a time
            answer = replace(answer, value=replace(answer.value, blocks=(), archived=()))
        return answer if not_after_ns is None else replace(answer, chain_time_ns=not_after_ns)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(desk.ledger, "blocks", blocks)
        yield


async def lost_on_the_way(desk: Desk, fault: Fault, other: tuple[int, int] | None = None) -> int:
    """A transfer that was asked for once, whose request has expired by now and nobody remembers.

    `other`: amount and memo of another one that this wallet made at the same moment.
    """
    desk.net.mint(desk.account, 10 * ICP)
    intent = await desk.transfers.plan(THERE, ICP, 7, None)
    met = desk.net.disturb("transfer", fault)
    await crash_in(asyncio.ensure_future(desk.transfers.drive(intent.number)), met)
    desk.net.calm()
    if other is not None:
        args = TransferArgs(THERE, other[0], FEE, other[1], intent.created_at_ns)
        assert isinstance((await desk.ledger.transfer(args)).value, int)
    desk.net.advance(25 * HOUR)
    await desk.restart()
    return intent.number


async def status(desk: Desk, number: int) -> IntentStatus:
    for _ in range(3):
        intent = await desk.transfers.drive(number)
    return intent.status


async def test_blocks_that_were_not_read_to_the_tip_void_nothing(desk: Desk) -> None:
    number = await lost_on_the_way(desk, Fault.REPLY_HELD)
    with pages(desk, empty=True):
        assert await status(desk, number) is IntentStatus.OPEN
    assert await status(desk, number) is IntentStatus.PAID
    assert len(desk.net.transfers(THERE)) == 1


@pytest.mark.parametrize(("after_ns", "expected"), [(0, IntentStatus.OPEN), (1, IntentStatus.VOID)])
async def test_blocks_that_are_no_younger_than_the_last_request_void_nothing(
    desk: Desk, after_ns: int, expected: IntentStatus
) -> None:
    """A page is as old as its certificate: a request that had not expired then may have been executed since."""
    number = await lost_on_the_way(desk, Fault.HELD)
    intent = desk.store.read.transfer(number)
    assert intent is not None
    assert intent.unproven == 1
    with pages(desk, not_after_ns=intent.last_expiry_ns + after_ns):
        assert await status(desk, number) is expected
    assert await status(desk, number) is IntentStatus.VOID


async def test_what_was_read_of_pages_that_end_early_is_no_tip(desk: Desk) -> None:
    desk.net.fill(3)
    await desk.agent.synchronise(CANISTER)
    block, tip_ns = await find_block(desk.ledger, 0, lambda _: False)
    assert block is None
    assert tip_ns > 0
    with pages(desk, empty=True):
        assert await find_block(desk.ledger, 0, lambda _: False) == (None, 0)


@pytest.mark.parametrize("other", [(ICP, 8), (ICP + 1, 7)], ids=["another memo", "another amount"])
async def test_another_transfer_of_the_same_moment_is_not_taken_for_ours(desk: Desk, other: tuple[int, int]) -> None:
    """A copy of this node may have made it."""
    number = await lost_on_the_way(desk, Fault.HELD, other)
    assert await status(desk, number) is IntentStatus.VOID
    assert len(desk.net.transfers(THERE)) == 1


# --- a deposit that only the ledger knows -------------------------------------------------------------------


async def paid_and_lost(desk: Desk) -> None:
    """A channel of which this side's 3 ICP are paid and not credited, and no record of it is left."""
    desk.net.mint(desk.account, 10 * ICP)
    await desk.channel((3 * ICP, 2 * ICP))
    await desk.crash_funding("transfer", Fault.REPLY_HELD)
    assert desk.mine() == 0


def found(desk: Desk) -> list[tuple[int, str]]:
    return [(d.amount_e8s, d.status.value) for d in desk.store.read.deposits(1)]


@pytest.mark.parametrize("e8s", [1, 3 * ICP - 1])
async def test_what_a_stranger_has_credited_to_us_does_not_end_the_search(desk: Desk, e8s: int) -> None:
    await paid_and_lost(desk)
    await desk.net.pay_in(desk.terms.funding(0), e8s)
    await desk.restore()
    await desk.fund(lambda: not desk.funding.in_flight)
    assert found(desk) == [(3 * ICP, "credited")]
    assert desk.mine() == 3 * ICP + e8s


async def test_what_a_stranger_has_paid_under_our_memo_is_no_deposit_of_ours(desk: Desk) -> None:
    await paid_and_lost(desk)
    await desk.net.pay_in(desk.terms.funding(0), 5, credit=False)
    await desk.restore()
    await desk.fund(lambda: not desk.funding.in_flight)
    assert found(desk) == [(3 * ICP, "credited")]
    assert [c.amount_e8s for c in desk.store.read.costs(1)] == [FEE]


async def test_what_we_have_paid_for_another_channel_is_no_deposit_of_this_one(desk: Desk) -> None:
    await paid_and_lost(desk)
    other = await desk.transfers.plan(CANISTER_ACCOUNT, 2 * ICP, desk.terms.funding(0).memo ^ 1, None)
    assert (await desk.transfers.drive(other.number)).status is IntentStatus.PAID
    await desk.restore()
    await desk.fund(lambda: not desk.funding.in_flight)
    assert found(desk) == [(3 * ICP, "credited")]


async def test_what_we_have_sent_elsewhere_under_our_memo_is_no_deposit(desk: Desk) -> None:
    await paid_and_lost(desk)
    other = await desk.transfers.plan(THERE, 2 * ICP, desk.terms.funding(0).memo, None)
    assert (await desk.transfers.drive(other.number)).status is IntentStatus.PAID
    await desk.restore()
    await desk.fund(lambda: not desk.funding.in_flight)
    assert found(desk) == [(3 * ICP, "credited")]


async def test_a_search_that_did_not_come_to_the_tip_goes_on(desk: Desk) -> None:
    await paid_and_lost(desk)
    await desk.restore()
    desk.net.advance(2 * HOUR)  # no deposit can come any more
    await desk.agent.synchronise(CANISTER)
    with pages(desk, empty=True):
        for _ in range(3):
            await desk.step(desk.funding)
        assert desk.funding.in_flight
    await desk.fund(lambda: not desk.funding.in_flight)
    assert found(desk) == [(3 * ICP, "credited")]


# --- a payout -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("e8s", "memo"), [(4 * ICP - FEE, 5), (4 * ICP, 5), (ICP, 0)], ids=["another memo", "of our worth", "no memo"]
)
async def test_the_payout_of_another_channel_is_not_taken_for_this_ones(desk: Desk, e8s: int, memo: int) -> None:
    """Our withdrawal never arrived. What the canister paid to this wallet meanwhile was for something else."""
    terms = await desk.channel((3 * ICP, 2 * ICP))
    for index in (0, 1):
        await desk.net.pay_in(terms.funding(0 if index == 0 else 1), terms.allocation[index])
    await desk.agree(7, (4 * ICP, ICP))
    await desk.leave()
    await desk.settle(lambda: desk.waiting_for.startswith("the challenge period"))
    desk.net.advance(61)
    await desk.agent.synchronise(CANISTER)
    met = desk.net.disturb("withdraw", Fault.HELD)
    await crash_in(asyncio.ensure_future(desk.settle()), met)
    desk.net.calm()
    desk.net.mint(CANISTER_ACCOUNT, e8s + FEE)
    paid = Outgoing(desk.account, e8s, FEE, memo, desk.net.clock.now_ns())
    assert isinstance(await desk.net.line.inner.transfer(paid), int)
    desk.net.advance(25 * HOUR)
    await desk.restart()

    await desk.settle()
    assert desk.phase is Phase.CLOSED
    assert [w.status for w in desk.store.read.withdrawals(1)] == ["void", "paid"]
    assert desk.net.ledger.balance(desk.account) == e8s + 4 * ICP - FEE
    assert desk.mine() == 0


async def test_a_block_that_another_withdrawal_stands_for_is_not_taken_again(desk: Desk) -> None:
    """The published code gives its payouts no memo: two channels of one worth look alike."""
    await desk.channel((3 * ICP, 2 * ICP))
    desk.net.mint(CANISTER_ACCOUNT, 4 * ICP + FEE)
    block = await desk.net.line.inner.transfer(Outgoing(desk.account, 4 * ICP, FEE, 0, desk.net.clock.now_ns()))
    assert isinstance(block, int)
    ours = WithdrawalIntent(2, 4 * ICP, None, "open", None, None, 0)
    assert await desk.settlement._search(ours, None) == block
    other = WithdrawalIntent(1, 4 * ICP, None, "paid", block, 4 * ICP, 0)
    await desk.store.write([insert_withdrawal(2, other)])
    assert await desk.settlement._search(ours, None) is None


async def test_a_reply_that_names_a_block_of_somebody_else_is_no_payout(desk: Desk) -> None:
    await desk.channel((3 * ICP, 2 * ICP))
    desk.net.mint(CANISTER_ACCOUNT, 4 * ICP + FEE)
    block = await desk.net.line.inner.transfer(Outgoing(THERE, 4 * ICP, FEE, 0, desk.net.clock.now_ns()))
    assert isinstance(block, int)
    ours = WithdrawalIntent(1, 4 * ICP, None, "open", None, None, 0)
    await desk.store.write([insert_withdrawal(1, ours)])
    progress = await desk.settlement._paid(ours, block)
    assert progress.waiting_for == f"a payout to this wallet: block {block} is none"
    assert [w.status for w in desk.store.read.withdrawals(1)] == ["open"]


# --- what is in flight --------------------------------------------------------------------------------------


async def test_a_deposit_that_is_credited_while_a_channel_ends_is_not_left_behind(desk: Desk) -> None:
    """It is in flight when the holdings are read, and credited a moment later: it was in neither."""
    desk.net.mint(desk.account, 10 * ICP)
    await desk.channel((3 * ICP, 2 * ICP))
    await desk.leave()
    in_flight = iter([True])
    desk.settlement._deposits_settled = lambda: not next(in_flight, False)
    await desk.step(desk.settlement)
    assert desk.phase is Phase.LEAVING
