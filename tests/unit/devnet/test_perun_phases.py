"""Whose money it is: the rules of surplus, for any order of credits."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devnet.perun.interface import RegisteredState, State
from devnet.perun.phases import Credit, Registered, Settled, Unregistered

A, B, M = b"a", b"b", b"m"
BOTH = (A, B)


def state(version: int, a: int, b: int) -> RegisteredState:
    return RegisteredState(State(b"channel", version, (a, b), finalized=False), 0)


def paid(*credits_: tuple[bytes, int]) -> Unregistered:
    channel = Unregistered()
    for who, e8s in credits_:
        channel = channel.credited(Credit(who, e8s))
    return channel


def settled(channel: Unregistered | Registered, registered: RegisteredState) -> dict[bytes, int]:
    after = channel.registered(BOTH, registered)
    assert after is not None
    return dict(after.settled().left)


@pytest.mark.parametrize(
    ("credits_", "expected"),
    [
        ([(A, 10), (B, 10)], {A: 5, B: 15}),
        ([(A, 10), (B, 10), (A, 4)], {A: 9, B: 15}),
        ([(A, 4), (A, 10), (B, 10)], {A: 5, B: 19}),  # who paid last has the surplus
        ([(A, 10), (B, 13), (A, 4)], {A: 9, B: 18}),
        ([(A, 10), (B, 10), (M, 3)], {A: 5, B: 15, M: 3}),
        ([(A, 30)], {A: 15, B: 15}),
    ],
)
def test_a_later_state_gives_the_sum_out_and_the_latest_credits_back(
    credits_: list[tuple[bytes, int]], expected: dict[bytes, int]
) -> None:
    assert settled(paid(*credits_), state(1, 5, 15)) == expected


@pytest.mark.parametrize("credits_", [[(A, 10), (B, 10)], [(A, 25), (B, 1)], [(A, 3)], [(B, 30), (M, 2)]])
def test_state_0_gives_everybody_back_what_he_paid_in(credits_: list[tuple[bytes, int]]) -> None:
    expected = Counter[bytes]()
    for who, e8s in credits_:
        expected[who] += e8s
    assert settled(paid(*credits_), state(0, 10, 10)) == dict(expected)


def test_after_state_0_a_later_state_takes_no_more_than_each_ones_share() -> None:
    channel = paid((A, 25)).registered(BOTH, state(0, 10, 10))
    assert channel is not None
    assert channel.registered(BOTH, state(1, 0, 20)) is None, "B never paid"
    channel = channel.credited(Credit(B, 7)).credited(Credit(M, 1)).credited(Credit(B, 7))
    assert settled(channel, state(1, 0, 20)) == {A: 15, B: 24, M: 1}


def test_without_money_nothing_is_registered() -> None:
    assert paid().registered(BOTH, state(0, 0, 0)) is None
    assert paid((M, 5)).registered(BOTH, state(1, 0, 1)) is None
    assert paid((A, 1)).registered(BOTH, state(0, 0, 0)) is not None


def test_what_only_a_stranger_paid_in_comes_back_to_him() -> None:
    assert settled(paid((M, 5)), state(0, 10, 10)) == {M: 5}


def test_who_stands_in_a_channel_twice_has_the_sum_and_pays_once() -> None:
    twice = (A, A)
    assert paid((A, 10)).registered(twice, state(1, 0, 20)) is None
    assert paid((A, 10)).registered(twice, state(0, 10, 10)) is None
    for version in (0, 1):
        channel = paid((A, 10)).registered(twice, state(version, 4, 6))
        assert channel is not None
        assert channel.settled().left == {A: 10}


def test_a_channel_about_nothing_gives_everything_back() -> None:
    channel = paid((A, 3)).registered(BOTH, state(0, 0, 0))
    assert channel is not None
    assert settled(channel, state(1, 0, 0)) == {A: 3}


credits_of_all = st.lists(st.tuples(st.sampled_from((A, B, M)), st.integers(1, 30)), max_size=8)


@given(credits_of_all, credits_of_all, credits_of_all, st.integers(0, 3), st.integers(0, 20), st.booleans())
def test_money_is_conserved_and_everybody_keeps_his_surplus(
    before: list[tuple[bytes, int]],
    between: list[tuple[bytes, int]],
    after: list[tuple[bytes, int]],
    version: int,
    to_a: int,
    refuted: bool,
) -> None:
    channel: Unregistered | Registered = paid(*before)
    total = Counter[bytes]()
    for who, e8s in before:
        total[who] += e8s
    allocation = (10, 10) if version == 0 else (to_a, 20 - to_a)
    for registered in [state(version, *allocation)] + [state(version + 1, 20 - to_a, to_a)] * refuted:
        newer = channel.registered(BOTH, registered)
        if newer is not None:
            channel = newer
        for who, e8s in between:
            channel = channel.credited(Credit(who, e8s))
            total[who] += e8s
    assert channel.total_e8s == total.total()
    assert {who: channel.holdings(who) for who in (A, B, M)} == {who: total[who] for who in (A, B, M)}
    if isinstance(channel, Unregistered):
        return
    end: Settled = channel.settled()
    for who, e8s in after:
        end = end.credited(Credit(who, e8s))
        total[who] += e8s
    assert end.total_e8s == total.total()
    assert end.holdings(M) == total[M]
    if channel.state.state.version > 0:
        for who, share in zip(BOTH, channel.state.state.allocation, strict=True):
            assert share <= end.holdings(who) <= share + total[who]
