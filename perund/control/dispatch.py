"""From a request to the node and back: decoding, calling, and what every error becomes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final, Protocol

import structlog

from perund.control.api import EventFeed, NodeApi
from perund.control.discover import openrpc
from perund.control.envelope import Request, RequestId, decode_params
from perund.control.errors import BY_NAME, RpcError, to_rpc_error
from perund.control.methods import CHANNEL_PAY, EVENT_SUBSCRIBE, METHODS, RPC_DISCOVER
from perund.control.schema import Params, SubscribeParams, Subscription
from perund.control.starting import Starting
from protocol.errors import CallerMistake, PerundError

__all__ = ["Caller", "Dispatcher", "Reply", "explain"]

log: Final = structlog.get_logger(__name__)
Call = Callable[[Params], Awaitable[object]]


class Reply(Protocol):
    """Where one answer goes."""

    def result(self, result: object) -> None:
        """Answer with a result."""
        ...

    def error(self, error: Exception) -> None:
        """Answer with an error."""
        ...


class Caller(Protocol):
    """The connection that a request came on, as far as subscriptions need it."""

    def subscribe(self, feed: EventFeed) -> int:
        """Start sending a feed after the answer; return its number. Raises `RpcError` when there are too many."""
        ...


class Dispatcher:
    """Calls the node. It owns the handlers that run, so that no client takes one along when it goes."""

    def __init__(self, api: NodeApi | Starting, version: str) -> None:
        self.stopping = False
        self._version = version
        self._running: set[asyncio.Task[None]] = set()
        self.serve(api)

    def serve(self, api: NodeApi | Starting) -> None:
        """Call this one from now on: a node takes the place of what said that it starts."""
        self._api = api
        apart = (CHANNEL_PAY, EVENT_SUBSCRIBE, RPC_DISCOVER)
        self._calls: dict[str, Call] = {
            name: getattr(api, method.handler)
            for name, method in METHODS.items()
            if method not in apart and hasattr(api, method.handler)
        }
        self._calls[RPC_DISCOVER.name] = self._discover

    def dispatch(self, request: Request, reply: Reply, caller: Caller) -> None:
        """Carry a request out, now or in a task; the answer goes to `reply`."""
        try:
            self._start(request, reply, caller)
        except Exception as error:  # noqa: BLE001  (whatever a handler raises is answered, and logged if unknown)
            reply.error(error)

    def _start(self, request: Request, reply: Reply, caller: Caller) -> None:
        if self.stopping:
            raise RpcError("node_stopping", "the node is stopping and takes no more calls")
        name, api = request.method, self._api
        if isinstance(api, Starting) and name in METHODS and name not in self._calls:
            raise api.not_yet()
        if name == "channel.pay" and not isinstance(api, Starting):
            api.channel_pay(decode_params(CHANNEL_PAY, request.params), reply)
        elif name == "event.subscribe" and not isinstance(api, Starting):
            wanted = decode_params(EVENT_SUBSCRIBE, request.params)
            self._run(self._answer(self._subscribe(api, wanted, caller), reply))
        elif name in self._calls:
            params = decode_params(METHODS[name], request.params)
            self._run(self._answer(self._calls[name](params), reply))
        else:
            raise RpcError("method_not_found", f"there is no method {name[:60]!a}")

    async def finish(self, grace_s: float) -> None:
        """Wait for the handlers that run; after `grace_s` seconds end those that still wait."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=grace_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer(self, result: Awaitable[object], reply: Reply) -> None:
        try:
            reply.result(await result)
        except asyncio.CancelledError:
            reply.error(RpcError("node_stopping", "the node stopped before this call was carried out"))
            raise
        except Exception as error:  # noqa: BLE001  (answered, and logged if unknown)
            reply.error(error)

    async def _subscribe(self, api: NodeApi, params: SubscribeParams, caller: Caller) -> Subscription:
        feed = await api.event_subscribe(params)
        return Subscription(subscription=caller.subscribe(feed), cursor=feed.cursor)

    async def _discover(self, params: Params) -> object:
        del params
        return openrpc(self._version)


def explain(error: Exception, request_id: RequestId) -> RpcError:
    """Return the answer for an exception, and log what is a defect of ours."""
    answer = to_rpc_error(error)
    if answer.name == "internal_error":
        log.error("control.handler_failed", request=request_id, exc_info=error)
    elif isinstance(error, CallerMistake) and error.code not in BY_NAME:
        log.warning("control.error_undocumented", code=error.code, message=str(error))
    elif isinstance(error, PerundError) and not isinstance(error, RpcError | CallerMistake):
        log.info("control.call_failed", request=request_id, cause=str(error))
    return answer
