"""One client of the control socket: lines in, coalesced lines out, with bounds both ways.

Written for ten thousand requests a second on one connection: a received chunk is handled in one go, and all
answers of one turn of the event loop leave in one write.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

import msgspec
import structlog

from perund.control.api import EventFeed
from perund.control.discover import EVENT_NOTIFICATION
from perund.control.dispatch import Dispatcher, explain
from perund.control.envelope import ENCODER, Request, RequestId, encode_error, encode_result
from perund.control.errors import RpcError
from perund.control.schema import Event
from protocol.errors import InvariantBroken

__all__ = ["Connection", "Limits"]

log: Final = structlog.get_logger(__name__)
HANGUP_CHECK_S: Final = 1.0
_REQUEST: Final = msgspec.json.Decoder(Request)
_BATCH: Final = msgspec.json.Decoder(list[msgspec.Raw])
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a line can do to the decoder; the last is a line of ten thousand brackets."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the control socket. Bytes, seconds, counts."""

    clients: int = 64
    request_bytes: int = 1_048_576
    batch_requests: int = 1_000
    in_flight: int = 16_384
    """Calls of one client that are not answered yet; above it nothing more is read from this client."""
    unread_bytes: int = 1_048_576
    """Answers that a client has not read; above it nothing more is read from it."""
    most_unread_bytes: int = 33_554_432
    """Above it the client is dropped."""
    slow_s: float = 30.0
    """A client that leaves `unread_bytes` unread for so long is dropped."""
    subscriptions: int = 16


class _IdOnly(msgspec.Struct, gc=False):
    id: RequestId = None


class _Notification(msgspec.Struct, gc=False):
    params: object
    method: str = EVENT_NOTIFICATION
    jsonrpc: str = "2.0"


class _Notified(msgspec.Struct, gc=False):
    subscription: int
    cursor: int
    at: str
    event: str
    data: dict[str, str | int | float | bool | None]


class _Reply:
    """The answer to one call, as one line."""

    __slots__ = ("_connection", "_done", "_id")

    def __init__(self, connection: Connection, request_id: RequestId) -> None:
        self._connection = connection
        self._id = request_id
        self._done = False

    def result(self, result: object) -> None:
        self._send(encode_result(self._id, result))

    def error(self, error: Exception) -> None:
        self._send(encode_error(self._id, explain(error, self._id)))

    def _send(self, line: bytes) -> None:
        if self._done:
            raise InvariantBroken(f"call {self._id!r} was answered twice")
        self._done = True
        self._connection.answer(line)


class _NoReply:
    """A notification: carried out, never answered, not even with an error."""

    __slots__ = ()

    def result(self, result: object) -> None:
        del result

    def error(self, error: Exception) -> None:
        log.info("control.notification_failed", cause=str(explain(error, None)))


class _BatchReply:
    """The answer to one call of a batch; the last one sends the batch."""

    __slots__ = ("_batch", "_done", "_id")

    def __init__(self, batch: _Batch, request_id: RequestId) -> None:
        self._batch = batch
        self._id = request_id
        self._done = False

    def result(self, result: object) -> None:
        self._add(encode_result(self._id, result))

    def error(self, error: Exception) -> None:
        self._add(encode_error(self._id, explain(error, self._id)))

    def _add(self, answer: bytes) -> None:
        if self._done:
            raise InvariantBroken(f"call {self._id!r} of a batch was answered twice")
        self._done = True
        self._batch.add(answer)


class _Batch:
    """Answers of a batch. JSON-RPC: one array, in any order, nothing when all were notifications."""

    __slots__ = ("_answers", "_connection", "_missing")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._answers: list[bytes] = []
        self._missing = 1  # held by the reader of the batch until it has read all of it

    def expect(self, request_id: RequestId) -> _BatchReply:
        self._missing += 1
        return _BatchReply(self, request_id)

    def add(self, answer: bytes) -> None:
        self._answers.append(answer)
        self.end()

    def end(self) -> None:
        self._missing -= 1
        if self._missing == 0:
            self._connection.answer(b"[" + b",".join(self._answers) + b"]" if self._answers else b"")


