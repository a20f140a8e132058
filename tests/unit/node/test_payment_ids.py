"""Payment ids rise and never come twice, whatever the clock does."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from perund.node.payment_ids import PaymentIds

MS = 1_000_000


def cut(joined: bytes) -> list[bytes]:
    return [joined[i : i + 16] for i in range(0, len(joined), 16)]


@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 50)), min_size=1, max_size=30))
def test_they_rise_and_are_unique_whatever_the_clock_says(calls: list[tuple[int, int]]) -> None:
    clock: Iterator[int] = iter([ms * MS for ms, _ in calls])
    ids = PaymentIds(now_ns=lambda: next(clock))
    made = [payment_id for _, count in calls for payment_id in cut(ids.make(count))]
    assert len(made) == sum(count for _, count in calls)
    assert made == sorted(set(made))


def test_the_counter_runs_over_into_the_next_millisecond() -> None:
    ids = PaymentIds(now_ns=lambda: 5 * MS, random=bytes)
    ids._counter, ids._ms = (1 << 24) - 2, 5
    two, more = cut(ids.make(2)), cut(ids.make(2))
    assert two == [bytes.fromhex("000000000005fffffe") + bytes(7), bytes.fromhex("000000000005ffffff") + bytes(7)]
    assert more == [bytes.fromhex("000000000006000000") + bytes(7), bytes.fromhex("000000000006000001") + bytes(7)]


def test_the_form_of_an_id() -> None:
    made = PaymentIds(now_ns=lambda: 0x0102030405_06 * MS, random=lambda count: b"\xaa" * count).make(1)
    assert made.hex() == "010203040506" + "000000" + "aa" * 7


def test_two_copies_of_a_node_at_the_same_moment_make_different_ids() -> None:
    one, two = (cut(PaymentIds(now_ns=lambda: 5 * MS).make(100)) for _ in range(2))
    assert not set(one) & set(two)
