"""Events that a peer can cause by talking: the first are told, then ever fewer, with a count.

Such an event is a row, a line, and for some an alarm that wakes somebody. What a peer says again is no news; and
history is kept up to a number of events, so noise would push out what matters.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from perund.repeats import Repeats
from protocol.effects import EventRecord, Record, Step

__all__ = ["PEER_CAUSED", "Noise"]

NS: Final = 1_000_000_000
PEER_CAUSED: Final = frozenset(
    {
        "peer.complained",
        "channel.replayed_payment",
        "channel.peer_claims_newer",
        "channel.peer_is_behind",
        "tower.claims_newer",
        "tower.conflict",
    }
)
"""Kinds that cost whoever causes them nothing."""
AT_ONCE: Final = 5
FIRST_PAUSE_S: Final = 60
LONGEST_PAUSE_S: Final = 86_400
"""Of one kind and channel at most 16 on the first day, and one on each day after it."""


class Noise:
    """Bounds these events, for all channels together: kind and channel are what it goes by."""

    def __init__(self) -> None:
        self._repeats = Repeats(AT_ONCE, FIRST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S)

    def quiet(self, step: Step, elapsed_ns: int) -> Step:
        """Return the step without the events that are not to be told now."""
        for record in step.durable:
            if isinstance(record, EventRecord) and record.kind in PEER_CAUSED:
                break
        else:
            return step
        told = (self._told(record, elapsed_ns) for record in step.durable)
        return Step(tuple(record for record in told if record is not None), step.outgoing)

    def _told(self, record: Record, elapsed_ns: int) -> Record | None:
        return self.event(record, elapsed_ns) if isinstance(record, EventRecord) else record

    def event(self, record: EventRecord, elapsed_ns: int) -> EventRecord | None:
        """Return the event, with how many like it were not told before, or None when it is not told either."""
        if record.kind not in PEER_CAUSED:
            return record
        repeated = self._repeats.take((record.kind, record.channel), elapsed_ns / NS, record)
        if repeated is None:
            return None
        return replace(record, data={**record.data, "repeated": repeated}) if repeated else record

    def overdue(self, elapsed_ns: int) -> list[EventRecord]:
        """Return the newest event, with a count, of each kind and channel that came again untold and is quiet."""
        found = []
        for _, repeated, newest in self._repeats.overdue(elapsed_ns / NS):
            assert isinstance(newest, EventRecord)
            # The others were told already: whoever is woken by such an event was.
            facts = {key: value for key, value in newest.data.items() if key != "alarm"}
            found.append(replace(newest, data={**facts, "repeated": repeated - 1} if repeated > 1 else facts))
        return found
