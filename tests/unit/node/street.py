"""Whole nodes in this process, as `perund run` has them, each behind its control socket."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import pytest

from perund.config import Config, Ic, Policy, Wire
from perund.control import schema
from perund.control.client import ControlClient
from perund.control.envelope import SOCKET_NAME
from perund.control.errors import NodeUnreachable, RpcError
from perund.control.methods import CHANNEL_GET, CHANNEL_OPEN, NODE_INFO, NODE_STOP
from perund.control.values import E8s, Seconds
from perund.keys import Keys
from perund.node.daemon import run_node
from tests.unit.node.net import ICP, Net

__all__ = ["House", "Street", "insisting", "refused", "soon"]

PATIENCE_S: Final = 20.0
T = TypeVar("T")


async def soon(work: Awaitable[T]) -> T:
    """Return what comes of it, within reason."""
    return await asyncio.wait_for(work, PATIENCE_S)


async def refused(work: Awaitable[object]) -> str:
    """Return the name of the error that a call ends with."""
    with pytest.raises(RpcError, match=r".") as caught:
        await soon(work)
    return caught.value.name


async def insisting(call: Callable[[], Awaitable[T]]) -> T:
    """Call again while the answer is that the network cannot be asked: time was advanced, and no agent was told."""
    for _ in range(5):
        try:
            return await soon(call())
        except RpcError as error:
            if error.name != "chain_unreachable" or not error.retryable:
                raise
    raise AssertionError("the node's agent does not learn the time")


class House:
    """One node. `control` is a client of it; `stop` and `start` restart it on its directory."""

    control: ControlClient
    info: schema.NodeInfo

    def __init__(self, net: Net, directory: Path, name: str, policy: Policy) -> None:
        self.directory = directory / name
        self.directory.mkdir(mode=0o700)
        self.keys = Keys(name.encode().ljust(32, b"."))
        self.config = Config(
            network="local",
            ic=Ic(urls=(net.url,), perun_canister=net.network.names["perun_canister"], root_key=net.root_key.hex()),
            wire=Wire(listen="127.0.0.1:0"),
            policy=policy,
        )
        self._run: asyncio.Task[int] | None = None

    async def start(self) -> House:
        self._run = asyncio.ensure_future(run_node(self.directory, self.config, self.keys))
        path = self.directory / SOCKET_NAME
        for _ in range(2_000):
            if self._run.done():
                await self._run
            with contextlib.suppress(NodeUnreachable):
                self.control = await ControlClient.connect(path)
                self.info = await self.control.call(NODE_INFO, schema.NoParams())
                if self.info.state == "running":
                    return self
                await self.control.close()
            await asyncio.sleep(0.005)
        raise AssertionError("the node does not start")

    async def stop(self) -> int:
        """Stop it as its user does. Returns the exit status."""
        assert self._run is not None
        if not self._run.done():
            with contextlib.suppress(NodeUnreachable, RpcError):
                await self.control.call(NODE_STOP, schema.NoParams())
        return await self.end()

    async def end(self) -> int:
        """Return the exit status of a node that stops by itself."""
        assert self._run is not None
        run, self._run = self._run, None
        status = await soon(run)
        await self.control.close()
        return status

    @property
    def running(self) -> bool:
        return self._run is not None

    @property
    def address(self) -> str:
        return f"{self.info.node_id}@{self.info.listen}"

    async def channel(self, channel: str) -> schema.Channel:
        return await self.control.call(CHANNEL_GET, schema.ChannelGetParams(channel))


class Street:
    """Two nodes with money on one network."""

    def __init__(self, net: Net, alice: House, bob: House) -> None:
        self.net, self.alice, self.bob = net, alice, bob

    @classmethod
    @contextlib.asynccontextmanager
    async def inhabited(cls, net: Net, bob_policy: Policy | None = None) -> AsyncIterator[Street]:
        with tempfile.TemporaryDirectory(prefix="perund-") as name:  # the path of a socket is short
            policy = Policy(min_challenge_s=1, contribute_max_e8s=50 * ICP)
            alice = House(net, Path(name), "alice", policy)
            bob = House(net, Path(name), "bob", bob_policy or policy)
            street = cls(net, await alice.start(), await bob.start())
            for house in (alice, bob):
                net.mint(bytes.fromhex(house.info.account), 100 * ICP)
            try:
                yield street
            finally:
                for house in (alice, bob):
                    if house.running:
                        assert await house.stop() == 0

    def params(self, mine: int = 10, theirs: int = 0, **more: object) -> schema.ChannelOpenParams:
        fields: dict[str, object] = {
            "peer": self.bob.address,
            "mine_e8s": E8s(mine * ICP),
            "theirs_e8s": E8s(theirs * ICP),
            "challenge_s": Seconds(600),
        }
        return schema.ChannelOpenParams(**{**fields, **more})  # type: ignore[arg-type]

    async def open(self, mine: int = 10, theirs: int = 0, **more: object) -> str:
        """Open a channel and return its id."""
        answer = await soon(self.alice.control.call(CHANNEL_OPEN, self.params(mine, theirs, **more)))
        assert answer.phase == "open"
        return answer.channel
