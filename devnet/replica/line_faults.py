"""Faults of the line and of the server in front of the replica: what is lost, late, or not an answer at all."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final

from aiohttp import web

from devnet.replica import cbor
from devnet.replica.exchange import CBOR, ENDPOINTS, Exchange, body_of, cbor_response
from devnet.replica.order import Behaviour

__all__ = ["LINE_FAULTS"]

_CHUNK: Final = b"\x5b" * 65_536
_LOOK_AT_CLOCK_S: Final = 0.01


class _Everywhere(Behaviour):
    """A fault of any endpoint."""

    endpoints: ClassVar[frozenset[str]] = ENDPOINTS


class Slow(_Everywhere):
    """Done at once, answered after `seconds`."""

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Answer late."""
        answer = await exchange.answer()
        await asyncio.sleep(self.order.seconds)
        return answer


class Drop(_Everywhere):
    """Done, but the connection is cut instead of the answer."""

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Do it and cut the line."""
        answer = await exchange.answer()
        _cut(exchange)
        return answer


class DropBefore(_Everywhere):
    """Not done: the connection is cut before anything happens."""

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Cut the line."""
        _cut(exchange)
        return web.Response(status=500)


class Http500(_Everywhere):
    """Not done: HTTP 500."""

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Refuse."""
        del exchange
        return web.Response(status=500, text="Internal error (a fault that was ordered)")


class Http503(_Everywhere):
    """Not done: HTTP 503."""

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Refuse."""
        del exchange
        return web.Response(status=503, text="Service is overloaded, try again later.")


class Http429(_Everywhere):
    """Not done: HTTP 429."""

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Refuse."""
        del exchange
        return web.Response(status=429, text="Too many requests.", headers={"Retry-After": "1"})


class Garbage(_Everywhere):
    """Done, and answered with bytes that mean nothing."""

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Answer nonsense."""
        await exchange.answer()
        return cbor_response(bytes(range(255, 0, -3)))


class Truncated(_Everywhere):
    """Done, and answered with the first half of the answer."""

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Answer half."""
        body = body_of(await exchange.answer())
        return cbor_response(body[: len(body) // 2])


class WrongCbor(_Everywhere):
    """Done, and answered with CBOR of another shape."""

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Answer well-formed nonsense."""
        await exchange.answer()
        return cbor_response(cbor.encode({"status": "replied", "certificate": [1, b"\x02", {"tree": "none"}]}))


class Endless(_Everywhere):
    """Done, and answered with a body that never ends."""

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Send until the client has had enough."""
        await exchange.answer()
        stream = web.StreamResponse(headers={"Content-Type": CBOR})
        await stream.prepare(exchange.request)
        while True:
            try:
                await stream.write(_CHUNK)
            except ConnectionError:  # the client hung up
                return stream
            await asyncio.sleep(0)


class Withheld(_Everywhere):
    """Done at once, answered when chain time has moved by `seconds`: as it was, under a fresh signature."""

    async def serve(self, exchange: Exchange) -> web.StreamResponse:
        """Hold the answer back."""
        replica = exchange.replica
        if exchange.endpoint == "query":
            outcome = await replica.ask(exchange.id, exchange.body)
            await self._wait(exchange)
            return cbor_response(replica.signed_answer(exchange.envelope.request_id, outcome))
        if not await exchange.certified():
            return await exchange.answer()
        await self._wait(exchange)
        return exchange.with_certificate((await replica.rounds.certified()).certificate(exchange.paths))

    async def _wait(self, exchange: Exchange) -> None:
        clock = exchange.replica.clock
        until_ns = clock.now_ns() + int(self.order.seconds * 1_000_000_000)
        while clock.now_ns() < until_ns:  # noqa: ASYNC110  (chain time moves by itself, too)
            await asyncio.sleep(_LOOK_AT_CLOCK_S)


def _cut(exchange: Exchange) -> None:
    if exchange.request.transport is not None:
        exchange.request.transport.abort()


LINE_FAULTS: Final[dict[str, type[Behaviour]]] = {
    "slow": Slow,
    "drop": Drop,
    "drop_before": DropBefore,
    "http_500": Http500,
    "http_503": Http503,
    "http_429": Http429,
    "garbage": Garbage,
    "truncated": Truncated,
    "wrong_cbor": WrongCbor,
    "endless": Endless,
    "withheld": Withheld,
}
