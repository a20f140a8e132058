"""The list of exploits of the published canister, T1 to T20: none of them works here."""

from __future__ import annotations

import asyncio

import pytest

from devnet.canister import Call, MethodNotFound
from devnet.perun import PerunModule
from devnet.perun.examination import MAX_PARTICIPANTS
from devnet.perun.interface import Error, FullySignedState, Funding, Params, State, WithdrawalRequest
from devnet.perun.journal import MAX_DISPUTES_PAGE, MAX_EVENTS_KEPT, MAX_EVENTS_PAGE
from protocol.types import MAX_CHALLENGE_NS, MIN_CHALLENGE_NS
from tests.unit.devnet.scene import (
    ALICE,
    BOB,
    FEE,
    HOUR,
    ICP,
    MALLORY,
    Channel,
    Scene,
    Trouble,
    funded,
)

T = 10 * ICP


async def test_t01_a_participant_listed_twice_does_not_multiply_money() -> None:
    scene = Scene()
    channel = Channel((MALLORY, MALLORY))
    await scene.fund(channel, MALLORY, T)
    assert scene.conclude(channel, channel.signed(1, 0, 2 * T, final=True)) is Error.INVALID_INPUT
    assert scene.canister.query_state(channel.id) is None


@pytest.mark.parametrize("method", ["deposit_mocked", "withdraw_mocked", "register_event", "verify_sig"])
async def test_t02_mocked_methods_do_not_exist(method: str) -> None:
    module = PerunModule(Scene().canister)
    with pytest.raises(MethodNotFound):
        await module.execute(method, b"DIDL\x00\x00", Call(b"\x04", 1))


async def test_t03_a_pending_notification_holds_nobody_up() -> None:
    scene, channel = await funded()
    scene.line.held = asyncio.Event()
    pending = [asyncio.create_task(scene.notify(10_000)) for _ in range(20)]
    await asyncio.sleep(0)
    assert scene.dispute(channel, channel.signed(1, T, T)) is None
    assert scene.canister.query_state(channel.id) is not None
    scene.pass_time(HOUR)
    withdrawal = asyncio.create_task(scene.withdraw(channel, ALICE))
    await asyncio.sleep(0)
    assert not any(task.done() for task in pending)
    scene.line.held.set()
    assert isinstance(await withdrawal, int)
    assert set(await asyncio.gather(*pending)) == {Error.FAILED_TO_QUERY}


async def test_t04_a_refused_transfer_does_not_destroy_a_balance() -> None:
    scene, channel = await funded()
    assert scene.conclude(channel, channel.signed(1, T, T, final=True)) is None
    scene.line.held = asyncio.Event()
    pending = asyncio.create_task(scene.notify(10_000))
    scene.line.troubles = [Trouble.REFUSED]
    withdrawal = asyncio.create_task(scene.withdraw(channel, ALICE))
    await asyncio.sleep(0)
    scene.line.held.set()
    assert await withdrawal is Error.LEDGER_ERROR
    await pending
    assert scene.holdings(channel, ALICE) == T
    assert isinstance(await scene.withdraw(channel, ALICE), int)
    assert await scene.withdraw(channel, ALICE) is Error.INSUFFICIENT_FUNDING
    assert scene.ledger.balance(ALICE.account) == T - FEE


async def test_t05_an_upgrade_keeps_everything() -> None:
    scene, channel = await funded()
    disputed = Channel(nonce=1)
    await scene.fund(disputed, ALICE, T)
    assert scene.dispute(disputed, disputed.signed(0, T, T)) is None
    waiting = scene.transfer(BOB, ICP, channel.funding(BOB).memo())
    assert await scene.notify(waiting) == ICP
    assert scene.conclude(channel, channel.signed(1, T, T, final=True)) is None
    scene.line.troubles = [Trouble.LOST_AFTER]
    assert await scene.withdraw(channel, ALICE) is Error.LEDGER_ERROR

    saved = scene.canister.save()
    scene.upgrade()
    assert scene.canister.save() == saved

    assert await scene.notify(waiting) is Error.DUPLICATE_TRANSACTION
    assert scene.holdings(disputed, ALICE) == T
    assert scene.events(disputed) == ["Funded", "Disputed"]
    assert [entry.channel for entry in scene.canister.disputes_since(0, 10).entries] == [disputed.id, channel.id]
    assert scene.canister.deposit(channel.funding(BOB), scene.now_ns) is None
    assert isinstance(await scene.withdraw(channel, ALICE), int), "the open payout is found again"
    assert scene.ledger.balance(ALICE.account) == T - FEE
    scene.assert_conserved()


