"""A shape: a Candid type together with the Python values that stand for it.

It tells whether a type on the wire fits it (subtyping), reads and writes values, and describes itself for the
table of types.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from devnet.candid.wire import NotCandid, Reader, Ref

__all__ = ["AnyShape", "Shape", "TypeTable", "label_hash", "sleb128", "uleb128"]

T = TypeVar("T")


def label_hash(label: str) -> int:
    """Return the number that stands for a label on the wire."""
    number = 0
    for byte in label.encode():
        number = (number * 223 + byte) % (1 << 32)
    return number


def uleb128(number: int) -> bytes:
    """Return the shortest unsigned LEB128 of a natural number."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def sleb128(number: int) -> bytes:
    """Return the shortest signed LEB128 of an integer."""
    out = bytearray()
    while not -0x40 <= number < 0x40:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number & 0x7F)
    return bytes(out)


class TypeTable:
    """The table of types of a message that is being written.

    A type gets its index when it is first met, before its components: signatures depend on that order.
    Source: the `candid` crate, `TypeSerialize::build_type`.
    """

    def __init__(self) -> None:
        self._index: dict[str, int] = {}
        self._entries: list[bytes] = []

    def place(self, key: str, describe: Callable[[], bytes]) -> Ref:
        """Return the index of the composite type `key`; `describe` gives its entry when it is new."""
        if key not in self._index:
            index = self._index[key] = len(self._entries)
            self._entries.append(b"")
            self._entries[index] = describe()
        return self._index[key]

    def encoded(self) -> bytes:
        """Return the table as it stands in the message."""
        return uleb128(len(self._entries)) + b"".join(self._entries)


class Shape(ABC, Generic[T]):
    """A Candid type for values of type `T`. `name`: the type in Candid's own text form."""

    name: str

    @abstractmethod
    def place(self, table: TypeTable) -> Ref:
        """Return the reference to this type, entering it into the table if need be."""

    @abstractmethod
    def fits(self, reader: Reader, ref: Ref) -> bool:
        """Whether every value of the wire's type `ref` can be read as this shape."""

    @abstractmethod
    def read(self, reader: Reader, ref: Ref) -> T:
        """Return the next value, whose type `ref` fits. Raises `NotCandid`."""

    @abstractmethod
    def write(self, out: bytearray, value: T) -> None:
        """Append a value."""

    def absent(self) -> T:
        """Return the value of a record's field that the wire does not have. Raises `NotCandid` if there is none."""
        raise NotCandid(f"a field of type {self.name} is missing")

    @property
    def optional(self) -> bool:
        """Whether a record's field of this shape may be absent."""
        return False


AnyShape = Shape[Any]
"""A shape among others: the fields of a record have values of different types."""
