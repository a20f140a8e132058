"""Candid behind a typed edge that hostile bytes do not pass: arguments are written by ic-py, replies read here.

`encode` and `decode` speak plain Python: blobs are `bytes`, principals raw `bytes`, `opt` is the value or None,
records are dicts, a variant is a dict of one entry, vectors are lists. Replies are read at the expected type by
Candid's rules of coercion, so that a canister may grow: fields that we do not know are skipped, an `opt t` takes a
`t`, and reads null where something else stands. Where null is a statement about money (nothing is registered, no
error), the type is `certain` instead: there, what does not fit is refused.

Never for bytes that are signed or hashed: those are `protocol.encoding`'s (ic-py orders the type table otherwise).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias, Union

from ic import candid
from ic.candid import (
    BoolClass,
    EmptyClass,
    FixedIntClass,
    FixedNatClass,
    FuncClass,
    IntClass,
    NatClass,
    NullClass,
    OptClass,
    PrincipalClass,
    RecordClass,
    ReservedClass,
    TextClass,
    VariantClass,
    VecClass,
)
from ic.utils import labelHash

from chain._candid_header import FUNC as FUNC_CODE
from chain._candid_header import NAT8 as NAT8_CODE
from chain._candid_header import NULL as NULL_CODE
from chain._candid_header import OPT, RECORD, SERVICE, VARIANT, VEC, read_header
from chain._candid_header import PRINCIPAL as PRINCIPAL_CODE
from chain._candid_header import RESERVED as RESERVED_CODE
from chain._candid_values import BOOL as BOOL_CODE
from chain._candid_values import INT as INT_CODE
from chain._candid_values import NAT as NAT_CODE
from chain._candid_values import TEXT as TEXT_CODE
from chain._candid_values import Values
from chain.errors import UnencodableArgument, UnexpectedReply

__all__ = [
    "BLOB",
    "BOOL",
    "EMPTY",
    "FUNC",
    "INT",
    "NAT",
    "NAT8",
    "NAT16",
    "NAT32",
    "NAT64",
    "NULL",
    "PRINCIPAL",
    "RESERVED",
    "TEXT",
    "CandidType",
    "CandidValue",
    "certain",
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


class _Misfit(UnexpectedReply):
    """A well-formed value that cannot stand where it does: an option around it reads null."""


class _Blob(VecClass):
    """`vec nat8` as bytes, taken in one piece."""

    def __init__(self) -> None:
        super().__init__(ic.Types.Nat8)

    def covariant(self, x: object) -> bool:
        return isinstance(x, bytes)

    def encodeValue(self, val: bytes) -> bytes:  # noqa: N802
        prefix: bytes = bytes(ic.leb128.u.encode(len(val)))
        return prefix + val


class _Opt(OptClass):
    """`opt t` as the value or None. `certain`: what does not fit is refused, instead of being read as None."""

    certain = False

    def covariant(self, x: object) -> bool:
        inner: Any = self._type
        return x is None or bool(inner.covariant(x))

    def encodeValue(self, val: CandidValue) -> bytes:  # noqa: N802
        if val is None:
            return b"\x00"
        inner: Any = self._type
        encoded: bytes = inner.encodeValue(val)
        return b"\x01" + encoded


class _Certain(_Opt):
    """An option of which None is a statement about money."""

    certain = True


class _Principal(PrincipalClass):
    """`principal` as raw bytes."""

    def covariant(self, x: object) -> bool:
        return isinstance(x, bytes) and len(x) <= 29


NULL: Final[CandidType] = ic.Types.Null
BOOL: Final[CandidType] = ic.Types.Bool
NAT: Final[CandidType] = ic.Types.Nat
INT: Final[CandidType] = ic.Types.Int
NAT8: Final[CandidType] = ic.Types.Nat8
NAT16: Final[CandidType] = ic.Types.Nat16
NAT32: Final[CandidType] = ic.Types.Nat32
NAT64: Final[CandidType] = ic.Types.Nat64
TEXT: Final[CandidType] = ic.Types.Text
RESERVED: Final[CandidType] = ic.Types.Reserved
EMPTY: Final[CandidType] = ic.Types.Empty
PRINCIPAL: Final = _Principal()
BLOB: Final = _Blob()
FUNC: Final = FuncClass([], [], [])
"""Any method reference, as `[canister, method]`; only for decoding, where its signature does not matter."""


def opt(inner: CandidType) -> CandidType:
    """Return `opt inner`: None or the value."""
    ours: Any = inner
    return _Opt(ours)


def certain(inner: CandidType) -> CandidType:
    """Return `opt inner` of which None is a statement: what is there and does not fit is refused, not read as None."""
    ours: Any = inner
    return _Certain(ours)


def vec(inner: CandidType) -> CandidType:
    """Return `vec inner`: a list."""
    ours: Any = inner
    return VecClass(ours)


def record(**fields: CandidType) -> CandidType:
    """Return a record type: a dict. Fields `_0`, `_1` are those of a tuple."""
    made: CandidType = ic.RecordClass(fields)
    return made


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
    """Return the values in Candid bytes, read at these types.

    `limit`: bytes. Raises `UnexpectedReply`.
    """
    if len(data) > limit:
        raise UnexpectedReply(f"a reply of {len(data)} bytes; at most {limit} are expected")
    table, arguments, position = read_header(data)
    values = Values(data, position, table)
    found: list[CandidValue] = []
    for place, kind in enumerate(types):
        if place < len(arguments):
            found.append(_read(values, kind, arguments[place]))
        elif _may_be_missing(kind) and not isinstance(kind, _Certain):  # no answer is no statement
            found.append(None)
        else:
            raise UnexpectedReply(f"a reply of {len(arguments)} values; {len(types)} are expected")
    for code in arguments[len(types) :]:
        values.skip(code)
    if values.position != len(data):
        raise UnexpectedReply(f"{len(data) - values.position} bytes follow the values of a reply")
    return found


def _may_be_missing(kind: CandidType) -> bool:
    """Whether null is a value of the type: then a field, or a value at the end, need not be there."""
    return isinstance(kind, _Opt | NullClass | ReservedClass)


def _read(values: Values, kind: Any, code: int) -> CandidValue:
    """Take the next value, which is of the type `code`, at the type that is expected."""
    values.spend(1)
    if isinstance(kind, _Opt):
        return _read_option(values, kind, code)
    if isinstance(kind, ReservedClass):
        values.skip(code)
        return None
    wire, expected = values.kind(code), _kind_of(kind)
    if wire == EMPTY_CODE:
        raise UnexpectedReply("a reply with a value of the type that has none")
    if wire != expected and (wire, expected) not in _ALSO_FITS:
        raise _Misfit(f"a reply is not of the expected Candid type: kind {wire} stands where {kind.name} is expected")
    with values.deeper():
        return _read_fitting(values, kind, code)


def _read_fitting(values: Values, kind: Any, code: int) -> CandidValue:
    """Take a value of a kind that may stand where it does; what is inside may not."""
    match kind:
        case _Blob():
            return _read_blob(values, code)
        case VecClass():
            return _read_vector(values, kind, code)
        case RecordClass():
            return _read_record(values, kind, code)
        case VariantClass():
            return _read_variant(values, kind, code)
        case _Principal():
            return values.principal()
        case FuncClass():
            return list(values.method())
        case _:
            return _read_primitive(values, kind, code)


def _read_primitive(values: Values, kind: Any, code: int) -> CandidValue:
    match kind:
        case BoolClass():
            return values.flag()
        case TextClass():
            return values.text()
        case NatClass():
            return values.unsigned()
        case IntClass():
            return values.unsigned() if values.kind(code) == NAT_CODE else values.signed()
        case FixedNatClass() | FixedIntClass():
            return values.fixed(code)
        case _:
            return None  # null


def _read_option(values: Values, kind: _Opt, code: int) -> CandidValue:
    wire = values.kind(code)
    if wire == NULL_CODE:
        return None
    if wire == OPT:
        with values.deeper():
            return _read_if_it_fits(values, kind, values.inner(code)) if values.flag() else None
    return _read_if_it_fits(values, kind, code)


def _read_if_it_fits(values: Values, kind: _Opt, code: int) -> CandidValue:
    inner: Any = kind._type  # noqa: SLF001  (the base class's own)
    before = values.position
    if kind.certain and values.kind(code) == RESERVED_CODE:
        raise UnexpectedReply("a reply that does not say what it should")
    try:
        return _read(values, inner, code)
    except _Misfit as misfit:
        if kind.certain:
            raise UnexpectedReply(str(misfit)) from misfit
        values.position = before
        values.skip(code)
        return None


def _read_blob(values: Values, code: int) -> bytes:
    inner = values.inner(code)
    if inner == NAT8_CODE:
        return values.take(values.unsigned())
    elements = [_read(values, NAT8, inner) for _ in range(values.count())]
    return bytes(element for element in elements if isinstance(element, int))


def _read_vector(values: Values, kind: Any, code: int) -> list[CandidValue]:
    inner = values.inner(code)
    return [_read(values, kind._type, inner) for _ in range(values.count())]  # noqa: SLF001  (ic-py has no other way)


def _read_record(values: Values, kind: Any, code: int) -> dict[str, CandidValue]:
    labels = _labels(kind)
    expected: dict[str, CandidType] = kind._fields
    found: dict[str, CandidValue] = {}
    for label, part in values.fields(code):
        name = labels.get(label)
        if name is None:
            values.skip(part)
        else:
            found[name] = _read(values, expected[name], part)
    for name, field in expected.items():
        if name not in found:
            if not _may_be_missing(field):
                raise _Misfit(f"a reply in which the field {name} is missing")
            found[name] = None
    return found


def _read_variant(values: Values, kind: Any, code: int) -> dict[str, CandidValue]:
    label, part = values.case(code)
    name = _labels(kind).get(label)
    if name is None:
        raise _Misfit(f"a reply with a case of a variant that is not known (label {label})")
    return {name: _read(values, kind._fields[name], part)}


def _labels(kind: Any) -> dict[int, str]:
    return {labelHash(name): name for name in kind._fields}


def _kind_of(kind: Any) -> int:
    """Return the code of an expected type's kind."""
    if isinstance(kind, FixedNatClass | FixedIntClass):
        return _FIXED[kind.name]
    return _KINDS[type(kind)]


EMPTY_CODE: Final = -17
_FIXED: Final = {
    "nat8": -5,
    "nat16": -6,
    "nat32": -7,
    "nat64": -8,
    "int8": -9,
    "int16": -10,
    "int32": -11,
    "int64": -12,
}
_KINDS: Final[dict[type, int]] = {
    NullClass: NULL_CODE,
    BoolClass: BOOL_CODE,
    NatClass: NAT_CODE,
    IntClass: INT_CODE,
    TextClass: TEXT_CODE,
    EmptyClass: EMPTY_CODE,
    _Principal: PRINCIPAL_CODE,
    _Blob: VEC,
    VecClass: VEC,
    RecordClass: RECORD,
    VariantClass: VARIANT,
    FuncClass: FUNC_CODE,
}
_ALSO_FITS: Final = frozenset({(NAT_CODE, INT_CODE), (SERVICE, PRINCIPAL_CODE)})
"""What else may stand where a kind is expected. Source: Candid specification, "Coercion"."""
