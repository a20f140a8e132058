"""Files that only their owner reads, and that exist whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Final

from perund.setup_errors import DirectoryError

__all__ = [
    "make_private_dir",
    "place_new",
    "require_empty",
    "require_writable",
    "sync_directory",
    "sync_file",
    "write_new",
]

_NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def make_private_dir(path: Path) -> None:
    """Make a directory (0700) for a new node, or take an empty one.

    Raises `DirectoryError` when it holds anything already: nothing is ever overwritten.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        require_empty(path)
        path.chmod(0o700)
    except OSError as error:
        raise DirectoryError(
            f"{path} cannot be made ({error.strerror})", "choose a --dir in a directory that you can write"
        ) from error


def require_empty(path: Path) -> None:
    """Raise `DirectoryError` when there is anything in a directory; one that is not there is empty."""
    try:
        # A fresh volume of its own file system has a lost+found directory.
        present = sorted(entry.name for entry in path.iterdir() if entry.name != "lost+found")
    except FileNotFoundError:
        return
    except OSError as error:
        raise DirectoryError(
            f"{path} cannot be used ({error.strerror})", "choose a --dir in a directory that you can write"
        ) from error
    if present:
        raise DirectoryError(
            f"{path} is not empty (it has {present[0]})",
            "nothing was changed; start the node that lives there, or choose another --dir for another node: one with "
            "the same words would not know its channels",
        )


def require_writable(directory: Path) -> None:
    """Raise `PermissionError` where nothing can be made in a directory."""
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(directory))


def write_new(path: Path, content: bytes) -> None:
    """Write a new file (0600), durable when this returns.

    The file appears under its name only when it is complete, and never replaces another.
    Raises `DirectoryError` when the name is taken or the disk refuses.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            place_new(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError as error:
        raise DirectoryError(f"{path} exists already", "nothing was overwritten; choose another --dir") from error
    except OSError as error:
        raise DirectoryError(
            f"{path} cannot be written ({error.strerror})", "check space, permissions and the file system"
        ) from error


def place_new(temporary: Path, path: Path) -> None:
    """Give a complete, durable file its name, durably, where nothing has that name: not even a link.

    Raises `FileExistsError` when the name is taken, `OSError` when the file system refuses.
    """
    try:
        # A hard link fails when the name exists; a rename would replace the file there.
        path.hardlink_to(temporary)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system of memory sticks has none: take the name with an empty file, which is ours to replace.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            temporary.replace(path)
        except BaseException:
            path.unlink()
            raise
    sync_directory(path.parent)


def sync_file(path: Path) -> None:
    """Make the content of a file durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    sync_file(directory)
