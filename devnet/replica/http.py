"""The HTTP interface of a replica: paths, methods, status codes, headers.

Source: Interface Specification, "HTTPS interface", and the public replica for the plain-text bodies.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from devnet.replica.errors import RequestRefused, StateUnusable
from devnet.replica.faults import Faults
from devnet.replica.principals import NotAPrincipal, from_text
from devnet.replica.replica import MAX_REQUEST_BYTES, Replica

__all__ = ["create_application"]

_CBOR: Final = "application/cbor"
_READ_LIMIT: Final = 2 * MAX_REQUEST_BYTES
"""Somewhat too large is read and refused by its request id, much too large is not read at all."""
_CORS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Accept, Authorization, Content-Type",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Endpoint = Callable[[bytes, bytes], Awaitable[bytes]]
"""Takes the effective id in the URL and the body; returns the CBOR to answer with."""


def create_application(replica: Replica, faults: Faults) -> web.Application:
    """Return the application that serves `/api`, with the faults that are ordered."""

    @web.middleware
    async def under_faults(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await faults.apply(request, handler)

    middlewares = [under_faults, _answer_in_text]
    application = web.Application(client_max_size=_READ_LIMIT, middlewares=middlewares)
    application.on_response_prepare.append(_allow_other_origins)
    router = application.router
    router.add_get("/api/v2/status", _status(replica))
    router.add_post("/api/v2/canister/{id}/call", _asynchronous_call(replica))
    for version in ("v3", "v4"):
        router.add_post(f"/api/{version}/canister/{{id}}/call", _synchronous_call(replica))
    # The versions differ in the delegation of certificates only, and there is none on the root subnet.
    for version in ("v2", "v3"):
        router.add_post(f"/api/{version}/canister/{{id}}/query", _answer(replica.query))
        router.add_post(f"/api/{version}/canister/{{id}}/read_state", _answer(replica.read_canister_state))
        router.add_post(f"/api/{version}/subnet/{{id}}/read_state", _answer(replica.read_subnet_state))
    return application


def _status(replica: Replica) -> Handler:
    async def status(_request: web.Request) -> web.StreamResponse:
        return _cbor(replica.status())

    return status


def _asynchronous_call(replica: Replica) -> Handler:
    async def call(request: web.Request) -> web.StreamResponse:
        rejected = await replica.call_async(*await _read(request))
        return web.Response(status=202) if rejected is None else _cbor(rejected)

    return call


def _synchronous_call(replica: Replica) -> Handler:
    async def call(request: web.Request) -> web.StreamResponse:
        answer = await replica.call_sync(*await _read(request))
        if answer is None:
            return web.Response(status=202, text="Message did not complete execution within the time limit.")
        return _cbor(answer)

    return call


def _answer(endpoint: Endpoint) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        return _cbor(await endpoint(*await _read(request)))

    return answer


def _cbor(body: bytes) -> web.Response:
    return web.Response(body=body, content_type=_CBOR)


async def _read(request: web.Request) -> tuple[bytes, bytes]:
    """Return the effective id in the URL and the body. Raises `RequestRefused`."""
    text = request.match_info["id"]
    try:
        effective_id = from_text(text)
    except NotAPrincipal as exc:
        raise RequestRefused(400, f"Malformed request: Invalid principal id in URL: {exc}") from exc
    if request.content_type != _CBOR:
        raise RequestRefused(400, f"Unexpected content-type, expected {_CBOR}.")
    try:
        return effective_id, await request.read()
    except web.HTTPRequestEntityTooLarge as exc:
        raise RequestRefused(
            413,
            f"Request is too large. Message byte size is larger than the max allowed {MAX_REQUEST_BYTES}.",
        ) from exc


@web.middleware
async def _answer_in_text(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give errors the plain-text bodies that agents look into.

    Preflights of web pages are answered here and not by a route: an endpoint that does not exist must stay a
    404, for agents try the next older one then.
    """
    if request.method == "OPTIONS":
        return web.Response(status=200)
    try:
        return await handler(request)
    except RequestRefused as exc:
        return web.Response(status=exc.status, text=str(exc))
    except StateUnusable as exc:
        return web.Response(status=503, text=f"Replica is unhealthy: {exc}")


async def _allow_other_origins(request: web.Request, response: web.StreamResponse) -> None:
    """Let web pages use the interface, as the real one does; they get nothing of the admin calls."""
    if request.path.startswith("/api/"):
        response.headers.update(_CORS)
