"""One question to a node, and its answer, without an event loop: for a command that looks and ends."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Final

import msgspec

from perund.control.messages import (
    call_line,
    decode_incoming,
    error_of,
    hung_up,
    not_answered,
    socket_of,
    unreachable,
    without_none,
)  # fmt: skip
from perund.control.methods import Method, P, R

__all__ = ["ask"]

READ_BYTES: Final = 65_536


def ask(path: Path, method: Method[P, R], params: P, *, limit_s: int, end_s: float) -> R:
    """Call a method of the node of a data directory, and wait until `end_s` of the monotonic clock.

    `limit_s`: how long the caller said that may be. Raises `RpcError` (`wait_ended` when the time is over),
    `NodeUnreachable`.
    """
    target = socket_of(path)
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            _until(connection, end_s)
            connection.connect(str(target))
        except TimeoutError:
            raise not_answered(limit_s) from None
        except OSError as error:
            raise unreachable(target, error) from None
        try:
            line = _exchange(connection, call_line(1, method.name, without_none(params)), end_s)
        except TimeoutError:
            raise not_answered(limit_s) from None
        except OSError as error:
            raise hung_up(error) from error
    if not line.endswith(b"\n"):
        raise hung_up(None)
    answer = decode_incoming(line)
    if (refused := error_of(answer)) is not None:
        raise refused
    return method.decode_result(answer.result if answer.result is not msgspec.UNSET else msgspec.Raw(b"null"))


def _exchange(connection: socket.socket, line: bytes, end_s: float) -> bytes:
    """Send a line, and return what comes until the end of one."""
    _until(connection, end_s)
    connection.sendall(line)
    answer = bytearray()
    while not answer.endswith(b"\n"):
        _until(connection, end_s)
        block = connection.recv(READ_BYTES)
        if not block:
            break
        answer += block
    return bytes(answer)


def _until(connection: socket.socket, end_s: float) -> None:
    """Let the next operation take what is left of the time. Raises `TimeoutError`."""
    left_s = end_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    connection.settimeout(left_s)
