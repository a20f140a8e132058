"""One node per data directory."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from perund.file_id import FileId
from perund.private_file import require_writable
from perund.setup_errors import DirectoryError
from perund.store.errors import DirectoryInUse

__all__ = ["LOCK_NAME", "DirectoryLock"]

LOCK_NAME: Final = "perund.lock"
"""In the data directory of a running node."""

_OF_A_LOCK: Final = re.compile(rb"([0-9]{1,20}\n?)?")


class DirectoryLock:
    """Holds `perund.lock` in the data directory until it is released or the process ends."""

    def __init__(self, directory: Path) -> None:
        """Take the lock. Raises `DirectoryInUse` with the process that has it.

        Raises `DirectoryError` when nothing can be made in the directory: a store that opens in it all the same has
        no log, and the backup file could not be written when a channel opens.
        """
        self._path = directory / LOCK_NAME
        try:
            require_writable(directory)
            # A link is not followed: what it leads to is no lock, and would be written over.
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            self._file = os.open(self._path, flags, 0o600)
        except OSError as error:
            if (os.path.lexists(self._path) and not self._path.is_file()) or self._path.is_symlink():
                raise self._not_a_lock() from error
            raise DirectoryError(
                f"the data directory {directory} cannot be written ({error.strerror})",
                "nothing was changed; start the node as the user that owns the directory, with its mode at least 0700, "
                "on a file system that is mounted for writing",
            ) from error
        if not (stat.S_ISREG(os.fstat(self._file).st_mode) and _OF_A_LOCK.fullmatch(os.pread(self._file, 64, 0))):
            os.close(self._file)
            raise self._not_a_lock()
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
        if FileId.if_there(self._path) != FileId.of_stat(os.fstat(self._file)):
            os.close(self._file)
            raise DirectoryInUse(f"{self._path} was replaced while it was being locked; start the node again")
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def _not_a_lock(self) -> DirectoryError:
        return DirectoryError(f"{self._path} is not the lock of a node", "nothing was changed; move that file away")

    def release(self) -> None:
        """Let another process have the directory."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
