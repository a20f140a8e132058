"""Amounts of ICP as people write them: exact decimals, never floats.

>>> parse_amount("1.5")
150000000
>>> parse_amount("150000000 e8s")
150000000
>>> format_icp(150000000)
'1.5 ICP'
"""

from __future__ import annotations

import re
from typing import Final

from protocol.errors import CallerMistake
from protocol.limits import MAX_E8S

__all__ = ["E8S_PER_ICP", "format_icp", "parse_amount", "parse_config_amount"]

E8S_PER_ICP: Final = 10**8
DECIMALS: Final = 8

_AMOUNT: Final = re.compile(r"(?P<whole>[0-9]{1,40})(?:\.(?P<part>[0-9]{1,40}))?\s*(?P<unit>(?:[a-zA-Z][a-zA-Z0-9]*)?)")
_HOW: Final = "write 1.5, 1.5 ICP or 150000000 e8s"


def parse_amount(text: str, *, zero: bool = False) -> int:
    """Return the e8s of `1.5`, `1.5 ICP`, `1.5ICP` or `150000000 e8s`; a bare number means ICP.

    `zero`: whether an amount of nothing makes sense here.
    Raises `CallerMistake` (`bad_amount`) for anything that is not exactly an amount up to 2^64-1 e8s.
    """
    shown = _shown(text)
    stripped = text.strip()
    if stripped.startswith("-"):
        raise CallerMistake("bad_amount", f"the amount {shown} is negative; {_HOW}")
    found = _AMOUNT.fullmatch(stripped)
    if found is None:
        raise CallerMistake("bad_amount", f"{shown} is not an amount; {_HOW}")
    whole, part, unit = found["whole"], found["part"], found["unit"].lower()
    if unit == "e8s":
        if part is not None:
            raise CallerMistake("bad_amount", f"{shown}: one e8s cannot be divided; leave the decimals out")
        e8s = int(whole)
    elif unit in {"", "icp"}:
        part = part or ""
        if len(part.rstrip("0")) > DECIMALS:
            raise CallerMistake("bad_amount", f"{shown} has more than {DECIMALS} decimals; ICP has no smaller units")
        e8s = int(whole) * E8S_PER_ICP + int(part[:DECIMALS].ljust(DECIMALS, "0"))
    else:
        raise CallerMistake("bad_amount", f"{shown} has an unknown unit; {_HOW}")
    if e8s > MAX_E8S:
        raise CallerMistake("bad_amount", f"{shown} is more than {format_icp(MAX_E8S)}, the most a channel can hold")
    if e8s == 0 and not zero:
        raise CallerMistake("bad_amount", f"the amount {shown} is zero; nothing would move")
    return e8s


def parse_config_amount(value: int | str) -> int:
    """Return the e8s of an integer (it is e8s already) or of a text with its unit, for a key named `..._e8s`.

    A bare `1.5` is refused: beside a key that says e8s it would be a guess.
    Raises `CallerMistake` (`bad_amount`).
    """
    if isinstance(value, str):
        if value.strip().isdecimal() and value.isascii():
            value = f"{value.strip()} e8s"
        elif not value.strip().lower().endswith(("icp", "e8s")):
            raise CallerMistake("bad_amount", f'{_shown(value)} needs its unit here; write "1.5 ICP" or 150000000')
        return parse_amount(value, zero=True)
    if value > MAX_E8S:  # before it is written out: TOML has hexadecimal numbers of any length
        raise CallerMistake("bad_amount", f"the amount is more than {format_icp(MAX_E8S)}, the most a channel can hold")
    return parse_amount(f"{max(value, -1)} e8s", zero=True)


def format_icp(e8s: int) -> str:
    """Return an amount of e8s as exact ICP, without needless zeros: `1.5 ICP`."""
    whole, part = divmod(abs(e8s), E8S_PER_ICP)
    sign = "-" if e8s < 0 else ""
    decimals = f"{part:0{DECIMALS}d}".rstrip("0")
    return f"{sign}{whole}.{decimals} ICP" if decimals else f"{sign}{whole} ICP"


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else f"{text[:57]}...")
