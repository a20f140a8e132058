"""The OpenRPC document of the control interface, made from the types that decode it."""

from __future__ import annotations

from typing import Final, cast

import msgspec

from perund.control.errors import BY_NAME, ErrorKind
from perund.control.methods import METHODS, RPC_DISCOVER
from perund.control.values import schema_of_value

__all__ = ["EVENT_NOTIFICATION", "openrpc"]

OPENRPC: Final = "1.3.2"
EVENT_NOTIFICATION: Final = "event"
ANY_CALL: Final = ("parse_error", "invalid_request", "invalid_params", "internal_error", "busy", "node_stopping")


def openrpc(version: str) -> dict[str, object]:
    """Return the document. `version`: that of perund."""
    types: list[type] = []
    for method in METHODS.values():
        types += [method.params, *([method.result] if method is not RPC_DISCOVER else [])]
    _, components = msgspec.json.schema_components(
        types, schema_hook=schema_of_value, ref_template="#/components/schemas/{name}"
    )
    return {
        "openrpc": OPENRPC,
        "info": {
            "title": "perund control interface",
            "version": version,
            "description": "JSON-RPC 2.0, one object per line, on the Unix socket control.sock of the data directory.",
        },
        "methods": [_method(name, components) for name in METHODS],
        "components": {"schemas": components},
    }


def _method(name: str, components: dict[str, dict[str, object]]) -> dict[str, object]:
    method = METHODS[name]
    params = components[method.params.__name__]
    required = cast("list[str]", params.get("required", []))
    properties = cast("dict[str, object]", params.get("properties", {}))
    result: dict[str, object] = (
        {"type": "object"} if method is RPC_DISCOVER else {"$ref": f"#/components/schemas/{method.result.__name__}"}
    )
    return {
        "name": name,
        "summary": method.doc,
        "paramStructure": "either",
        "params": [
            {"name": field, "required": field in required, "schema": properties[field]}
            for field in method.params.__struct_fields__
        ],
        "result": {"name": "result", "schema": result},
        "errors": [_error(BY_NAME[word]) for word in (*method.errors, *ANY_CALL)],
    }


def _error(kind: ErrorKind) -> dict[str, object]:
    data = {"name": kind.name, "hint": kind.hint, "retryable": kind.retryable}
    return {"code": kind.code, "message": kind.name.replace("_", " "), "data": data}
