"""Which file it is, whatever its name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FileId"]


@dataclass(frozen=True, slots=True)
class FileId:
    """A file of this machine: another file that gets its name is another one."""

    device: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> FileId:
        """Return what a name leads to now. Raises `OSError`."""
        return cls.of_stat(path.stat())

    @classmethod
    def of_stat(cls, found: os.stat_result) -> FileId:
        """Return which file the system told about."""
        return cls(found.st_dev, found.st_ino)

    @classmethod
    def if_there(cls, path: Path) -> FileId | None:
        """Return what a name leads to now, None where there is nothing. Raises `OSError`."""
        try:
            return cls.of(path)
        except FileNotFoundError:
            return None