async def test_t06_the_last_one_to_withdraw_is_paid_too() -> None:
    scene, first = await funded()
    second = Channel((BOB, MALLORY), nonce=1)
    for person in (BOB, MALLORY):
        await scene.fund(second, person, T)
    for channel in (first, second):
        assert scene.conclude(channel, channel.signed(1, T, T, final=True)) is None
        for person in channel.people:
            assert isinstance(await scene.withdraw(channel, person), int)
    assert scene.pool() == 0
    assert scene.canister.owed_e8s == 0


@pytest.mark.parametrize("share", [0, FEE])
async def test_t07_a_worthless_share_pays_no_fee_out_of_the_pool(share: int) -> None:
    scene, channel = await funded()
    assert scene.conclude(channel, channel.signed(1, share, 2 * T - share, final=True)) is None
    for _ in range(3):
        assert await scene.withdraw(channel, ALICE) is Error.INSUFFICIENT_FUNDING
    assert scene.line.calls == []
    assert scene.pool() == 2 * T


@pytest.mark.parametrize("duration", [2**64 - 1, 0, 999_999_999])
async def test_t08_senseless_durations_are_bent_and_refused_without_money(duration: int) -> None:
    scene, channel = Scene(), Channel(duration_ns=duration)
    assert scene.dispute(channel, channel.signed(0, T, 0)) is Error.INVALID_INPUT
    await scene.fund(channel, ALICE, T)
    assert scene.dispute(channel, channel.signed(0, T, 0)) is None
    registered = scene.canister.query_state(channel.id)
    assert registered is not None
    assert MIN_CHALLENGE_NS <= registered.timeout - scene.now_ns <= MAX_CHALLENGE_NS
    assert not registered.settled(scene.now_ns)


async def test_t09_an_old_final_state_does_not_beat_a_newer_registered_one() -> None:
    scene, channel = await funded()
    assert scene.dispute(channel, channel.signed(50, T, T)) is None
    assert scene.conclude(channel, channel.signed(2, 2 * T, 0, final=True)) is Error.OUTDATED_STATE
    assert scene.conclude(channel, channel.signed(51, T, T, final=True)) is None


async def test_t10_absurd_arguments_are_refused_and_leave_nothing() -> None:
    scene, channel = await funded()
    size = len(scene.canister.save())
    keys = tuple(n.to_bytes(32, "big") for n in range(1001))
    huge = 1 << 80_000
    for participants, allocation in (
        ((), ()),
        (keys, (1,) * 1001),
        (keys[: MAX_PARTICIPANTS + 1], (1,) * (MAX_PARTICIPANTS + 1)),
        (channel.params.participants, (huge, huge)),
    ):
        params = Params(bytes(64), participants, HOUR)
        state = State(params.channel_id(), 0, allocation, finalized=False)
        signed = FullySignedState(state, (bytes(64),) * len(participants))
        for call in (scene.canister.dispute, scene.canister.conclude):
            assert call(params, signed, scene.now_ns) in {Error.INVALID_INPUT, Error.AUTHENTICATION}
    assert scene.canister.deposit(Funding(b"", b""), scene.now_ns) is Error.INVALID_INPUT
    assert len(scene.canister.save()) == size


async def test_t11_deposits_without_money_leave_nothing() -> None:
    scene, channel = await funded()
    saved = scene.canister.save()
    for n in range(1_000):
        funding = Funding(channel.id, n.to_bytes(32, "big"))
        assert scene.canister.deposit(funding, scene.now_ns) is Error.INSUFFICIENT_FUNDING
    assert scene.canister.save() == saved


async def test_t12_surplus_goes_back_to_its_depositor() -> None:
    scene, channel = await funded()
    await scene.fund(channel, ALICE, 3 * ICP)
    assert scene.dispute(channel, channel.signed(1, T, T)) is None
    await scene.fund(channel, BOB, 4 * ICP)
    assert scene.dispute(channel, channel.signed(2, 0, 2 * T)) is None
    await scene.fund(channel, ALICE, 5 * ICP)
    scene.pass_time(HOUR)
    await scene.fund(channel, BOB, 6 * ICP)
    assert (scene.holdings(channel, ALICE), scene.holdings(channel, BOB)) == (8 * ICP, 2 * T + 10 * ICP)
    for person, e8s in ((ALICE, 8 * ICP), (BOB, 2 * T + 10 * ICP)):
        assert isinstance(await scene.withdraw(channel, person), int)
        assert scene.ledger.balance(person.account) == e8s - FEE
    assert scene.pool() == 0


async def test_t13_funding_that_completes_after_a_dispute_of_state_0_makes_later_states_enforceable() -> None:
    scene, channel = await funded(bob_e8s=0)
    assert scene.dispute(channel, channel.signed(0, T, T)) is None
    await scene.fund(channel, BOB, T)
    assert scene.dispute(channel, channel.signed(5, 0, 2 * T)) is None
    scene.pass_time(HOUR)
    assert (scene.holdings(channel, ALICE), scene.holdings(channel, BOB)) == (None, 2 * T)


