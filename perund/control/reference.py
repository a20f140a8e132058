"""The tables of docs/rpc.md, made from the schema: a test holds the page to them."""

from __future__ import annotations

from perund.control.errors import ERRORS
from perund.control.events import EVENTS
from perund.control.methods import METHODS, RPC_DISCOVER

__all__ = ["error_table", "event_table", "method_table"]


def method_table() -> str:
    """Return the methods as a Markdown table; optional params have a question mark."""
    lines = ["| method | params | result | what it does |", "| --- | --- | --- | --- |"]
    for method in METHODS.values():
        required = len(method.params.__struct_fields__) - len(method.params.__struct_defaults__)
        params = ", ".join(
            name if place < required else f"{name}?" for place, name in enumerate(method.params.__struct_fields__)
        )
        result = "OpenRPC" if method is RPC_DISCOVER else method.result.__name__
        lines.append(f"| `{method.name}` | {params or 'none'} | {result} | {method.doc} |")
    return "\n".join(lines)


def event_table() -> str:
    """Return the events as a Markdown table."""
    return "\n".join(
        ["| event | what it says |", "| --- | --- |", *(f"| `{kind}` | {doc} |" for kind, doc in EVENTS.items())]
    )


def error_table() -> str:
    """Return the errors as a Markdown table."""
    lines = ["| code | name | retryable | what to do |", "| --- | --- | --- | --- |"]
    lines += [f"| {kind.code} | `{kind.name}` | {'yes' if kind.retryable else 'no'} | {kind.hint} |" for kind in ERRORS]
    return "\n".join(lines)
