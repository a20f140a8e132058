"""`python -m tests.simulation --seeds N --first K [--verbose]`: run seeds, and say which of them fail."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from multiprocessing import Pool

import click

from tests.simulation.runner import Run, command_of, run_seeds, was_crash_point

CHUNK = 50
"""Seeds that are one piece of work of a process."""
ENOUGH = 500
"""A run of so many has to have every kind of effect as a crash point."""
REPORT_EVERY_S = 60.0


@click.command()
@click.option("--seeds", default=100, show_default=True, help="How many.")
@click.option("--first", default=1, show_default=True, help="The first of them.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Processes that share the work.")
@click.option("--verbose", is_flag=True, help="Print everything that happens; one process.")
@click.option("--table/--no-table", default=True, help="Print how often each effect was a crash point.")
def main(seeds: int, first: int, jobs: int, *, verbose: bool, table: bool) -> None:
    """Run the simulation. Failures are printed when they are found; the exit status is 1 when there is one."""
    began = said = time.monotonic()
    run = Run()
    for part in _parts(range(first, first + seeds), jobs, verbose=verbose):
        run.add(part)
        for seed, reason in part.failures:
            click.echo(f"FAILED {reason}\n  replay: {command_of(seed)}")
        if time.monotonic() - said > REPORT_EVERY_S:
            said = time.monotonic()
            click.echo(f"{run.seeds} of {seeds} seeds, {len(run.failures)} failed", err=True)
    if table:
        click.echo(run.table())
    # What chance left out is made to happen.
    never = [kind for kind in run.never_hit() if not was_crash_point(kind)] if seeds >= ENOUGH else []
    if never:
        click.echo(f"FAILED no crash happened at: {', '.join(never)}")
    rate = run.seeds / max(run.cpu_s, 1e-9)
    click.echo(
        f"seeds {first} to {first + seeds - 1}: {len(run.failures)} failed; {time.monotonic() - began:.1f} s, "
        f"{rate:.1f} seeds per second of processor time"
    )
    raise SystemExit(1 if run.failures or never else 0)


def _parts(seeds: range, jobs: int, *, verbose: bool) -> Iterator[Run]:
    if verbose or jobs == 1 or len(seeds) <= CHUNK:
        yield run_seeds(seeds, verbose=verbose)
        return
    with Pool(jobs) as pool:
        yield from pool.imap_unordered(run_seeds, (seeds[i : i + CHUNK] for i in range(0, len(seeds), CHUNK)))


if __name__ == "__main__":
    main()
