"""The Perun canister behind `perun.did`: the replica's `CanisterModule`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from devnet.candid import BLOB, NAT, NAT32, NAT64, AnyShape, Case, opt
from devnet.canister import Call
from devnet.code import interface_file, module_hash
from devnet.method import Arguments, Method, Methods, at_once
from devnet.perun import interface as words
from devnet.perun.canister import PerunCanister
from devnet.perun.interface import Error, error_case

__all__ = ["PerunModule"]

_OPT_ERROR: Final = opt(words.ERROR)


class PerunModule:
    """A `CanisterModule` of the contract `canister`."""

    def __init__(self, canister: PerunCanister) -> None:
        self.canister = canister
        self.candid = interface_file("perun.did")
        self.module_hash = module_hash("perun.did", "perun", "candid", "method.py")
        self.methods = Methods(_methods(canister))
        self.updates = self.methods.updates
        self.queries = self.methods.queries

    async def execute(self, method: str, arg: bytes, call: Call) -> bytes:
        """Run a method on a Candid argument and return its Candid reply. Raises `Trap`, `MethodNotFound`."""
        return await self.methods.execute(method, arg, call)

    def save(self) -> bytes:
        """Return everything that must outlive an upgrade or a restart; equal states give equal bytes."""
        return self.canister.save()

    def load(self, saved: bytes) -> None:
        """Take over what `save` returned. Raises `Trap`."""
        self.canister.load(saved)


def _methods(canister: PerunCanister) -> dict[str, Method]:
    async def notify(call: Call, arguments: Arguments) -> tuple[object, ...]:
        answer = await canister.transaction_notification(arguments[0], call.now_ns)
        return (Case("Err", error_case(answer)) if isinstance(answer, Error) else Case("Ok", answer),)

    async def withdraw(call: Call, arguments: Arguments) -> tuple[object, ...]:
        answer = await canister.withdraw(arguments[0], arguments[1], call.now_ns)
        return (None, error_case(answer)) if isinstance(answer, Error) else (answer, None)

    return {
        "transaction_notification": Method((NAT64,), (words.NOTIFIED,), notify),
        "deposit": _refusing((words.FUNDING,), canister.deposit),
        "query_holdings": _query(
            (words.FUNDING,), opt(NAT), lambda call, args: canister.query_holdings(args[0], call.now_ns)
        ),
        "dispute": _refusing((words.PARAMS, words.FULLY_SIGNED_STATE), canister.dispute),
        "conclude": _refusing((words.PARAMS, words.FULLY_SIGNED_STATE), canister.conclude),
        "query_state": _query((BLOB,), opt(words.REGISTERED_STATE), lambda _, args: canister.query_state(args[0])),
        "withdraw": Method((words.WITHDRAWAL_REQUEST, BLOB), (opt(NAT64), _OPT_ERROR), withdraw),
        "query_events": _query(
            (BLOB, NAT64), words.EVENTS, lambda call, args: canister.query_events(args[0], args[1], call.now_ns)
        ),
        "disputes_since": _query(
            (NAT64, NAT32), words.DISPUTES, lambda _, args: canister.disputes_since(args[0], args[1])
        ),
    }


def _refusing(arguments: tuple[AnyShape, ...], run: Callable[..., Error | None]) -> Method:
    """Return a method that answers null, or the error."""

    def execute(call: Call, values: Arguments) -> object:
        error = run(*values, call.now_ns)
        return None if error is None else error_case(error)

    return Method(arguments, (_OPT_ERROR,), at_once(execute))


def _query(arguments: tuple[AnyShape, ...], result: AnyShape, run: Callable[[Call, Arguments], object]) -> Method:
    return Method(arguments, (result,), at_once(run), query=True)
