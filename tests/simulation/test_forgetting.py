"""Seeds: a tower that forgets in every way, and what its client believes. And deliberate bugs that must be caught."""

# ruff: noqa: E501  (pieces of source stand as they stand there)

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from perund.tower.link import TowerLink
from perund.tower.standing import Standing
from tests.simulation.forgetting import Believed, run
from tests.simulation.mutations import Edit, Mutation

SEEDS = range(1, 61)


@pytest.fixture(autouse=True)
def _quietly() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


def bug(name: str, *edits: tuple[type, str, str, str]) -> Mutation:
    return Mutation(name, "ADR 0011: a promise counts while its keeper confirms it", tuple(Edit(*e) for e in edits))


MUTATIONS = (
    bug("receipts of an earlier session count", (Standing, "session_ended", "self._doubt_all(now_ns)", "pass")),
    bug(
        "a tower of before is brought only what its receipts do not cover",
        (TowerLink, "session_began", "for channel in self._live:", "for channel in ():"),
        (Standing, "is_sure", "return channel in self._answered or", "return self._able is False or"),
    ),
    bug("asked once in a session", (Standing, "next", "if now_ns < self._due_ns:", "if self._due_ns:")),
    bug(
        "what differs is not listed",
        (Standing, "_stand", "self._to_list = differing", "self._sure = set(range(256))"),
    ),
    bug(
        "what a list lacks is noted when every list is there",
        (TowerLink, "_confirmed", "if isinstance(message, TowerList):", "if isinstance(message, TowerList) and self.standing.settled:"),
        (Standing, "doubtful", "or channel not in self._held", ""),
    ),
    bug("what is missing in a list is taken for held", (Standing, "_compare", "self._held.pop(channel, None)", "pass")),
)  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_not_behind_is_held(seed: int) -> None:
    run(seed)


def test_broken_promises_are_said() -> None:
    towns = [run(seed) for seed in SEEDS[:20]]
    assert sum(town.events.count("tower.forgot") for town in towns) > 5


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_deliberate_bug_is_caught(mutation: Mutation) -> None:
    with mutation.switched_on():
        for seed in SEEDS:
            try:
                run(seed)
            except Believed:
                return
    pytest.fail(f"{mutation.name}: not caught")


def test_the_seed_is_one_story() -> None:
    first, second = run(7), run(7)
    assert (first.clock, first.events) == (second.clock, second.events)