async def test_t13_a_double_deposit_after_a_dispute_of_state_0_does_not_stand_in_for_the_other_side() -> None:
    scene, channel = await funded(bob_e8s=0)
    assert scene.dispute(channel, channel.signed(0, T, T)) is None
    await scene.fund(channel, ALICE, T)
    assert scene.dispute(channel, channel.signed(5, 0, 2 * T)) is Error.INSUFFICIENT_FUNDING
    await scene.fund(channel, BOB, T + 1)
    assert scene.dispute(channel, channel.signed(5, 0, 2 * T)) is None
    scene.pass_time(HOUR)
    assert (scene.holdings(channel, ALICE), scene.holdings(channel, BOB)) == (T, 2 * T + 1)


async def test_t14_a_signature_is_good_for_nothing_else() -> None:
    scene, channel = await funded()
    signed = channel.signed(1, 36_454, 2 * T - 36_454)
    resplit = State(channel.id, 1, (2 * T - 36_454, 36_454), finalized=False)
    assert scene.dispute(channel, FullySignedState(resplit, signed.sigs)) is Error.AUTHENTICATION
    final = State(channel.id, 1, signed.state.allocation, finalized=True)
    assert scene.conclude(channel, FullySignedState(final, signed.sigs)) is Error.AUTHENTICATION
    assert scene.dispute(channel, FullySignedState(signed.state, signed.sigs[::-1])) is Error.AUTHENTICATION
    request = WithdrawalRequest(channel.funding(ALICE), ALICE.principal)
    as_withdrawal = tuple(person.key.sign(request.signed_bytes()).signature for person in channel.people)
    assert scene.dispute(channel, FullySignedState(signed.state, as_withdrawal)) is Error.AUTHENTICATION
    assert scene.conclude(channel, channel.signed(2, T, T, final=True)) is None
    assert await scene.canister.withdraw(request, signed.sigs[0], scene.now_ns) is Error.AUTHENTICATION


async def test_t15_a_used_or_changed_withdrawal_pays_nothing() -> None:
    scene, channel = await funded()
    assert scene.conclude(channel, channel.signed(1, T, T, final=True)) is None
    request = WithdrawalRequest(channel.funding(ALICE), ALICE.principal)
    signature = ALICE.key.sign(request.signed_bytes()).signature
    for changed in (
        WithdrawalRequest(channel.funding(ALICE), MALLORY.principal),
        WithdrawalRequest(channel.funding(BOB), ALICE.principal),
        WithdrawalRequest(Channel(nonce=1).funding(ALICE), ALICE.principal),
    ):
        assert await scene.canister.withdraw(changed, signature, scene.now_ns) is Error.AUTHENTICATION
    assert isinstance(await scene.canister.withdraw(request, signature, scene.now_ns), int)
    assert await scene.canister.withdraw(request, signature, scene.now_ns) is Error.INSUFFICIENT_FUNDING
    assert scene.pool() == T


async def test_t16_an_icrc1_transfer_with_the_memo_in_bytes_is_a_deposit() -> None:
    scene, channel = Scene(), Channel()
    funding = channel.funding(ALICE)
    block = scene.transfer(ALICE, T, icrc1_memo=funding.memo().to_bytes(8, "little"))
    assert await scene.notify(block) == T
    assert scene.canister.deposit(funding, scene.now_ns) is None
    assert scene.holdings(channel, ALICE) == T


@pytest.mark.parametrize("icrc1_memo", [None, b"", b"hello", bytes(8), bytes(32)])
async def test_t16_a_payment_without_usable_memo_is_sent_back_once(icrc1_memo: bytes | None) -> None:
    scene = Scene()
    block = scene.transfer(ALICE, T, icrc1_memo=icrc1_memo)
    assert await scene.notify(block) is Error.TRANSACTION_TYPE
    assert scene.ledger.balance(ALICE.account) == T - FEE
    assert await scene.notify(block) is Error.DUPLICATE_TRANSACTION
    assert scene.pool() == 0
    assert len(scene.line.calls) == 1


async def test_t16_a_refund_survives_trouble_and_upgrades() -> None:
    scene = Scene()
    block = scene.transfer(ALICE, T)
    for trouble in (Trouble.LOST_BEFORE, Trouble.REFUSED, Trouble.LOST_AFTER):
        scene.line.troubles = [trouble]
        assert await scene.notify(block) is Error.LEDGER_ERROR
        scene.upgrade()
    assert await scene.notify(block) is Error.TRANSACTION_TYPE
    assert await scene.notify(block) is Error.DUPLICATE_TRANSACTION
    assert scene.ledger.balance(ALICE.account) == T - FEE
    assert (scene.pool(), scene.canister.owed_e8s) == (0, 0)


