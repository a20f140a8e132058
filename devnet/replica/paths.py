"""Which paths of the state tree a caller may read.

Source: Interface Specification, "Request: Read state", and the public replica for what it leaves open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from devnet.replica.envelope import ReadStateContent
from devnet.replica.errors import RequestRefused
from devnet.replica.principals import to_text

__all__ = ["check_canister_paths", "check_subnet_paths"]

Path = tuple[bytes, ...]
_REQUEST_LEAVES: Final = frozenset({b"status", b"reply", b"reject_code", b"reject_message", b"error_code"})
_BOUNDARY_LEAVES: Final = frozenset({b"domain", b"ipv4_address", b"ipv6_address"})


def check_canister_paths(
    content: ReadStateContent,
    canister_id: bytes,
    targets: frozenset[bytes] | None,
    owner_of: Callable[[bytes], tuple[bytes, bytes] | None],
) -> None:
    """Refuse paths that the canister endpoint does not serve to this sender.

    `owner_of`: for a request id, sender and canister of the call that has it, None if there is none.
    Raises `RequestRefused` (400, 403, 404).
    """
    requested: set[bytes] = set()
    for path in content.paths:
        match path:
            case (b"canister", owner, b"module_hash" | b"controllers" | b"last_install_timestamp") | (
                b"canister",
                owner,
                b"metadata",
                _,
            ):
                _check_same_canister(owner, canister_id)
            case (b"request_status", request_id) | (b"request_status", request_id, _) if (
                path[2:] == () or path[2] in _REQUEST_LEAVES
            ):
                requested.add(request_id)
                _check_request(request_id, content.sender, targets, owner_of)
            case _ if _is_public(path):
                pass
            case _:
                raise _invalid_path()
    if len(requested) > 1:
        first, second = sorted(requested)[:2]
        raise RequestRefused(
            400,
            "More than one non-unique request ID exists in request_status paths: "
            f"0x{first.hex()} and 0x{second.hex()}.",
        )


def check_subnet_paths(content: ReadStateContent) -> None:
    """Refuse paths that the subnet endpoint does not serve. Raises `RequestRefused` (404)."""
    for path in content.paths:
        match path:
            case (b"subnet", _, b"metrics") | (b"canister_ranges", _):
                pass
            case _ if _is_public(path):
                pass
            case _:
                raise _invalid_path()


def _is_public(path: Path) -> bool:
    match path:
        case (b"time" | b"subnet" | b"api_boundary_nodes",) | (b"subnet" | b"api_boundary_nodes", _):
            return True
        case (b"subnet", _, b"public_key" | b"canister_ranges" | b"node" | b"type"):
            return True
        case (b"subnet", _, b"node", _) | (b"subnet", _, b"node", _, b"public_key"):
            return True
        case (b"api_boundary_nodes", _, leaf):
            return leaf in _BOUNDARY_LEAVES
        case _:
            return False


def _check_same_canister(owner: bytes, canister_id: bytes) -> None:
    if owner != canister_id:
        raise RequestRefused(
            400,
            f"Effective principal id in URL {to_text(canister_id)} does not match "
            f"requested principal id: {to_text(owner)}.",
        )


def _check_request(
    request_id: bytes,
    sender: bytes,
    targets: frozenset[bytes] | None,
    owner_of: Callable[[bytes], tuple[bytes, bytes] | None],
) -> None:
    if len(request_id) != 32:
        raise RequestRefused(400, "Invalid request id in paths. Maybe the request ID is not of 32 bytes in length?!")
    owner = owner_of(request_id)
    if owner is None:
        return
    caller, receiver = owner
    if caller != sender:
        raise RequestRefused(403, "The user tries to access Request ID not signed by the caller.")
    if targets is not None and receiver not in targets:
        raise RequestRefused(
            403,
            "The user tries to access request IDs for canisters not belonging to sender delegation targets.",
        )


def _invalid_path() -> RequestRefused:
    return RequestRefused(404, "Invalid path requested.")
