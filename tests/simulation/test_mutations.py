"""The simulation can fail: each deliberate bug is caught."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.simulation.mutations import CAUGHT_BY, MUTATIONS, Mutation
from tests.simulation.world import SeedFailed, World

QUICK = 120
WITHIN = 2_000


def first_to_fail(mutation: Mutation, seeds: Iterable[int]) -> int | None:
    with mutation.switched_on():
        for seed in seeds:
            try:
                World(seed).run()
            except SeedFailed:
                return seed
    return None


def cases() -> list[object]:
    return [
        pytest.param(mutation, id=mutation.name, marks=[pytest.mark.long] if mutation.slow else [])
        for mutation in MUTATIONS
    ]


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("mutation", cases())
def test_a_deliberate_bug_is_caught(mutation: Mutation) -> None:
    most = WITHIN if mutation.slow else QUICK
    seeds = (*([CAUGHT_BY[mutation.name]] if mutation.name in CAUGHT_BY else []), *range(1, most + 1))
    assert first_to_fail(mutation, seeds) is not None, f"{mutation.rule}: not caught in {most} seeds"


def test_there_are_many() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) >= 20
