"""Draws mutants, runs the closest tests over each, and says who survived."""

from __future__ import annotations

import difflib
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from tests.mutants.judged import Judged
from tests.mutants.named import Named
from tests.mutants.operators import Mutant, mutants_of
from tests.mutants.tree import REPOSITORY, Tree, Verdict

__all__ = ["Job", "Report", "Unfit", "drawn", "named_jobs", "run"]

LEAST_LIMIT_S: Final = 30.0
SLOWER: Final = 5
"""A mutant may take so many times as long as the tests did without it, and `LEAST_LIMIT_S` more."""
BASELINE_LIMIT_S: Final = 900.0


class Unfit(Exception):
    """The tables do not fit the source, or the tests fail without any mutant: nothing can be said of mutants."""


@dataclass(frozen=True, slots=True)
class Job:
    """One mutant: `source` in the place of `path`."""

    path: str
    what: str
    line: int
    source: str
    tests: tuple[str, ...]
    judged: str = ""
    """Why it may survive, or empty."""
    name: tuple[str, str, str] = ("", "", "")


@dataclass
class Report:
    """What became of the mutants, by module."""

    verdicts: dict[str, Counter[str]] = field(default_factory=dict)
    survivors: list[Job] = field(default_factory=list)
    judged: int = 0
    not_run: int = 0
    seconds: float = 0.0

    def note(self, job: Job, verdict: Verdict) -> None:
        """Count one."""
        self.verdicts.setdefault(job.path, Counter())[verdict.value] += 1
        if verdict is Verdict.SURVIVED and job.judged:
            self.judged += 1
        elif verdict is Verdict.SURVIVED:
            self.survivors.append(job)

    def total(self, verdict: Verdict) -> int:
        """Return how many ended like that."""
        return sum(counts[verdict.value] for counts in self.verdicts.values())

    def lines(self, source: Path = REPOSITORY) -> Iterator[str]:
        """Say it to a person."""
        for job in sorted(self.survivors, key=lambda job: (job.path, job.line)):
            yield f"\nsurvived  {job.path}:{job.line}  {job.what}  {job.name!r}"
            before = (source / job.path).read_text().splitlines()
            diff = difflib.unified_diff(before, job.source.splitlines(), job.path, job.path, lineterm="", n=2)
            yield from list(diff)[2:]
        yield f"\n{'module':34} {'killed':>8} {'timeout':>8} {'survived':>9}"
        for path, counts in sorted(self.verdicts.items()):
            yield f"{path:34} {counts['killed']:8} {counts['timeout']:8} {counts['survived']:9}"
        killed, late, survived = (
            self.total(verdict) for verdict in (Verdict.KILLED, Verdict.TIMEOUT, Verdict.SURVIVED)
        )
        yield (
            f"{killed + late + survived} mutants in {self.seconds / 60:.1f} min: {killed} killed, {late} did not end, "
            f"{survived} survived ({self.judged} of them judged before); {self.not_run} not run for lack of time"
        )


def drawn(
    guarded: Mapping[str, tuple[str, ...]],
    judged: Sequence[Judged],
    seed: int,
    per_module: int,
    source: Path = REPOSITORY,
) -> list[Job]:
    """Draw mutants of each module, in turns: whenever a run ends, each module has had its share.

    Raises `Unfit` for a module or a test that is gone, and for a judgement of a mutant that no longer is.
    """
    gone = [path for path in dict.fromkeys((*guarded, *sum(guarded.values(), ()))) if not (source / path).exists()]
    if gone:
        raise Unfit(f"not there any more: {', '.join(gone)}; correct tests/mutants/guarded.py")
    rounds: list[list[Job]] = []
    for path, tests in guarded.items():
        text = (source / path).read_text()
        mutants = mutants_of(text)
        why = {entry.name: entry.why for entry in judged if entry.path == path}
        stale = why.keys() - {mutant.name for mutant in mutants}
        if stale:
            raise Unfit(f"{path} has no such mutant any more: {sorted(stale)}; judge anew in tests/mutants/judged.py")
        some = random.Random(f"{seed}:{path}").sample(mutants, min(per_module, len(mutants)))
        rounds.append([_job(path, text, mutant, tests, why.get(mutant.name, "")) for mutant in some])
    strangers = {entry.path for entry in judged} - guarded.keys()
    if strangers:
        raise Unfit(f"judged, and not guarded: {sorted(strangers)}; correct tests/mutants/judged.py")
    return [jobs[turn] for turn in range(per_module) for jobs in rounds if turn < len(jobs)]


def _job(path: str, text: str, mutant: Mutant, tests: tuple[str, ...], judged: str) -> Job:
    return Job(path, mutant.what, mutant.line, mutant.of(text), tests, judged, mutant.name)


def named_jobs(named: Sequence[Named], source: Path = REPOSITORY) -> list[Job]:
    """Return the named mutants. Raises `Unfit` for one whose piece is not there once."""
    jobs = []
    for entry in named:
        file = source / entry.path
        text = file.read_text() if file.exists() else ""
        if text.count(entry.old) != 1:
            raise Unfit(f"{entry.path} has changed: {entry.old!r} is not in it once ({entry.name}); write it anew")
        line = text[: text.index(entry.old)].count("\n") + 1
        jobs.append(Job(entry.path, entry.name, line, text.replace(entry.old, entry.new), entry.tests))
    return jobs


def run(
    jobs: Sequence[Job], workers: int, minutes: float, tell: Callable[[str], None], source: Path = REPOSITORY
) -> Report:
    """Run the tests over every mutant, in copies of the source. After `minutes` no other one is begun.

    Raises `Unfit` when tests fail without a mutant.
    """
    began = time.monotonic()
    report = Report()
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        trees: SimpleQueue[Tree] = SimpleQueue()
        for number in range(workers):
            trees.put(Tree(Path(directory) / str(number), source))

        def took(tests: tuple[str, ...]) -> tuple[tuple[str, ...], float]:
            tree = trees.get()
            try:
                outcome = tree.run(tests, BASELINE_LIMIT_S)
            finally:
                trees.put(tree)
            if outcome.verdict is not Verdict.SURVIVED:
                raise Unfit(f"these tests do not pass without a mutant: {' '.join(tests)}\n{outcome.output}")
            return tests, outcome.seconds

        def fate(job: Job) -> Verdict | None:
            if time.monotonic() - began > 60 * minutes:
                return None
            tree = trees.get()
            try:
                return tree.run_with(
                    job.path, job.source, job.tests, LEAST_LIMIT_S + SLOWER * seconds[job.tests]
                ).verdict
            finally:
                trees.put(tree)

        with ThreadPoolExecutor(workers) as pool:
            seconds = dict(pool.map(took, dict.fromkeys(job.tests for job in jobs)))
            for job, verdict in zip(jobs, pool.map(fate, jobs), strict=True):
                if verdict is None:
                    report.not_run += 1
                    continue
                report.note(job, verdict)
                tell(f"{verdict.value:9} {job.path}:{job.line}  {job.what}")
    report.seconds = time.monotonic() - began
    return report
