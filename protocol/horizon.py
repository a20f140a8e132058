"""One look at every quiet channel at once.

A canister that keeps a log of registrations answers for all channels in one reply: whatever is not in the log is
registered nowhere. So the work of watching does not grow with the number of channels that nothing happens in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from protocol.types import Nanos

__all__ = ["Horizon"]

NEVER_NS: Final = Nanos(0)


@dataclass(slots=True)
class Horizon:
    """Since when it is certified that nothing is registered in any channel but those whose own looks show it.

    `asked_ns`: local elapsed time when the first request of the newest complete sweep of the log was signed; None
    before the first. Whoever sweeps moves it, and only after every registration in the sweep was brought to its
    channel (rule 4 rests on that order).
    """

    asked_ns: int | None = None
    chain_ns: Nanos = NEVER_NS
    """The certificate's time of that answer."""

    def move(self, asked_ns: int, chain_ns: Nanos) -> None:
        """Take a newer sweep; an older one changes nothing."""
        if self.asked_ns is None or asked_ns > self.asked_ns:
            self.asked_ns, self.chain_ns = asked_ns, chain_ns
