"""Scripts for Node with the JavaScript agent. They get their input as JSON and answer in JSON."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from perund.demo.processes import DevnetProcess
from tests.outside.install import Clients

__all__ = ["JavaScript"]

SCRIPTS = Path(__file__).parent / "scripts"
PATIENCE_S = 90


class JavaScript:
    """Node in a folder of its own, in which scripts find the agent as programs find their dependencies."""

    def __init__(self, clients: Clients, folder: Path, devnet: DevnetProcess) -> None:
        self._node = clients.node
        self._folder = folder / "scripts"
        self._network = {
            "url": devnet.url,
            "rootKey": devnet.root_key,
            "perun": devnet.perun_canister,
            "ledger": devnet.icp_ledger,
        }
        shutil.copytree(SCRIPTS, self._folder)
        (self._folder / "node_modules").symlink_to(clients.modules)

    async def run(self, script: str, **given: object) -> dict[str, Any]:
        """Run a script on the network and what is given, and return its answer; fails with what it printed."""
        process = await asyncio.create_subprocess_exec(
            self._node,
            script,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._folder,
        )
        async with asyncio.timeout(PATIENCE_S):
            stdout, stderr = await process.communicate(json.dumps({**self._network, **given}).encode())
        assert process.returncode == 0, f"{script} ended with {process.returncode}:\n{stderr.decode()}"
        answer = json.loads(stdout)
        assert isinstance(answer, dict)
        return answer
