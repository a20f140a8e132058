"""`perund watch` as a process of its own, and a program that alarms go to."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Final, Self

from perund.demo.processes import NodeProcess

__all__ = ["Lookout"]

STOP_S: Final = 20.0
LOOK_AGAIN_S: Final = 0.05
_BELL: Final = "import sys; open(sys.argv[1], 'ab').write(sys.stdin.buffer.read())"


class Lookout:
    """Watches for a node. It is never given the passphrase."""

    def __init__(self, node: NodeProcess, name: str = "lookout") -> None:
        self.node = node
        self.log = node.dir.parent / f"{name}.log"
        self._bell = node.dir.parent / f"{name}.alarms"
        self.stderr: int | None = None
        """A descriptor that gets its standard error, in the place of the file."""
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *options: str) -> Self:
        """Start it."""
        environment = {name: value for name, value in os.environ.items() if name != "PERUND_PASSPHRASE"}
        script = self._bell.with_suffix(".py")
        script.write_text(_BELL)
        command = ",".join((sys.executable, str(script), str(self._bell)))
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "perund.cli.daemon", "watch", "--dir", str(self.node.dir), *options,
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log if self.stderr is None else self.stderr,
                start_new_session=True,
                env={**environment, "PERUND_ALARM_COMMAND": command},
            )  # fmt: skip
        return self

    async def ended(self) -> int:
        """Return the exit status when it ends by itself."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), STOP_S * 2)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def stop(self) -> int:
        """Stop it, and return its exit status."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self._process.wait(), STOP_S)

    async def kill(self) -> None:
        """Leave nothing behind."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def alarms(self) -> list[dict[str, object]]:
        """Return what the bell was told so far."""
        lines = self._bell.read_text().splitlines() if self._bell.exists() else []
        return [json.loads(line) for line in lines]

    async def rung(self) -> list[dict[str, object]]:
        """Return what the bell was told, as soon as that is anything."""
        async with asyncio.timeout(STOP_S):
            while not (alarms := self.alarms()):  # noqa: ASYNC110  (a file tells nobody)
                await asyncio.sleep(LOOK_AGAIN_S)
        return alarms

    async def until(self, condition: Callable[[str], bool]) -> str:
        """Return what it logged, as soon as the condition holds for it."""
        async with asyncio.timeout(STOP_S * 2):
            while not condition(self.log.read_text()):  # noqa: ASYNC110  (a file tells nobody)
                await asyncio.sleep(LOOK_AGAIN_S)
        return self.log.read_text()
