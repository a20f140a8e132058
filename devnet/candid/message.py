"""Whole messages: the arguments of a call, the values of a reply."""

from __future__ import annotations

from functools import lru_cache

from devnet.candid.shape import AnyShape, TypeTable, sleb128, uleb128
from devnet.candid.wire import NotCandid, Reader

__all__ = ["NotCandid", "decode", "encode"]


def decode(data: bytes, *shapes: AnyShape) -> tuple[object, ...]:
    """Return the values of a message, one for each shape; more arguments than expected are skipped.

    Raises `NotCandid`.
    """
    reader = Reader(data)
    refs = reader.header()
    values: list[object] = []
    for position, shape in enumerate(shapes):
        if position >= len(refs):
            values.append(shape.absent())
        elif shape.fits(reader, refs[position]):
            values.append(shape.read(reader, refs[position]))
        else:
            raise NotCandid(f"argument {position + 1} is not of type {shape.name}")
    for ref in refs[len(shapes) :]:
        reader.skip(ref)
    if reader.left:
        raise NotCandid(f"{reader.left} bytes follow the last value")
    return tuple(values)


def encode(shapes: tuple[AnyShape, ...], *values: object) -> bytes:
    """Return the message that carries `values`, byte for byte as Rust's `candid` crate writes it."""
    out = bytearray(_header(shapes))
    for shape, value in zip(shapes, values, strict=True):
        shape.write(out, value)
    return bytes(out)


@lru_cache(maxsize=256)
def _header(shapes: tuple[AnyShape, ...]) -> bytes:
    table = TypeTable()
    refs = b"".join(sleb128(shape.place(table)) for shape in shapes)
    return b"DIDL" + table.encoded() + uleb128(len(shapes)) + refs
