"""What a client of the control socket writes and reads, and how its errors are told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from perund.control.envelope import ENCODER, SOCKET_NAME
from perund.control.errors import BY_CODE, NodeUnreachable, RpcError
from perund.control.values import PaidColumn, encode_value
from perund.durations import format_duration

__all__ = [
    "Incoming",
    "call_line",
    "decode_incoming",
    "error_of",
    "hung_up",
    "not_answered",
    "socket_of",
    "unreachable",
    "without_none",
]


class _ErrorData(msgspec.Struct):
    name: str = ""
    hint: str = ""
    retryable: bool = False
    idempotency_key: str | None = None


class _ErrorObject(msgspec.Struct):
    code: int
    message: str
    data: _ErrorData = msgspec.field(default_factory=_ErrorData)


class Incoming(msgspec.Struct, gc=False):
    """A response or a notification."""

    id: int | str | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _ErrorObject | msgspec.UnsetType = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Call(msgspec.Struct):
    id: int
    method: str
    params: object
    jsonrpc: str = "2.0"


_INCOMING: Final = msgspec.json.Decoder(Incoming)


def decode_incoming(line: bytes) -> Incoming:
    """Read a line of the node."""
    return _INCOMING.decode(line)


def call_line(number: int, method: str, params: object) -> bytes:
    """Return a call, with the end of its line."""
    return ENCODER.encode(_Call(number, method, params)) + b"\n"


def error_of(incoming: Incoming) -> RpcError | None:
    """Return the error that was answered, if it is one."""
    if incoming.error is msgspec.UNSET:
        return None
    error = incoming.error
    kind = BY_CODE.get(error.code)
    return RpcError(
        error.data.name or (kind.name if kind else "refused"),
        error.message,
        hint=error.data.hint,
        code=error.code,
        retryable=error.data.retryable,
        idempotency_key=error.data.idempotency_key,
    )


def without_none(params: object) -> Mapping[str, object]:
    """Return the fields that say something: an absent argument travels as no argument."""
    assert isinstance(params, msgspec.Struct)
    fields = ((name, getattr(params, name)) for name in params.__struct_fields__)
    # A column is a tuple to msgspec, which would write bare numbers.
    return {n: encode_value(v) if isinstance(v, PaidColumn) else v for n, v in fields if v is not None}


def socket_of(path: Path) -> Path:
    """Return the socket of a data directory; a path that is one already stays."""
    return path if path.name == SOCKET_NAME else path / SOCKET_NAME


def unreachable(target: Path, error: OSError) -> NodeUnreachable:
    """Say why nobody answers on a socket."""
    how = f"start it with `perund run --dir {target.parent}`"
    match error:
        case FileNotFoundError():
            return NodeUnreachable(f"no node runs in {target.parent}", how)
        case ConnectionRefusedError():
            return NodeUnreachable(f"the node in {target.parent} is not running any more", how)
        case PermissionError():
            return NodeUnreachable(f"{target} belongs to another user", "run as the user who runs the node")
        case _:
            return NodeUnreachable(f"{target} cannot be reached ({error.strerror or error})", how)


def hung_up(error: Exception | None) -> NodeUnreachable:
    """Say that the node went away during a call."""
    cause = f" ({error})" if error else ""
    return NodeUnreachable(f"the node hung up{cause}", "its log says why; what it answered before stands", sent=True)


def not_answered(within_s: int) -> RpcError:
    """Say that the node took longer than its caller has."""
    text = f"the node has not answered, or not to the end, within {format_duration(within_s)}"
    return RpcError("wait_ended", text, hint="ask again; its log tells how it is")
