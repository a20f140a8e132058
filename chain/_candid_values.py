"""The values of Candid bytes, read over or taken as they stand, and never more of them than a few bytes can pay for.

Every value costs a part of a budget, also one that takes no bytes (a vector of 2^60 nulls is a dozen bytes), and types
that contain themselves end at a depth. Source: Candid specification, "Binary format"; `spacebomb.test.did`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from chain._candid_header import (
    FUNC,
    FUTURE,
    NAT8,
    OPT,
    PRINCIPAL,
    RECORD,
    SERVICE,
    VARIANT,
    VEC,
    Fields,
    TypeEntry,
)
from chain.errors import UnexpectedReply

__all__ = ["BOOL", "INT", "NAT", "TEXT", "Values"]

BOOL: Final = -2
NAT: Final = -3
INT: Final = -4
TEXT: Final = -15
FIXED_BYTES: Final = {-5: 1, -6: 2, -7: 4, -8: 8, -9: 1, -10: 2, -11: 4, -12: 8, -13: 4, -14: 8}
"""nat8 to nat64, int8 to int64, float32, float64."""
FREE_VALUES: Final = 10_000
VALUES_PER_BYTE: Final = 4
MAX_DEPTH: Final = 64
MAX_NUMBER_BYTES: Final = 64
"""Of a LEB128 number: far above every amount, far below what takes time to add up."""
MAX_PRINCIPAL_BYTES: Final = 29


class Values:
    """A cursor over the values. All methods raise `UnexpectedReply` for bytes that are not what they should be."""

    def __init__(self, data: bytes, position: int, table: list[TypeEntry]) -> None:
        self.position = position
        self._data = data
        self._table = table
        self._left = FREE_VALUES + VALUES_PER_BYTE * len(data)
        self._depth = 0

    # --- types ---------------------------------------------------------------------------------------------

    def kind(self, code: int) -> int:
        """Return what a type is: a code, that of the entry for a place in the table."""
        return code if code < 0 else self._table[code][0]

    def inner(self, code: int) -> int:
        """Return the type of the elements of an option or vector."""
        found = self._table[code][1]
        assert isinstance(found, int)
        return found

    def fields(self, code: int) -> Fields:
        """Return the fields of a record, or the cases of a variant."""
        found = self._table[code][1]
        assert isinstance(found, tuple)
        return found

    # --- bounds --------------------------------------------------------------------------------------------

    def spend(self, values: int) -> None:
        """Take values off the budget."""
        self._left -= values
        if self._left < 0:
            raise UnexpectedReply("a reply with more values than its bytes can pay for")

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """Go one level down into a value."""
        if self._depth >= MAX_DEPTH:
            raise UnexpectedReply(f"a reply with values nested more than {MAX_DEPTH} deep")
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    # --- values --------------------------------------------------------------------------------------------

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        end = self.position + count
        if end > len(self._data):
            raise UnexpectedReply("a reply whose bytes end in the middle of a value")
        taken = self._data[self.position : end]
        self.position = end
        return taken

    def flag(self) -> bool:
        """Return a byte that is 0 or 1."""
        byte = self.take(1)[0]
        if byte > 1:
            raise UnexpectedReply(f"a reply with the byte {byte} where 0 or 1 can be")
        return byte == 1

    def unsigned(self) -> int:
        """Return a LEB128 number."""
        number = 0
        for shift, byte in self._number():
            number |= (byte & 0x7F) << shift
        return number

    def signed(self) -> int:
        """Return a signed LEB128 number."""
        number = shift = byte = 0
        for shift, byte in self._number():
            number |= (byte & 0x7F) << shift
        return number - (1 << shift + 7) if byte & 0x40 else number

    def _number(self) -> Iterator[tuple[int, int]]:
        for place in range(MAX_NUMBER_BYTES):
            byte = self.take(1)[0]
            yield 7 * place, byte
            if byte < 0x80:
                return
        # Anybody can have a canister answer a number of any length: it is read as a huge one of the same sign.
        while byte >= 0x80:
            byte = self.take(1)[0]
        if byte in (0x00, 0x7F):
            raise UnexpectedReply(
                f"a reply with a number of more than {MAX_NUMBER_BYTES} bytes that is not the shortest"
            )
        yield 7 * MAX_NUMBER_BYTES, byte

    def count(self) -> int:
        """Return a number of values that follow, paid for."""
        count = self.unsigned()
        self.spend(count)
        return count

    def fixed(self, code: int) -> int:
        """Return a number of fixed size."""
        signed = -12 <= code <= -9
        return int.from_bytes(self.take(FIXED_BYTES[code]), "little", signed=signed)

    def text(self) -> str:
        """Return a text."""
        try:
            return self.take(self.unsigned()).decode()
        except UnicodeDecodeError as exc:
            raise UnexpectedReply("a reply with a text that is not UTF-8") from exc

    def principal(self) -> bytes:
        """Return a raw principal, or that of a canister."""
        if not self.flag():
            raise UnexpectedReply("a reply with an opaque reference")
        length = self.unsigned()
        if length > MAX_PRINCIPAL_BYTES:
            raise UnexpectedReply(f"a reply with a principal of {length} bytes")
        return self.take(length)

    def method(self) -> tuple[bytes, str]:
        """Return a reference to a method: raw principal of its canister, and name."""
        if not self.flag():
            raise UnexpectedReply("a reply with an opaque reference")
        return self.principal(), self.text()

    def case(self, code: int) -> tuple[int, int]:
        """Return which case of a variant follows: label hash and type."""
        cases, place = self.fields(code), self.unsigned()
        if place >= len(cases):
            raise UnexpectedReply(f"a reply with case {place} of a variant that has {len(cases)}")
        return cases[place]

    def skip(self, code: int) -> None:
        """Read over a value, which must be one of its type."""
        self.spend(1)
        match self.kind(code):
            case -1 | -16:
                pass
            case -2:
                self.flag()
            case -3 | -4:
                for _ in self._number():
                    pass
            case kind if kind in FIXED_BYTES:
                self.take(FIXED_BYTES[kind])
            case -15:
                self.text()
            case kind if kind in {PRINCIPAL, SERVICE}:
                self.principal()
            case kind if kind == FUNC:
                self.method()
            case kind if kind == FUTURE:
                size, references = self.unsigned(), self.unsigned()
                if references:
                    raise UnexpectedReply("a reply with references of a kind that is not known")
                self.take(size)
            case kind if kind in {OPT, VEC, RECORD, VARIANT}:
                with self.deeper():
                    self._skip_inside(kind, code)
            case _:
                raise UnexpectedReply("a reply with a value of the type that has none")

    def _skip_inside(self, kind: int, code: int) -> None:
        if kind == OPT:
            if self.flag():
                self.skip(self.inner(code))
        elif kind == VARIANT:
            self.skip(self.case(code)[1])
        elif kind == RECORD:
            for _, part in self.fields(code):
                self.skip(part)
        elif self.inner(code) == NAT8:
            self.take(self.unsigned())
        else:
            for _ in range(self.count()):
                self.skip(self.inner(code))
