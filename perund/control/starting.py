"""What a node that is starting answers: who it is, that it is not ready, and what it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from perund.control import schema
from perund.control.errors import RpcError

__all__ = ["Starting"]


class Starting:
    """Answers in the place of a `NodeApi` until there is one. `waits_for`: for people, as in "it waits for …"."""

    def __init__(self, about: schema.NodeInfo, stop: Callable[[], None], since: str) -> None:
        self.waits_for = "its store"
        self._about = about
        self._stop = stop
        self._since = since

    async def node_info(self, params: schema.NoParams) -> schema.NodeInfo:
        """Tell who this node is, and that it is starting."""
        del params
        return msgspec.structs.replace(self._about, waits_for=self.waits_for)

    async def node_health(self, params: schema.NoParams) -> schema.Health:
        """Tell that nothing is well before the start is over."""
        del params
        message = f"the node is starting: it waits for {self.waits_for}"
        return schema.Health(ok=False, problems=[schema.Problem(code="starting", message=message, since=self._since)])

    async def node_stop(self, params: schema.NoParams) -> schema.Stopping:
        """Stop."""
        del params
        asyncio.get_running_loop().call_soon(self._stop)
        return schema.Stopping(stopping=True)

    def not_yet(self) -> RpcError:
        """Return the answer to every other call."""
        return RpcError("node_starting", f"the node is starting: it waits for {self.waits_for}")
