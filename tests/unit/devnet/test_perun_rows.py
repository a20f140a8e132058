"""One test for every hole of the published canister that this one closes: the rows of the design's table."""

from __future__ import annotations

import asyncio

import pytest

from devnet.canister import Trap
from devnet.code import interface_file
from devnet.perun import PerunCanister
from devnet.perun.interface import (
    Concluded,
    Disputed,
    Error,
    FullySignedState,
    Funded,
    Funding,
    Params,
    RegisteredState,
    State,
)
from protocol.types import MAX_CHALLENGE_NS, MAX_E8S, MIN_CHALLENGE_NS
from tests.unit.devnet.scene import (
    ALICE,
    BOB,
    CANISTER,
    FEE,
    HOUR,
    ICP,
    LEDGER,
    MALLORY,
    Channel,
    Scene,
    Trouble,
    funded,
)

T = 10 * ICP


def test_nobody_can_credit_or_take_holdings_without_money() -> None:
    interface = interface_file("perun.did")
    assert "mocked" not in interface
    assert not [name for name in dir(PerunCanister) if "mock" in name]


async def test_a_participant_that_stands_twice_has_its_deposit_counted_once() -> None:
    scene = Scene()
    channel = Channel((ALICE, ALICE))
    await scene.fund(channel, ALICE, T)
    assert scene.conclude(channel, channel.signed(1, 0, 2 * T, final=True)) is Error.INVALID_INPUT
    assert scene.dispute(channel, channel.signed(0, T, T)) is Error.INVALID_INPUT
    assert scene.dispute(channel, channel.signed(0, 0, T)) is None, "and what is there comes out"
    scene.pass_time(HOUR)
    assert scene.holdings(channel, ALICE) == T


async def test_the_fee_comes_out_of_the_withdrawal() -> None:
    scene, channel = await funded()
    stranger = Channel((MALLORY, BOB), nonce=1)
    await scene.fund(stranger, MALLORY, T)
    assert scene.conclude(channel, channel.signed(1, T, T, final=True)) is None
    for person in (ALICE, BOB):
        assert isinstance(await scene.withdraw(channel, person), int)
        assert scene.ledger.balance(person.account) == T - FEE
    assert scene.pool() == T, "what the stranger paid in is untouched"


@pytest.mark.parametrize("share", [0, 1, FEE])
async def test_amounts_not_above_the_fee_are_refused(share: int) -> None:
    scene, channel = await funded()
    assert scene.conclude(channel, channel.signed(1, share, 2 * T - share, final=True)) is None
    assert await scene.withdraw(channel, ALICE) is Error.INSUFFICIENT_FUNDING
    assert scene.line.calls == []
    assert scene.pool() == 2 * T


async def test_conclude_after_the_timeout_concludes_and_stays_idempotent() -> None:
    scene, channel = await funded()
    signed = channel.signed(3, 0, 2 * T)
    assert scene.dispute(channel, signed) is None
    assert scene.conclude(channel, signed) is Error.NOT_FINALIZED
    scene.pass_time(HOUR)
    assert scene.conclude(channel, signed) is None
    assert scene.conclude(channel, signed) is None
    assert scene.events(channel).count("Concluded") == 1
    assert scene.conclude(channel, channel.signed(4, T, T, final=True)) is Error.ALREADY_CONCLUDED
    assert isinstance(await scene.withdraw(channel, BOB), int)
    assert scene.conclude(channel, signed) is None, "also when everything is out"


async def test_conclude_with_an_older_final_state_does_not_beat_a_newer_registered_one() -> None:
    scene, channel = await funded()
    assert scene.dispute(channel, channel.signed(50, 0, 2 * T)) is None
    assert scene.conclude(channel, channel.signed(2, 2 * T, 0, final=True)) is Error.OUTDATED_STATE
    scene.pass_time(HOUR)
    assert scene.holdings(channel, BOB) == 2 * T


