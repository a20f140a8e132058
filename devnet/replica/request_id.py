"""The representation-independent hash: what a request is called, whatever its encoding.

Source: Interface Specification, "Request ids".
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from devnet.replica.cbor import Value

__all__ = ["hash_of_map", "uleb128"]


def uleb128(number: int) -> bytes:
    """Return a natural number as unsigned LEB128, shortest form.

    >>> uleb128(624485).hex()
    'e58e26'
    """
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def hash_of_map(fields: Mapping[str, Value]) -> bytes:
    """Return the hash (32 bytes) of a map; a field that is null counts as absent."""
    pairs = [sha256(name.encode()).digest() + _hash_of(value) for name, value in fields.items() if value is not None]
    return sha256(b"".join(sorted(pairs))).digest()


def _hash_of(value: Value) -> bytes:
    match value:
        case bytes():
            return sha256(value).digest()
        case str():
            return sha256(value.encode()).digest()
        case int():
            return sha256(uleb128(value)).digest()
        case list():
            return sha256(b"".join(_hash_of(element) for element in value)).digest()
        case dict():
            return hash_of_map(value)
        case None:
            raise ValueError("null has no hash inside a list")
