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


JUDGED: Final[tuple[Judged, ...]] = ()
