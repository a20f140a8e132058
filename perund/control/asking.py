"""One question to a node, and its answer, without an event loop: for a command that looks and ends."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec

from perund.control.messages import call_line, decode_incoming, error_of, hung_up, socket_of, unreachable, without_none
from perund.control.methods import Method, P, R

__all__ = ["ask"]


def ask(path: Path, method: Method[P, R], params: P) -> R:
    """Call a method of the node of a data directory. Raises `RpcError`, `NodeUnreachable`."""
    target = socket_of(path)
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(target))
        except OSError as error:
            raise unreachable(target, error) from None
        try:
            connection.sendall(call_line(1, method.name, without_none(params)))
            with connection.makefile("rb") as lines:
                line = lines.readline()
        except OSError as error:
            raise hung_up(error) from error
    if not line.endswith(b"\n"):
        raise hung_up(None)
    answer = decode_incoming(line)
    if (refused := error_of(answer)) is not None:
        raise refused
    return method.decode_result(answer.result if answer.result is not msgspec.UNSET else msgspec.Raw(b"null"))
