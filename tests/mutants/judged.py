"""Survivors that were judged: what they change cannot be noticed, or need not be.

A mutant is named by its source, as the report prints it. An entry that no mutant has any more is an error: the source
has changed, and whoever changed it judges anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["JUDGED", "Judged"]


@dataclass(frozen=True, slots=True)
class Judged:
    """The mutant of `path`, in the function `where`, whose lines `old` read `new`; `why` nobody has to notice."""

    path: str
    where: str
    old: str
    new: str
    why: str

    @property
    def name(self) -> tuple[str, str, str]:
        """What it is known by in its file."""
        return self.where, self.old, self.new


JUDGED: Final[tuple[Judged, ...]] = (
    Judged(
        "chain/node_keys.py",
        "NodeKeys._nodes",
        "if known is not None and now_ns - known[0] < KEYS_TTL_NS:",
        "if known is not None and now_ns - known[0] <= KEYS_TTL_NS:",
        "a nanosecond of five minutes, on a clock that is our own",
    ),
    Judged(
        "chain/node_keys.py",
        "NodeKeys._verify",
        "if signature.timestamp_ns < oldest:",
        "if signature.timestamp_ns <= oldest:",
        "a nanosecond of five minutes, of what is one node's word in any case",
    ),
    Judged(
        "chain/state_reader.py",
        "StateReader.on_any_server",
        "if (number + 1) % len(servers) == 0 and number + 1 < attempts:",
        "if (number - 1) % len(servers) == 0 and number + 1 < attempts:",
        "it pauses elsewhere in the round of servers, as often as before",
    ),
    Judged(
        "chain/certificate.py",
        "verify_bls",
        "if len(public_key) != 96 or len(signature) != 48 or signature == INFINITY_G1 or public_key == INFINITY_G2:",
        "if len(public_key) != 96 or len(signature) != 48 or signature == INFINITY_G1 or False:",
        "a key at infinity verifies signatures at infinity only, and those are refused before it",
    ),
)
