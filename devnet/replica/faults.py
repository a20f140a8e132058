"""Faults that tests order: the next requests to an endpoint fare as they may on a bad day of the real network."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal, get_args

from aiohttp import web

from devnet.replica import cbor

__all__ = ["ENDPOINTS", "KINDS", "Endpoint", "Fault", "Faults", "Kind"]

Kind = Literal["http_503", "drop", "reject", "slow"]
"""`http_503`: refused before anything is done. `drop`: done, but the connection is cut instead of the answer.
`reject`: a call is refused before consensus, transiently. `slow`: done, answered after `seconds`."""
Endpoint = Literal["call", "query", "read_state"]

KINDS: Final[frozenset[str]] = frozenset(get_args(Kind))
ENDPOINTS: Final[frozenset[str]] = frozenset(get_args(Endpoint))
_TRANSIENT: Final[dict[str, cbor.Value]] = {
    "reject_code": 2,
    "reject_message": "Subnet is overloaded (a fault that was ordered)",
    "error_code": "IC0202",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Fault:
    """`left`: how many more requests it hits; `seconds`: the delay of `slow`."""

    kind: Kind
    endpoint: Endpoint
    left: int
    seconds: float = 0.0


class Faults:
    """The faults that are due, the first ordered first."""

    def __init__(self) -> None:
        self._due: list[Fault] = []

    def order(self, fault: Fault) -> None:
        """Have the next `fault.left` requests to its endpoint fail, after those that are due already."""
        self._due.append(fault)

    def clear(self) -> None:
        """Forget what is due."""
        self._due.clear()

    async def apply(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Serve a request under the fault that is due for its endpoint, if one is."""
        fault = self._take(request.path.rsplit("/", 1)[-1]) if request.method == "POST" else None
        match fault.kind if fault else None:
            case None:
                return await handler(request)
            case "http_503":
                return web.Response(status=503, text="Service is overloaded, try again later.")
            case "reject":
                return _reject(asynchronous=request.path.startswith("/api/v2/"))
            case "slow":
                assert fault is not None
                answer = await handler(request)
                await asyncio.sleep(fault.seconds)
                return answer
            case "drop":
                answer = await handler(request)
                if request.transport is not None:
                    request.transport.abort()
                return answer

    def _take(self, endpoint: str) -> Fault | None:
        for fault in self._due:
            if fault.endpoint == endpoint:
                fault.left -= 1
                if fault.left == 0:
                    self._due.remove(fault)
                return fault
        return None


def _reject(*, asynchronous: bool) -> web.Response:
    fields = _TRANSIENT if asynchronous else {"status": "non_replicated_rejection", **_TRANSIENT}
    return web.Response(body=cbor.encode(fields), content_type="application/cbor")
