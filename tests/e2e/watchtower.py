"""`perund watchtower` as a process of its own, and nodes that are told of it."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any, Self

from perund.config import FILE_NAME
from perund.demo.processes import NodeProcess
from perund.keystore import KeyStore
from perund.tower.books import STORE_NAME, Status, _reader, read_status
from tests.e2e.town import LOOK_AGAIN_S, Town, free_port, within

__all__ = ["TowerProcess", "configure", "lag", "served", "tower_in"]


class TowerProcess(NodeProcess):
    """A tower: `port` is kept over restarts."""

    def __init__(self, directory: Path, name: str) -> None:
        super().__init__(directory, name)
        self.port = free_port()

    @property
    def address(self) -> str:
        return f"{KeyStore(self.dir).node_id()}@127.0.0.1:{self.port}"

    async def start(self) -> Self:
        """Start it, and return when it takes connections."""
        process = await self._spawn("perund.cli.daemon", "watchtower", "--dir", str(self.dir))

        async def listening() -> None:
            while True:
                assert process.returncode is None, self.log.read_text()[-2000:]
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(LOOK_AGAIN_S)
                    continue
                writer.close()
                await writer.wait_closed()
                return

        await within(listening(), f"{self.name} listens")
        return self

    def status(self) -> Status:
        return read_status(self.dir / STORE_NAME, 1_000)

    def versions(self, channel: str) -> list[int]:
        """The versions that it has on its disk for a channel, one for each client."""
        rows = _books(self).execute("SELECT version FROM slot WHERE channel = ?", (bytes.fromhex(channel),))
        return sorted(int.from_bytes(version, "big") for (version,) in rows)

    def expiries(self, channel: str) -> list[int]:
        """Until when it has promised to guard a channel, chain time in ns."""
        rows = _books(self).execute("SELECT expires_ns FROM slot WHERE channel = ?", (bytes.fromhex(channel),))
        return sorted(expires for (expires,) in rows)

    def kinds(self) -> list[str]:
        """What happened, oldest first."""
        return [note.kind for note in reversed(self.status().notes)]


def _books(tower: TowerProcess) -> Any:
    return _reader(tower.dir / STORE_NAME)


async def tower_in(town: Town, name: str = "tower") -> TowerProcess:
    """Set a tower up and start it; the town stops it."""
    tower = TowerProcess(town.directory, name)
    await tower.init(town.devnet, "--listen", f"127.0.0.1:{tower.port}")
    await tower.start()
    town.nodes[name] = tower
    return tower


def configure(node: NodeProcess, *towers: str) -> None:
    """Write towers into a node's configuration, for its next start."""
    path = node.dir / FILE_NAME
    text, count = re.subn(r"(?m)^towers = .*$", f"towers = {json.dumps(list(towers))}", path.read_text())
    assert count == 1
    path.write_text(text)


async def lag(node: NodeProcess) -> list[dict[str, Any]]:
    """What a node says about its towers."""
    found: list[dict[str, Any]] = (await node.control.call("node.health"))["towers"]
    return found


async def served(town: Town, node: NodeProcess, tower: TowerProcess, channel: str) -> int:
    """Return the version that a tower has of a channel, when that is the newest of the node and is watched."""

    async def wait() -> int:
        while True:
            newest = town.newest(node, channel).state.version
            if tower.status().slots and newest in tower.versions(channel) and not tower.status().unproven:
                return newest
            await asyncio.sleep(LOOK_AGAIN_S)

    try:
        return await within(wait(), "the tower holds the newest state")
    except AssertionError as error:
        raise AssertionError(f"{error}: {tower.status()}\n{await lag(node)}\n{tower.log.read_text()[-3000:]}") from None
