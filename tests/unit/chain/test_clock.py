from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from chain.clock import Certified, ChainTime, SystemClock
from tests.unit.chain.replica import SECOND, FakeClock


def test_the_systems_clock_counts_the_time_asleep() -> None:
    clock = SystemClock()
    first = clock.monotonic_ns()
    assert 0 <= clock.monotonic_ns() - first < 10 * SECOND
    assert abs(clock.wall_ns() - time.time_ns()) < 10 * SECOND
    if hasattr(time, "CLOCK_BOOTTIME"):
        assert abs(clock.monotonic_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) < 10 * SECOND


@given(st.lists(st.tuples(st.floats(0, 1000), st.integers(-(10**12), 10**12)), max_size=20))
def test_chain_time_is_the_best_lower_bound_and_never_goes_back(steps: list[tuple[float, int]]) -> None:
    clock = FakeClock()
    chain_time = ChainTime(clock)
    assert chain_time.now_ns() == clock.wall
    assert not chain_time.certified
    last = 0
    for waited_s, off_ns in steps:
        clock.advance(waited_s)
        certified_ns = clock.wall + off_ns
        chain_time.observe(certified_ns)
        now = chain_time.now_ns()
        assert now >= max(last, certified_ns)
        last = now
    assert chain_time.certified == bool(steps)


def test_a_look_ages_from_its_signing() -> None:
    clock = FakeClock()
    look = Certified(1, clock.wall, clock.wall - 5, clock.mono, bytes(32))
    clock.advance(90)
    assert look.age_ns(clock) == 90 * SECOND
    assert look.with_value("x") == Certified(
        "x", look.chain_time_ns, look.asked_at_chain_ns, look.signed_at_mono_ns, look.request_id
    )


def test_time_is_young_after_a_certificate_until_it_is_old_or_the_machine_slept() -> None:
    clock = FakeClock()
    chain_time = ChainTime(clock)
    assert not chain_time.is_young(10 * SECOND)
    chain_time.observe(clock.wall)
    clock.advance(10)
    assert chain_time.is_young(10 * SECOND)
    clock.advance(1)
    assert not chain_time.is_young(10 * SECOND)
    chain_time.observe(clock.wall)
    for asleep_s in (3600, -3600):  # the monotonic clock stood still; or somebody sets the wall clock back
        clock.wall += asleep_s * SECOND
        assert not chain_time.is_young(10 * SECOND)
        chain_time.observe(clock.wall)
        assert chain_time.is_young(10 * SECOND)
