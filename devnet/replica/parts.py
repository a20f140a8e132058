"""What a canister saved, in parts: a state that only grows, like a ledger's, is written at its end only."""

from __future__ import annotations

from typing import Final

__all__ = ["PART_BYTES", "changed_parts", "parts_of"]

PART_BYTES: Final = 16 * 1024


def parts_of(length: int) -> int:
    """Return how many parts hold `length` bytes.

    >>> parts_of(0), parts_of(1), parts_of(16 * 1024 + 1)
    (0, 1, 2)
    """
    return -(-length // PART_BYTES)


def changed_parts(before: bytes, after: bytes) -> list[tuple[int, bytes]]:
    """Return number and bytes of each part of `after` that `before` does not have in its place."""
    changed: list[tuple[int, bytes]] = []
    for number in range(parts_of(len(after))):
        start = number * PART_BYTES
        part = after[start : start + PART_BYTES]
        if part != before[start : start + PART_BYTES]:
            changed.append((number, part))
    return changed
