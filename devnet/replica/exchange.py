"""One request under a fault: who asks what, and the parts of the replica with which it can be answered otherwise."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal, cast, get_args

from aiohttp import web

from devnet.replica import cbor
from devnet.replica.envelope import Envelope, Invocation, ReadStateContent, decode_envelope
from devnet.replica.errors import RequestRefused
from devnet.replica.hash_tree import Path
from devnet.replica.principals import NotAPrincipal, from_text
from devnet.replica.replica import Replica

__all__ = ["CBOR", "ENDPOINTS", "Endpoint", "Exchange", "Handler"]

Endpoint = Literal["call", "query", "read_state"]
ENDPOINTS: Final[frozenset[str]] = frozenset(get_args(Endpoint))
CBOR: Final = "application/cbor"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and how it would be answered on a good day. `body`: its bytes; `id`: of the canister or subnet."""

    request: web.Request
    handler: Handler
    replica: Replica
    endpoint: Endpoint
    id: bytes
    body: bytes
    envelope: Envelope

    @classmethod
    async def of(cls, request: web.Request, handler: Handler, replica: Replica) -> Exchange | None:
        """Return the exchange of a well-formed request, None for what the replica refuses anyway."""
        endpoint = request.path.rsplit("/", 1)[-1]
        if request.method != "POST" or endpoint not in ENDPOINTS or "id" not in request.match_info:
            return None
        kind = cast("Endpoint", endpoint)
        try:
            body = await request.read()
            return cls(
                request,
                handler,
                replica,
                kind,
                from_text(request.match_info["id"]),
                body,
                decode_envelope(body, kind),
            )
        except (RequestRefused, NotAPrincipal, web.HTTPRequestEntityTooLarge):
            return None

    @property
    def method(self) -> str | None:
        """The method that is called or queried."""
        content = self.envelope.content
        return content.method if isinstance(content, Invocation) else None

    @property
    def asynchronous(self) -> bool:
        """Whether a call is only taken in, and answered by later reads of the state."""
        return self.request.path.startswith("/api/v2/")

    @property
    def paths(self) -> list[Path]:
        """What the certificate of an honest answer shows."""
        content = self.envelope.content
        if isinstance(content, ReadStateContent):
            return list(content.paths)
        return [(b"request_status", self.envelope.request_id)]

    async def answer(self) -> web.StreamResponse:
        """Do what is asked and return the honest answer."""
        return await self.handler(self.request)

    async def certified(self) -> bool:
        """Do what is asked; return whether its honest answer is a certificate (and not a refusal, or a 202)."""
        answer = await self.answer()
        return answer.status == 200 and b"certificate" in body_of(answer)

    def with_certificate(self, certificate: bytes) -> web.Response:
        """Return an answer that holds this certificate."""
        fields: dict[str, cbor.Value] = {"certificate": certificate}
        return cbor_response(cbor.encode({"status": "replied", **fields} if self.endpoint == "call" else fields))


def body_of(answer: web.StreamResponse) -> bytes:
    """Return the bytes of an answer that is not sent yet."""
    return answer.body if isinstance(answer, web.Response) and isinstance(answer.body, bytes) else b""


def cbor_response(body: bytes) -> web.Response:
    """Return an answer of status 200."""
    return web.Response(body=body, content_type=CBOR)
