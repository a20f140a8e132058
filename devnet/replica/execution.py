"""Runs methods of canisters and turns what happens into outcomes.

Calls start in the order in which they arrive; each runs alone until it awaits, as on the Internet Computer. What
the real system does and this one leaves to the canisters: a trap does not undo changes, so a canister checks
everything before it changes anything; and a query changes nothing because its code does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import structlog

from devnet.canister import Call, CanisterModule, MethodNotFound, Trap
from devnet.replica.envelope import Invocation
from devnet.replica.outcomes import (
    Outcome,
    Rejected,
    Replied,
    canister_not_found,
    controllers_only,
    method_not_found,
    trapped,
)
from devnet.replica.principals import MANAGEMENT, to_text
from devnet.replica.request_id import uleb128

__all__ = ["Executor"]

log = structlog.get_logger(__name__)

_INTERFACE_QUERY: Final = "__get_candid_interface_tmp_hack"
"""What older agents ask for a canister's interface; compilers add it to every canister."""

_CONTROLLERS_ASK: Final = "canister_status"
"""Agents ask this first, and read what is public when they are told that only controllers may."""


class Executor:
    """The canisters of the network, by raw principal."""

    def __init__(self, canisters: Mapping[bytes, CanisterModule]) -> None:
        self._canisters = canisters

    def refusal(self, content: Invocation) -> Rejected | None:
        """Return why a call is refused before it is taken up, or None. Such a call has no request status."""
        canister = self._canisters.get(content.canister_id)
        name = to_text(content.canister_id)
        if content.canister_id == MANAGEMENT:
            if content.method == _CONTROLLERS_ASK:
                return controllers_only(content.method)
            return method_not_found(name, "update", content.method)
        if canister is None:
            return canister_not_found(name)
        if content.method not in canister.updates | canister.queries:
            return method_not_found(name, "update", content.method)
        return None

    async def update(self, content: Invocation, now_ns: int) -> Outcome:
        """Run an update method, or a query method for a certified answer."""
        refused = self.refusal(content)
        if refused is not None:
            return refused
        return await self._run(self._canisters[content.canister_id], content, now_ns)

    async def query(self, content: Invocation, now_ns: int) -> Outcome:
        """Run a query method."""
        canister = self._canisters.get(content.canister_id)
        if canister is None:
            return canister_not_found(to_text(content.canister_id))
        if content.method == _INTERFACE_QUERY:
            interface = canister.candid.encode()
            return Replied(b"DIDL\x00\x01\x71" + uleb128(len(interface)) + interface)
        if content.method not in canister.queries:
            return method_not_found(to_text(content.canister_id), "query", content.method)
        return await self._run(canister, content, now_ns)

    async def _run(self, canister: CanisterModule, content: Invocation, now_ns: int) -> Outcome:
        name = to_text(content.canister_id)
        try:
            reply = await canister.execute(content.method, content.arg, Call(content.sender, now_ns))
        except Trap as exc:
            return trapped(name, str(exc))
        except MethodNotFound:
            return method_not_found(name, "update", content.method)
        except Exception as exc:
            # A defect of the canister. On the Internet Computer it ends its own call, not the subnet.
            log.exception("canister.call_failed", canister=name, method=content.method)
            return trapped(name, f"{type(exc).__name__}: {exc}")
        return Replied(reply)
