"""Candid, by ic-py, behind a typed edge that hostile bytes do not pass.

`encode` and `decode` speak plain Python: blobs are `bytes`, principals raw `bytes`, `opt` is the value or None,
records are dicts, a variant is a dict of one entry, vectors are lists. Whatever ic-py raises on foreign bytes
becomes `UnexpectedReply`. Before ic-py sees a value, `chain._candid_header` refuses types whose values could be
of any size without costing bytes.

Never for bytes that are signed or hashed: those are `protocol.encoding`'s (ic-py orders the type table otherwise).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias, Union

from ic import candid
from ic.candid import FuncClass, NullClass, OptClass, Pipe, PrincipalClass, RecClass, RecordClass, VecClass
from ic.utils import labelHash

from chain._candid_header import VEC, TypeEntry, read_header
from chain.errors import UnencodableArgument, UnexpectedReply

__all__ = [
    "BLOB",
    "BOOL",
    "FUNC",
    "NAT",
    "NAT8",
    "NAT32",
    "NAT64",
    "NULL",
    "PRINCIPAL",
    "TEXT",
    "CandidType",
    "CandidValue",
    "decode",
    "encode",
    "opt",
    "record",
    "variant",
    "vec",
]

CandidValue: TypeAlias = Union[  # noqa: UP007
    bool, int, str, bytes, Sequence["CandidValue"], Mapping[str, "CandidValue"], None
]

ic: Final[Any] = candid
"""ic-py carries few annotations, some of them wrong: what it says of itself ends in this module."""


class CandidType(Protocol):
    """A type: one of the constants here, or made by `opt`, `vec`, `record`, `variant`."""

    @property
    def name(self) -> str:
        """Its text in Candid."""
        ...


MAX_REPLY_BYTES: Final = 1 << 20
MAX_NUMBER_BYTES: Final = 64
"""Of a LEB128 number: far above every amount, far below what takes time to add up."""


class _Cursor(Pipe):
    """ic-py's input, read in place. Its own copies all that is left for every byte that it takes."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self.position = position
        self._continued = 0

    @property
    def length(self) -> int:
        # ic-py takes the end of the bytes for the end of a number. One byte more than there is makes it ask for
        # the rest of a number that is cut short, and `read` refuses.
        return len(self._data) - self.position + 1

    @property
    def _view(self) -> bytes:
        """What ic-py looks ahead into, to find the end of a signed number."""
        window = self._data[self.position : self.position + MAX_NUMBER_BYTES]
        if not any(byte < 0x80 for byte in window):
            raise ValueError("a number that does not end")
        return window

    def read(self, num: int) -> bytes:
        end = self.position + num
        if end > len(self._data):
            raise ValueError("the bytes end in the middle of a value")
        taken = self._data[self.position : end]
        self.position = end
        # Only numbers are read byte by byte: a long run of bytes that announce another one is a number that is
        # made to cost time.
        self._continued = self._continued + 1 if num == 1 and taken[0] >= 0x80 else 0
        if self._continued > MAX_NUMBER_BYTES:
            raise ValueError("a number that does not end")
        return taken


def _leb128(cursor: Pipe) -> int:
    number: int = ic.leb128uDecode(cursor)
    return number


def _wire(wire: Any) -> Any:
    """Return the type behind a reference into the type table."""
    reference: Any = wire
    return reference.getType() if isinstance(wire, RecClass) else wire


class _Blob(VecClass):
    """`vec nat8` as bytes, taken in one piece."""

    def __init__(self) -> None:
        super().__init__(ic.Types.Nat8)

    def covariant(self, x: object) -> bool:
        return isinstance(x, bytes)

    def encodeValue(self, val: bytes) -> bytes:  # noqa: N802
        prefix: bytes = bytes(ic.leb128.u.encode(len(val)))
        return prefix + val

    def decodeValue(self, b: Pipe, t: Any) -> bytes:  # noqa: N802
        if not isinstance(_wire(t), _Blob):
            raise ValueError("not a blob")  # noqa: TRY004  (all kinds become one error in `decode`)
        length = _leb128(b)
        return bytes(b.read(length))


class _Opt(OptClass):
    """`opt t` as the value or None. Whatever else Candid would forgive here is refused: this is about money."""

    def covariant(self, x: object) -> bool:
        inner: Any = self._type
        return x is None or bool(inner.covariant(x))

    def encodeValue(self, val: CandidValue) -> bytes:  # noqa: N802
        if val is None:
            return b"\x00"
        inner: Any = self._type
        encoded: bytes = inner.encodeValue(val)
        return b"\x01" + encoded

    def decodeValue(self, b: Pipe, t: Any) -> CandidValue:  # noqa: N802
        wire = _wire(t)
        if isinstance(wire, NullClass):
            return None
        if not isinstance(wire, OptClass):
            raise ValueError("not an option")  # noqa: TRY004  (all kinds become one error in `decode`)
        match b.read(1):
            case b"\x00":
                return None
            case b"\x01":
                inner: Any = self._type
                value: CandidValue = inner.decodeValue(b, wire._type)  # noqa: SLF001  (the base class's own)
                return value
            case _:
                raise ValueError("not an option value")


