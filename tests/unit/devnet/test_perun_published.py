"""The published canister's own test cases, by their names. Where a rule of ours wins, the test says so."""

from __future__ import annotations

import pytest

from devnet.perun.interface import Error, FullySignedState, Params, RegisteredState, State, WithdrawalRequest
from tests.unit.devnet.scene import ALICE, BOB, FEE, HOUR, ICP, MALLORY, Channel, Scene, funded

T = 10 * ICP


async def test_deposit_adds_up() -> None:
    scene, channel = Scene(), Channel()
    await scene.fund(channel, ALICE, 3)
    await scene.fund(channel, ALICE, 4)
    assert scene.holdings(channel, ALICE) == 7
    assert scene.holdings(channel, BOB) is None


async def test_conclude_happy() -> None:
    scene, channel = await funded()
    assert scene.conclude(channel, channel.signed(1, 5 * ICP, 15 * ICP, final=True)) is None
    assert (scene.holdings(channel, ALICE), scene.holdings(channel, BOB)) == (5 * ICP, 15 * ICP)


async def test_conclude_non_final() -> None:
    scene, channel = await funded()
    assert scene.conclude(channel, channel.signed(1, T, T)) is Error.NOT_FINALIZED
    assert scene.canister.query_state(channel.id) is None


async def test_conclude_invalid_params() -> None:
    scene, channel = await funded()
    other = Params(channel.params.nonce, channel.params.participants, channel.params.challenge_duration + 1)
    signed = channel.signed(1, T, T, final=True)
    assert scene.canister.conclude(other, signed, scene.now_ns) is Error.INVALID_INPUT


async def test_conclude_not_signed() -> None:
    scene, channel = await funded()
    state = channel.state(1, T, T, final=True)
    by_alice_only = channel.sign(state).sigs[0]
    for sigs in ((by_alice_only, bytes(64)), (by_alice_only, b""), (by_alice_only, by_alice_only)):
        assert scene.conclude(channel, FullySignedState(state, sigs)) is Error.AUTHENTICATION
    assert scene.conclude(channel, FullySignedState(state, (by_alice_only,))) is Error.INVALID_INPUT


async def test_conclude_insufficient_funds() -> None:
    scene, channel = await funded()
    assert scene.conclude(channel, channel.signed(1, T, T + 1, final=True)) is Error.INSUFFICIENT_FUNDING


async def test_conclude_invalid_allocation() -> None:
    scene, channel = await funded()
    for allocation in ((T, T, 5), (2 * T,), ()):
        assert scene.conclude(channel, channel.signed(1, *allocation, final=True)) is Error.INVALID_INPUT


async def test_dispute_non_final() -> None:
    scene, channel = await funded()
    signed = channel.signed(1, T, T)
    assert scene.dispute(channel, signed) is None
    assert scene.canister.query_state(channel.id) == RegisteredState(signed.state, scene.now_ns + HOUR)
    assert await scene.withdraw(channel, ALICE) is Error.NOT_FINALIZED


async def test_dispute_final_settles_at_once() -> None:
    scene, channel = await funded()
    assert scene.dispute(channel, channel.signed(1, 0, 2 * T, final=True)) is None
    registered = scene.canister.query_state(channel.id)
    assert registered is not None
    assert registered.settled(scene.now_ns)
    assert isinstance(await scene.withdraw(channel, BOB), int)


async def test_dispute_valid_refutation_restarts_the_timer() -> None:
    scene, channel = await funded()
    assert scene.dispute(channel, channel.signed(0, T, T)) is None
    scene.pass_time(HOUR - 1)
    newer = channel.signed(1, 0, 2 * T)
    assert scene.dispute(channel, newer) is None
    assert scene.canister.query_state(channel.id) == RegisteredState(newer.state, scene.now_ns + HOUR)


async def test_dispute_outdated_refutation() -> None:
    scene, channel = await funded()
    registered = channel.signed(5, T, T)
    assert scene.dispute(channel, registered) is None
    for signed in (channel.signed(4, 0, 2 * T), channel.signed(5, 0, 2 * T), registered):
        assert scene.dispute(channel, signed) is Error.OUTDATED_STATE
    found = scene.canister.query_state(channel.id)
    assert found is not None
    assert found.state == registered.state


