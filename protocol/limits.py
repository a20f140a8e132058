"""Bounds of the numbers of the protocol. A module of their own, which loads nothing: command lines read them too."""

from __future__ import annotations

from typing import Final

__all__ = ["MAX_E8S", "MAX_INT64", "MAX_MEMO_BYTES", "MAX_NAT64"]

MAX_NAT64: Final = 2**64 - 1
MAX_INT64: Final = 2**63 - 1
"""What a signed column of 64 bits holds. Whatever somebody else says that is above it is refused where it is decoded:
no version, moment, block or amount that is real comes near it.
"""
MAX_E8S: Final = MAX_NAT64
"""The payout parses a nat64: a larger total could never be withdrawn."""
MAX_MEMO_BYTES: Final = 256
"""Of the text that goes with a payment to its receiver."""
