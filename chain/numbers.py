"""Numbers in the answers of canisters, bounded where they are read.

A `nat64` goes to 2^64-1 and a `nat` has no end; a column of the store is signed and ends at 2^63-1. No ledger has that
many blocks or e8s, and no clock shows that time: an answer that says so is none, and concerns what was asked alone.
"""

from __future__ import annotations

from chain.errors import UnexpectedReply
from protocol.types import MAX_INT64

__all__ = ["bounded"]


def bounded(value: int, what: str) -> int:
    """Return the number of `what`. Raises `UnexpectedReply` for one that cannot be."""
    if value > MAX_INT64:
        raise UnexpectedReply(f"{what} above 2^63-1 cannot be")
    return value
