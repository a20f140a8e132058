"""The watcher's errors: what it can run into that is neither the network's nor the store's.

* `WatchError(PerundError)`
    * `NoAnswerInTime`: no certified answer came while it would have been of use. Unknown, never 'nothing'.
    * `StrangeLog`: a certified page of the log of registrations contradicts itself or an earlier one.
"""

from __future__ import annotations

from protocol.errors import PerundError

__all__ = ["NoAnswerInTime", "StrangeLog", "WatchError"]


class WatchError(PerundError):
    """Base of what the watcher raises."""


class NoAnswerInTime(WatchError):
    """No certified answer came in the time in which it would have been of use."""


class StrangeLog(WatchError):
    """The canister's log of registrations cannot be what it shows; its channels are looked at one by one instead."""
