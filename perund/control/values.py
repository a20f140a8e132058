"""The values of the control interface and how they travel: amounts as decimal strings, bytes as hex."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from protocol.limits import MAX_INT64, MAX_MEMO_BYTES

__all__ = [
    "ChannelIdHex",
    "ChannelRef",
    "E8s",
    "IdempotencyKey",
    "Memo",
    "NodeIdHex",
    "PaidColumn",
    "PaidE8s",
    "PaymentIdHex",
    "Seconds",
    "decode_value",
    "encode_value",
    "schema_of_value",
]

MAX_SECONDS: Final = 10 * 365 * 86_400
MAX_PAYMENTS_PER_CALL: Final = 20_000
_DIGITS: Final = 20  # of a nat64

ChannelRef = Annotated[
    str,
    Meta(
        pattern="^[0-9a-f]{8,128}$",
        description="Channel id (128 hex digits), or the beginning of one (at least 8) that no other channel has.",
    ),
]
ChannelIdHex = Annotated[str, Meta(pattern="^[0-9a-f]{128}$", description="Channel id.")]
NodeIdHex = Annotated[str, Meta(pattern="^0[23][0-9a-f]{64}$", description="Public key of a node, compressed.")]
PaymentIdHex = Annotated[str, Meta(pattern="^[0-9a-f]{32}$", description="Payment id, 16 bytes.")]
Memo = Annotated[
    str, Meta(max_length=MAX_MEMO_BYTES, description=f"Text for the receiver, at most {MAX_MEMO_BYTES} bytes of UTF-8.")
]
IdempotencyKey = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=128,
        description="The same key twice is one action; the same key with other arguments is an error.",
    ),
]


class E8s(int):
    """An amount of e8s, 0 to 2^63-1. It travels as a decimal string, so that no client rounds it."""

    __slots__ = ()


class PaidE8s(E8s):
    """An amount that moves: at least 1 e8s."""

    __slots__ = ()


class PaidColumn(tuple[int, ...]):
    """Amounts that move, many at once: a list of decimal strings, each at least 1 e8s."""

    __slots__ = ()


class Seconds(int):
    """A duration in whole seconds, at least 1; a number or a decimal string."""

    __slots__ = ()


def decode_value(kind: type, value: object) -> object:
    """Build one of the types above from JSON (the `dec_hook` of msgspec). Raises `ValueError` with what is allowed."""
    if kind is PaidE8s or kind is E8s:
        if type(value) is not str or not value.isdigit() or not value.isascii() or len(value) > _DIGITS:
            raise ValueError(f'{_shown(value)} is not an amount: write e8s as a decimal string, such as "150000000"')
        amount = int(value)
        if amount > MAX_INT64:
            raise ValueError(f"{value} e8s is more than 2^63-1")
        if amount == 0 and kind is PaidE8s:
            raise ValueError("an amount of 0 e8s moves nothing; at least 1")
        return kind(amount)
    if kind is PaidColumn:
        return _column(value)
    if kind is Seconds:
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _DIGITS:
            value = int(value)
        if type(value) is not int or not 1 <= value <= MAX_SECONDS:
            raise ValueError(f"{_shown(value)} is not a duration: write whole seconds, 1 to {MAX_SECONDS}")
        return Seconds(value)
    raise NotImplementedError(f"{kind} is no value of the control interface")


def _column(value: object) -> PaidColumn:
    """All at once: a list of thousands of amounts is checked by a handful of calls."""
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_PAYMENTS_PER_CALL:
        raise ValueError(f"a list of 1 to {MAX_PAYMENTS_PER_CALL} amounts is needed")
    try:
        joined = "".join(value)
    except TypeError:
        raise ValueError("every amount is a decimal string of e8s") from None
    if not (joined.isascii() and joined.isdigit()) or max(map(len, value)) > _DIGITS or not all(value):
        raise ValueError("every amount is a decimal string of e8s")
    amounts = PaidColumn(map(int, value))
    if min(amounts) < 1 or max(amounts) > MAX_INT64:
        raise ValueError("every amount is 1 to 2^63-1 e8s")
    return amounts


def encode_value(value: object) -> object:
    """Return what travels for one of the types above (the `enc_hook` of msgspec)."""
    match value:
        case E8s():
            return int.__repr__(value)
        case Seconds():
            return int(value)
        case PaidColumn():
            return [str(amount) for amount in value]
        case _:
            raise NotImplementedError(f"{type(value).__name__} is no value of the control interface")


def schema_of_value(kind: type) -> dict[str, object]:
    """Return the JSON schema of one of the types above (the `schema_hook` of msgspec)."""
    amount: dict[str, object] = {"type": "string", "pattern": "^[0-9]{1,20}$"}
    if kind is E8s or kind is PaidE8s:
        return {**amount, "description": str(kind.__doc__)}
    if kind is PaidColumn:
        return {"type": "array", "minItems": 1, "maxItems": MAX_PAYMENTS_PER_CALL, "items": amount}
    if kind is Seconds:
        number: dict[str, object] = {"type": "integer", "minimum": 1, "maximum": MAX_SECONDS}
        return {"anyOf": [number, amount], "description": "Whole seconds."}
    raise NotImplementedError(f"{kind} is no value of the control interface")


def _shown(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return ascii(text)[1:-1] if len(text) <= 40 else f"{ascii(text[:37])[1:-1]}..."