async def test_t16_what_is_too_little_to_be_sent_back_stays_on_the_books() -> None:
    scene = Scene()
    block = scene.transfer(ALICE, FEE)
    assert await scene.notify(block) is Error.TRANSACTION_TYPE
    assert await scene.notify(block) is Error.DUPLICATE_TRANSACTION
    assert scene.line.calls == []
    scene.assert_conserved()


async def test_t17_the_highest_version_can_still_be_closed_together() -> None:
    scene, channel = await funded()
    assert scene.dispute(channel, channel.signed(2**64 - 1, 0, 2 * T)) is None
    assert scene.dispute(channel, channel.signed(2**64 - 1, T, T)) is Error.OUTDATED_STATE
    assert scene.conclude(channel, channel.signed(2**64 - 1, T, T, final=True)) is None
    assert (scene.holdings(channel, ALICE), scene.holdings(channel, BOB)) == (T, T)


async def test_t18_every_fact_is_one_event_and_pages_are_bounded() -> None:
    scene, channel = await funded()
    assert scene.dispute(channel, channel.signed(0, T, T)) is None
    assert scene.dispute(channel, channel.signed(1, T, T)) is None
    assert scene.conclude(channel, channel.signed(2, T, T, final=True)) is None
    assert scene.events(channel) == ["Funded", "Funded", "Disputed", "Disputed", "Concluded"]
    assert scene.events(channel, 3) == ["Disputed", "Concluded"]
    assert scene.events(channel, 5) == scene.events(channel, 2**64 - 1) == []
    assert isinstance(await scene.withdraw(channel, ALICE), int)
    assert scene.events(channel).count("Concluded") == 1

    busy = Channel(nonce=1)
    await scene.fund(busy, ALICE, T)
    for version in range(150):
        assert scene.dispute(busy, busy.signed(version, T, 0)) is None
    cursor, seen = 0, []
    while page := scene.events(busy, cursor):
        assert len(page) <= MAX_EVENTS_PAGE
        seen += page
        cursor += len(page)
    assert seen == ["Funded"] + ["Disputed"] * 150


async def test_t19_memory_stays_bounded_and_live_channels_untouched() -> None:
    scene, live = await funded()
    assert scene.dispute(live, live.signed(0, T, T)) is None
    before = len(scene.canister.save())
    count = 200
    for nonce in range(1, count + 1):
        junk = Channel((MALLORY, BOB), nonce=nonce)
        await scene.fund(junk, MALLORY, ICP)
        for version in range(3):
            assert scene.dispute(junk, junk.signed(version, ICP, 0)) is None
        assert scene.conclude(junk, junk.signed(9, ICP, 0, final=True)) is None
        assert isinstance(await scene.withdraw(junk, MALLORY), int)
    per_channel = (len(scene.canister.save()) - before) / count
    assert per_channel < 400, "what stays of a channel that cost its makers two ledger fees"
    assert len(scene.canister.disputes_since(0, 2**32 - 1).entries) <= MAX_DISPUTES_PAGE
    assert scene.dispute(live, live.signed(1, 0, 2 * T)) is None


async def test_t19_the_events_of_one_channel_are_bounded() -> None:
    scene, channel = Scene(), Channel()
    await scene.fund(channel, ALICE, T)
    for version in range(MAX_EVENTS_KEPT + 10):
        assert scene.dispute(channel, channel.signed(version, T, 0)) is None
    assert len(scene.events(channel, 0)) == MAX_EVENTS_PAGE
    newest = scene.canister.query_events(channel.id, MAX_EVENTS_KEPT + 10, scene.now_ns)
    assert len(newest) == 1
    assert len(scene.canister.save()) < 250 * MAX_EVENTS_KEPT


async def test_t20_every_read_is_also_an_update_call_that_changes_nothing() -> None:
    scene, channel = await funded()
    assert scene.dispute(channel, channel.signed(0, T, T)) is None
    module = PerunModule(scene.canister)
    assert module.queries == {"query_holdings", "query_state", "query_events", "disputes_since"}
    saved = module.save()
    blob = bytes([len(channel.id)]) + channel.id
    arg = b"DIDL\x01\x6d\x7b\x01\x00" + blob
    as_query = await module.execute("query_state", arg, Call(b"\x04", scene.now_ns))
    as_update = await module.execute("query_state", arg, Call(ALICE.principal, scene.now_ns + 1))
    assert as_query == as_update
    assert module.save() == saved
