"""Shapes with components: blobs, options, vectors, records, variants, references to methods.

Records are read into classes and written from attributes; a variant is read as a `Case`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar, cast

from devnet.candid import wire
from devnet.candid.primitives import PRINCIPAL, TEXT
from devnet.candid.shape import AnyShape, Shape, TypeTable, label_hash, sleb128, uleb128
from devnet.candid.wire import NotCandid, Reader, Ref

__all__ = ["BLOB", "Case", "FuncReference", "blank", "func", "opt", "record", "single", "tuple_of", "variant", "vec"]

T = TypeVar("T")


class _Blob(Shape[bytes]):
    name = "vec nat8"

    def place(self, table: TypeTable) -> Ref:
        return table.place(self.name, lambda: sleb128(-19) + sleb128(wire.NAT8))

    def fits(self, reader: Reader, ref: Ref) -> bool:
        return ref >= 0 and reader.table[ref] == wire.VecType(wire.NAT8)

    def read(self, reader: Reader, ref: Ref) -> bytes:
        del ref
        reader.spend(1)
        return reader.take(reader.size())

    def write(self, out: bytearray, value: bytes) -> None:
        out += uleb128(len(value))
        out += value


BLOB: Final = _Blob()


@dataclass(frozen=True)
class _Vec(Shape[tuple[T, ...]]):
    inner: Shape[T]

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"vec {self.inner.name}"

    def place(self, table: TypeTable) -> Ref:
        return table.place(self.name, lambda: sleb128(-19) + sleb128(self.inner.place(table)))

    def fits(self, reader: Reader, ref: Ref) -> bool:
        if ref < 0:
            return False
        entry = reader.table[ref]
        return isinstance(entry, wire.VecType) and self.inner.fits(reader, entry.inner)

    def read(self, reader: Reader, ref: Ref) -> tuple[T, ...]:
        entry = reader.table[ref]
        assert isinstance(entry, wire.VecType)
        return tuple(self.inner.read(reader, entry.inner) for _ in range(reader.count()))

    def write(self, out: bytearray, value: tuple[T, ...]) -> None:
        out += uleb128(len(value))
        for element in value:
            self.inner.write(out, element)


@dataclass(frozen=True)
class _Opt(Shape[T | None]):
    inner: Shape[T]

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"opt {self.inner.name}"

    @property
    def optional(self) -> bool:
        return True

    def absent(self) -> None:
        return None

    def place(self, table: TypeTable) -> Ref:
        return table.place(self.name, lambda: sleb128(-18) + sleb128(self.inner.place(table)))

    def fits(self, reader: Reader, ref: Ref) -> bool:
        del reader, ref
        return True  # what does not fit is read as null

    def read(self, reader: Reader, ref: Ref) -> T | None:
        reader.spend(1)
        entry = reader.table[ref] if ref >= 0 else None
        if isinstance(entry, wire.OptType):
            return self._read_inner(reader, entry.inner) if reader.flag() else None
        return self._read_inner(reader, ref)

    def _read_inner(self, reader: Reader, ref: Ref) -> T | None:
        if self.inner.fits(reader, ref):
            return self.inner.read(reader, ref)
        reader.skip(ref)
        return None

    def write(self, out: bytearray, value: T | None) -> None:
        if value is None:
            out += b"\x00"
        else:
            out += b"\x01"
            self.inner.write(out, value)


@dataclass(frozen=True)
class _Record(Shape[T]):
    """`fields`: (hashed label, label, shape), ascending; `build` takes them by label, `part` gives one back."""

    build: Callable[[dict[str, object]], T]
    part: Callable[[T, str], object]
    fields: tuple[tuple[int, str, AnyShape], ...]

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"record {{{_fields_text(self.fields)}}}"

    def place(self, table: TypeTable) -> Ref:
        return table.place(self.name, lambda: _describe_fields(-20, self.fields, table))

    def fits(self, reader: Reader, ref: Ref) -> bool:
        entry = reader.table[ref] if ref >= 0 else None
        if not isinstance(entry, wire.RecordType):
            return False
        on_wire = dict(entry.fields)
        return all(
            shape.fits(reader, on_wire[number]) if number in on_wire else shape.optional
            for number, _, shape in self.fields
        )

    def read(self, reader: Reader, ref: Ref) -> T:
        reader.spend(1)
        reader.enter()
        entry = reader.table[ref]
        assert isinstance(entry, wire.RecordType)
        expected = {number: (label, shape) for number, label, shape in self.fields}
        found: dict[str, object] = {label: shape.absent() for _, label, shape in self.fields if shape.optional}
        for number, inner in entry.fields:
            if number in expected:
                label, shape = expected[number]
                found[label] = shape.read(reader, inner)
            else:
                reader.skip(inner)
        reader.leave()
        return self.build(found)

    def write(self, out: bytearray, value: T) -> None:
        for _, label, shape in self.fields:
            shape.write(out, self.part(value, label))


class Case(NamedTuple):
    """One alternative of a variant, with its value (None where the alternative has none)."""

    name: str
    value: object = None


@dataclass(frozen=True)
class _Variant(Shape[object]):
    """`fields`: (hashed label, label, shape), ascending."""

    fields: tuple[tuple[int, str, AnyShape], ...]

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"variant {{{_fields_text(self.fields)}}}"

    def place(self, table: TypeTable) -> Ref:
        return table.place(self.name, lambda: _describe_fields(-21, self.fields, table))

    def fits(self, reader: Reader, ref: Ref) -> bool:
        entry = reader.table[ref] if ref >= 0 else None
        if not isinstance(entry, wire.VariantType):
            return False
        expected = {number: shape for number, _, shape in self.fields}
        return all(number in expected and expected[number].fits(reader, inner) for number, inner in entry.fields)

    def read(self, reader: Reader, ref: Ref) -> object:
        reader.spend(1)
        reader.enter()
        entry = reader.table[ref]
        assert isinstance(entry, wire.VariantType)
        number, inner = reader.choice(entry.fields)
        label, shape = next((label, shape) for known, label, shape in self.fields if known == number)
        value = shape.read(reader, inner)
        reader.leave()
        return Case(label, value)

    def write(self, out: bytearray, value: object) -> None:
        case = value if isinstance(value, Case) else Case(type(value).__name__, value)
        for position, (_, label, shape) in enumerate(self.fields):
            if label == case.name:
                out += uleb128(position)
                shape.write(out, case.value)
                return
        raise ValueError(f"{case.name} is no alternative of {self.name}")


class FuncReference(NamedTuple):
    """A method of a canister: raw principal and name."""

    canister: bytes
    method: str


@dataclass(frozen=True)
class _Func(Shape[FuncReference]):
    """A reference to a query method, as ledgers give out for their archives. It is only written."""

    arguments: tuple[AnyShape, ...]
    results: tuple[AnyShape, ...]

    @property
    def name(self) -> str:  # type: ignore[override]
        sides = (", ".join(shape.name for shape in side) for side in (self.arguments, self.results))
        return "func ({}) -> ({}) query".format(*sides)

    def place(self, table: TypeTable) -> Ref:
        return table.place(self.name, lambda: self._describe(table))

    def _describe(self, table: TypeTable) -> bytes:
        out = sleb128(-22)
        for side in (self.arguments, self.results):
            out += uleb128(len(side)) + b"".join(sleb128(shape.place(table)) for shape in side)
        return out + b"\x01\x01"  # one annotation: query

    def fits(self, reader: Reader, ref: Ref) -> bool:
        return ref >= 0 and isinstance(reader.table[ref], wire.FuncType)

    def read(self, reader: Reader, ref: Ref) -> FuncReference:
        del ref
        reader.spend(1)
        if not reader.flag():
            raise NotCandid("an opaque reference stands where a method is expected")
        return FuncReference(reader.principal(), reader.text())

    def write(self, out: bytearray, value: FuncReference) -> None:
        out += b"\x01"
        PRINCIPAL.write(out, value.canister)
        TEXT.write(out, value.method)


def _describe_fields(code: int, fields: tuple[tuple[int, str, AnyShape], ...], table: TypeTable) -> bytes:
    out = sleb128(code) + uleb128(len(fields))
    for number, _, shape in fields:
        out += uleb128(number) + sleb128(shape.place(table))
    return out


def _fields_text(fields: tuple[tuple[int, str, AnyShape], ...]) -> str:
    return ";".join(f"{label.removesuffix('_')}:{shape.name}" for _, label, shape in fields)


def _sorted_fields(fields: Mapping[str, AnyShape]) -> tuple[tuple[int, str, AnyShape], ...]:
    # `from_` stands for the label `from`, which Python keeps for itself.
    named = ((label_hash(label.removesuffix("_")), label, shape) for label, shape in fields.items())
    return tuple(sorted(named, key=lambda field: field[0]))


def opt(inner: Shape[T]) -> Shape[T | None]:
    """Return `opt inner`; null is None."""
    return _Opt(inner)


def vec(inner: Shape[T]) -> Shape[tuple[T, ...]]:
    """Return `vec inner`; values are tuples. `vec nat8` is `BLOB`."""
    return _Vec(inner)


def record(build: Callable[..., T], **fields: AnyShape) -> Shape[T]:
    """Return a record whose values are made by `build(label=value, ...)` and have an attribute for each label.

    A label that is a word of Python has an underscore behind it: `from_`.
    """
    return _Record(lambda found: build(**found), getattr, _sorted_fields(fields))


def single(label: str, shape: Shape[T]) -> Shape[T]:
    """Return a record of one field that is the bare value in Python, such as `record { e8s : nat64 }`."""
    return _Record(lambda found: cast("T", found[label]), lambda value, _: value, _sorted_fields({label: shape}))


def blank() -> Shape[None]:
    """Return `record {}`, whose value is None."""
    return _Record(lambda _: None, lambda _, __: None, ())


def tuple_of(first: AnyShape, second: AnyShape) -> Shape[tuple[object, object]]:
    """Return `record { first; second }`, whose labels are the numbers 0 and 1."""
    return _Record(
        lambda found: (found["0"], found["1"]),
        lambda value, label: value[int(label)],
        ((0, "0", first), (1, "1", second)),
    )


def variant(**alternatives: AnyShape) -> AnyShape:
    """Return a variant; alternatives without a value have the shape `NULL`.

    It is read as a `Case`, and written from one, or from an object whose class is named like the alternative.
    """
    return _Variant(_sorted_fields(alternatives))


def func(arguments: tuple[AnyShape, ...], results: tuple[AnyShape, ...]) -> Shape[FuncReference]:
    """Return the type of a reference to a query method."""
    return _Func(arguments, results)
