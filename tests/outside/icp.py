"""The `icp` command, used by address: no project, no settings but its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

__all__ = ["Icp", "IcpFailed", "blob", "blobs"]

PATIENCE_S = 60


class IcpFailed(Exception):
    """The command ended with an error. The message is what it printed."""


class Icp:
    """The command in a home directory of its own, for one network."""

    def __init__(self, program: Path, home: Path, url: str, root_key: str) -> None:
        home.mkdir()
        self.home = home
        self.url = url
        self._program = program
        self._network = ("-n", url, "-k", root_key)

    async def run(self, *arguments: str) -> str:
        """Run it and return what it printed. Raises `IcpFailed`."""
        process = await asyncio.create_subprocess_exec(
            self._program,
            *arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.home,
            env={
                "PATH": os.environ.get("PATH", ""),
                "HOME": str(self.home),
                "TMPDIR": str(self.home),
                "DO_NOT_TRACK": "1",
                "NO_COLOR": "1",
            },
        )
        async with asyncio.timeout(PATIENCE_S):
            stdout, stderr = await process.communicate()
        if process.returncode != 0:
            raise IcpFailed(f"icp {' '.join(arguments)} ended with {process.returncode}:\n{stderr.decode()}")
        return stdout.decode()

    async def call(self, canister: str, method: str, arguments: str, *, by: str = "anonymous") -> str:
        """Call a method with an argument in Candid's text, and return its certified reply as such text."""
        return await self._call(canister, method, arguments, by)

    async def query(self, canister: str, method: str, arguments: str) -> str:
        """Query a method with an argument in Candid's text, and return its reply as such text."""
        return await self._call(canister, method, arguments, "anonymous", "--query")

    async def _call(self, canister: str, method: str, arguments: str, by: str, *options: str) -> str:
        # In a file: arguments on the command line are limited, and a blob takes four characters a byte.
        source = self.home / "arguments"
        source.write_text(arguments)
        chosen = ("--identity", by, "--json", "--args-file", str(source), *options)
        printed = await self.run("canister", "call", *self._network, *chosen, canister, method)
        answer = json.loads(printed)["response_candid"]
        assert isinstance(answer, str), printed
        return " ".join(answer.split())

    async def on_network(self, *arguments: str) -> str:
        """Run a subcommand that takes a network, and return what it printed."""
        return await self.run(*arguments, *self._network)


def blob(value: bytes) -> str:
    """Return a blob in Candid's text."""
    return 'blob "' + "".join(f"\\{byte:02x}" for byte in value) + '"'


def blobs(values: Iterable[bytes]) -> str:
    """Return a vector of blobs in Candid's text."""
    return "vec {" + "; ".join(blob(value) for value in values) + "}"
