"""Account identifiers: whose money, as the ledger writes it. Source: fact sheet, section 7."""

from __future__ import annotations

import hashlib
import zlib
from typing import Final

__all__ = ["ACCOUNT_BYTES", "MINTING_ACCOUNT", "MINTING_OWNER", "account_identifier", "is_account_identifier"]

ACCOUNT_BYTES: Final = 32
_DEFAULT_SUBACCOUNT: Final = bytes(32)


def account_identifier(owner: bytes, subaccount: bytes = _DEFAULT_SUBACCOUNT) -> bytes:
    """Return the account (32 bytes) of a raw principal. `subaccount`: 32 bytes."""
    digest = hashlib.sha224(b"\x0aaccount-id" + owner + subaccount).digest()
    return zlib.crc32(digest).to_bytes(4, "big") + digest


def is_account_identifier(account: bytes) -> bool:
    """Whether length and check sum are those of an account."""
    return len(account) == ACCOUNT_BYTES and zlib.crc32(account[4:]).to_bytes(4, "big") == account[:4]


MINTING_OWNER: Final = b""
"""The management canister, which never calls anybody: only the network's admin mints."""
MINTING_ACCOUNT: Final = account_identifier(MINTING_OWNER)
"""What is sent here is burned."""
