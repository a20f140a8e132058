"""An interface file as a client sees it: read by another Candid implementation than the canister's own."""

from __future__ import annotations

from functools import cache
from typing import Any

from antlr4 import CommonTokenStream, ParseTreeWalker
from antlr4.InputStream import InputStream
from ic.candid import FuncClass, decode, encode
from ic.parser.DIDEmitter import DIDEmitter
from ic.parser.DIDLexer import DIDLexer
from ic.parser.DIDParser import DIDParser

from devnet.code import interface_file

__all__ = ["arguments", "methods", "results"]


@cache
def methods(name: str) -> dict[str, FuncClass]:
    """Return the methods of an interface file by name."""
    parser = DIDParser(CommonTokenStream(DIDLexer(InputStream(interface_file(name)))))
    emitter = DIDEmitter()
    ParseTreeWalker().walk(emitter, parser.program())
    assert parser.getNumberOfSyntaxErrors() == 0
    found: dict[str, FuncClass] = emitter.getActor()["methods"]
    return found


def arguments(name: str, method: str, *values: object) -> bytes:
    """Return a call's argument in bytes."""
    types = methods(name)[method].argTypes
    encoded: bytes = encode([{"type": t, "value": v} for t, v in zip(types, values, strict=True)])
    return encoded


def results(name: str, method: str, reply: bytes) -> list[Any]:
    """Return the values of a reply."""
    return [item["value"] for item in decode(reply, methods(name)[method].retTypes)]
