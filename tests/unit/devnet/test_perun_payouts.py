"""A payout is paid once or given back, whatever the ledger and the line to it do."""

from __future__ import annotations

import asyncio

import pytest

from devnet.ledger.accounts import MINTING_OWNER
from devnet.ledger.ledger import DEDUPLICATION_WINDOW_NS
from devnet.perun.interface import Error
from tests.unit.devnet.scene import ALICE, BOB, CANISTER, FEE, HOUR, ICP, MALLORY, Channel, Scene, Trouble, funded

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
    scene.line.troubles = [Trouble.LOST_BEFORE, Trouble.BAD_FEE]
    for _ in range(2):
        assert await scene.withdraw(channel, ALICE) is Error.LEDGER_ERROR
    assert scene.holdings(channel, ALICE) is None
    assert isinstance(await scene.withdraw(channel, ALICE), int)
    assert scene.ledger.balance(ALICE.account) == T - FEE


async def test_after_a_bad_fee_the_blocks_tell_of_an_earlier_request_that_was_executed() -> None:
    scene, channel = await settled()
    scene.line.troubles = [Trouble.LOST_AFTER, Trouble.BAD_FEE]
    assert await scene.withdraw(channel, ALICE) is Error.LEDGER_ERROR
    assert isinstance(await scene.withdraw(channel, ALICE), int)
    assert scene.ledger.balance(ALICE.account) == T - FEE
    assert len(scene.line.calls) == 2


@pytest.mark.parametrize("fee", [0, FEE // 2, 3 * FEE])
async def test_a_fee_that_changes_is_read_and_the_payout_made_with_it(fee: int) -> None:
    scene, channel = await settled()
    scene.ledger.change_fee(fee)
    for person in (ALICE, BOB):
        assert isinstance(await scene.withdraw(channel, person), int)
        assert scene.ledger.balance(person.account) == T - fee
    assert len(scene.line.calls) == 3, "the second payout knows the fee"
    assert (scene.pool(), scene.canister.owed_e8s) == (0, 0)


async def test_a_fee_that_changes_while_a_payout_is_undecided_does_not_lock_its_money() -> None:
    """The ledger compares fees first: it never says that the old request is too old."""
    scene, channel = await settled()
    scene.line.troubles = [Trouble.LOST_BEFORE]
    assert await scene.withdraw(channel, ALICE) is Error.LEDGER_ERROR
    scene.ledger.change_fee(2 * FEE)
    assert await scene.withdraw(channel, ALICE) is Error.LEDGER_ERROR
    assert scene.holdings(channel, ALICE) is None, "it may still be executed"
    scene.pass_time(DEDUPLICATION_WINDOW_NS + HOUR + 1)
    assert isinstance(await scene.withdraw(channel, ALICE), int)
    assert scene.ledger.balance(ALICE.account) == T - 2 * FEE
    assert isinstance(await scene.withdraw(channel, BOB), int)
    assert scene.pool() == 0


async def test_a_fee_that_is_learned_survives_no_upgrade_and_is_read_again() -> None:
    scene, channel = await settled()
    scene.ledger.change_fee(2 * FEE)
    scene.upgrade()
    assert isinstance(await scene.withdraw(channel, ALICE), int)
    assert len(scene.line.calls) == 1


async def test_a_fee_above_the_holdings_pays_nothing_until_it_falls() -> None:
    scene, channel = await settled()
    scene.ledger.change_fee(T)
    assert await scene.withdraw(channel, ALICE) is Error.LEDGER_ERROR
    assert await scene.withdraw(channel, ALICE) is Error.INSUFFICIENT_FUNDING
    assert scene.holdings(channel, ALICE) == T
    scene.ledger.change_fee(FEE)
    assert isinstance(await scene.withdraw(channel, ALICE), int)
    assert scene.ledger.balance(ALICE.account) == T - FEE


async def test_nothing_is_withdrawn_to_the_ledgers_minting_account() -> None:
    """A transfer to it is a burn, whose fee is 0: the ledger answers BadFee, with a fee that must not be learned."""
    scene, channel = await settled()
    assert await scene.withdraw(channel, ALICE, MINTING_OWNER) is Error.INVALID_INPUT
    assert scene.line.calls == []
    assert isinstance(await scene.withdraw(channel, ALICE), int)
    assert scene.ledger.balance(ALICE.account) == T - FEE


async def test_a_refund_is_made_with_the_true_fee() -> None:
    scene = Scene()
    first = scene.transfer(ALICE, T)
    assert await scene.notify(first) is Error.TRANSACTION_TYPE
    block = scene.transfer(BOB, T)
    scene.ledger.change_fee(2 * FEE)
    assert await scene.notify(block) is Error.TRANSACTION_TYPE
    assert scene.ledger.balance(BOB.account) == T - 2 * FEE
    assert (scene.pool(), scene.canister.owed_e8s) == (0, 0)


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
