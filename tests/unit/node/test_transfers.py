"""A transfer happens once, whatever is lost, refused or killed, however late it is tried again."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from chain.clock import Certified
from chain.ledger import BlockPage
from chain.principal import account_identifier
from devnet.ledger import binding
from devnet.ledger import ledger as ledger_module
from perund.node.transfers import FeeTooHigh, WalletTooLow
from perund.store.jobs import insert_transfer
from perund.store.rows import TransferIntent
from protocol.funding import IntentStatus
from tests.unit.node.desk import Desk, crash_in
from tests.unit.node.net import FEE, ICP, Fault, Net

THERE = account_identifier(b"\x09")
HOUR = 3600


async def planned(desk: Desk, amount_e8s: int = ICP) -> int:
    desk.net.mint(desk.account, 10 * ICP)
    return (await desk.transfers.plan(THERE, amount_e8s, 7, None)).number


async def driven(desk: Desk, number: int, times: int = 10) -> TransferIntent:
    """Drive until the end is known, as the node does."""
    for _ in range(times):
        intent = await desk.transfers.drive(number)
        if intent.status is not IntentStatus.OPEN:
            return intent
    raise AssertionError(f"after {times} times: {intent}")


def assert_paid_once(net: Net, intent: TransferIntent) -> None:
    assert intent.status is IntentStatus.PAID
    blocks = net.transfers(THERE)
    assert len(blocks) == 1
    assert net.ledger.block(intent.block or -1) == blocks[0]


def change_fee(monkeypatch: pytest.MonkeyPatch, fee_e8s: int) -> None:
    """The ledger's fee is another one from now on."""
    monkeypatch.setattr(ledger_module, "TRANSFER_FEE_E8S", fee_e8s)
    monkeypatch.setattr(binding, "TRANSFER_FEE_E8S", fee_e8s)


async def test_a_transfer(desk: Desk) -> None:
    number = await planned(desk)
    assert desk.net.transfers(THERE) == []  # planned is durable, and not yet paid
    intent = await driven(desk, number)
    assert_paid_once(desk.net, intent)
    assert await driven(desk, number) == intent  # again is nothing
    costs = desk.store.read._rows("SELECT number, what, amount FROM cost")
    assert costs == [(None, "transfer fee", FEE)]
    assert desk.transfers._driving == {}


async def test_two_who_drive_the_same_transfer_pay_it_once(desk: Desk) -> None:
    number = await planned(desk)
    first, second = await asyncio.gather(desk.transfers.drive(number), desk.transfers.drive(number))
    assert first == second
    assert_paid_once(desk.net, first)


async def test_two_equal_transfers_of_one_moment_are_two(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    now = desk.time.chain_ns()
    monkeypatch.setattr(desk.time, "chain_ns", lambda: now)  # a clock that stands still, as some do for 15 ms
    numbers = [await planned(desk), await planned(desk)]
    intents = [await desk.transfers.drive(number) for number in numbers]
    assert [i.status for i in intents] == [IntentStatus.PAID] * 2
    assert len(desk.net.transfers(THERE)) == 2


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.REPLY_LOST, Fault.HTTP_500])
async def test_what_is_lost_on_the_way_is_paid_once(desk: Desk, fault: Fault) -> None:
    number = await planned(desk)
    desk.net.disturb("transfer", fault, 2)
    assert_paid_once(desk.net, await driven(desk, number))


@pytest.mark.parametrize("fault", [Fault.HELD, Fault.REPLY_HELD])
@pytest.mark.parametrize("times", [1, 3])
async def test_killed_while_it_asks_and_driven_again_it_is_paid_once(desk: Desk, fault: Fault, times: int) -> None:
    number = await planned(desk)
    for _ in range(times):
        met = desk.net.disturb("transfer", fault)
        await crash_in(asyncio.ensure_future(desk.transfers.drive(number)), met)
        await desk.restart()
    assert_paid_once(desk.net, await driven(desk, number))


async def test_killed_between_the_intent_and_the_first_request(desk: Desk) -> None:
    number = await planned(desk)
    await desk.restart()
    assert_paid_once(desk.net, await driven(desk, number))


@pytest.mark.parametrize("fault", [Fault.HELD, Fault.REPLY_HELD])
async def test_tried_again_a_day_later_the_blocks_decide(desk: Desk, fault: Fault) -> None:
    """The ledger has forgotten the transfer by then: asking again could pay twice. And the agent's idea of the time
    is a day old, so what it signs first is refused.
    """
    number = await planned(desk)
    met = desk.net.disturb("transfer", fault)
    await crash_in(asyncio.ensure_future(desk.transfers.drive(number)), met)
    desk.net.fill(120)
    desk.net.advance(25 * HOUR)
    asked = len(desk.net.calls)
    intent = await driven(desk, number)
    if fault is Fault.REPLY_HELD:
        assert_paid_once(desk.net, intent)
        assert intent.block == 1  # found among more than one page of blocks
    else:
        assert intent.status is IntentStatus.VOID
        assert desk.net.transfers(THERE) == []
    assert desk.net.calls[asked:].count("query_blocks") >= (1 if fault is Fault.REPLY_HELD else 3)


async def test_what_an_agent_whose_time_is_behind_signed_is_void_and_the_next_is_paid(desk: Desk) -> None:
    """The refusal is one server's word. That it came to nothing is proven by its expiry and the ledger's blocks."""
    number = await planned(desk)
    desk.net.advance(HOUR)  # what the agent signs now has expired already
    assert (await driven(desk, number)).status is IntentStatus.VOID
    assert desk.net.transfers(THERE) == []
    assert_paid_once(desk.net, await driven(desk, await planned(desk)))