class Connection(asyncio.Protocol):
    """One client. `admit` says why it may not come in, or None; `lost` is told when it is gone."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        limits: Limits,
        admit: Callable[[Connection, asyncio.Transport], str | None],
        lost: Callable[[Connection], None],
    ) -> None:
        self._dispatcher = dispatcher
        self._limits = limits
        self._admit = admit
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._partial = bytearray()
        self._out: list[bytes] = []
        self._in_flight = 0
        self._reading = True
        self._ended = False
        self._closing = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._slow: asyncio.TimerHandle | None = None
        self._hangup: asyncio.TimerHandle | None = None
        self._feeds: dict[int, asyncio.Task[None]] = {}
        self._next_feed = 1

    # --- the transport's side -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the client, or say why not."""
        # Other event loops have transports that are no asyncio.Transport by class.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self._limits.unread_bytes)
        refusal = self._admit(self, self._transport)
        if refusal is not None:
            self._refuse(RpcError("busy", refusal))

    def data_received(self, data: bytes) -> None:
        """Handle all complete lines of a chunk."""
        if self._closing:
            return
        end = data.rfind(b"\n")
        longest = self._limits.request_bytes
        if end < 0:
            self._partial += data
        else:
            block = bytes(self._partial + data[:end]) if self._partial else data[:end]
            self._partial = bytearray(data[end + 1 :])
            short = len(block) <= longest
            for line in block.split(b"\n"):
                if short or len(line) <= longest:
                    self._line(line)
                else:
                    self._too_long()
                if self._hung_up():
                    return
        if len(self._partial) > longest:
            self._too_long()
        elif self._reading and (self._in_flight > self._limits.in_flight or not self._writable.is_set()):
            self._pause()

    def eof_received(self) -> bool:
        """Finish what is in flight, then hang up."""
        # `echo '{...}' | nc -U control.sock` closes its half and still wants the answer.
        self._ended = True
        self._close_if_done()
        self._notice_hangup()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client; what it asked for goes on."""
        del exc
        self._closing = True
        self._out.clear()
        for timer in (self._slow, self._hangup):
            if timer is not None:
                timer.cancel()
        for task in self._feeds.values():
            task.cancel()
        self._writable.set()
        self._lost(self)

    def pause_writing(self) -> None:
        """The client reads slower than it asks: read nothing more of it for now."""
        self._writable.clear()
        self._pause()
        self._slow = self._loop.call_later(self._limits.slow_s, self._drop, "it reads too slowly")

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None
        self._writable.set()
        self._resume()

    def _hung_up(self) -> bool:
        return self._closing

    # --- requests -----------------------------------------------------------------------------------------

    def _line(self, line: bytes) -> None:
        try:
            request = _REQUEST.decode(line)
        except _UNREADABLE as error:
            self._unusual(line, error)
            return
        if request.id is msgspec.UNSET:
            self._dispatcher.dispatch(request, _NoReply(), self)
        else:
            self._in_flight += 1
            self._dispatcher.dispatch(request, _Reply(self, request.id), self)

    def _unusual(self, line: bytes, error: Exception) -> None:
        text = line.strip()
        if not text:
            return
        self._in_flight += 1
        if not text.startswith(b"["):
            self.answer(encode_error(*_misread(line, error)))
            return
        try:
            parts = _BATCH.decode(text)
        except _UNREADABLE as broken:
            self.answer(encode_error(None, RpcError("parse_error", f"not JSON: {broken}")))
            return
        most = self._limits.batch_requests
        if not 1 <= len(parts) <= most:
            self.answer(
                encode_error(None, RpcError("invalid_request", f"a batch has 1 to {most} calls, not {len(parts)}"))
            )
            return
        batch = _Batch(self)
        for part in parts:
            try:
                request = _REQUEST.decode(part)
            except _UNREADABLE as wrong:
                request_id, answer = _misread(bytes(part), wrong)
                batch.expect(request_id).error(answer)
                continue
            reply = _NoReply() if request.id is msgspec.UNSET else batch.expect(request.id)
            self._dispatcher.dispatch(request, reply, self)
        batch.end()

    def _too_long(self) -> None:
        self._partial.clear()
        self._refuse(
            RpcError(
                "invalid_request",
                f"a request is longer than {self._limits.request_bytes} bytes",
                hint="send long lists of payments in several calls",
            )
        )

    def _refuse(self, error: RpcError) -> None:
        """Say why, and hang up."""
        self._out.append(encode_error(None, error))
        self.close()

    # --- answers ------------------------------------------------------------------------------------------

    def answer(self, line: bytes) -> None:
        """Send the answer of one call (nothing when `line` is empty) and count it as answered."""
        self._in_flight -= 1
        if line:
            self._send(line)
        if not self._reading and self._in_flight <= self._limits.in_flight // 2:
            self._resume()
        if self._ended:
            self._close_if_done()

    def _send(self, line: bytes) -> None:
        if self._closing:
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(line)

    def _flush(self) -> None:
        if self._transport is None or not self._out:
            return
        self._out.append(b"")
        self._transport.write(b"\n".join(self._out))
        self._out.clear()
        if self._transport.get_write_buffer_size() > self._limits.most_unread_bytes:
            self._drop("it does not read its answers")

    def close(self) -> None:
        """Send what is there and hang up. Calls in flight go on; their answers are dropped."""
        if self._closing or self._transport is None:
            return
        self._flush()
        self._closing = True
        self._transport.close()

    def _drop(self, cause: str) -> None:
        log.warning("control.client_dropped", cause=cause)
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def _close_if_done(self) -> None:
        if self._in_flight == 0 and not self._feeds:
            self.close()

    def _notice_hangup(self) -> None:
        """Free the place of a client that is gone altogether: its call may still last for hours.

        The end of its lines alone does not tell; a hang-up of both directions does.
        """
        if self._closing or self._transport is None:
            return
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket"), 0)
        if any(events & select.POLLHUP for _, events in poll.poll(0)):
            self._closing = True
            self._transport.abort()
        else:
            self._hangup = self._loop.call_later(HANGUP_CHECK_S, self._notice_hangup)

    def _pause(self) -> None:
        if self._reading and not self._closing and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def _resume(self) -> None:
        free = self._writable.is_set() and self._in_flight <= self._limits.in_flight
        if not self._reading and free and not self._closing and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()

    # --- events -------------------------------------------------------------------------------------------

    def subscribe(self, feed: EventFeed) -> int:
        """Send a feed as notifications from the next turn of the loop on; return its number."""
        if len(self._feeds) >= self._limits.subscriptions:
            raise RpcError("busy", f"this connection has {len(self._feeds)} subscriptions already")
        number = self._next_feed
        self._next_feed += 1
        task = self._loop.create_task(self._pump(number, feed))
        self._feeds[number] = task
        task.add_done_callback(lambda _: self._feeds.pop(number, None))
        return number

    async def _pump(self, number: int, feed: EventFeed) -> None:
        try:
            async for event in feed.events:
                if self._closing:
                    break
                self._send(_notification(number, event))
                # One turn of the loop per event lets the write happen, and the transport say that it is full.
                await asyncio.sleep(0)
                await self._writable.wait()
        except Exception:  # a feed that fails must not look like silence
            log.exception("control.feed_failed", subscription=number)
            self._drop("its events cannot be read")
        finally:
            await feed.events.aclose()


def _notification(number: int, event: Event) -> bytes:
    return ENCODER.encode(_Notification(_Notified(number, event.cursor, event.at, event.event, event.data)))


def _misread(line: bytes, error: Exception) -> tuple[RequestId, RpcError]:
    """Return the id, as far as it can be read, and what is wrong with a request."""
    if not isinstance(error, msgspec.ValidationError):
        return None, RpcError("parse_error", f"not JSON: {error}")
    try:
        request_id = msgspec.json.decode(line, type=_IdOnly).id
    except _UNREADABLE:
        request_id = None
    return request_id, RpcError("invalid_request", f"not a request of JSON-RPC 2.0: {error}")
