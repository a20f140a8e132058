"""Starts a program of Python whose wall clock is two days ahead: `python -P clock_off.py -- PYTHON -m MODULE ARGS`.

It stands alone: of this project it imports nothing before the program does.
"""

from __future__ import annotations

import runpy
import sys
import time

AHEAD_NS = 2 * 86_400 * 10**9


def main() -> None:
    """Set the wall clock ahead for this process, and run the module as if nothing had been."""
    wall_ns = time.time_ns
    time.time_ns = lambda: wall_ns() + AHEAD_NS
    time.time = lambda: time.time_ns() / 1e9
    sys.argv = sys.argv[sys.argv.index("-m", sys.argv.index("--")) + 1 :]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
