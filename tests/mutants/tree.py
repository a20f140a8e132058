"""A copy of the source, in which mutants live: the checkout is never written to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

__all__ = ["REPOSITORY", "Outcome", "Tree", "Verdict"]

REPOSITORY: Final = Path(__file__).parents[2]
COPIED: Final = (
    "chain",
    "devnet",
    "perund",
    "protocol",
    "tests",
    "watcher",
    "wire",
    "docs",
    "pyproject.toml",
    "README.md",
)
LEFT_OUT: Final = ("node_modules", "__pycache__", ".*")


class Verdict(StrEnum):
    """What the tests said. A mutant that they do not end with is noticed, too: a test that hangs fails."""

    KILLED = "killed"
    SURVIVED = "survived"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one run of tests. `output`: its last lines."""

    verdict: Verdict
    seconds: float
    output: str


class Tree:
    """One copy. Only one mutant is in it at a time."""

    def __init__(self, root: Path, source: Path = REPOSITORY) -> None:
        """Copy what tests need from `source` to `root`, which is not there yet."""
        self.root = root
        root.mkdir()
        for name in COPIED:
            if (source / name).is_dir():
                shutil.copytree(source / name, root / name, ignore=shutil.ignore_patterns(*LEFT_OUT))
            elif (source / name).exists():
                shutil.copy(source / name, root / name)

    def run(self, tests: tuple[str, ...], limit_s: float) -> Outcome:
        """Run tests as they are, in a process of their own."""
        environment = {**os.environ, "PYTHONPATH": str(self.root)}
        options = ("-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--no-header")
        command = [sys.executable, "-m", "pytest", *options, *tests]
        began = time.monotonic()
        with subprocess.Popen(
            command,
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate(timeout=limit_s)
                verdict = Verdict.KILLED if process.returncode else Verdict.SURVIVED
            except subprocess.TimeoutExpired:
                verdict, output = Verdict.TIMEOUT, ""
            finally:
                _end(process)
        return Outcome(verdict, time.monotonic() - began, "\n".join(output.splitlines()[-15:]))

    def run_with(self, path: str, source: str, tests: tuple[str, ...], limit_s: float) -> Outcome:
        """The same with `source` in the place of the file."""
        file = self.root / path
        before = file.read_bytes()
        try:
            file.write_text(source)
            self._forget_compiled(file)
            return self.run(tests, limit_s)
        finally:
            file.write_bytes(before)
            self._forget_compiled(file)

    @staticmethod
    def _forget_compiled(file: Path) -> None:
        """A compiled module is known by size and second: a mutant may have both of what it was made from."""
        for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*"):
            compiled.unlink()


def _end(process: subprocess.Popen[str]) -> None:
    """End what the tests began, too: its session is its own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
