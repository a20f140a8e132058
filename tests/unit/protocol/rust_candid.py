"""Candid as Rust's `candid` crate emits it, from a description of the type: an encoder of its own for tests.

It shares nothing with `protocol.encoding`, which has constant headers. Here the type table is built: a type
takes its index when it is first met, before its parts are looked at, and a record's fields come in the order
of their hashed labels.
"""

from __future__ import annotations

from dataclasses import dataclass

NAT, NAT64, BOOL, PRINCIPAL, BYTE = 0x7D, 0x78, 0x7E, 0x68, 0x7B


@dataclass(frozen=True)
class Vec:
    of: Type


@dataclass(frozen=True)
class Record:
    fields: tuple[tuple[str, Type], ...]

    def in_order(self) -> list[tuple[int, str, Type]]:
        return sorted((label_hash(label), label, kind) for label, kind in self.fields)


Type = int | Vec | Record
Value = int | bool | bytes | list["Value"] | dict[str, "Value"]

BLOB = Vec(BYTE)
FUNDING = Record((("channel", BLOB), ("participant", BLOB)))
PARAMS = Record((("nonce", BLOB), ("participants", Vec(BLOB)), ("challenge_duration", NAT64)))
STATE = Record((("channel", BLOB), ("version", NAT64), ("allocation", Vec(NAT)), ("finalized", BOOL)))
WITHDRAWAL = Record((("funding", FUNDING), ("receiver", PRINCIPAL)))


def label_hash(label: str) -> int:
    value = 0
    for byte in label.encode():
        value = (value * 223 + byte) % 2**32
    return value


def leb(number: int) -> bytes:
    out = []
    while True:
        number, low = divmod(number, 128)
        out.append(low + (128 if number else 0))
        if not number:
            return bytes(out)


def encode(kind: Type, value: Value) -> bytes:
    table: list[tuple[Type, bytes]] = []

    def reference(part: Type) -> bytes:
        if isinstance(part, int):
            return bytes([part])
        for index, (known, _) in enumerate(table):
            if known == part:
                return leb(index)
        index = len(table)
        table.append((part, b""))  # the index is taken before the parts are met
        if isinstance(part, Vec):
            row = b"\x6d" + reference(part.of)
        else:
            fields = part.in_order()
            row = b"\x6c" + leb(len(fields)) + b"".join(leb(number) + reference(k) for number, _, k in fields)
        table[index] = (part, row)
        return leb(index)

    argument = reference(kind)
    return b"DIDL" + leb(len(table)) + b"".join(row for _, row in table) + b"\x01" + argument + _value(kind, value)


def _value(kind: Type, value: Value) -> bytes:
    if isinstance(kind, Record):
        assert isinstance(value, dict)
        return b"".join(_value(part, value[label]) for _, label, part in kind.in_order())
    if isinstance(kind, Vec):
        assert isinstance(value, bytes | list)
        return leb(len(value)) + b"".join(_value(kind.of, item) for item in value)
    if kind == PRINCIPAL:
        assert isinstance(value, bytes)
        return b"\x01" + leb(len(value)) + value
    assert isinstance(value, int)
    match kind:
        case 0x7D:
            return leb(value)
        case 0x78:
            return value.to_bytes(8, "little")
        case _:
            return bytes([value])
