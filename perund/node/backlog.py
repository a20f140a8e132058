"""What a session made this node write that is not on the disk yet: bounded, by not reading the session further."""

from __future__ import annotations

from typing import Final, Protocol

from perund.store.store import Store

__all__ = ["Backlog", "Flow"]

MOST_UNWRITTEN: Final = 64.0
"""Units of work. A session that goes by the protocol has a few: an update waits for its acknowledgement."""
UNIT_S: Final = 0.032
"""A message that costs so many seconds of its sender's rate weighs as much as one unit more: see `effort`."""


class Flow(Protocol):
    """The part of a session that can be slowed down."""

    def hold(self) -> None:
        """Read nothing more."""
        ...

    def release(self) -> None:
        """Read on."""
        ...


class Backlog:
    """Of one session. Every so much work it is read on only when all of that is durable."""

    def __init__(self, session: Flow, store: Store) -> None:
        self._session = session
        self._store = store
        self._units = 0.0
        self._held = False

    def grew(self, effort: float) -> None:
        """Take note that a message was handled that made us write. `effort`: what it was charged with."""
        self._units += 1 + effort / UNIT_S
        if self._units >= MOST_UNWRITTEN and not self._held:
            self._held = True
            self._session.hold()
            self._store.commit((), self._written)

    def _written(self) -> None:
        self._units, self._held = 0.0, False
        self._session.release()
