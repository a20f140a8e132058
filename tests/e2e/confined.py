"""Starts a program with less than its user has: `python -P confined.py WHAT... -- PROGRAM ARGUMENTS`.

* `file-bytes=N`: no file can grow beyond N bytes, as on a disk that is full (RLIMIT_FSIZE; what would exceed it fails).
* `file-modes`: the modes of files and directories hold for root as well.

It stands alone and becomes the program (exec), so process id and signals are the program's.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys

PR_CAPBSET_DROP = 24
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2


def keep_file_modes() -> None:
    """Give up root's right to ignore modes, for good: what is not in the bounding set is gone after the exec."""
    if os.geteuid() != 0:
        return
    system = ctypes.CDLL(None, use_errno=True)
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        if system.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "the right cannot be given up")


def main() -> None:
    """Confine, and become the program."""
    split = sys.argv.index("--")
    for what in sys.argv[1:split]:
        name, _, value = what.partition("=")
        if name == "file-bytes":
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(value), int(value)))
        elif name == "file-modes":
            keep_file_modes()
        else:
            raise SystemExit(f"confined: what is {what}?")
    program = sys.argv[split + 1 :]
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
