"""Seeds: towns in which everything goes wrong. `python -m tests.simulation` runs more of them."""

from __future__ import annotations

import pytest

from tests.simulation.found_seeds import FOUND
from tests.simulation.plan import KINDS, RARE_KINDS
from tests.simulation.runner import command_of, run_seeds, was_crash_point
from tests.simulation.world import SeedFailed, World

CHUNK = 75
CHUNKS = 14
"""1,050 seeds: some two minutes on two cores. `python -m tests.simulation --seeds 3000` is for a change of rules."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_towns_heal_and_nobody_loses_money(chunk: int) -> None:
    first = 1 + chunk * CHUNK
    run = run_seeds(range(first, first + CHUNK))
    assert not run.failures, "\n".join(f"{reason}\n  replay: {command_of(seed)}" for seed, reason in run.failures)
    assert run.statistics.facts["payments delivered"] > CHUNK
    assert run.statistics.crashes.total() > CHUNK / 3


@pytest.mark.parametrize(("seed", "showed"), FOUND)
def test_seeds_that_showed_a_defect_stay(seed: int, showed: str) -> None:
    run = run_seeds([seed])
    assert not run.failures, f"{showed}: {run.failures}"


def test_a_seed_is_one_story() -> None:
    first, second = World(11).run(), World(11).run()
    assert (first.effects, first.crashes, first.facts) == (second.effects, second.crashes, second.facts)


def test_a_failing_seed_names_itself() -> None:
    world = World(5)
    world.loop.call_later(20.0, world.rules.fail, "a rule was broken")
    with pytest.raises(SeedFailed, match=r"seed 5 at .*: a rule was broken"):
        world.run()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_effect_is_a_crash_point(kind: str) -> None:
    """Each life ends at its first effect of this kind, in town after town until one did; and the town heals."""
    assert was_crash_point(kind), f"the power never went at {kind}"


def test_no_effect_is_forgotten_in_the_list() -> None:
    run = run_seeds(range(20_001, 20_041))
    assert not run.failures
    assert set(run.statistics.effects) <= {*KINDS, *RARE_KINDS}
