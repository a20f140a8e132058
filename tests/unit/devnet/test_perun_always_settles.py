"""What all participants signed can always be settled: no check that comes after the money may keep it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from devnet.perun.interface import Error, Params
from devnet.perun.journal import MAX_EVENTS_KEPT
from protocol.types import MAX_CHALLENGE_NS
from tests.unit.devnet.scene import ALICE, BOB, FEE, HOUR, MALLORY, Channel, Person, Scene

T = 1_000_000
CROWD = tuple(Person.named(f"number {n}") for n in range(40))


def with_nonce(size: int) -> Channel:
    channel = Channel()
    channel.params = Params(bytes(size), channel.params.participants, HOUR)
    channel.id = channel.params.channel_id()
    return channel


ODD: dict[str, Callable[[], Channel]] = {
    "a duration of 0": lambda: Channel(duration_ns=0),
    "a duration of 1 ns": lambda: Channel(duration_ns=1),
    "a duration that wraps around": lambda: Channel(duration_ns=2**64 - 1),
    "a duration of two years": lambda: Channel(duration_ns=2 * MAX_CHALLENGE_NS),
    "one participant": lambda: Channel((ALICE,)),
    "the same participant twice": lambda: Channel((ALICE, ALICE)),
    "twice, and another": lambda: Channel((ALICE, BOB, ALICE)),
    "17 participants": lambda: Channel((ALICE, *CROWD[:16])),
    "40 participants": lambda: Channel((*CROWD, ALICE)),
    "no nonce": lambda: with_nonce(0),
    "a nonce of 63 bytes": lambda: with_nonce(63),
}


@pytest.fixture(params=ODD.values(), ids=list(ODD))
def odd(request: pytest.FixtureRequest) -> Channel:
    made = request.param()
    assert isinstance(made, Channel)
    return made


def shares(channel: Channel, person: Person, e8s: int) -> tuple[int, ...]:
    """Everything to one."""
    first = channel.people.index(person)
    return tuple(e8s if place == first else 0 for place in range(len(channel.people)))


async def test_money_that_came_in_comes_out_alone(odd: Channel) -> None:
    scene = Scene()
    await scene.fund(odd, ALICE, T)
    assert scene.dispute(odd, odd.signed(0, *shares(odd, ALICE, T))) is None
    registered = scene.canister.query_state(odd.id)
    assert registered is not None
    assert not registered.settled(scene.now_ns), "there is time to refute"
    scene.now_ns = registered.timeout
    assert isinstance(await scene.withdraw(odd, ALICE), int)
    assert scene.ledger.balance(ALICE.account) == T - FEE
    scene.assert_conserved()


async def test_money_that_came_in_comes_out_together(odd: Channel) -> None:
    scene = Scene()
    await scene.fund(odd, ALICE, T)
    assert scene.conclude(odd, odd.signed(5, *shares(odd, ALICE, T), final=True)) is None
    assert isinstance(await scene.withdraw(odd, ALICE), int)
    assert scene.pool() == 0


async def test_a_stale_state_of_such_a_channel_is_refuted(odd: Channel) -> None:
    scene = Scene()
    await scene.fund(odd, ALICE, T)
    assert scene.dispute(odd, odd.signed(0, *shares(odd, ALICE, T))) is None
    assert scene.dispute(odd, odd.signed(3, *shares(odd, ALICE, T))) is None
    assert scene.dispute(odd, odd.signed(2, *shares(odd, ALICE, T))) is Error.OUTDATED_STATE


async def test_without_money_such_a_channel_costs_nobody_anything(odd: Channel) -> None:
    scene = Scene()
    before = scene.canister.save()
    for signed in (odd.signed(0, *shares(odd, ALICE, T)), odd.signed(1, *shares(odd, ALICE, T), final=True)):
        assert scene.dispute(odd, signed) is Error.INVALID_INPUT
        assert scene.conclude(odd, signed) is Error.INVALID_INPUT
    assert scene.canister.save() == before


async def test_what_a_stranger_paid_into_the_channel_of_others_comes_out() -> None:
    scene, channel = Scene(), Channel()
    await scene.fund(channel, MALLORY, T)
    assert scene.dispute(channel, channel.signed(0, 0, 0)) is None
    scene.pass_time(HOUR)
    assert isinstance(await scene.withdraw(channel, MALLORY), int)
    assert scene.ledger.balance(MALLORY.account) == T - FEE


async def test_a_funding_that_never_completed_comes_back_in_a_channel_where_one_stands_twice() -> None:
    scene, channel = Scene(), Channel((ALICE, BOB, ALICE))
    await scene.fund(channel, ALICE, T)
    assert scene.dispute(channel, channel.signed(0, T, T, T)) is None
    scene.pass_time(HOUR)
    assert isinstance(await scene.withdraw(channel, ALICE), int)
    assert scene.ledger.balance(ALICE.account) == T - FEE
    assert await scene.withdraw(channel, BOB) is Error.INSUFFICIENT_FUNDING


async def test_the_past_of_a_crowded_channel_is_short() -> None:
    scene, channel = Scene(), Channel((ALICE, *CROWD))
    await scene.fund(channel, ALICE, T)
    for version in range(MAX_EVENTS_KEPT // 2):
        assert scene.dispute(channel, channel.signed(version, *shares(channel, ALICE, T))) is None
    assert len(scene.canister.save()) < 250 * MAX_EVENTS_KEPT, "no more than that of a channel of two"
