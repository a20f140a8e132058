"""`perund watchtower` as a process of its own, nodes that are told of it, and towers that a test plays itself."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from coincurve import PrivateKey

from chain.principal import principal_from_text
from perund.config import FILE_NAME
from perund.config_file import load_config
from perund.demo.processes import PASSPHRASE, NodeProcess
from perund.keys import Keys
from perund.keystore import KeyStore
from perund.tower.books import STORE_NAME, Status, _reader, read_status
from protocol.messages import (
    FEATURE_TOWER,
    ErrorMessage,
    Hello,
    PeerMessage,
    TowerMessage,
    TowerReceipt,
    TowerState,
)
from protocol.terms import network_hash
from protocol.types import Nanos
from tests.e2e.town import ICP, LOOK_AGAIN_S, Town, within
from watcher.tower.receipts import Notary
from watcher.tower.tower import read_state
from wire.codec import encode
from wire.network import PeerNetwork
from wire.session import Session

__all__ = ["PlayedTower", "TowerProcess", "keys_of", "lag_of", "network_of", "node_with", "served", "tower_in"]


class TowerProcess(NodeProcess):
    """A tower, at an address that it keeps over restarts."""

    @property
    def address(self) -> str:
        return f"{KeyStore(self.dir).node_id()}@{load_config(self.dir, {}).wire.listen}"

    async def start(self, *options: str) -> Self:
        """Start it, and return when it takes connections."""
        process = await self._spawn("perund.cli.daemon", "watchtower", "--dir", str(self.dir), *options)
        host, _, port = self.address.partition("@")[2].rpartition(":")

        async def listening() -> None:
            while True:
                assert process.returncode is None, self.log.read_text()[-2000:]
                try:
                    _, writer = await asyncio.open_connection(host, int(port))
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
        return sorted(int.from_bytes(version, "big") for version in self._column("version", channel))

    def expiries(self, channel: str) -> list[int]:
        """Until when it has promised to guard a channel, chain time in ns."""
        return sorted(self._column("expires_ns", channel))

    def _column(self, name: str, channel: str) -> list[Any]:
        reader = _reader(self.dir / STORE_NAME)
        try:
            rows = reader.execute(f"SELECT {name} FROM slot WHERE channel = ?", (bytes.fromhex(channel),))
            return [value for (value,) in rows]
        finally:
            reader.close()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Return when something is so on its disk."""

        async def wait() -> None:
            while not condition():  # noqa: ASYNC110  (it happens in another process)
                await asyncio.sleep(LOOK_AGAIN_S)

        try:
            await within(wait(), f"{self.name}: {what}")
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.status()}\n{self.log.read_text()[-3000:]}") from None


class PlayedTower:
    """A tower in the test's own process. It keeps what it hears; `answer` makes its receipts."""

    def __init__(self, town: Town, answer: Callable[[TowerReceipt], TowerReceipt] = lambda honest: honest) -> None:
        self.heard: list[TowerMessage] = []
        self._answer = answer
        self._key = PrivateKey()
        self._network = network_of(town)
        hello = Hello(1, self._network, FEATURE_TOWER, "a tower of a test", 1)
        self.network = PeerNetwork(self._key, hello, self)
        self.address = ""

    async def open(self) -> Self:
        host, port = await self.network.listen("127.0.0.1", 0)
        self.address = f"{self.network.node_id.hex()}@{host}:{port}"
        return self

    def bytes_heard(self) -> bytes:
        return b"".join(encode(message) for message in self.heard)

    def received(self, session: Session, message: PeerMessage) -> None:
        assert isinstance(message, TowerMessage)
        self.heard.append(message)
        if isinstance(message, TowerState):
            params, signed = read_state(message)
            now_ns = time.time_ns()
            receipt = Notary(self._key, self._network).sign(
                session.peer, params.channel_id, message.version, signed.state.digest, Nanos(now_ns),
                Nanos(now_ns + 10**16),
            )  # fmt: skip
            session.send(self._answer(receipt))

    def connected(self, session: Session) -> None: ...

    def disconnected(self, session: Session, reason: str) -> None: ...

    def peer_error(self, session: Session, message: ErrorMessage) -> None: ...

    def is_known(self, peer: bytes) -> bool:
        return True


def network_of(town: Town) -> bytes:
    """The network hash of a town."""
    principals = (principal_from_text(town.devnet.perun_canister), principal_from_text(town.devnet.icp_ledger))
    return network_hash(bytes.fromhex(town.devnet.root_key), *principals)


def keys_of(node: NodeProcess) -> Keys:
    """Every secret of a node."""
    return KeyStore(node.dir).open(PASSPHRASE)


async def tower_in(town: Town, name: str = "tower") -> TowerProcess:
    """Set a tower up and start it; the town stops it."""
    tower = TowerProcess(town.directory, name)
    town._make(tower.dir, 0, town.devnet.root_key)
    await tower.start()
    town.nodes[name] = tower
    return tower


def _configure(path: Path, towers: tuple[str, ...]) -> None:
    text, count = re.subn(r"(?m)^towers = .*$", f"towers = {json.dumps(towers)}", path.read_text())
    assert count == 1
    path.write_text(text)


async def node_with(town: Town, name: str, *towers: str, icp: int = 300) -> NodeProcess:
    """Make a node with watchtowers, start it and fill its wallet."""
    node = NodeProcess(town.directory, name)
    town.nodes[name] = node
    town._make(node.dir, 0, town.devnet.root_key)
    _configure(node.dir / FILE_NAME, towers)
    await node.start()
    town.minted_to[name] = icp * ICP
    await town.mint(node.info.account, icp * ICP)
    return node


async def lag_of(node: NodeProcess, tower: str) -> dict[str, Any]:
    """What a node says about one of its towers."""
    health = await node.control.call("node.health")
    [found] = [entry for entry in health["towers"] if entry["address"] == tower]
    assert isinstance(found, dict)
    return found


async def served(town: Town, node: NodeProcess, tower: TowerProcess, channel: str) -> int:
    """Return the version that a tower has of a channel, when that is the newest of the node and is watched."""
    newest = town.newest(node, channel).state.version
    await tower.until(
        lambda: newest in tower.versions(channel) and not tower.status().unproven, f"version {newest} held and watched"
    )
    return newest