class _Record(RecordClass):
    """`record` as a dict. Fields that we do not know are skipped; optional fields may be missing."""

    def decodeValue(self, b: Pipe, t: Any) -> dict[str, CandidValue]:  # noqa: N802
        wire = _wire(t)
        if not isinstance(wire, RecordClass):
            raise ValueError("not a record")  # noqa: TRY004  (all kinds become one error in `decode`)
        names = {labelHash(name): name for name in self._fields}
        values: dict[str, CandidValue] = {}
        for label, wire_type in wire._fields.items():
            name = names.get(labelHash(label))
            if name is None:
                wire_type.decodeValue(b, wire_type)
            else:
                values[name] = self._fields[name].decodeValue(b, wire_type)
        for name, expected in self._fields.items():
            if name not in values:
                if not isinstance(expected, _Opt):
                    raise ValueError(f"the field {name} is missing")
                values[name] = None
        return values


class _Principal(PrincipalClass):
    """`principal` as raw bytes."""

    def covariant(self, x: object) -> bool:
        return isinstance(x, bytes) and len(x) <= 29

    def decodeValue(self, b: Pipe, t: Any) -> bytes:  # noqa: N802
        self.checkType(t)
        if b.read(1) != b"\x01":
            raise ValueError("an opaque principal")
        length = _leb128(b)
        if length > 29:
            raise ValueError(f"a principal of {length} bytes")
        return bytes(b.read(length))


class _Func(FuncClass):
    """A reference to a method as `[canister, method]`."""

    def decodeValue(self, b: Pipe, t: Any) -> list[CandidValue]:  # noqa: N802
        if not isinstance(_wire(t), FuncClass):
            raise ValueError("not a method")  # noqa: TRY004  (all kinds become one error in `decode`)
        if b.read(1) != b"\x01":
            raise ValueError("an opaque method")
        canister = PRINCIPAL.decodeValue(b, PRINCIPAL)
        length = _leb128(b)
        return [canister, bytes(b.read(length)).decode()]


NULL: Final[CandidType] = ic.Types.Null
BOOL: Final[CandidType] = ic.Types.Bool
NAT: Final[CandidType] = ic.Types.Nat
NAT8: Final[CandidType] = ic.Types.Nat8
NAT32: Final[CandidType] = ic.Types.Nat32
NAT64: Final[CandidType] = ic.Types.Nat64
TEXT: Final[CandidType] = ic.Types.Text
PRINCIPAL: Final = _Principal()
BLOB: Final = _Blob()
FUNC: Final = _Func([], [], [])
"""Any method reference; only for decoding, where its signature does not matter."""


def opt(inner: CandidType) -> CandidType:
    """Return `opt inner`: None or the value."""
    ours: Any = inner
    return _Opt(ours)


def vec(inner: CandidType) -> CandidType:
    """Return `vec inner`: a list."""
    ours: Any = inner
    return VecClass(ours)


def record(**fields: CandidType) -> CandidType:
    """Return a record type: a dict."""
    return _Record(fields)


def variant(**cases: CandidType) -> CandidType:
    """Return a variant type: a dict of one entry."""
    made: CandidType = ic.VariantClass(cases)
    return made


def encode(types: Sequence[CandidType], values: Sequence[CandidValue]) -> bytes:
    """Return the Candid bytes of arguments. Raises `UnencodableArgument` when a value does not fit its type."""
    params = [{"type": kind, "value": value} for kind, value in zip(types, values, strict=True)]
    try:
        encoded: bytes = ic.encode(params)
    except Exception as exc:
        raise UnencodableArgument(f"an argument does not fit its Candid type: {exc}") from exc
    return encoded


def decode(types: Sequence[CandidType], data: bytes, *, limit: int = MAX_REPLY_BYTES) -> list[CandidValue]:
    """Return the values in Candid bytes, which must be exactly of these types (up to unknown record fields).

    `limit`: bytes. Raises `UnexpectedReply`.
    """
    if len(data) > limit:
        raise UnexpectedReply(f"a reply of {len(data)} bytes; at most {limit} are expected")
    try:
        return _decode(types, data)
    except UnexpectedReply:
        raise
    except Exception as exc:  # ic-py answers foreign bytes with exceptions of every kind
        raise UnexpectedReply(f"a reply is not of the expected Candid type: {exc}") from exc


def _decode(types: Sequence[CandidType], data: bytes) -> list[CandidValue]:
    table, arguments, position = read_header(data)
    if len(arguments) < len(types):
        raise UnexpectedReply(f"a reply of {len(arguments)} values; {len(types)} are expected")
    wire_table = [ic.RecClass() for _ in table]
    for reference, entry in zip(wire_table, table, strict=True):
        reference.fill(_wire_type(table, wire_table, entry))
    cursor = _Cursor(data, position)
    values: list[CandidValue] = []
    kinds: Sequence[Any] = types
    for place, code in enumerate(arguments):
        wire = ic.getType(table, wire_table, code)
        if place < len(kinds):
            values.append(kinds[place].decodeValue(cursor, wire))
        else:
            wire.decodeValue(cursor, wire)
    if cursor.position != len(data):
        raise UnexpectedReply(f"{len(data) - cursor.position} bytes follow the values of a reply")
    return values


def _wire_type(table: Sequence[TypeEntry], wire_table: list[RecClass], entry: TypeEntry) -> Any:
    if entry == [VEC, ic.TypeIds.Nat8.value]:
        return BLOB
    return ic.buildType(table, wire_table, entry)
