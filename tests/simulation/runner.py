"""Runs seeds one after the other, and tells what happened in them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from tests.simulation.plan import KINDS
from tests.simulation.power import Statistics
from tests.simulation.world import SeedFailed, World

__all__ = ["LEAST_EVENTS", "Run", "command_of", "run_seeds", "was_crash_point"]

LEAST_EVENTS: Final = 100
"""A seed with fewer effects shows nothing."""


MOST_TOWNS: Final = 80
"""In so many towns each kind of effect happens at least once: a decline is the rarest."""


@dataclass
class Run:
    """What came of some seeds."""

    statistics: Statistics = field(default_factory=Statistics)
    seeds: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)
    cpu_s: float = 0.0

    def never_hit(self) -> list[str]:
        """Return the kinds of effect at which no crash happened."""
        return [kind for kind in KINDS if not self.statistics.crashes[kind]]

    def add(self, other: Run) -> None:
        """Take what came of other seeds."""
        self.statistics.add(other.statistics)
        self.seeds += other.seeds
        self.failures += other.failures
        self.cpu_s += other.cpu_s

    def table(self) -> str:
        """Return how often each kind of effect happened, and how often it was a crash point."""
        lines = [f"{'effect':28} {'happened':>10} {'crashes':>8}"]
        for kind, count in sorted(self.statistics.effects.items()):
            lines.append(f"{kind:28} {count:10} {self.statistics.crashes[kind]:8}")
        lines += [f"{fact:28} {count:10}" for fact, count in sorted(self.statistics.facts.items())]
        return "\n".join(lines)


def command_of(seed: int) -> str:
    """Return the command that replays a seed."""
    return f"python -m tests.simulation --first {seed} --seeds 1 --verbose"


def run_seeds(seeds: Iterable[int], *, verbose: bool = False, until_cpu_s: float | None = None) -> Run:
    """Run seeds until they are through or the processor time is used up. Failures are gathered."""
    run, started = Run(), time.process_time()
    for seed in seeds:
        world = World(seed, verbose=verbose)
        try:
            statistics = world.run()
        except SeedFailed as error:
            run.failures.append((seed, str(error)))
        else:
            run.statistics.add(statistics)
            if statistics.effects.total() < LEAST_EVENTS:
                run.failures.append((seed, f"seed {seed} has only {statistics.effects.total()} events"))
        run.seeds += 1
        run.cpu_s = time.process_time() - started
        if until_cpu_s is not None and run.cpu_s > until_cpu_s:
            break
    return run


def was_crash_point(kind: str) -> bool:
    """Whether the power goes at the first effect of this kind, in one of some towns. Raises `SeedFailed`."""
    seeds = range(10_001, 10_001 + MOST_TOWNS)
    return any(World(seed, power_goes_at=kind).run().crashes[kind] for seed in seeds)
