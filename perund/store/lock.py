"""One node per data directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from perund.store.errors import DirectoryInUse

__all__ = ["DirectoryLock"]


class DirectoryLock:
    """Holds `perund.lock` in the data directory until it is released or the process ends."""

    def __init__(self, directory: Path) -> None:
        """Take the lock. Raises `DirectoryInUse` with the process that has it."""
        self._path = directory / "perund.lock"
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._file, 32, 0).decode("ascii", "replace").strip()
            os.close(self._file)
            raise DirectoryInUse(
                f"the data directory {directory} is in use by process {holder or 'unknown'}; "
                "stop that node, or choose another --dir"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another process have the directory."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
