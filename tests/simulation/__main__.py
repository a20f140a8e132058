"""`python -m tests.simulation --seeds N --first K [--verbose]`: run seeds, and say which of them fail."""

from __future__ import annotations

import time

import click

from tests.simulation.runner import command_of, run_seeds


@click.command()
@click.option("--seeds", default=100, show_default=True, help="How many.")
@click.option("--first", default=1, show_default=True, help="The first of them.")
@click.option("--verbose", is_flag=True, help="Print everything that happens.")
@click.option("--table/--no-table", default=True, help="Print how often each effect was a crash point.")
def main(seeds: int, first: int, *, verbose: bool, table: bool) -> None:
    """Run the simulation. The exit status is 1 when a seed fails."""
    began = time.monotonic()
    run = run_seeds(range(first, first + seeds), verbose=verbose)
    if table:
        click.echo(run.table())
    for seed, reason in run.failures:
        click.echo(f"FAILED {reason}\n  replay: {command_of(seed)}")
    never = run.never_hit() if seeds >= 500 else []
    if never:
        click.echo(f"FAILED no crash happened at: {', '.join(never)}")
    rate = run.seeds / max(run.cpu_s, 1e-9)
    click.echo(
        f"seeds {first} to {first + seeds - 1}: {len(run.failures)} failed; {time.monotonic() - began:.1f} s, "
        f"{rate:.1f} seeds per second of processor time"
    )
    raise SystemExit(1 if run.failures or never else 0)


main()
