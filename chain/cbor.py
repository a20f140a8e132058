"""CBOR as the Internet Computer speaks it: unsigned integers, bytes, text, arrays and maps behind one tag.

Encoding is cbor2's. Decoding is our own, because what arrives is hostile: a general decoder follows
shared references (a few bytes that stand for 2^100 nodes), builds big decimals and regular expressions, and
accepts a key twice. Here everything that is not in the list above is refused, and depth and items are bounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, Union

import cbor2

__all__ = ["MalformedCbor", "Value", "decode", "encode"]

Value: TypeAlias = Union[bool, int, bytes, str, Sequence["Value"], Mapping[str, "Value"], None]  # noqa: UP007
"""What the interface's messages are made of."""

SELF_DESCRIBED: Final = b"\xd9\xd9\xf7"
MAX_DEPTH: Final = 160
MAX_ITEMS: Final = 200_000


class MalformedCbor(ValueError):
    """Bytes that are not CBOR of the Internet Computer."""


def encode(value: Value) -> bytes:
    """Return CBOR behind the self-describing tag 55799."""
    encoded: bytes = cbor2.dumps(value)
    return SELF_DESCRIBED + encoded


def decode(data: bytes) -> Value:
    """Return the one value in `data`, with or without the self-describing tag. Raises `MalformedCbor`."""
    reader = _Reader(data, 3 if data.startswith(SELF_DESCRIBED) else 0)
    value = reader.value(0)
    if reader.position != len(data):
        raise MalformedCbor(f"{len(data) - reader.position} bytes follow the value")
    return value


class _Reader:
    __slots__ = ("_data", "_items", "position")

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._items = 0
        self.position = position

    def value(self, depth: int) -> Value:
        if depth > MAX_DEPTH:
            raise MalformedCbor(f"nested deeper than {MAX_DEPTH}")
        self._items += 1
        if self._items > MAX_ITEMS:
            raise MalformedCbor(f"more than {MAX_ITEMS} items")
        major, argument = self._head()
        match major:
            case 0:
                return argument
            case 2:
                return self._take(argument)
            case 3:
                return self._text(argument)
            case 4:
                return [self.value(depth + 1) for _ in range(argument)]
            case 5:
                return self._map(argument, depth)
            case 7 if 20 <= argument <= 22:
                return (False, True, None)[argument - 20]
            case _:
                raise MalformedCbor(f"an item of major type {major} at byte {self.position - 1}")

    def _map(self, count: int, depth: int) -> dict[str, Value]:
        entries: dict[str, Value] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if not isinstance(key, str) or key in entries:
                raise MalformedCbor(f"the map key {key!r} is no text or stands twice")
            entries[key] = self.value(depth + 1)
        return entries

    def _head(self) -> tuple[int, int]:
        initial = self._take(1)[0]
        major, low = initial >> 5, initial & 0x1F
        if low < 24:
            return major, low
        if low > 27 or major == 7:
            raise MalformedCbor(f"the head {initial:#04x}: an indefinite length, a float or a reserved value")
        return major, int.from_bytes(self._take(1 << (low - 24)), "big")

    def _take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self._data):
            raise MalformedCbor("the bytes end in the middle of an item")
        taken = self._data[self.position : end]
        self.position = end
        return taken

    def _text(self, count: int) -> str:
        try:
            return self._take(count).decode()
        except UnicodeDecodeError as exc:
            raise MalformedCbor("text that is not UTF-8") from exc
