"""A payout is paid once or given back, whatever the ledger and the line to it do."""

from __future__ import annotations

import asyncio

import pytest

from devnet.ledger.ledger import DEDUPLICATION_WINDOW_NS
from devnet.perun.interface import Error
from tests.unit.devnet.scene import ALICE, BOB, CANISTER, FEE, ICP, MALLORY, Channel, Scene, Trouble, funded

T = 10 * ICP


async def settled() -> tuple[Scene, Channel]:
    scene, channel = await funded()
    assert scene.conclude(channel, channel.signed(1, T, T, final=True)) is None
    return scene, channel


@pytest.mark.parametrize("trouble", [Trouble.LOST_BEFORE, Trouble.LOST_AFTER])
async def test_a_retry_after_a_lost_answer_pays_exactly_once(trouble: Trouble) -> None:
    scene, channel = await settled()
    scene.line.troubles = [trouble]
    assert await scene.withdraw(channel, ALICE) is Error.LEDGER_ERROR
    assert scene.holdings(channel, ALICE) is None, "nobody knows whether it is paid"
    scene.pass_time(DEDUPLICATION_WINDOW_NS - 1)
    assert isinstance(await scene.withdraw(channel, ALICE), int)
    assert scene.line.calls[0] == scene.line.calls[1]
    assert scene.ledger.balance(ALICE.account) == T - FEE
    assert await scene.withdraw(channel, ALICE) is Error.INSUFFICIENT_FUNDING


async def test_when_the_ledger_has_forgotten_its_blocks_decide_paid() -> None:
    scene, channel = await settled()
    scene.line.troubles = [Trouble.LOST_AFTER]
    assert await scene.withdraw(channel, ALICE) is Error.LEDGER_ERROR
    for _ in range(30):
        scene.transfer(BOB, 1, memo=1)
    scene.pass_time(DEDUPLICATION_WINDOW_NS + 1)
    block = await scene.withdraw(channel, ALICE)
    assert isinstance(block, int)
    found = scene.ledger.block(block)
    assert found is not None
    assert found.transaction.memo == channel.funding(ALICE).memo()
    assert scene.ledger.balance(ALICE.account) == T - FEE


async def test_when_the_ledger_has_forgotten_its_blocks_decide_not_paid() -> None:
    scene, channel = await settled()
    scene.line.troubles = [Trouble.LOST_BEFORE]
    assert await scene.withdraw(channel, ALICE) is Error.LEDGER_ERROR
    scene.pass_time(DEDUPLICATION_WINDOW_NS + 1)
    assert await scene.withdraw(channel, ALICE) is Error.LEDGER_ERROR, "certain now: the money is given back"
    assert scene.holdings(channel, ALICE) == T
    assert isinstance(await scene.withdraw(channel, ALICE), int)
    assert scene.ledger.balance(ALICE.account) == T - FEE


async def test_a_bad_fee_says_nothing_about_an_earlier_request() -> None:
    scene, channel = await settled()
    scene.line.troubles = [Trouble.LOST_AFTER, Trouble.BAD_FEE]
    for _ in range(2):
        assert await scene.withdraw(channel, ALICE) is Error.LEDGER_ERROR
    assert scene.holdings(channel, ALICE) is None
    assert isinstance(await scene.withdraw(channel, ALICE), int)
    assert scene.ledger.balance(ALICE.account) == T - FEE


async def test_another_receiver_gets_only_what_is_left_after_the_open_payout() -> None:
    scene, channel = await settled()
    scene.line.troubles = [Trouble.LOST_AFTER]
    assert await scene.withdraw(channel, ALICE) is Error.LEDGER_ERROR
    assert await scene.withdraw(channel, ALICE, MALLORY.principal) is Error.INSUFFICIENT_FUNDING
    assert scene.ledger.balance(ALICE.account) == T - FEE
    assert scene.ledger.balance(MALLORY.account) == 0
    await scene.fund(channel, ALICE, ICP)
    assert isinstance(await scene.withdraw(channel, ALICE, MALLORY.principal), int)
    assert scene.ledger.balance(MALLORY.account) == ICP - FEE


async def test_equal_payouts_at_one_moment_are_both_paid() -> None:
    scene, channel = await settled()
    assert isinstance(await scene.withdraw(channel, ALICE), int)
    await scene.fund(channel, ALICE, T)
    assert isinstance(await scene.withdraw(channel, ALICE), int)
    assert scene.ledger.balance(ALICE.account) == 2 * (T - FEE)


async def test_a_withdrawal_whose_call_is_cut_off_can_be_taken_up_again() -> None:
    scene, channel = await settled()
    scene.line.held = asyncio.Event()
    call = asyncio.create_task(scene.withdraw(channel, ALICE))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    scene.line.held = None
    scene.upgrade()
    assert isinstance(await scene.withdraw(channel, ALICE), int)
    assert scene.line.calls[0] == scene.line.calls[1]
    assert scene.ledger.balance(ALICE.account) == T - FEE


async def test_a_deposit_during_a_withdrawal_is_kept_apart() -> None:
    scene, channel = await settled()
    scene.line.held = asyncio.Event()
    call = asyncio.create_task(scene.withdraw(channel, ALICE))
    await asyncio.sleep(0)
    scene.line.held.set()
    await scene.fund(channel, ALICE, ICP)
    assert isinstance(await call, int)
    assert scene.holdings(channel, ALICE) == ICP
    scene.assert_conserved()


async def test_two_notifications_of_one_block_at_once_count_once() -> None:
    scene, channel = Scene(), Channel()
    block = scene.transfer(ALICE, T, channel.funding(ALICE).memo())
    answers = await asyncio.gather(*(scene.notify(block) for _ in range(5)))
    assert sorted(map(str, answers)) == sorted(map(str, [T, *[Error.DUPLICATE_TRANSACTION] * 4]))
    assert scene.canister.deposit(channel.funding(ALICE), scene.now_ns) is None
    assert scene.holdings(channel, ALICE) == T


async def test_two_notifications_of_one_refund_at_once_refund_once() -> None:
    scene = Scene()
    block = scene.transfer(ALICE, T)
    await asyncio.gather(*(scene.notify(block) for _ in range(5)))
    assert len(scene.line.calls) == 1
    assert scene.ledger.balance(ALICE.account) == T - FEE


async def test_a_withdrawal_to_the_canister_itself_is_refused() -> None:
    scene, channel = await settled()
    assert await scene.withdraw(channel, ALICE, CANISTER) is Error.INVALID_INPUT
    assert scene.holdings(channel, ALICE) == T
