"""What can go wrong between us and the Internet Computer: one class for each thing a caller can do about it.

* `ChainError`
    * `Unreachable`: no server answered. A read: try later. See `Agent.submit` for what it proves of a call.
    * `RequestRefused`: a server refused the request (HTTP 4xx). One server's word; proves nothing.
    * `LyingReplica`: an answer that does not verify. Proves nothing: the call may well have executed.
    * `CallRejected`: certified. The canister refused, trapped or does not exist. A trap undoes only what happened
      since the canister's last await, so by itself it proves no effect only for methods that never await.
    * `UncertifiedReject`: one node's word that the call was refused. Proves nothing.
    * `CallExpired`: certified. The call was never executed and never will be: **the only proof of no effect**.
    * `OutcomeUnknown`: may or may not have executed, now or (until its expiry) later.
    * `NotInTime`: a call at every server at once: no certified answer in the time given. Proves nothing.
    * `UnexpectedReply`: a certified reply of another shape than the interface says; the call did execute.
    * `InvalidPrincipal`, `UnusableIdentity`, `UnencodableArgument`: local input that cannot be used. Nothing was sent.
    * `InterfaceMismatch`, `InterfaceUnknown`: not a canister that this node can work with.
    * `UnsafeRootKey`: a root key would have been taken on a server's word where it must be pinned.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from protocol.errors import PerundError

if TYPE_CHECKING:
    from chain.hash_tree import HashTree

__all__ = [
    "CallExpired",
    "CallRejected",
    "ChainError",
    "InterfaceMismatch",
    "InterfaceUnknown",
    "InvalidPrincipal",
    "LyingReplica",
    "NotInTime",
    "OutcomeUnknown",
    "RequestRefused",
    "UncertifiedReject",
    "UnencodableArgument",
    "UnexpectedReply",
    "Unreachable",
    "UnsafeRootKey",
    "UnusableIdentity",
]


_MOMENT: Final = re.compile(r"allowed expiry: (\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)")
SECOND: Final = 1_000_000_000


class ChainError(PerundError):
    """Base of every error of this layer.

    `shown`: the reply (Candid bytes) that an answer without a proof showed, if there was one. Good for a hint.
    """

    shown: bytes | None = None


class Unreachable(ChainError):
    """No server answered after all retries: no connection, a time-out, HTTP 429 or 5xx.

    `url`: the last one tried. Raised for a call only if no byte of it can have arrived (see `Agent.submit`).
    """

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"cannot reach the Internet Computer at {url}: {reason}; "
            "check the network connection and the configured URLs"
        )
        self.url = url


class RequestRefused(ChainError):
    """A server refused the request itself (HTTP 4xx). One server's word: an earlier copy may have been accepted.

    `url`, `status`: who and with which HTTP status; `for_its_expiry`: because our clock or theirs is off.
    """

    def __init__(self, url: str, status: int, body: str) -> None:
        self.for_its_expiry = "Invalid request expiry" in body
        super().__init__(
            f"{url} takes no request that is signed by the time as this node knows it (the machine was paused, or that "
            f"server's clock is off): try again in a moment; it says: {body}"
            if self.for_its_expiry
            else f"{url} refused the request with HTTP {status}: {body or '(no reason given)'}"
        )
        self.url = url
        self.status = status
        self.claimed_time_ns = _claimed_time_ns(body) if self.for_its_expiry else None
        """The server's time, as the expiry that it would take tells it: its word, good for calls that do no harm."""


class LyingReplica(ChainError):
    """An answer that does not verify: malformed, wrongly signed, for another canister, or too old.

    It proves nothing about the call. With a wrong root key in the configuration every answer looks so.
    `unproven`: the tree of the certificate that did not pass, if it could be read.
    """

    unproven: HashTree | None = None


class CallRejected(ChainError):
    """The network certified that the call was rejected.

    `code`: 1 to 6 (3 no such canister, 4 the canister refused, 5 it trapped); `error_code`: such as `IC0503`.
    """

    def __init__(self, code: int, message: str, error_code: str | None) -> None:
        super().__init__(f"the call was rejected with code {code} ({error_code or 'no error code'}): {message}")
        self.code = code
        self.message = message
        self.error_code = error_code


class UncertifiedReject(ChainError):
    """One node says that it refused the call or query. Nothing is proven: the node may lie.

    Fields as in `CallRejected`. `Agent.outcome` finds out, by the call's expiry, what became of it.
    """

    def __init__(self, code: int, message: str, error_code: str | None) -> None:
        super().__init__(f"a node refused the request with code {code} ({error_code or 'no error code'}): {message}")
        self.code = code
        self.message = message
        self.error_code = error_code


class CallExpired(ChainError):
    """Proven: the call expired and is absent. It was never executed and never will be; it may be replaced.

    `request_id`: 32 bytes.
    """

    def __init__(self, request_id: bytes) -> None:
        super().__init__(f"the call {request_id.hex()} expired without being executed; it can be made anew")
        self.request_id = request_id


class OutcomeUnknown(ChainError):
    """The call may or may not have executed. Look at what it was to change before doing it again.

    `request_id`: 32 bytes.
    """

    def __init__(self, request_id: bytes, reason: str) -> None:
        super().__init__(f"the outcome of the call {request_id.hex()} is unknown: {reason}")
        self.request_id = request_id


class NotInTime(ChainError):
    """No server proved anything in the time given. The call may have been executed."""

    def __init__(self, within_s: float) -> None:
        super().__init__(f"no certified answer came within {within_s:.1f} s")


class UnexpectedReply(ChainError):
    """Candid bytes of another shape than the interface says. The call that they answer did execute."""


class UnencodableArgument(ChainError):
    """An argument that Candid cannot express, such as an amount above nat64. Nothing was sent."""


class InvalidPrincipal(ChainError):
    """Text or bytes that are no principal, or no account identifier."""


class UnusableIdentity(ChainError):
    """A key file that cannot be used. The message names its kind and what to do, never its content."""


class InterfaceMismatch(ChainError):
    """The canister's certified interface is not the one this node speaks.

    `differences`: one line for each method that differs.
    """

    def __init__(self, canister: str, differences: tuple[str, ...]) -> None:
        super().__init__(
            f"canister {canister} is no Perun canister that this node can work with: " + "; ".join(differences)
        )
        self.differences = differences


class InterfaceUnknown(ChainError):
    """The canister publishes no interface (no `candid:service` metadata), so it cannot be checked."""

    def __init__(self, canister: str) -> None:
        super().__init__(
            f"canister {canister} publishes no interface (metadata candid:service), so it cannot be checked; "
            "is this the id of the Perun canister?"
        )


class UnsafeRootKey(ChainError):
    """A root key may be fetched only from a local network; elsewhere it must be pinned."""


def _claimed_time_ns(body: str) -> int | None:
    """Return the earliest expiry that a server would take, which is its time; to the second."""
    found = _MOMENT.search(body)
    if found is None:
        return None
    try:
        moment = datetime(*(int(part) for part in found.groups()), tzinfo=UTC)  # type: ignore[misc, arg-type]
    except ValueError:  # the thirtieth of February
        return None
    return int(moment.timestamp()) * SECOND
