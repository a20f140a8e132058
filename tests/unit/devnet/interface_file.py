"""An interface file as a client sees it: read by another Candid implementation than the canister's own."""

from __future__ import annotations

from functools import cache
from typing import Any

from ic.candid import FuncClass, decode, encode
from ic.canister import Canister

from devnet.code import interface_file

__all__ = ["arguments", "methods", "results"]


@cache
def methods(name: str) -> dict[str, FuncClass]:
    """Return the methods of an interface file by name."""
    client = Canister(None, "", interface_file(name))  # type: ignore[no-untyped-call]
    found: dict[str, FuncClass] = client.actor["methods"]
    return found


def arguments(name: str, method: str, *values: object) -> bytes:
    """Return a call's argument in bytes."""
    types = methods(name)[method].argTypes
    typed = [{"type": t, "value": v} for t, v in zip(types, values, strict=True)]
    encoded: bytes = encode(typed)  # type: ignore[no-untyped-call]
    return encoded


def results(name: str, method: str, reply: bytes) -> list[Any]:
    """Return the values of a reply."""
    decoded = decode(reply, methods(name)[method].retTypes)  # type: ignore[no-untyped-call]
    return [item["value"] for item in decoded]
