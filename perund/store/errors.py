"""The store's errors.

* `StoreError(PerundError)`
    * `StorageFailed`: a write failed. Nothing is signed any more; the process ends (rule 8).
    * `DirectoryInUse`: another process runs on this data directory.
    * `WrongNetwork`: the channels in this store belong to another network.
    * `UnknownSchema`: a newer perund wrote this store.
"""

from __future__ import annotations

from protocol.errors import PerundError

__all__ = ["DirectoryInUse", "StorageFailed", "StoreError", "UnknownSchema", "WrongNetwork"]


class StoreError(PerundError):
    """Base of what can be wrong with the store."""


class StorageFailed(StoreError):
    """A write did not reach the disk. The node stops signing and exits; the watcher goes on (rule 8)."""


class DirectoryInUse(StoreError):
    """Another process holds the lock of the data directory."""


class WrongNetwork(StoreError):
    """The store holds channels of another network."""


class UnknownSchema(StoreError):
    """The store was written by a newer version of perund."""