async def test_one_that_was_never_asked_for_is_void_a_day_later(desk: Desk) -> None:
    number = await planned(desk)
    desk.net.advance(25 * HOUR)
    await desk.restart()
    intent = await driven(desk, number)
    assert intent.status is IntentStatus.VOID
    assert desk.net.transfers(THERE) == []


async def test_an_expired_call_is_proven_to_have_done_nothing(desk: Desk) -> None:
    number = await planned(desk)
    asked = len(desk.net.calls)
    met = desk.net.disturb("transfer", Fault.LOST, 1_000)
    driving = asyncio.ensure_future(desk.transfers.drive(number))
    await met.wait()
    desk.net.advance(5 * 60)
    desk.net.calm()
    intent = await asyncio.wait_for(driving, 10)
    assert intent.unproven == 0  # a certificate shows that it never executes
    assert intent.status is IntentStatus.VOID
    assert "query_blocks" not in desk.net.calls[asked:]  # no block had to be looked for
    assert desk.net.transfers(THERE) == []


# --- refusals ---------------------------------------------------------------------------------------------


async def test_bad_fee_on_the_only_request_is_void_and_the_next_plan_has_the_new_fee(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await planned(desk)
    change_fee(monkeypatch, 2 * FEE)
    assert (await desk.transfers.drive(number)).status is IntentStatus.VOID
    again = await desk.transfers.plan(THERE, ICP, 7, None)
    assert again.fee_e8s == 2 * FEE
    assert_paid_once(desk.net, await driven(desk, again.number))


async def test_bad_fee_after_a_lost_reply_proves_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger checks the fee before it looks for duplicates: the first request may have been executed, and was."""
    number = await planned(desk)
    met = desk.net.disturb("transfer", Fault.REPLY_HELD)
    await crash_in(asyncio.ensure_future(desk.transfers.drive(number)), met)
    change_fee(monkeypatch, 2 * FEE)
    intent = await desk.transfers.drive(number)
    assert (intent.status, intent.unproven) == (IntentStatus.OPEN, 1)

    desk.net.advance(5 * 60)  # the first request can have expired now, and the refused ones count for nothing
    assert_paid_once(desk.net, await driven(desk, number))


async def test_bad_fee_after_a_request_that_never_arrived_is_void_when_that_one_has_expired(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await planned(desk)
    met = desk.net.disturb("transfer", Fault.HELD)
    await crash_in(asyncio.ensure_future(desk.transfers.drive(number)), met)
    change_fee(monkeypatch, 2 * FEE)
    for _ in range(3):
        assert (await desk.transfers.drive(number)).status is IntentStatus.OPEN
    desk.net.advance(5 * 60)
    assert (await driven(desk, number)).status is IntentStatus.VOID
    assert desk.net.transfers(THERE) == []


async def test_insufficient_funds(desk: Desk) -> None:
    number = await planned(desk)
    other = await planned(desk, 20 * ICP - 2 * FEE)
    assert (await driven(desk, number)).status is IntentStatus.PAID
    assert (await driven(desk, other)).status is IntentStatus.VOID  # the first took what this one needs
    with pytest.raises(WalletTooLow, match=desk.account.hex()):
        await desk.transfers.plan(THERE, 20 * ICP, 7, None)
    assert len(desk.net.transfers(THERE)) == 1


async def test_a_fee_above_the_bound_is_not_paid(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.net.mint(desk.account, ICP)
    change_fee(monkeypatch, 100_001)
    with pytest.raises(FeeTooHigh, match="max_fee_e8s"):
        await desk.transfers.plan(THERE, ICP // 2, 7, None)
    assert desk.store.read.highest("transfer") == 0


async def test_a_similar_transfer_is_not_taken_for_ours(desk: Desk) -> None:
    """Same payer, receiver, amount and memo, another moment: only `created_at_time` tells them apart."""
    number = await planned(desk)
    met = desk.net.disturb("transfer", Fault.HELD)
    await crash_in(asyncio.ensure_future(desk.transfers.drive(number)), met)
    other = await planned(desk)
    assert (await driven(desk, other)).status is IntentStatus.PAID
    desk.net.advance(25 * HOUR)
    assert (await driven(desk, number)).status is IntentStatus.VOID
    assert len(desk.net.transfers(THERE)) == 1


async def test_blocks_that_are_not_shown_to_the_tip_prove_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that withholds its newest blocks would have a paid transfer held void, and paid again."""
    number = await planned(desk)
    met = desk.net.disturb("transfer", Fault.REPLY_HELD)
    await crash_in(asyncio.ensure_future(desk.transfers.drive(number)), met)
    desk.net.advance(25 * HOUR)
    blocks = desk.ledger.blocks

    async def withheld(start: int, length: int) -> Certified[BlockPage]:
        page = await blocks(start, length)
        return page.with_value(replace(page.value, blocks=(), archived=()))

    monkeypatch.setattr(desk.ledger, "blocks", withheld)
    for _ in range(3):
        assert (await desk.transfers.drive(number)).status is IntentStatus.OPEN
    monkeypatch.undo()
    assert_paid_once(desk.net, await driven(desk, number))


async def test_a_block_that_is_booked_is_no_other_transfers(desk: Desk) -> None:
    """Whatever the ledger answers: each block is in the books once."""
    number = await planned(desk)
    paid = await driven(desk, number)
    twin = replace(paid, number=desk.transfers.reserve_number(), status=IntentStatus.OPEN, block=None)
    await desk.store.write([insert_transfer(twin)])
    assert (await driven(desk, twin.number)).status is IntentStatus.VOID
    assert desk.store.read._rows("SELECT what, amount FROM cost") == [("transfer fee", FEE)]
