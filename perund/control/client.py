"""A client of the control socket, for command lines, tests and benchmarks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast, overload

import msgspec

from perund.control.errors import NodeUnreachable, RpcError
from perund.control.messages import (
    Incoming,
    call_line,
    decode_incoming,
    error_of,
    hung_up,
    socket_of,
    unreachable,
    without_none,
)  # fmt: skip
from perund.control.methods import CHANNEL_PAY, EVENT_SUBSCRIBE, METHODS, Method, P, R
from perund.control.schema import Event, PayParams, PayResult, SubscribeParams
from perund.control.values import PaidE8s, decode_value

__all__ = ["ControlClient"]


MAX_QUEUED_EVENTS: Final = 10_000


class _Subscribed(msgspec.Struct):
    subscription: int


Answer = Callable[[msgspec.Raw | Exception], None]
_SUBSCRIBED: Final = msgspec.json.Decoder(_Subscribed)
_EVENT: Final = msgspec.json.Decoder(Event, dec_hook=decode_value)


class ControlClient(asyncio.Protocol):
    """One connection to a node. Calls may overlap; each answer finds its call.

    Errors: `RpcError` when the node refuses, `NodeUnreachable` when there is none or it goes away.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._transport: asyncio.Transport | None = None
        self._partial = bytearray()
        self._pending: dict[int, Answer] = {}
        self._next_id = 1
        self._feeds: dict[int, deque[Event]] = {}
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._end: Exception | None = None
        self._gone = asyncio.Event()

    @classmethod
    async def connect(cls, path: Path) -> Self:
        """Connect to the node of a data directory (or to its control.sock). Raises `NodeUnreachable`."""
        target = socket_of(path)
        client = cls(target)
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: client, str(target))
        except OSError as error:
            raise unreachable(target, error) from error
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def ended(self) -> bool:
        """Whether the node has hung up, or refused this connection: no call on it is answered any more."""
        return self._end is not None

    async def close(self) -> None:
        """Hang up. What the node accepted goes on."""
        if self._transport is not None:
            self._transport.close()
            await self._gone.wait()

    # --- calls --------------------------------------------------------------------------------------------

    @overload
    async def call(self, method: Method[P, R], params: P) -> R: ...
    @overload
    async def call(
        self, method: str, params: Mapping[str, object] | Sequence[object] | None = None
    ) -> dict[str, Any]: ...
    async def call(self, method: Method[P, R] | str, params: object = None) -> object:
        """Call a method of `perund.control.methods` with its params, typed; or by name, with JSON both ways."""
        if isinstance(method, Method):
            raw = await self._raw(method.name, without_none(params))
            return method.decode_result(raw)
        return msgspec.json.decode(await self._raw(method, {} if params is None else params))

    async def pay_many(
        self, channel: str, amounts_e8s: Sequence[int], *, wait: bool = True, window: int = 2_000
    ) -> list[PayResult | RpcError]:
        """Pay each amount with a call of its own, `window` of them unanswered at a time; answers in order.

        Raises `NodeUnreachable` when the node goes away: of the payments that were not answered `payment.list` tells
        which are made.
        """
        answers: list[PayResult | RpcError | None] = [None] * len(amounts_e8s)
        decode = CHANNEL_PAY.decode_result
        finished = asyncio.get_running_loop().create_future()
        sent = answered = 0

        def answer_of(place: int) -> Answer:
            def take(raw: msgspec.Raw | Exception) -> None:
                nonlocal answered
                if isinstance(raw, RpcError):
                    answers[place] = raw
                elif isinstance(raw, Exception):
                    if not finished.done():
                        finished.set_exception(raw)
                    return
                else:
                    answers[place] = decode(raw)
                answered += 1
                if answered == len(answers):
                    if not finished.done():
                        finished.set_result(None)
                elif sent - answered <= window // 2:
                    send_more()

            return take

        def send_more() -> None:
            nonlocal sent
            lines = []
            while sent < len(answers) and sent - answered < window:
                params = PayParams(channel=channel, amount_e8s=PaidE8s(amounts_e8s[sent]), wait=wait)
                lines.append(self._line("channel.pay", without_none(params), answer_of(sent)))
                sent += 1
            self._write(b"".join(lines))

        if not answers:
            return []
        send_more()
        await finished
        return [answer for answer in answers if answer is not None]

    async def events(self, after: int | None = None, kinds: list[str] | None = None) -> AsyncIterator[Event]:
        """Yield events as they happen, from a cursor on. Raises `NodeUnreachable` when the node goes away.

        Use a connection of its own for a slow reader: unread events hold up the answers behind them.
        """
        params = without_none(SubscribeParams(after=after, kinds=kinds))
        raw = await self._raw(EVENT_SUBSCRIBE.name, params)
        queue = self._feeds.setdefault(_SUBSCRIBED.decode(raw).subscription, deque())
        while True:
            while queue:
                event = queue.popleft()
                self._read_on()
                yield event
            if self._end is not None:
                raise self._end
            self._arrived.clear()
            await self._arrived.wait()

    async def _raw(self, name: str, params: object) -> msgspec.Raw:
        future: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()

        def take(raw: msgspec.Raw | Exception) -> None:
            if future.done():
                return
            if isinstance(raw, Exception):
                future.set_exception(raw)
            else:
                future.set_result(raw)

        self._write(self._line(name, params, take))
        await self._writable.wait()
        try:
            return await future
        except NodeUnreachable as error:
            method = METHODS.get(name)
            if method is None or not method.ask:
                raise
            given = params.get("idempotency_key") if isinstance(params, Mapping) else None
            key = given if isinstance(given, str) else None
            raise NodeUnreachable(
                f"{error} before it answered: whether {name} was taken up is not known",
                f"start it again; then {method.ask_again(key)}",
                sent=True,
                idempotency_key=key,
            ) from error

    def _line(self, name: str, params: object, take: Answer) -> bytes:
        if self._end is not None:
            gone = self._end
            raise NodeUnreachable(str(gone), gone.hint) if isinstance(gone, NodeUnreachable) else gone  # nothing left
        request_id = self._next_id
        self._next_id += 1
        line = call_line(request_id, name, params)
        self._pending[request_id] = take
        return line

    def _write(self, lines: bytes) -> None:
        assert self._transport is not None
        self._transport.write(lines)

    # --- the transport's side -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # Other event loops have transports that are no asyncio.Transport by class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand each complete line to its call or feed."""
        end = data.rfind(b"\n")
        if end < 0:
            self._partial += data
            return
        block = bytes(self._partial + data[:end]) if self._partial else data[:end]
        self._partial = bytearray(data[end + 1 :])
        for line in block.split(b"\n"):
            self._take(decode_incoming(line))

    def pause_writing(self) -> None:
        """Hold back calls."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Go on with calls."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """End every call and feed with the reason."""
        if self._end is None:
            self._end = hung_up(exc)
        pending, self._pending = self._pending, {}
        for take in pending.values():
            take(self._end)
        self._arrived.set()
        self._writable.set()
        self._gone.set()

    def _take(self, incoming: Incoming) -> None:
        if incoming.method is not msgspec.UNSET and incoming.params is not msgspec.UNSET:
            number = _SUBSCRIBED.decode(incoming.params).subscription
            queue = self._feeds.setdefault(number, deque())
            queue.append(_EVENT.decode(incoming.params))
            if len(queue) >= MAX_QUEUED_EVENTS and self._transport is not None:
                self._transport.pause_reading()
            self._arrived.set()
            return
        error = error_of(incoming)
        if not isinstance(incoming.id, int):
            # An answer to no call in particular: the reason why the node hangs up.
            self._end = error
            return
        take = self._pending.pop(incoming.id, None)
        if take is not None:
            take(error or (incoming.result if incoming.result is not msgspec.UNSET else msgspec.Raw(b"null")))

    def _read_on(self) -> None:
        full = any(len(queue) >= MAX_QUEUED_EVENTS // 2 for queue in self._feeds.values())
        if self._transport is not None and not full and not self._transport.is_reading():
            self._transport.resume_reading()
