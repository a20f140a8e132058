"""Since when problems last, across lives of a node."""

from __future__ import annotations

from pathlib import Path

import pytest

from perund.node.problems import GRACE_NS, Problems
from perund.store.store import Store


def refuse(error: Exception) -> None:
    raise error


class Clock:
    now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_a_problem_keeps_its_beginning_until_it_ends(tmp_path: Path, clock: Clock) -> None:
    store = Store(tmp_path / "perund.db", bytes(32), refuse)
    problems = Problems(store, clock)
    await problems.settle({("tower_behind", "ab"): 5, ("job_stuck", "cd"): 7})
    assert (problems.since("tower_behind", "ab"), problems.since("tower_behind", "cd")) == (5, None)
    await problems.settle({("job_stuck", "cd"): 7})
    assert problems.since("tower_behind", "ab") is None
    assert store.read.problems() == {("job_stuck", "cd"): 7}
    before = store.transactions
    await problems.settle({("job_stuck", "cd"): 7})
    assert store.transactions == before, "what is no news is not written"
    store.close()


async def test_after_a_start_what_has_to_fail_again_keeps_its_date(tmp_path: Path, clock: Clock) -> None:
    first = Store(tmp_path / "perund.db", bytes(32), refuse)
    await Problems(first, clock).settle({("funding_stuck", "ab"): 5, ("settlement_stuck", "cd"): 6})
    first.close()
    store = Store(tmp_path / "perund.db", bytes(32), refuse)
    problems = Problems(store, clock)
    await problems.settle({})
    assert problems.since("funding_stuck", "ab") == 5
    await problems.settle({("funding_stuck", "ab"): 5})
    await problems.settle({})  # it was seen again, and has ended
    assert problems.since("funding_stuck", "ab") is None
    assert problems.since("settlement_stuck", "cd") == 6
    clock.now_ns = GRACE_NS
    await problems.settle({})
    assert store.read.problems() == {}
    store.close()
