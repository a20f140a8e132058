"""Asks one watchtower for what this node may have lost: the newest states of channels that recover (rule 7).

Only a tower that says that it answers is asked: an older one would end the session over the question. One that
does not answer is asked again after a pause that doubles, so the deliveries to it go on.
"""

from __future__ import annotations

from typing import Final, Protocol

import structlog

from protocol.messages import FEATURE_RECALL, TowerHeld, TowerRecall, TowerRefusal
from protocol.types import ChannelId, Params, SignedState

__all__ = ["NO_SLOT", "Recall", "Recovery"]

log = structlog.get_logger()

NS: Final = 1_000_000_000
NO_SLOT: Final = "no_slot"
"""The code of the only refusal that answers a `TowerRecall`, and nothing else."""
WINDOW: Final = 64
"""Recalls that a tower may leave unanswered."""
FIRST_PAUSE_S: Final = 5
LONGEST_PAUSE_S: Final = 600


class Recovery(Protocol):
    """What recalling needs of the node."""

    def newest(self, channel: ChannelId) -> tuple[Params, SignedState] | None:
        """Return the newest durable state, or None for a channel that is closed."""
        ...

    def recovering(self) -> list[ChannelId]:
        """Return the channels in which this node may have lost data."""
        ...

    def recalled(self, tower: bytes, held: TowerHeld) -> str | None:
        """Adopt what a tower holds if it is newer. Returns why it is nonsense, or None when it is none."""
        ...

    def answered(self, tower: bytes, channel: ChannelId) -> None:
        """Take note that a tower has given what it has of a channel, or cannot give anything."""
        ...


class Recall:
    """What is still to be asked of a tower, and what it was asked and has not answered."""

    def __init__(self, tower: bytes, recovery: Recovery) -> None:
        """`tower`: its node key, 33 bytes."""
        self._tower = tower
        self._recovery = recovery
        self._able: bool | None = None  # None: no session
        self._wanted: dict[ChannelId, None] = {}
        self._asked: dict[ChannelId, int] = {}  # when, in local time
        self._pause_s = FIRST_PAUSE_S
        self._not_before_ns = 0

    def want(self, channel: ChannelId) -> None:
        """Have a channel asked for, in this session or the next."""
        if self._able is False:
            self._recovery.answered(self._tower, channel)
        elif channel not in self._asked:
            self._wanted[channel] = None

    def busy(self, channel: ChannelId, now_ns: int) -> bool:
        """Whether a channel is about to be answered: an older state of ours need not be brought before."""
        return channel in self._asked or (channel in self._wanted and now_ns >= self._not_before_ns)

    def forget(self, channel: ChannelId) -> None:
        """A channel is closed."""
        self._wanted.pop(channel, None)
        self._asked.pop(channel, None)

    def give_up(self) -> None:
        """Ask nothing any more: the tower is used no more."""
        self._able = False
        self._wanted.clear()
        self._asked.clear()

    # --- sessions ----------------------------------------------------------------------------------------

    def session_began(self, features: int) -> None:
        """The tower is there: whatever recovers is asked for, also what it had nothing of in an earlier session."""
        self._want_again()
        self._able = bool(features & FEATURE_RECALL)
        wanted, self._wanted = {**self._wanted, **dict.fromkeys(self._recovery.recovering())}, {}
        if wanted and not self._able:
            log.warning("tower.cannot_recall", tower=self._tower.hex(), channels=len(wanted))
        for channel in wanted:
            self.want(channel)

    def session_ended(self, now_ns: int) -> None:
        """The session is over. If questions were open, they may be why: the next ones come later."""
        self._able = None
        if self._asked:
            self._want_again()
            self._not_before_ns = now_ns + self._pause_s * NS
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def _want_again(self) -> None:
        self._wanted = {**dict.fromkeys(self._asked), **self._wanted}
        self._asked.clear()

    # --- asking ------------------------------------------------------------------------------------------

    def next(self, now_ns: int) -> TowerRecall | None:
        """Return what to ask now, if anything."""
        if not self._able or not self._wanted or len(self._asked) >= WINDOW or now_ns < self._not_before_ns:
            return None
        channel = next(iter(self._wanted))
        del self._wanted[channel]
        self._asked[channel] = now_ns
        return TowerRecall(channel)

    def silent_since_ns(self) -> int | None:
        """Return when the oldest question was asked that is not answered (local time), or None."""
        return min(self._asked.values(), default=None)

    def received(self, answer: TowerHeld | TowerRefusal) -> str | None:
        """Take an answer. Returns why it is nonsense, or None when it is none."""
        channel = answer.channel
        if channel not in self._asked:
            closed = self._recovery.newest(channel) is None  # asked for before it was closed
            return None if closed else "it answered a recall that it was not sent"
        if isinstance(answer, TowerHeld):
            nonsense = self._recovery.recalled(self._tower, answer)
            if nonsense is not None:
                return nonsense
        del self._asked[channel]
        self._pause_s = FIRST_PAUSE_S
        self._recovery.answered(self._tower, channel)
        return None
