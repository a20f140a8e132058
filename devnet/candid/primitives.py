"""Shapes without components: numbers, texts, truth values, principals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from devnet.candid import wire
from devnet.candid.shape import Shape, TypeTable, sleb128, uleb128
from devnet.candid.wire import NotCandid, Reader, Ref

__all__ = ["BOOL", "INT", "NAT", "NAT8", "NAT32", "NAT64", "NULL", "PRINCIPAL", "TEXT"]

T = TypeVar("T")


@dataclass(frozen=True)
class _Primitive(Shape[T]):
    """A type without components: its code, and how one value is read and written."""

    name: str
    code: Ref
    take: Callable[[Reader], T]
    put: Callable[[T], bytes]

    def place(self, table: TypeTable) -> Ref:
        del table
        return self.code

    @property
    def optional(self) -> bool:
        return self.code == wire.NULL

    def absent(self) -> T:
        return self.take(Reader(b"")) if self.optional else super().absent()

    def fits(self, reader: Reader, ref: Ref) -> bool:
        del reader
        return ref in {self.code, wire.EMPTY}  # of a type without values, all are of every type

    def read(self, reader: Reader, ref: Ref) -> T:
        if ref == wire.EMPTY:
            raise NotCandid("a value of type empty, which has none")
        reader.spend(1)
        return self.take(reader)

    def write(self, out: bytearray, value: T) -> None:
        out += self.put(value)


@dataclass(frozen=True)
class _Int(_Primitive[int]):
    """Every nat is an int too, written without a sign."""

    def fits(self, reader: Reader, ref: Ref) -> bool:
        del reader
        return ref in {wire.INT, wire.NAT, wire.EMPTY}

    def read(self, reader: Reader, ref: Ref) -> int:
        if ref == wire.EMPTY:
            raise NotCandid("a value of type empty, which has none")
        reader.spend(1)
        return reader.uleb() if ref == wire.NAT else reader.sleb()


def _fixed(bits: int, code: Ref) -> _Primitive[int]:
    size = bits // 8
    return _Primitive(
        f"nat{bits}",
        code,
        lambda reader: int.from_bytes(reader.take(size), "little"),
        lambda value: value.to_bytes(size, "little"),
    )


def _write_text(value: str) -> bytes:
    raw = value.encode()
    return uleb128(len(raw)) + raw


NAT: Final[_Primitive[int]] = _Primitive("nat", wire.NAT, Reader.uleb, uleb128)
INT: Final = _Int("int", wire.INT, Reader.sleb, sleb128)
NAT8: Final = _fixed(8, wire.NAT8)
NAT32: Final = _fixed(32, wire.NAT32)
NAT64: Final = _fixed(64, wire.NAT64)
BOOL: Final[_Primitive[bool]] = _Primitive("bool", wire.BOOL, Reader.flag, lambda value: bytes((value,)))
TEXT: Final[_Primitive[str]] = _Primitive("text", wire.TEXT, Reader.text, _write_text)
NULL: Final[_Primitive[None]] = _Primitive("null", wire.NULL, lambda _: None, lambda _: b"")
PRINCIPAL: Final[_Primitive[bytes]] = _Primitive(
    "principal", wire.PRINCIPAL, Reader.principal, lambda value: b"\x01" + uleb128(len(value)) + value
)
"""Values are raw principals of at most 29 bytes."""