async def test_no_lock_is_held_while_the_ledger_is_asked() -> None:
    scene, channel = await funded()
    other = Channel(nonce=1)
    await scene.fund(other, ALICE, T)
    assert scene.conclude(channel, channel.signed(1, T, T, final=True)) is None
    scene.line.held = asyncio.Event()
    first = asyncio.create_task(scene.withdraw(channel, ALICE))
    await asyncio.sleep(0)
    assert scene.line.calls, "the withdrawal waits for the ledger"
    assert await scene.withdraw(channel, ALICE) is Error.LEDGER_ERROR, "a second one is refused meanwhile"
    assert scene.holdings(channel, ALICE) is None
    assert scene.dispute(other, other.signed(0, T, 0)) is None, "others go on"
    scene.line.held.set()
    assert isinstance(await first, int)
    assert len(scene.line.calls) == 1
    scene.assert_conserved()


async def test_a_withdrawal_that_the_ledger_refuses_is_restored() -> None:
    scene, channel = await funded()
    assert scene.conclude(channel, channel.signed(1, T, T, final=True)) is None
    for trouble in (Trouble.REFUSED, Trouble.BAD_FEE):
        scene.line.troubles = [trouble]
        assert await scene.withdraw(channel, ALICE) is Error.LEDGER_ERROR
        assert scene.holdings(channel, ALICE) == T
    assert isinstance(await scene.withdraw(channel, ALICE), int)
    assert scene.ledger.balance(ALICE.account) == T - FEE


async def test_strangers_cannot_fill_the_memory() -> None:
    scene, channel = await funded()
    foreign = scene.ledger.mint(MALLORY.account, ICP, scene.now_ns)
    size = len(scene.canister.save())
    nobody = Channel((), participants=())
    assert scene.dispute(nobody, nobody.signed(0)) is Error.INVALID_INPUT
    alone = Channel((ALICE,))
    assert scene.dispute(alone, alone.signed(0, 0)) is Error.INVALID_INPUT
    empty = Channel((ALICE, MALLORY), nonce=7)
    for signed in (empty.signed(0, 0, 0), empty.signed(1, 0, 0), empty.signed(1, 0, 0, final=True)):
        assert scene.dispute(empty, signed) is Error.INSUFFICIENT_FUNDING
        assert scene.conclude(empty, signed) is not None
    assert await scene.notify(foreign) is Error.TRANSACTION_TYPE
    assert await scene.notify(10_000) is Error.FAILED_TO_QUERY
    for size_of_channel, size_of_key in ((0, 32), (63, 32), (64, 31), (64, 100_000)):
        funding = Funding(bytes(size_of_channel), bytes(size_of_key))
        assert scene.canister.deposit(funding, scene.now_ns) is Error.INVALID_INPUT
    assert scene.canister.deposit(channel.funding(MALLORY), scene.now_ns) is Error.INSUFFICIENT_FUNDING
    assert len(scene.canister.save()) == size


async def test_blocks_that_pay_somebody_else_are_not_remembered() -> None:
    scene = Scene()
    scene.ledger.mint(ALICE.account, ICP, scene.now_ns)
    block = scene.transfer(ALICE, ICP, memo=1)
    elsewhere = PerunCanister(b"another", LEDGER, scene.line)
    empty = elsewhere.save()
    assert await elsewhere.transaction_notification(block, scene.now_ns) is Error.RECIPIENT
    assert elsewhere.save() == empty


async def test_a_settled_and_emptied_channel_shrinks_to_a_tombstone() -> None:
    scene, channel = await funded()
    for version in range(50):
        assert scene.dispute(channel, channel.signed(version, T, T)) is None
    last = channel.signed(50, T, T)
    assert scene.dispute(channel, last) is None
    scene.pass_time(HOUR)
    before = len(scene.canister.save())
    for person in (ALICE, BOB):
        assert isinstance(await scene.withdraw(channel, person), int)
    assert len(scene.canister.save()) < before / 5
    tombstone = scene.canister.query_state(channel.id)
    assert tombstone is not None
    assert tombstone.settled(scene.now_ns)
    assert tombstone.state == last.state
    assert scene.dispute(channel, channel.signed(99, 0, 2 * T)) is Error.ALREADY_CONCLUDED
    assert scene.conclude(channel, channel.signed(99, 0, 2 * T, final=True)) is Error.ALREADY_CONCLUDED
    await scene.fund(channel, ALICE, ICP)
    assert scene.holdings(channel, ALICE) == ICP, "a late deposit stays its depositor's"
    assert isinstance(await scene.withdraw(channel, ALICE), int)
    assert scene.pool() == 0
    assert scene.events(channel) == ["Concluded", "Funded"]
    assert scene.events(channel, 54) == ["Funded"], "indices stay: 2 credits, 51 registrations, the conclusion"


