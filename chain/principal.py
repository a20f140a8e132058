"""Principals (who) and account identifiers (where ICP lies), as raw bytes inside and as text at the edge.

ic-py's text codec does the work; what it lets through is refused here: text whose dashes are misplaced, more
than 29 bytes, a broken checksum.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Final

from ic.principal import Principal

from chain.errors import InvalidPrincipal

__all__ = [
    "ANONYMOUS",
    "MANAGEMENT_CANISTER",
    "account_from_text",
    "account_identifier",
    "account_to_text",
    "is_account_identifier",
    "principal_from_text",
    "principal_to_text",
    "self_authenticating",
]

ANONYMOUS: Final = b"\x04"
MANAGEMENT_CANISTER: Final = b""
MAX_PRINCIPAL_BYTES: Final = 29
MAX_TEXT: Final = 63
DEFAULT_SUBACCOUNT: Final = bytes(32)


def principal_to_text(principal: bytes) -> str:
    """Return the text of a principal of 0 to 29 bytes.

    >>> principal_to_text(bytes.fromhex("00000000000000020101"))
    'ryjl3-tyaaa-aaaaa-aaaba-cai'
    """
    if len(principal) > MAX_PRINCIPAL_BYTES:
        raise InvalidPrincipal(f"a principal has at most 29 bytes, not {len(principal)}")
    return str(Principal(principal))  # type: ignore[no-untyped-call]


def principal_from_text(text: str) -> bytes:
    """Return the bytes of a principal's text, in any case. Raises `InvalidPrincipal`.

    >>> principal_from_text("aaaaa-aa")
    b''
    """
    if len(text) > MAX_TEXT:
        raise InvalidPrincipal(f"a principal's text has at most {MAX_TEXT} characters, not {len(text)}")
    canonical = text.lower()
    try:
        principal: bytes = Principal.from_str(canonical).bytes  # type: ignore[no-untyped-call]
    except Exception as exc:  # ic-py raises many kinds, one of them a TypeError for raising text
        raise InvalidPrincipal(
            f"{text!r} is no principal (it looks like ryjl3-tyaaa-aaaaa-aaaba-cai); is it complete?"
        ) from exc
    # Two texts for one principal would be two entries for one canister in a configuration.
    if len(principal) > MAX_PRINCIPAL_BYTES or principal_to_text(principal) != canonical:
        raise InvalidPrincipal(f"{text!r} is no principal in its usual form; is a character or a dash wrong?")
    return principal


def self_authenticating(public_key_der: bytes) -> bytes:
    """Return the 29-byte principal of a DER public key: a user, a node or a subnet."""
    return hashlib.sha224(public_key_der).digest() + b"\x02"


def account_identifier(owner: bytes, subaccount: bytes = DEFAULT_SUBACCOUNT) -> bytes:
    """Return the ledger's 32-byte account identifier of a principal and a 32-byte subaccount: CRC-32, then hash."""
    if len(owner) > MAX_PRINCIPAL_BYTES:
        raise InvalidPrincipal(f"a principal has at most 29 bytes, not {len(owner)}")
    if len(subaccount) != 32:
        raise InvalidPrincipal(f"a subaccount has 32 bytes, not {len(subaccount)}")
    digest = hashlib.sha224(b"\x0aaccount-id" + owner + subaccount).digest()
    return zlib.crc32(digest).to_bytes(4, "big") + digest


def is_account_identifier(account: bytes) -> bool:
    """Whether these bytes are 32 and their checksum fits. The ledger traps on anything else."""
    return len(account) == 32 and zlib.crc32(account[4:]).to_bytes(4, "big") == account[:4]


def account_to_text(account: bytes) -> str:
    """Return the 64 hex digits that ledgers and wallets show."""
    if not is_account_identifier(account):
        raise InvalidPrincipal(f"{account.hex()} is no account identifier")
    return account.hex()


def account_from_text(text: str) -> bytes:
    """Return the 32 bytes of an account identifier of 64 hex digits, checksum verified."""
    try:
        account = bytes.fromhex(text)
    except ValueError as exc:
        raise InvalidPrincipal(f"{text!r} is no account identifier: it has 64 hexadecimal digits") from exc
    if len(text) != 64 or not is_account_identifier(account):
        raise InvalidPrincipal(f"{text!r} is no account identifier: the length or the checksum is wrong")
    return account
