"""The type table at the head of Candid bytes, read strictly before any value is.

Two kinds of types make a few bytes stand for unbounded work, so they are refused; nothing that this node talks to
has them: types that contain themselves, and vectors or records of elements that take no bytes ("space bombs").
Source: Candid specification, "Binary format"; `spacebomb.test.did` of its test suite.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

from chain.errors import UnexpectedReply

__all__ = ["VEC", "TypeEntry", "read_header"]

OPT: Final = -18
VEC: Final = -19
RECORD: Final = -20
VARIANT: Final = -21
FUNC: Final = -22
SERVICE: Final = -23
PRINCIPAL: Final = -24
NULL: Final = -1
RESERVED: Final = -16
EMPTY: Final = -17
MAX_TYPES: Final = 128
MAX_FIELDS: Final = 256
MAX_ARGUMENTS: Final = 16

TypeEntry: TypeAlias = list[int | list[list[int]] | None]
"""As ic-py has it: `[OPT | VEC, type]`, `[RECORD | VARIANT, [[label hash, type], ...]]`, `[FUNC | SERVICE, None]`."""


def read_header(data: bytes) -> tuple[list[TypeEntry], list[int], int]:
    """Return the type table, the types of the arguments, and where the values begin. Raises `UnexpectedReply`."""
    if not data.startswith(b"DIDL"):
        raise UnexpectedReply("a reply that is not Candid")
    reader = _Reader(data, 4)
    count = reader.count(MAX_TYPES, "types")
    table = [reader.entry(count) for _ in range(count)]
    arguments = [reader.reference(count) for _ in range(reader.count(MAX_ARGUMENTS, "arguments"))]
    _Shapes(table).check()
    return table, arguments, reader.position


class _Reader:
    __slots__ = ("_data", "position")

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self.position = position

    def byte(self) -> int:
        if self.position >= len(self._data):
            raise UnexpectedReply("a Candid header that is cut short")
        self.position += 1
        return self._data[self.position - 1]

    def unsigned(self) -> int:
        number = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
        raise UnexpectedReply("a number in a Candid header is too large")

    def signed(self) -> int:
        number = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number - (1 << shift + 7) if byte & 0x40 else number
        raise UnexpectedReply("a number in a Candid header is too large")

    def count(self, most: int, what: str) -> int:
        count = self.unsigned()
        if count > most:
            raise UnexpectedReply(f"a Candid header with {count} {what}; at most {most} are expected")
        return count

    def reference(self, types: int) -> int:
        code = self.signed()
        if not (0 <= code < types or EMPTY <= code <= NULL or code == PRINCIPAL):
            raise UnexpectedReply(f"a Candid header names the type {code}, which is not there")
        return code

    def entry(self, types: int) -> TypeEntry:
        code = self.signed()
        match code:
            case -18 | -19:
                return [code, self.reference(types)]
            case -20 | -21:
                return [code, self._fields(types)]
            case -22:
                for _ in range(2):
                    for _ in range(self.count(MAX_ARGUMENTS, "arguments of a method")):
                        self.reference(types)
                self._skip(self.count(MAX_FIELDS, "annotations"))
                return [code, None]
            case -23:
                for _ in range(self.count(MAX_FIELDS, "methods")):
                    self._skip(self.count(len(self._data), "letters of a method"))
                    self.reference(types)
                return [code, None]
            case _:
                raise UnexpectedReply(f"a Candid header defines a type of the unknown kind {code}")

    def _fields(self, types: int) -> list[list[int]]:
        fields: list[list[int]] = []
        last = -1
        for _ in range(self.count(MAX_FIELDS, "fields")):
            label = self.unsigned()
            if not last < label < 2**32:
                raise UnexpectedReply("a Candid header with fields out of order")
            last = label
            fields.append([label, self.reference(types)])
        return fields

    def _skip(self, count: int) -> None:
        for _ in range(count):
            self.byte()


class _Shapes:
    """Which types of the table contain themselves, and which take no bytes."""

    def __init__(self, table: list[TypeEntry]) -> None:
        self._table = table
        self._sized: dict[int, bool] = {}
        self._open: set[int] = set()

    def check(self) -> None:
        for index in range(len(self._table)):
            self._takes_bytes(index)

    def _takes_bytes(self, code: int) -> bool:
        """Whether every value of the type takes at least one byte. Refuses recursion and space bombs on the way."""
        if code < 0:
            return code not in {NULL, RESERVED}
        if code in self._sized:
            return self._sized[code]
        if code in self._open:
            raise UnexpectedReply("a Candid type that contains itself; the interface has none")
        self._open.add(code)
        kind = self._table[code][0]
        parts = [self._takes_bytes(part) for part in self._parts(code)]
        if kind in {VEC, RECORD} and not all(parts):
            raise UnexpectedReply("a Candid vector or record of values without bytes; the interface has none")
        self._open.remove(code)
        self._sized[code] = kind != RECORD or bool(parts)
        return self._sized[code]

    def _parts(self, code: int) -> Iterator[int]:
        inner = self._table[code][1]
        if isinstance(inner, int):
            yield inner
        elif inner is not None:
            for _, part in inner:
                yield part
