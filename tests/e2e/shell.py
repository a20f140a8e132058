"""The real executables, as a person or a script runs them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.e2e.town import within

__all__ = ["PASSPHRASE", "Ran", "executable", "perun", "perund", "run"]

PASSPHRASE: Final = "correct horse battery staple"


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON object."""
        assert self.code == 0, self
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The error object that `--json` prints on standard error."""
        assert self.code != 0, self
        found: dict[str, Any] = json.loads(self.err)["error"]
        return found


def executable(name: str) -> str:
    """Return the path of an installed command."""
    return str(Path(sys.executable).with_name(name))


async def run(*arguments: str, stdin: str | None = None, **environment: str | None) -> Ran:
    """Run a command to its end. `environment`: variables to set, or to remove with None."""
    env = {k: v for k, v in {**os.environ, "PERUND_PASSPHRASE": PASSPHRASE, **environment}.items() if v is not None}
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
    )
    try:
        out, err = await within(
            process.communicate(stdin.encode() if stdin is not None else None), " ".join(arguments), 60
        )
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)  # it stops what it started, too
            await process.wait()
    assert process.returncode is not None
    ran = Ran(process.returncode, out.decode(), err.decode())
    assert "Traceback" not in ran.err, ran.err
    return ran


async def perund(*arguments: str, **environment: str | None) -> Ran:
    """Run `perund`."""
    return await run(executable("perund"), *arguments, **environment)


async def perun(*arguments: str, **environment: str | None) -> Ran:
    """Run `perun`."""
    return await run(executable("perun"), *arguments, **environment)
