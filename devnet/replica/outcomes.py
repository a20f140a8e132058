"""How a call ends: replied or rejected, in the codes of the Internet Computer.

Source: Interface Specification, "Reject codes" and "Error codes".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "CANISTER_ERROR",
    "DESTINATION_INVALID",
    "Outcome",
    "Rejected",
    "Replied",
    "canister_not_found",
    "controllers_only",
    "method_not_found",
    "trapped",
]

DESTINATION_INVALID: Final = 3
CANISTER_ERROR: Final = 5


@dataclass(frozen=True, slots=True)
class Replied:
    """The canister answered with a Candid value."""

    reply: bytes


@dataclass(frozen=True, slots=True)
class Rejected:
    """The call did not succeed. `error_code`: `IC0` and three digits, the first being the reject code."""

    reject_code: int
    reject_message: str
    error_code: str


Outcome = Replied | Rejected


def canister_not_found(canister: str) -> Rejected:
    """Nobody is at the principal `canister` (text)."""
    return Rejected(DESTINATION_INVALID, f"Canister {canister} not found", "IC0301")


def controllers_only(method: str) -> Rejected:
    """The management canister does not tell a stranger. Canisters here have no controllers: everybody is one."""
    message = f"Only controllers of the canister can call ic00 method {method}"
    return Rejected(CANISTER_ERROR, message, "IC0512")


def method_not_found(canister: str, kind: str, method: str) -> Rejected:
    """The canister has no `kind` ("update" or "query") method of that name."""
    message = f"Error from Canister {canister}: Canister has no {kind} method '{method}'."
    return Rejected(CANISTER_ERROR, message, "IC0536")


def trapped(canister: str, message: str) -> Rejected:
    """The canister trapped with a message of its own."""
    return Rejected(
        CANISTER_ERROR,
        f"Error from Canister {canister}: Canister called `ic0.trap` with message: '{message}'",
        "IC0503",
    )
