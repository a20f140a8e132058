"""A canister as the devnet's replica sees it: bytes in, bytes out, no I/O of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Call", "CanisterModule", "MethodNotFound", "Trap"]


class Trap(Exception):
    """The canister trapped: reject code 5. Changes since the last await are undone."""


class MethodNotFound(Exception):
    """The canister has no method of that name (or not as a query)."""


@dataclass(frozen=True, slots=True)
class Call:
    """Who calls, and when. `caller`: raw principal bytes; `now_ns`: chain time at the start of execution."""

    caller: bytes
    now_ns: int


class CanisterModule(Protocol):
    """What the replica needs of a canister."""

    candid: str
    """Its interface, served as the metadata `candid:service`."""
    module_hash: bytes
    """32 bytes that change when its code does."""
    updates: frozenset[str]
    """Methods that change something. They run one after the other, but interleave where they await."""
    queries: frozenset[str]
    """Methods that only read. The replica also runs them as updates, for a certified answer."""

    async def execute(self, method: str, arg: bytes, call: Call) -> bytes:
        """Run a method on a Candid argument and return its Candid reply. Raises `Trap`, `MethodNotFound`."""
        ...

    def save(self) -> bytes:
        """Return everything that must outlive an upgrade or a restart; equal states give equal bytes."""
        ...

    def load(self, saved: bytes) -> None:
        """Take over what `save` returned."""
        ...
