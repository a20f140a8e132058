"""`python -m tests.mutants`: see `--help`, and docs/reliability.md."""

from __future__ import annotations

import argparse
import os
import sys

from tests.mutants.guarded import GUARDED
from tests.mutants.judged import JUDGED
from tests.mutants.named import NAMED
from tests.mutants.running import Unfit, drawn, named_jobs, run


def main() -> int:
    """Run; return 1 when a mutant survived that nobody has judged, and 2 when nothing can be said."""
    parser = argparse.ArgumentParser(description="Mutants of what guards money, and whether the closest tests notice.")
    parser.add_argument("--seed", type=int, default=1, help="draws the mutants of each module")
    parser.add_argument("--per-module", type=int, default=12, help="so many of each module; 0: the named ones alone")
    parser.add_argument("--only", default="", help="modules and named mutants whose path contains this")
    parser.add_argument("--no-named", action="store_true", help="without the named mutants")
    parser.add_argument("--minutes", type=float, default=165.0, help="after so many no other mutant is begun")
    parser.add_argument("-n", "--workers", type=int, default=os.cpu_count() or 1, help="so many at the same time")
    options = parser.parse_args()
    guarded = {path: tests for path, tests in GUARDED.items() if options.only in path}
    named = [] if options.no_named else [entry for entry in NAMED if options.only in entry.path]
    try:
        judged = [entry for entry in JUDGED if entry.path in guarded or entry.path not in GUARDED]
        jobs = [*named_jobs(named), *drawn(guarded, judged, options.seed, options.per_module)]
        report = run(jobs, options.workers, options.minutes, lambda line: print(line, flush=True))
    except Unfit as error:
        print(error, file=sys.stderr)
        return 2
    for line in report.lines():
        print(line)
    return 1 if report.survivors else 0


sys.exit(main())
