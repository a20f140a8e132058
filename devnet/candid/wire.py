"""Candid on the wire: the table of types that a message brings along, and a cursor over its values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "BOOL",
    "EMPTY",
    "INT",
    "NAT",
    "NAT8",
    "NAT32",
    "NAT64",
    "NULL",
    "PRINCIPAL",
    "RESERVED",
    "TEXT",
    "Fields",
    "FuncType",
    "NotCandid",
    "OptType",
    "Reader",
    "RecordType",
    "Ref",
    "ServiceType",
    "VariantType",
    "VecType",
    "WireType",
]

Ref = int
"""A type: negative is a primitive, otherwise an index into the table."""

NULL, BOOL, NAT, INT, NAT8, NAT32, NAT64 = -1, -2, -3, -4, -5, -7, -8
TEXT, RESERVED, EMPTY, PRINCIPAL = -15, -16, -17, -24
_NAT16, _INT8, _INT16, _INT32, _INT64, _FLOAT32, _FLOAT64 = -6, -9, -10, -11, -12, -13, -14
_OPT, _VEC, _RECORD, _VARIANT, _FUNC, _SERVICE = -18, -19, -20, -21, -22, -23
_PRIMITIVES: Final = frozenset({*range(EMPTY, 0), PRINCIPAL})
_FIXED_SIZES: Final = {
    **dict.fromkeys((NULL, RESERVED), 0),
    **dict.fromkeys((NAT8, _INT8), 1),
    **dict.fromkeys((_NAT16, _INT16), 2),
    **dict.fromkeys((NAT32, _INT32, _FLOAT32), 4),
    **dict.fromkeys((NAT64, _INT64, _FLOAT64), 8),
}

_MAX_VALUES: Final = 200_000
"""Values that one message may hold, empty ones too: what the real system bounds by counting instructions."""
_MAX_DEPTH: Final = 64
_MAX_PRINCIPAL: Final = 29
_MAX_SHORT_LEB: Final = 10
"""Bytes of a number that fits 64 bits."""


class NotCandid(ValueError):
    """The bytes are not Candid, or not of the types that were expected. The message says what and where."""


Fields = tuple[tuple[int, Ref], ...]
"""Labels (hashed, ascending) and their types."""


@dataclass(frozen=True, slots=True)
class OptType:
    """`opt inner`."""

    inner: Ref


@dataclass(frozen=True, slots=True)
class VecType:
    """`vec inner`."""

    inner: Ref


@dataclass(frozen=True, slots=True)
class RecordType:
    """`record { fields }`."""

    fields: Fields


@dataclass(frozen=True, slots=True)
class VariantType:
    """`variant { fields }`."""

    fields: Fields


@dataclass(frozen=True, slots=True)
class FuncType:
    """A reference to a method; its signature does not matter here."""


@dataclass(frozen=True, slots=True)
class ServiceType:
    """A reference to a canister; its methods do not matter here."""


WireType = OptType | VecType | RecordType | VariantType | FuncType | ServiceType


class Reader:
    """A cursor over a message. Every method raises `NotCandid` when the bytes do not hold what it reads."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._budget = _MAX_VALUES
        self._depth = 0
        self.table: list[WireType] = []

    @property
    def left(self) -> int:
        """How many bytes are still to be read."""
        return len(self._data) - self._at

    def header(self) -> list[Ref]:
        """Read magic and table of types; return the types of the arguments."""
        if self.take(4) != b"DIDL":
            raise NotCandid("the argument does not begin with DIDL")
        count = self.count()
        for _ in range(count):
            self.table.append(self._entry())
        for entry in self.table:
            self._check_refs(entry)
        return [self._checked(self.type_code()) for _ in range(self.count())]

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        if size > self.left:
            raise NotCandid(f"{size} bytes expected at offset {self._at}, {self.left} are left")
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def byte(self) -> int:
        """Return the next byte."""
        return self.take(1)[0]

    def uleb(self) -> int:
        """Return a natural number of any size."""
        return _from_groups(self._leb())

    def size(self) -> int:
        """Return a length, a label or a position: what counts something in these bytes."""
        return _from_groups(self._short_leb())

    def sleb(self) -> int:
        """Return an integer of any size."""
        return _signed(self._leb())

    def type_code(self) -> int:
        """Return a type: a place in the table, or a negative code."""
        return _signed(self._short_leb())

    def count(self) -> int:
        """Return a number of things that follow, each of which costs a part of the budget."""
        count = self.size()
        self.spend(count)
        return count

    def spend(self, values: int) -> None:
        """Take `values` off the budget of the message."""
        if values > self._budget:
            raise NotCandid(f"the argument holds more than {_MAX_VALUES} values")
        self._budget -= values

    def principal(self) -> bytes:
        """Return the raw bytes of a principal."""
        if self.byte() != 1:
            raise NotCandid("an opaque reference stands where a principal is expected")
        size = self.size()
        if size > _MAX_PRINCIPAL:
            raise NotCandid(f"a principal of {size} bytes; at most {_MAX_PRINCIPAL} are allowed")
        return self.take(size)

    def text(self) -> str:
        """Return a text."""
        try:
            return self.take(self.size()).decode()
        except UnicodeDecodeError as exc:
            raise NotCandid(f"a text that is not UTF-8: {exc}") from exc

    def skip(self, ref: Ref) -> None:
        """Read over a value that nobody asked for."""
        self.spend(1)
        self.enter()
        if ref < 0:
            self._skip_primitive(ref)
        else:
            self._skip_composite(self.table[ref])
        self.leave()

    def enter(self) -> None:
        """Go one level deeper into nested values."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise NotCandid(f"values are nested deeper than {_MAX_DEPTH} levels")

    def leave(self) -> None:
        """Come back one level."""
        self._depth -= 1

    def choice(self, fields: Fields) -> tuple[int, Ref]:
        """Read which alternative of a variant follows; return its label and type."""
        position = self.size()
        if position >= len(fields):
            raise NotCandid(f"alternative {position} of a variant that has {len(fields)}")
        return fields[position]

    def _skip_primitive(self, ref: Ref) -> None:
        if ref == BOOL:
            self.flag()
        elif ref in _FIXED_SIZES:
            self.take(_FIXED_SIZES[ref])
        elif ref in {NAT, INT}:
            self._leb()
        elif ref == TEXT:
            self.text()
        elif ref == PRINCIPAL:
            self.principal()
        else:
            raise NotCandid("a value of type empty, which has none")

    def _skip_composite(self, entry: WireType) -> None:
        match entry:
            case OptType():
                if self.flag():
                    self.skip(entry.inner)
            case VecType(inner=inner) if inner == NAT8:
                self.take(self.size())
            case VecType():
                for _ in range(self.count()):
                    self.skip(entry.inner)
            case RecordType():
                for _, ref in entry.fields:
                    self.skip(ref)
            case VariantType():
                self.skip(self.choice(entry.fields)[1])
            case FuncType():
                if self.flag():
                    self.principal()
                    self.text()
            case ServiceType():
                self.principal()

    def flag(self) -> bool:
        """Return a byte that must be 0 or 1 as a truth value."""
        byte = self.byte()
        if byte > 1:
            raise NotCandid(f"byte {byte} at offset {self._at - 1} where 0 or 1 is expected")
        return byte == 1

    def _leb(self) -> bytes:
        start = self._at
        end = start
        data = self._data
        while end < len(data) and data[end] >= 0x80:
            end += 1
        if end == len(data):
            raise NotCandid(f"a number at offset {start} has no end")
        self._at = end + 1
        return data[start : end + 1]

    def _short_leb(self) -> bytes:
        start = self._at
        raw = self._leb()
        if len(raw) > _MAX_SHORT_LEB:  # also: nobody could print it
            raise NotCandid(
                f"a length or type of {len(raw)} bytes at offset {start}; at most {_MAX_SHORT_LEB} are read"
            )
        return raw

    def _entry(self) -> WireType:
        code = self.type_code()
        if code == _OPT:
            return OptType(self.type_code())
        if code == _VEC:
            return VecType(self.type_code())
        if code == _RECORD:
            return RecordType(self._fields())
        if code == _VARIANT:
            return VariantType(self._fields())
        if code == _FUNC:
            for _ in range(2):
                for _ in range(self.count()):
                    self.type_code()
            self.take(self.size())
            return FuncType()
        if code == _SERVICE:
            for _ in range(self.count()):
                self.text()
                self.type_code()
            return ServiceType()
        raise NotCandid(f"type {code} cannot stand in the table of types")

    def _fields(self) -> Fields:
        fields: list[tuple[int, Ref]] = []
        for _ in range(self.count()):
            label = self.size()
            if label >= 1 << 32 or (fields and label <= fields[-1][0]):
                raise NotCandid(f"label {label} is out of order or above 2^32-1")
            fields.append((label, self.type_code()))
        return tuple(fields)

    def _check_refs(self, entry: WireType) -> None:
        match entry:
            case OptType() | VecType():
                self._checked(entry.inner)
            case RecordType() | VariantType():
                for _, ref in entry.fields:
                    self._checked(ref)
            case _:
                pass

    def _checked(self, ref: Ref) -> Ref:
        if ref >= len(self.table) or (ref < 0 and ref not in _PRIMITIVES):
            raise NotCandid(f"type {ref} is neither a primitive nor one of the table's {len(self.table)}")
        return ref


def _signed(raw: bytes) -> int:
    number = _from_groups(raw)
    return number - (1 << 7 * len(raw)) if raw[-1] & 0x40 else number


def _from_groups(raw: bytes) -> int:
    """Return the number whose 7-bit groups these bytes carry, the lowest first."""
    if len(raw) == 1:
        return raw[0] & 0x7F
    if len(raw) > 32:
        # Shifting would take quadratic time, and strangers choose the length.
        return int("".join(f"{byte & 0x7F:07b}" for byte in reversed(raw)), 2)
    number = 0
    for byte in reversed(raw):
        number = number << 7 | byte & 0x7F
    return number
