"""What `perund watch` says of what it sees: in the log, and as alarms.

The node's own channels judge what is registered as well; this judges what can be judged without them. Implements
`watcher.ports.Reports` and `Notices`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import structlog

from perund.watching.alarms import Alarms
from protocol.types import ChannelId
from watcher.ports import CertifiedLook, States

__all__ = ["Reporter"]

log = structlog.get_logger()

MOST_TOLD: Final = 10_000


class Reporter:
    """Rings for what somebody must hear of. `wrong`: whether anything was not as it should be since the start."""

    def __init__(self, states: States, alarms: Alarms) -> None:
        self._states = states
        self._alarms = alarms
        self._told: dict[tuple[str, ChannelId, int], None] = {}
        self.wrong = False

    def looked(self, channel: ChannelId, look: CertifiedLook) -> None:
        """Compare whole states: what the canister has with what the store has (DESIGN, section 8)."""
        if look.registered is None:
            return
        known = self._states.newest(channel)
        if known is None:
            return
        theirs, ours = look.registered.state, known[1].state
        facts = {"registered": theirs.version, "ours": ours.version}
        if theirs.version == ours.version and theirs.digest != ours.digest:
            self._once("channel.conflicting_state_registered", channel, facts)
        elif theirs.version < ours.version and look.registered.settled(look.chain_ns):
            self._once("channel.settled_below_ours", channel, facts)
        elif theirs.version > ours.version and self._first("newer", channel, theirs.version):
            # The node may just have signed it: only its channel can say whether that is news.
            log.warning("watch.newer_registered", channel=channel.hex(), **facts)

    def look_failed(self, channel: ChannelId, error: str) -> None:
        """No answer is no news."""
        self.wrong = True
        log.warning("watcher.look_failed", channel=channel.hex(), error=error)

    def refuting(self, channel: ChannelId, registered: int, ours: int) -> None:
        """A version below ours is registered."""
        self.wrong = True
        self._alarms.ring("channel.refuting", channel.hex(), {"registered": registered, "ours": ours})

    def refuted(self, channel: ChannelId, ours: int) -> None:
        """A look shows our version."""
        log.warning("channel.refuted", channel=channel.hex(), version=ours)
        self._alarms.ended("channel.refuted", channel.hex())

    def noticed(self, kind: str, channel: ChannelId | None, facts: Mapping[str, str | int | bool]) -> None:
        """Something about the watching itself."""
        shown = channel.hex() if channel is not None else None
        self._alarms.ended(kind, shown)
        if facts.get("alarm") is True:
            self.wrong = True
            self._alarms.ring(kind, shown, facts)
        else:
            log.warning(kind, channel=shown, **facts)

    def _once(self, kind: str, channel: ChannelId, facts: Mapping[str, int]) -> None:
        self.wrong = True
        if self._first(kind, channel, facts["registered"]):
            self._alarms.ring(kind, channel.hex(), facts)

    def _first(self, kind: str, channel: ChannelId, version: int) -> bool:
        """Whether this was not said before. What is forgotten for room is said again."""
        if (kind, channel, version) in self._told:
            return False
        self._told[kind, channel, version] = None
        if len(self._told) > MOST_TOLD:
            del self._told[next(iter(self._told))]
        return True
