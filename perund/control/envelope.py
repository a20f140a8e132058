"""Requests and responses of JSON-RPC 2.0 as bytes. Source: https://www.jsonrpc.org/specification."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from perund.control.errors import RpcError
from perund.control.methods import Method, P
from perund.control.values import encode_value

__all__ = ["ENCODER", "SOCKET_NAME", "Request", "RequestId", "decode_params", "encode_error", "encode_result"]

SOCKET_NAME: Final = "control.sock"
"""The name of the socket in a data directory."""
RequestId = int | str | None
"""A fraction as id is refused: JSON-RPC advises against it, and it would not come back as it was."""

ENCODER: Final = msgspec.json.Encoder(enc_hook=encode_value)
_OPENING_BRACKET: Final = ord("[")
_NO_PARAMS: Final = msgspec.Raw(b"{}")
_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])


class Request(msgspec.Struct, gc=False, frozen=True):
    """A call; without `id` a notification, which is carried out and never answered."""

    jsonrpc: Literal["2.0"]
    method: str
    params: msgspec.Raw = _NO_PARAMS
    id: RequestId | msgspec.UnsetType = msgspec.UNSET


class _Result(msgspec.Struct, gc=False):
    id: RequestId
    result: object
    jsonrpc: str = "2.0"


class _ErrorData(msgspec.Struct, gc=False, omit_defaults=True):
    name: str
    hint: str
    retryable: bool
    idempotency_key: str | None = None


class _ErrorObject(msgspec.Struct, gc=False):
    code: int
    message: str
    data: _ErrorData


class _Error(msgspec.Struct, gc=False):
    id: RequestId
    error: _ErrorObject
    jsonrpc: str = "2.0"


def encode_result(request_id: RequestId, result: object) -> bytes:
    """Return the response, without the end of line."""
    return ENCODER.encode(_Result(request_id, result))


def encode_error(request_id: RequestId, error: RpcError) -> bytes:
    """Return the response, without the end of line. `request_id`: None when it could not be read."""
    data = _ErrorData(error.name, error.hint, error.retryable, error.idempotency_key)
    return ENCODER.encode(_Error(request_id, _ErrorObject(error.code, error.message, data)))


def decode_params(method: Method[P, object], params: msgspec.Raw) -> P:
    """Return typed params from an object, or from an array in the order of the fields.

    Raises `RpcError` (`invalid_params`), which names the field and what is allowed.
    """
    try:
        if memoryview(params)[0] == _OPENING_BRACKET:
            values = _ARRAY.decode(params)
            fields = method.params.__struct_fields__
            if len(values) > len(fields):
                raise RpcError(
                    "invalid_params", f"{method.name} takes {len(fields)} arguments at most, not {len(values)}"
                )
            params = msgspec.Raw(msgspec.json.encode(dict(zip(fields, values, strict=False))))
        return method.decode_params(params)
    except msgspec.ValidationError as error:
        raise RpcError("invalid_params", f"{method.name}: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RpcError("parse_error", f"the params of {method.name} are not JSON: {error}") from None
