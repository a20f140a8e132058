"""The watcher's errors: what it can run into that is neither the network's nor the store's.

* `WatchError(PerundError)`
    * `NoAnswerInTime`: no certified answer came while it would have been of use. Unknown, never 'nothing'.
    * `OnlyShown`: an answer came, and what it shows is not proven: a hint, no more.
    * `StrangeLog`: a certified page of the log of registrations contradicts itself or an earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping

from protocol.errors import PerundError
from protocol.types import ChannelId, RegisteredState

__all__ = ["NoAnswerInTime", "OnlyShown", "StrangeLog", "WatchError"]


class WatchError(PerundError):
    """Base of what the watcher raises."""


class NoAnswerInTime(WatchError):
    """No certified answer came in the time in which it would have been of use."""


class OnlyShown(WatchError):
    """An answer without a proof. `registered`: the states that it shows, by channel."""

    def __init__(self, error: str, registered: Mapping[ChannelId, RegisteredState]) -> None:
        super().__init__(error)
        self.registered = registered


class StrangeLog(WatchError):
    """The canister's log of registrations cannot be what it shows; its channels are looked at one by one instead."""