async def test_dispute_settled_refutation() -> None:
    scene, channel = await funded()
    assert scene.dispute(channel, channel.signed(0, T, T)) is None
    scene.pass_time(HOUR)
    assert scene.dispute(channel, channel.signed(1, 0, 2 * T)) is Error.ALREADY_CONCLUDED


async def test_dispute_underfunded_initial_state() -> None:
    scene, channel = await funded(bob_e8s=0)
    assert scene.dispute(channel, channel.signed(1, T, T)) is Error.INSUFFICIENT_FUNDING
    assert scene.dispute(channel, channel.signed(0, T, T, final=True)) is Error.INSUFFICIENT_FUNDING
    assert scene.dispute(channel, channel.signed(0, T, T)) is None
    scene.pass_time(HOUR)
    assert (scene.holdings(channel, ALICE), scene.holdings(channel, BOB)) == (T, None)
    assert isinstance(await scene.withdraw(channel, ALICE), int)
    assert scene.ledger.balance(ALICE.account) == T - FEE


async def test_holdings_tracking() -> None:
    scene, channel = await funded()
    other = Channel(nonce=1)
    await scene.fund(other, ALICE, 7)
    assert (scene.holdings(channel, ALICE), scene.holdings(other, ALICE)) == (T, 7)
    assert scene.conclude(channel, channel.signed(1, 0, 2 * T, final=True)) is None
    assert (scene.holdings(channel, ALICE), scene.holdings(channel, BOB)) == (None, 2 * T)
    assert scene.holdings(other, ALICE) == 7
    assert scene.holdings(channel, MALLORY) is None


async def test_withdraw_happy_and_repeated() -> None:
    """The published canister answers a repeated withdrawal with Ok 0 and pays a fee for it; here it is refused."""
    scene, channel = await funded()
    assert scene.conclude(channel, channel.signed(1, T, T, final=True)) is None
    block = await scene.withdraw(channel, ALICE)
    assert isinstance(block, int)
    paid = await scene.line.query_block(block)
    assert paid is not None
    assert paid.payment is not None
    assert (paid.payment.e8s, paid.payment.memo) == (T - FEE, channel.funding(ALICE).memo())
    assert scene.ledger.balance(ALICE.account) == T - FEE
    assert await scene.withdraw(channel, ALICE) is Error.INSUFFICIENT_FUNDING
    assert scene.pool() == T


async def test_withdraw_invalid_signature() -> None:
    scene, channel = await funded()
    assert scene.conclude(channel, channel.signed(1, T, T, final=True)) is None
    request = WithdrawalRequest(channel.funding(ALICE), BOB.principal)
    for signature in (BOB.key.sign(request.signed_bytes()).signature, bytes(64), b""):
        assert await scene.canister.withdraw(request, signature, scene.now_ns) is Error.AUTHENTICATION
    assert scene.line.calls == []


async def test_withdraw_unknown_channel() -> None:
    scene = Scene()
    assert await scene.withdraw(Channel(), ALICE) is Error.NOT_FINALIZED


async def test_withdraw_not_finalized() -> None:
    scene, channel = await funded()
    assert await scene.withdraw(channel, ALICE) is Error.NOT_FINALIZED
    assert scene.dispute(channel, channel.signed(1, T, T)) is None
    scene.pass_time(HOUR - 1)
    assert await scene.withdraw(channel, ALICE) is Error.NOT_FINALIZED
    scene.pass_time(1)
    assert isinstance(await scene.withdraw(channel, ALICE), int)


@pytest.mark.parametrize("version", [0, 1])
async def test_state_of_another_channel_is_refused(version: int) -> None:
    scene, channel = await funded()
    foreign = channel.sign(State(Channel(nonce=1).id, version, (T, T), finalized=True))
    assert scene.conclude(channel, foreign) is Error.INVALID_INPUT
