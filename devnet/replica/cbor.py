"""The part of CBOR that the Internet Computer's HTTP interface uses, and nothing more.

Unsigned integers, byte strings, text, arrays, maps with text keys, null. No floats, no negative numbers, no
tags except 55799 (self-described) in front and 2 (a big natural). Source: RFC 8949.

It is written here, and not taken from the library that the client uses, so that a mistake of either shows.
"""

from __future__ import annotations

from typing import Final

__all__ = ["SELF_DESCRIBED", "NotCbor", "Value", "decode", "encode"]

Value = int | bytes | str | list["Value"] | dict[str, "Value"] | None

SELF_DESCRIBED: Final = b"\xd9\xd9\xf7"
"""The encoding of tag 55799, which every body of the Internet Computer begins with."""

_MAX_DEPTH: Final = 32
"""Deeper than any request; a body of a million brackets must not exhaust the stack."""
_UNSIGNED, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = 0, 2, 3, 4, 5, 6, 7
_NULL, _UNDEFINED, _BREAK = 22, 23, 31
_MAX_BIG_NATURAL: Final = 256
_MAX_UINT64: Final = 2**64 - 1


class NotCbor(ValueError):
    """The bytes are not CBOR of the allowed kind; the message says at which offset."""


def decode(body: bytes) -> Value:
    """Return the value in `body`, with or without the leading tag. Raises `NotCbor`."""
    reader = _Reader(body, len(SELF_DESCRIBED) if body.startswith(SELF_DESCRIBED) else 0)
    value = reader.value(0)
    if reader.at != len(body):
        raise NotCbor(f"{len(body) - reader.at} bytes follow the value")
    return value


class _Reader:
    """A cursor over the bytes; every length is checked against what is left before it is believed."""

    __slots__ = ("at", "body")

    def __init__(self, body: bytes, at: int) -> None:
        self.body = body
        self.at = at

    def value(self, depth: int) -> Value:
        """Read one value at nesting `depth`."""
        if depth > _MAX_DEPTH:
            raise NotCbor(f"nested deeper than {_MAX_DEPTH} levels")
        major, info = self._initial()
        if major == _UNSIGNED:
            return self._argument(info)
        if major in {_BYTES, _TEXT}:
            raw = self._string(major, info)
            return raw if major == _BYTES else self._text(raw)
        if major == _ARRAY:
            return self._array(info, depth)
        if major == _MAP:
            return self._map(info, depth)
        if major == _TAG:
            return self._big_natural(self._argument(info))
        if major == _SIMPLE and info in {_NULL, _UNDEFINED}:
            return None
        raise NotCbor(f"type {major}/{info} at offset {self.at - 1} is not allowed here")

    def _initial(self) -> tuple[int, int]:
        byte = self._take(1)[0]
        return byte >> 5, byte & 0x1F

    def _take(self, length: int) -> bytes:
        end = self.at + length
        if end > len(self.body):
            raise NotCbor(f"ends at {len(self.body)}, {length} bytes were due from offset {self.at}")
        taken = self.body[self.at : end]
        self.at = end
        return taken

    def _argument(self, info: int) -> int:
        if info < 24:
            return info
        if info > 27:
            raise NotCbor(f"bad length {info} at offset {self.at - 1}")
        return int.from_bytes(self._take(1 << (info - 24)), "big")

    def _string(self, major: int, info: int) -> bytes:
        if info != _BREAK:
            return self._take(self._argument(info))
        parts: list[bytes] = []
        while not self._ends():
            chunk, chunk_info = self._initial()
            if chunk != major or chunk_info == _BREAK:
                raise NotCbor(f"bad chunk of a string at offset {self.at - 1}")
            parts.append(self._take(self._argument(chunk_info)))
        return b"".join(parts)

    def _text(self, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError as exc:
            raise NotCbor(f"text before offset {self.at} is not UTF-8") from exc

    def _ends(self) -> bool:
        """Step over the end of something of indefinite length, if it is here."""
        if self.at < len(self.body) and self.body[self.at] == 0xFF:
            self.at += 1
            return True
        return False

    def _array(self, info: int, depth: int) -> list[Value]:
        if info == _BREAK:
            open_ended: list[Value] = []
            while not self._ends():
                open_ended.append(self.value(depth + 1))
            return open_ended
        count = self._argument(info)
        if count > len(self.body) - self.at:  # each element has at least one byte
            raise NotCbor(f"an array of {count} elements at offset {self.at} does not fit")
        return [self.value(depth + 1) for _ in range(count)]

    def _map(self, info: int, depth: int) -> dict[str, Value]:
        found: dict[str, Value] = {}
        left = None if info == _BREAK else self._argument(info)
        while not self._ends() if left is None else left > 0:
            start = self.at
            key = self.value(depth + 1)
            if not isinstance(key, str):
                raise NotCbor(f"the key of a map at offset {start} is not text")
            if key in found:  # which of the two would be hashed? Nobody could tell
                raise NotCbor(f"the key {key[:40]!r} stands twice in a map")
            found[key] = self.value(depth + 1)
            left = None if left is None else left - 1
        return found

    def _big_natural(self, tag: int) -> int:
        if tag != 2:
            raise NotCbor(f"tag {tag} before offset {self.at} is not allowed here")
        major, info = self._initial()
        if major != _BYTES:
            raise NotCbor(f"a big natural at offset {self.at - 1} is not a byte string")
        raw = self._string(major, info)
        if len(raw) > _MAX_BIG_NATURAL:  # the hash of a number takes time that grows with the square of its length
            raise NotCbor(f"a big natural of {len(raw)} bytes; at most {_MAX_BIG_NATURAL} are read")
        return int.from_bytes(raw, "big")


def encode(value: Value) -> bytes:
    """Return `value` as CBOR behind tag 55799; maps keep the order of their keys."""
    out = bytearray(SELF_DESCRIBED)
    _write(out, value)
    return bytes(out)


def _write(out: bytearray, value: Value) -> None:
    match value:
        case None:
            out.append(0xF6)
        case int():
            _write_natural(out, value)
        case bytes():
            _write_head(out, _BYTES, len(value))
            out += value
        case str():
            raw = value.encode()
            _write_head(out, _TEXT, len(raw))
            out += raw
        case list():
            _write_head(out, _ARRAY, len(value))
            for element in value:
                _write(out, element)
        case dict():
            _write_head(out, _MAP, len(value))
            for key, element in value.items():
                _write(out, key)
                _write(out, element)


def _write_natural(out: bytearray, number: int) -> None:
    if number < 0:
        raise ValueError(f"{number} is negative; the interface has naturals only")
    if number <= _MAX_UINT64:
        _write_head(out, _UNSIGNED, number)
        return
    out.append(0xC2)
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    _write_head(out, _BYTES, len(raw))
    out += raw


def _write_head(out: bytearray, major: int, argument: int) -> None:
    if argument < 24:
        out.append(major << 5 | argument)
        return
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << (8 * size):
            out.append(major << 5 | info)
            out += argument.to_bytes(size, "big")
            return
    raise ValueError(f"{argument} does not fit the head of a CBOR item")