async def test_durations_are_bounded_and_timeouts_do_not_wrap() -> None:
    for duration, bent in (
        (0, MIN_CHALLENGE_NS),
        (1, MIN_CHALLENGE_NS),
        (MIN_CHALLENGE_NS, MIN_CHALLENGE_NS),
        (HOUR, HOUR),
        (MAX_CHALLENGE_NS, MAX_CHALLENGE_NS),
        (MAX_CHALLENGE_NS + 1, MAX_CHALLENGE_NS),
        (2**64 - 1, MAX_CHALLENGE_NS),
    ):
        scene, channel = Scene(), Channel(duration_ns=duration)
        await scene.fund(channel, ALICE, T)
        assert scene.dispute(channel, channel.signed(0, T, 0)) is None
        assert scene.canister.query_state(channel.id) == RegisteredState(channel.state(0, T, 0), scene.now_ns + bent)
    scene.now_ns = 2**64 - 2
    assert scene.dispute(channel, channel.signed(1, T, 0)) is Error.ALREADY_CONCLUDED
    late = Channel(nonce=1)
    await scene.fund(late, ALICE, T)
    assert scene.dispute(late, late.signed(0, T, 0)) is None, "and it settles at the end of time"


async def test_one_sides_double_deposit_does_not_become_the_others() -> None:
    scene, channel = await funded(alice_e8s=2 * T, bob_e8s=0)
    assert scene.dispute(channel, channel.signed(0, T, T)) is None
    scene.pass_time(HOUR)
    assert (scene.holdings(channel, ALICE), scene.holdings(channel, BOB)) == (2 * T, None)


async def test_surplus_stays_with_its_depositor_latest_credits_first() -> None:
    scene, channel = await funded()
    await scene.fund(channel, ALICE, 3)
    await scene.fund(channel, MALLORY, 4)  # no participant at all
    assert scene.dispute(channel, channel.signed(1, 0, 2 * T)) is None
    await scene.fund(channel, BOB, 5)
    scene.pass_time(HOUR)
    held = [scene.holdings(channel, person) for person in (ALICE, BOB, MALLORY)]
    assert held == [3, 2 * T + 5, 4]


async def test_credits_after_a_registration_are_surplus_and_survive_refutations() -> None:
    scene, channel = await funded()
    assert scene.dispute(channel, channel.signed(1, T, T)) is None
    await scene.fund(channel, ALICE, 7)
    assert scene.dispute(channel, channel.signed(2, 0, 2 * T + 7)) is Error.INSUFFICIENT_FUNDING
    assert scene.dispute(channel, channel.signed(3, 0, 2 * T)) is None
    scene.pass_time(HOUR)
    assert (scene.holdings(channel, ALICE), scene.holdings(channel, BOB)) == (7, 2 * T)


@pytest.mark.parametrize("allocation", [(MAX_E8S, 1), (2**64, 0), (10**3000, 0)])
async def test_totals_above_a_nat64_are_refused(allocation: tuple[int, int]) -> None:
    scene, channel = await funded()
    assert scene.dispute(channel, channel.signed(1, *allocation)) is Error.INVALID_INPUT
    assert scene.dispute(channel, channel.signed(0, *allocation)) is None, "state 0 gives back what is in"
    scene.upgrade()
    scene.pass_time(HOUR)
    assert (scene.holdings(channel, ALICE), scene.holdings(channel, BOB)) == (T, T)


async def test_the_ledger_is_an_init_argument_and_part_of_the_state() -> None:
    scene, _ = await funded()
    assert "service : (principal) ->" in interface_file("perun.did")
    other = PerunCanister(CANISTER, b"another ledger", scene.line)
    with pytest.raises(Trap, match="with ledger"):
        other.load(scene.canister.save())


