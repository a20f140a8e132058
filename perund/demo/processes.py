"""A devnet and nodes as separate operating-system processes. The demo, the benchmark and tests start them here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final, Self

import aiohttp

from perund.control.client import ControlClient
from perund.control.errors import NodeUnreachable
from perund.control.methods import NODE_INFO
from perund.control.schema import NodeInfo, NoParams
from protocol.errors import PerundError

__all__ = ["DevnetProcess", "NodeProcess", "ProcessFailed"]

START_S: Final = 60.0
STOP_S: Final = 20.0
POLL_S: Final = 0.05
PASSPHRASE: Final = "a passphrase for a demonstration"  # noqa: S105  (it guards keys of a devnet)


class ProcessFailed(PerundError):
    """A process did not start, or ended with an error. The message has the end of its log."""


class _Process:
    """One child process whose log goes to a file."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self.wrapper: tuple[str, ...] = ()
        """A program, with its arguments, that starts the real one in its own place, as `nice` does."""
        self.stderr: int | None = None
        """A descriptor that gets its standard error, in the place of the file."""
        self._process: asyncio.subprocess.Process | None = None

    async def _spawn(self, *arguments: str, stdout: int | None = None) -> asyncio.subprocess.Process:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.wrapper,
                sys.executable,
                "-m",
                *arguments,
                stdin=subprocess.DEVNULL,
                stdout=stdout if stdout is not None else log,
                stderr=log if self.stderr is None else self.stderr,
                start_new_session=True,
                env={**os.environ, "PERUND_PASSPHRASE": PASSPHRASE},
            )
        return self._process

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._process.returncode if self._process is not None else None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def kill(self) -> None:
        """Kill it: no chance to write anything."""
        self.signal(signal.SIGKILL)
        await self._wait()

    async def stop(self) -> int:
        """Ask it to stop, and return its exit status."""
        self.signal(signal.SIGTERM)
        return await self._wait()

    async def _wait(self) -> int:
        if self._process is None:
            return 0
        try:
            return await asyncio.wait_for(self._process.wait(), STOP_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise self._failed("did not stop") from None

    def _failed(self, what: str) -> ProcessFailed:
        lines = self.log.read_text(errors="replace").splitlines()[-12:] if self.log.exists() else []
        return ProcessFailed(f"{self.name} {what}; the end of {self.log}:\n" + "\n".join(lines))


class DevnetProcess(_Process):
    """`perund devnet` in a process of its own."""

    url: str
    root_key: str
    perun_canister: str
    icp_ledger: str

    def __init__(self, directory: Path) -> None:
        super().__init__("the devnet", directory / "devnet.log")
        self._http: aiohttp.ClientSession | None = None

    async def start(self, *options: str, port: int = 0) -> Self:
        """Start it, and return when it is ready."""
        process = await self._spawn(
            "perund.cli.daemon", "devnet", "--port", str(port), *options, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START_S)
            ready = json.loads(line)
        except (TimeoutError, ValueError) as error:
            raise self._failed("did not start") from error
        self.url, self.root_key = ready["url"], ready["root_key"]
        self.perun_canister, self.icp_ledger = ready["perun_canister"], ready["icp_ledger"]
        self._http = aiohttp.ClientSession()
        return self

    async def mint(self, account: str, e8s: int) -> None:
        """Give an account new ICP."""
        await self._post("mint", {"account": account, "e8s": e8s})

    async def advance(self, seconds: float) -> None:
        """Move the time of this Internet Computer forward."""
        await self._post("advance", {"seconds": seconds})

    async def _post(self, what: str, body: dict[str, object]) -> None:
        assert self._http is not None
        async with self._http.post(f"{self.url}/_devnet/{what}", json=body) as answer:
            if answer.status != 200:
                raise ProcessFailed(f"the devnet refused to {what}: {await answer.text()}")

    async def stop(self) -> int:
        """Stop it."""
        if self._http is not None:
            await self._http.close()
        return await super().stop()


class NodeProcess(_Process):
    """A data directory, and the node that runs on it."""

    control: ControlClient
    info: NodeInfo

    def __init__(self, directory: Path, name: str) -> None:
        super().__init__(name, directory / f"{name}.log")
        self.dir = directory / name

    async def init(self, devnet: DevnetProcess, *options: str) -> Self:
        """Create keys and configuration for a devnet."""
        process = await self._spawn(
            "perund.cli.daemon", "init", "--dir", str(self.dir), "--network", "local", "--url", devnet.url,
            "--canister", devnet.perun_canister, "--ledger", devnet.icp_ledger, "--listen", "127.0.0.1:0",
            "--non-interactive", *options,
        )  # fmt: skip
        if await process.wait() != 0:
            raise self._failed("could not be set up")
        return self

    async def start(self, *options: str) -> Self:
        """Start it, and return when it runs."""
        process = await self._spawn("perund.cli.daemon", "run", "--dir", str(self.dir), *options)
        deadline = asyncio.get_running_loop().time() + START_S
        while asyncio.get_running_loop().time() < deadline:
            if process.returncode is not None:
                raise self._failed(f"ended with status {process.returncode}")
            with contextlib.suppress(NodeUnreachable):
                self.control = await ControlClient.connect(self.dir)
                self.info = await self.control.call(NODE_INFO, NoParams())
                if self.info.state == "running":
                    return self
                await self.control.close()
            await asyncio.sleep(POLL_S)
        raise self._failed("did not answer in time")

    @property
    def address(self) -> str:
        """NODEID@host:port."""
        return f"{self.info.node_id}@{self.info.listen}"

    async def stop(self) -> int:
        """Stop it."""
        if hasattr(self, "control"):
            await self.control.close()
        return await super().stop()
