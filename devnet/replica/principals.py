"""Principals: who somebody is on the Internet Computer, as bytes and as text.

Source: Interface Specification, "Principals".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from functools import lru_cache
from typing import Final

__all__ = [
    "ANONYMOUS",
    "MANAGEMENT",
    "MAX_LENGTH",
    "NotAPrincipal",
    "from_text",
    "self_authenticating",
    "to_text",
]

ANONYMOUS: Final = b"\x04"
MANAGEMENT: Final = b""
"""`aaaaa-aa`, the management canister."""
MAX_LENGTH: Final = 29
_SELF_AUTHENTICATING: Final = b"\x02"
_MAX_TEXT: Final = 63


class NotAPrincipal(ValueError):
    """A text that names no principal."""


def self_authenticating(public_key_der: bytes) -> bytes:
    """Return the principal (29 bytes) of a DER public key: a user's, a subnet's or a node's."""
    return hashlib.sha224(public_key_der).digest() + _SELF_AUTHENTICATING


@lru_cache(maxsize=4096)
def to_text(raw: bytes) -> str:
    """Return the text form, lower case in groups of five.

    >>> to_text(bytes.fromhex("abcd01"))
    'em77e-bvlzu-aq'
    """
    checked = zlib.crc32(raw).to_bytes(4, "big") + raw
    letters = base64.b32encode(checked).decode().rstrip("=").lower()
    return "-".join(letters[i : i + 5] for i in range(0, len(letters), 5))


@lru_cache(maxsize=4096)
def from_text(text: str) -> bytes:
    """Return the bytes of a text form. Raises `NotAPrincipal` for every other spelling."""
    letters = text.replace("-", "").upper()
    try:
        if len(text) > _MAX_TEXT:
            raise NotAPrincipal(f"{text[:70]!r} is longer than a principal can be")
        checked = base64.b32decode(letters + "=" * (-len(letters) % 8))
    except (binascii.Error, ValueError) as exc:
        raise NotAPrincipal(f"{text[:70]!r} is not a principal") from exc
    raw = checked[4:]
    # Comparing with the canonical spelling checks the sum, the dashes and the length in one go.
    if len(checked) < 4 or len(raw) > MAX_LENGTH or to_text(raw) != text.lower():
        raise NotAPrincipal(f"{text[:70]!r} is not a principal: a letter is missing or mistyped")
    return raw