async def test_disputes_since_tells_every_channel_once_in_bounded_pages() -> None:
    scene = Scene()
    channels = [Channel(nonce=n) for n in range(5)]
    for channel in channels:
        await scene.fund(channel, ALICE, T)
        assert scene.dispute(channel, channel.signed(0, T, 0)) is None
    first = scene.canister.disputes_since(0, 2)
    assert ([e.channel for e in first.entries], first.head) == ([channels[0].id, channels[1].id], 5)
    rest = scene.canister.disputes_since(first.entries[-1].index + 1, 1_000_000)
    assert [e.channel for e in rest.entries] == [channel.id for channel in channels[2:]]
    assert scene.canister.disputes_since(rest.head, 10).entries == ()

    refuted = channels[0].signed(1, 0, T)
    assert scene.dispute(channels[0], refuted) is None
    moved = scene.canister.disputes_since(rest.head, 10)
    assert [(e.channel, e.state.state) for e in moved.entries] == [(channels[0].id, refuted.state)]
    assert scene.conclude(channels[1], channels[1].signed(9, 0, T, final=True)) is None
    settled = scene.canister.disputes_since(moved.head, 10)
    assert [e.channel for e in settled.entries] == [channels[1].id]
    everything = scene.canister.disputes_since(0, 2**32 - 1)
    assert len(everything.entries) == 5
    assert scene.canister.disputes_since(0, 0).entries == ()
    assert scene.canister.disputes_since(2**64 - 1, 10).entries == ()


async def test_every_fact_is_written_once() -> None:
    scene, channel = await funded()
    signed = channel.signed(1, T, T)
    assert scene.dispute(channel, signed) is None
    assert scene.dispute(channel, signed) is Error.OUTDATED_STATE
    timeout = scene.now_ns + HOUR
    expected = [Funded(ALICE.public, T), Funded(BOB.public, T), Disputed(signed.state, timeout)]
    assert list(scene.canister.query_events(channel.id, 0, scene.now_ns)) == expected
    scene.pass_time(HOUR)
    assert scene.canister.query_events(channel.id, 3, scene.now_ns) == (Concluded(),)
    assert isinstance(await scene.withdraw(channel, ALICE), int)
    assert scene.canister.query_events(channel.id, 0, scene.now_ns) == (*expected, Concluded())


async def test_an_index_of_an_event_never_changes_its_meaning() -> None:
    scene, channel = await funded()
    assert scene.dispute(channel, channel.signed(1, T, T)) is None
    scene.pass_time(HOUR)
    assert scene.events(channel, 3) == ["Concluded"], "nobody has acted on the timeout yet"
    await scene.fund(channel, ALICE, 5)
    assert scene.events(channel, 3) == ["Concluded", "Funded"]


async def test_state_survives_an_upgrade() -> None:
    scene, channel = await funded()
    assert scene.dispute(channel, channel.signed(1, 0, 2 * T)) is None
    saved = scene.canister.save()
    scene.upgrade()
    assert scene.canister.save() == saved
    scene.pass_time(HOUR)
    assert isinstance(await scene.withdraw(channel, BOB), int)


def test_a_state_that_nobody_saved_is_refused() -> None:
    for saved in (b"", b"\x80", b"not MessagePack at all"):
        with pytest.raises(Trap):
            Scene().canister.load(saved)


async def test_sizes_and_counts_of_params_are_exact() -> None:
    scene, channel = await funded()
    signed = channel.signed(1, T, T)
    keys = channel.params.participants
    for params in (
        Params(bytes(63), keys, HOUR),
        Params(bytes(65), keys, HOUR),
        Params(bytes(64), (keys[0], keys[1][:31]), HOUR),
        Params(bytes(64), (keys[0], keys[1] + b"\x00"), HOUR),
        Params(bytes(64), keys[:1], HOUR),
        Params(bytes(64), tuple(bytes([n]) * 32 for n in range(17)), HOUR),
    ):
        state = State(params.channel_id(), 1, signed.state.allocation, finalized=False)
        assert scene.canister.dispute(params, FullySignedState(state, signed.sigs), scene.now_ns) is Error.INVALID_INPUT
