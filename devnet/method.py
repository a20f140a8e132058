"""Methods of a canister: their Candid types, and how an argument in bytes becomes a reply in bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from devnet.candid import AnyShape, NotCandid, decode, encode
from devnet.canister import Call, MethodNotFound, Trap

__all__ = ["Arguments", "Method", "Methods", "at_once"]

Arguments = tuple[Any, ...]
"""What the shapes of the arguments built: those are what is checked, types end here."""
Run = Callable[[Call, Arguments], Awaitable[tuple[object, ...]]]
"""Takes the call and the arguments, returns the values of the reply."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method and its types. `query`: it only reads."""

    arguments: tuple[AnyShape, ...]
    results: tuple[AnyShape, ...]
    run: Run
    query: bool = False


def at_once(run: Callable[[Call, Arguments], object]) -> Run:
    """Return a method with one result that waits for nothing."""

    async def execute(call: Call, arguments: Arguments) -> tuple[object, ...]:
        return (run(call, arguments),)

    return execute


class Methods:
    """The methods of a canister by name."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = dict(methods)
        self.updates = frozenset(name for name, method in methods.items() if not method.query)
        self.queries = frozenset(name for name, method in methods.items() if method.query)

    def __getitem__(self, name: str) -> Method:
        try:
            return self._methods[name]
        except KeyError:
            raise MethodNotFound(f"there is no method {name[:80]!r}") from None

    async def execute(self, name: str, arg: bytes, call: Call) -> bytes:
        """Run a method on a Candid argument and return its Candid reply. Raises `Trap`, `MethodNotFound`."""
        method = self[name]
        try:
            arguments = decode(arg, *method.arguments)
        except NotCandid as exc:
            raise Trap(f"failed to decode the argument of {name}: {exc}") from exc
        results = await method.run(call, arguments)
        return encode(method.results, *results)
