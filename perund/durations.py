"""Durations as people write them.

>>> parse_duration("10m")
600
>>> format_duration(5400)
'1h30m'
"""

from __future__ import annotations

import re
from typing import Final

from protocol.errors import CallerMistake

__all__ = ["MAX_DURATION_S", "format_duration", "parse_duration"]

MAX_DURATION_S: Final = 10 * 365 * 86_400
"""Longer than anything here can be asked for: it keeps nanoseconds inside 64 bits."""

_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION: Final = re.compile(r"(?:[0-9]{1,12}[smhd])+")
_PART: Final = re.compile(r"([0-9]+)([smhd])")


def parse_duration(text: str) -> int:
    """Return the seconds of `60s`, `10m`, `2h`, `1d` or `1h30m`.

    Raises `CallerMistake` (`bad_duration`); a bare number is refused, its unit would be a guess.
    """
    cleaned = text.strip().lower()
    if _DURATION.fullmatch(cleaned) is None or not cleaned.isascii():
        shown = ascii(text if len(text) <= 60 else f"{text[:57]}...")
        raise CallerMistake("bad_duration", f"{shown} is not a duration; write 60s, 10m, 2h or 1d")
    seconds = sum(int(count) * _SECONDS[unit] for count, unit in _PART.findall(cleaned))
    if not 0 < seconds <= MAX_DURATION_S:
        raise CallerMistake("bad_duration", f"{text!a} is outside 1s to {format_duration(MAX_DURATION_S)}")
    return seconds


def format_duration(seconds: int) -> str:
    """Return seconds in the same notation, largest unit first."""
    parts = []
    for unit in "dhm":
        count, seconds = divmod(seconds, _SECONDS[unit])
        if count:
            parts.append(f"{count}{unit}")
    if seconds or not parts:
        parts.append(f"{seconds}s")
    return "".join(parts)
