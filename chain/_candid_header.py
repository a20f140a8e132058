"""The type table at the head of Candid bytes, read strictly before any value is.

Types may contain themselves, and values may take no bytes: what a few bytes can stand for is bounded where values are
read (`chain._candid_values`). Source: Candid specification, "Binary format".
"""

from __future__ import annotations

from typing import Final, TypeAlias

from chain.errors import UnexpectedReply

__all__ = [
    "FUNC",
    "FUTURE",
    "NAT8",
    "NULL",
    "OPT",
    "PRINCIPAL",
    "RECORD",
    "RESERVED",
    "SERVICE",
    "VARIANT",
    "VEC",
    "Fields",
    "TypeEntry",
    "read_header",
]

OPT: Final = -18
VEC: Final = -19
RECORD: Final = -20
VARIANT: Final = -21
FUNC: Final = -22
SERVICE: Final = -23
PRINCIPAL: Final = -24
FUTURE: Final = -25
"""Stands for every kind of type that is not known yet: the format says how to read over its values."""
NULL: Final = -1
NAT8: Final = -5
RESERVED: Final = -16
EMPTY: Final = -17
MAX_TYPES: Final = 128
MAX_FIELDS: Final = 256
MAX_ARGUMENTS: Final = 16

Fields: TypeAlias = tuple[tuple[int, int], ...]
"""Label hashes, ascending, and types."""
TypeEntry: TypeAlias = tuple[int, int | Fields | None]
"""`(OPT | VEC, type)`, `(RECORD | VARIANT, fields)`, `(FUNC | SERVICE | FUTURE, None)`. A type is a place in the table,
or a negative code."""


def read_header(data: bytes) -> tuple[list[TypeEntry], list[int], int]:
    """Return the type table, the types of the arguments, and where the values begin. Raises `UnexpectedReply`."""
    if not data.startswith(b"DIDL"):
        raise UnexpectedReply("a reply that is not Candid")
    reader = _Reader(data, 4)
    count = reader.count(MAX_TYPES, "types")
    table = [reader.entry(count) for _ in range(count)]
    arguments = [reader.reference(count) for _ in range(reader.count(MAX_ARGUMENTS, "arguments"))]
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
                return code, self.reference(types)
            case -20 | -21:
                return code, self._fields(types)
            case -22:
                for _ in range(2):
                    for _ in range(self.count(MAX_ARGUMENTS, "arguments of a method")):
                        self.reference(types)
                self._skip(self.count(MAX_FIELDS, "annotations"))
                return code, None
            case -23:
                for _ in range(self.count(MAX_FIELDS, "methods")):
                    self._skip(self.count(len(self._data), "letters of a method"))
                    self.reference(types)
                return code, None
            case _ if code <= FUTURE:
                self._skip(self.count(len(self._data), "bytes of a type that is not known"))
                return FUTURE, None
            case _:
                raise UnexpectedReply(f"a Candid header defines a type of the unknown kind {code}")

    def _fields(self, types: int) -> Fields:
        fields: list[tuple[int, int]] = []
        last = -1
        for _ in range(self.count(MAX_FIELDS, "fields")):
            label = self.unsigned()
            if not last < label < 2**32:
                raise UnexpectedReply("a Candid header with fields out of order")
            last = label
            fields.append((label, self.reference(types)))
        return tuple(fields)

    def _skip(self, count: int) -> None:
        for _ in range(count):
            self.byte()
