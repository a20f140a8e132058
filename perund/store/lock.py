"""One node per data directory."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from perund.setup_errors import DirectoryError
from perund.store.errors import DirectoryInUse

__all__ = ["LOCK_NAME", "DirectoryLock"]

LOCK_NAME: Final = "perund.lock"
"""In the data directory of a running node."""


class DirectoryLock:
    """Holds `perund.lock` in the data directory until it is released or the process ends."""

    def __init__(self, directory: Path) -> None:
        """Take the lock. Raises `DirectoryInUse` with the process that has it.

        Raises `DirectoryError` when nothing can be made in the directory: a store that opens in it all the same has
        no log, and the backup file could not be written when a channel opens.
        """
        self._path = directory / LOCK_NAME
        try:
            if not os.access(directory, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DirectoryError(
                f"the data directory {directory} cannot be written ({error.strerror})",
                "nothing was changed; start the node as the user that owns the directory, with its mode at least 0700, "
                "on a file system that is mounted for writing",
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._file, 32, 0).decode("ascii", "replace").strip()
            os.close(self._file)
            raise DirectoryInUse(
                f"the data directory {directory} is in use by process {holder or 'unknown'}; "
                "stop it first; a copy of this directory must never run beside it"
            ) from error
        # Whoever unlinked the file between its opening and its locking would have another one to lock.
        try:
            there = self._path.stat()
        except FileNotFoundError:
            there = None
        ours = os.fstat(self._file)
        if there is None or (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            os.close(self._file)
            raise DirectoryInUse(f"{self._path} was replaced while it was being locked; start the node again")
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
