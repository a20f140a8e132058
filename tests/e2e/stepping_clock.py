"""Starts a program of Python whose wall clock steps: `python -P stepping_clock.py SEED -- PYTHON -m MODULE ARGUMENTS`.

The wall clock is the only part that is replaced: a test must not set the clock of its machine, and the system's other
clocks are what has to be relied on instead. So `time.time` and `time.time_ns` add an offset to the monotonic clock,
another one each `HOLDS_S` seconds: minutes, hours or days, ahead or back, drawn from the seed. All that reads the wall
clock in this process sees the steps; everything else (daemon, disk, sockets, certificates) is as it always is.

It stands alone: of this project it imports nothing before the program does.
"""

from __future__ import annotations

import random
import runpy
import sys
import time
from collections.abc import Callable

HOLDS_S = 0.1
MINUTE_S, DAY_S = 60, 86_400
NS = 1_000_000_000


def offset_s(seed: str, step: int) -> int:
    """Return how far the clock is off during a step, in seconds: each order of magnitude as often as the others."""
    draw = random.Random(f"{seed}-{step}")
    span = draw.choice((MINUTE_S, 60 * MINUTE_S, DAY_S, 20 * DAY_S))
    return draw.choice((-1, 1)) * draw.randint(span // 4, span)


def stepping(seed: str) -> Callable[[], int]:
    """Return a clock in nanoseconds since 1970."""
    began_wall_ns, began_ns = time.time_ns(), time.monotonic_ns()

    def now_ns() -> int:
        passed_ns = time.monotonic_ns() - began_ns
        return began_wall_ns + passed_ns + offset_s(seed, int(passed_ns / NS / HOLDS_S)) * NS

    return now_ns


def main() -> None:
    """Replace the wall clock, and run the module as if nothing had been."""
    seed = sys.argv[1]
    module_at = sys.argv.index("-m", sys.argv.index("--")) + 1
    now_ns = stepping(seed)
    time.time_ns = now_ns
    time.time = lambda: now_ns() / NS
    sys.argv = sys.argv[module_at:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
