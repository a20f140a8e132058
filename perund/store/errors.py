"""The store's errors.

* `StoreError(PerundError)`
    * `StorageFailed`: a write failed. Nothing is signed any more; the process ends (rule 8).
        * `FilesReplaced`: the files are not the ones that were opened any more, or somebody else wrote to them.
        * `StoreDamaged`: what is on the disk is not what was written. The process ends, and does not start on it again.
    * `DirectoryInUse`: another process runs on this data directory.
    * `WrongNetwork`: the channels in this store belong to another network.
    * `UnknownSchema`: a newer perund wrote this store.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from protocol.errors import PerundError

__all__ = [
    "DirectoryInUse",
    "End",
    "Fate",
    "FilesReplaced",
    "StorageFailed",
    "StoreDamaged",
    "StoreError",
    "UnknownSchema",
    "WrongNetwork",
]


class StoreError(PerundError):
    """Base of what can be wrong with the store."""


class StorageFailed(StoreError):
    """A write did not reach the disk. The node stops signing and exits; the watcher goes on (rule 8)."""


class StoreDamaged(StorageFailed):
    """The store is not what was written: nothing of it may be believed, and nothing signed on it (rule 7)."""

    def __init__(self, path: Path, what: str) -> None:
        """`path`: the store's file; `what`: what is wrong with it, for people."""
        super().__init__(
            f"the store {path} is damaged and cannot be opened: {what}. Check the disk; move the files {path.name}* in "
            f"{path.parent} to another directory and start again: the node takes its channels up from backup.perund "
            "and recovers them from their peers. Without that file, `perund restore` makes the node from a copy of it"
        )
        self.path = path
        self.what = what


class End(Enum):
    """What became of a unit of work that the store was asked for."""

    WRITTEN = "written"
    """It is on the disk, and the next process finds it."""
    NOT_WRITTEN = "not written"
    """It never will be: nothing of it happened."""
    UNKNOWN = "unknown"
    """It is on its way, or its transaction failed where it was to become durable: the next process will see."""


class Fate(Enum):
    """What became of what a node wrote, when its files were taken from under it."""

    WHOLE = "whole"
    """It is in the files that are there: another program worked on them too."""
    UNKNOWN = "unknown"
    """The next start must not simply believe what it finds."""


class FilesReplaced(StorageFailed):
    """What this process writes would not be found by the next one: nothing may leave any more (rule 8)."""

    def __init__(
        self, path: Path, what: str, fate: Fate, mark: int | None = None, directory: int | None = None
    ) -> None:
        """`path`: the store's file; `what`: what happened to it, for people, to be read after its name.

        `mark`: what the database bears that has all that was written, wherever it is; `directory`: a descriptor of
        the one in which the files were opened.
        """
        if fate is Fate.WHOLE:
            kept = "everything that this node wrote is in it: start the node again, alone"
        elif mark is not None:
            kept = (
                "everything that this node wrote is in the database that it had open: see that it has its name again, "
                "and nothing older, before the node starts"
            )
        else:
            kept = "it may have lost what this node wrote: the next start asks peers and towers for it"
        super().__init__(
            f"the store {path}{what} while it was in use, so nothing is signed on it any more; {kept}. "
            "One node at a time may write here, and no copy, move or removal may touch these files while it runs"
        )
        self.path = path
        self.fate = fate
        self.mark = mark
        self.directory = directory


class DirectoryInUse(StoreError):
    """Another process holds the lock of the data directory."""


class WrongNetwork(StoreError):
    """The store holds channels of another network."""


class UnknownSchema(StoreError):
    """The store was written by a newer version of perund."""
