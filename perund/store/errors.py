"""The store's errors.

* `StoreError(PerundError)`
    * `StorageFailed`: a write failed. Nothing is signed any more; the process ends (rule 8).
        * `StoreDamaged`: what is on the disk is not what was written. The process ends, and does not start on it again.
    * `DirectoryInUse`: another process runs on this data directory.
    * `WrongNetwork`: the channels in this store belong to another network.
    * `UnknownSchema`: a newer perund wrote this store.
"""

from __future__ import annotations

from pathlib import Path

from protocol.errors import PerundError

__all__ = ["DirectoryInUse", "StorageFailed", "StoreDamaged", "StoreError", "UnknownSchema", "WrongNetwork"]


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


class DirectoryInUse(StoreError):
    """Another process holds the lock of the data directory."""


class WrongNetwork(StoreError):
    """The store holds channels of another network."""


class UnknownSchema(StoreError):
    """The store was written by a newer version of perund."""
