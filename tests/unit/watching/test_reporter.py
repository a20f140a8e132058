"""What `perund watch` says of what it sees, without the channels that the node has."""

from __future__ import annotations

import pytest

from perund.watching.alarms import Alarms
from perund.watching.reporter import Reporter
from protocol.types import ChannelId, Nanos, Params, RegisteredState, SignedState
from tests.unit.store.books import signed, terms_of
from watcher.ports import CertifiedLook

TERMS = terms_of()
NOW = Nanos(10**18)


class Disk:
    """Implements `watcher.ports.States`: one channel, at version 5."""

    def newest(self, channel: ChannelId) -> tuple[Params, SignedState] | None:
        return (TERMS.params, signed(channel, 5, 995, 505)) if channel == TERMS.channel else None


def look(version: int, mine: int, *, left_ns: int = 10**9) -> CertifiedLook:
    state = signed(TERMS.channel, version, mine, 1500 - mine).state
    return CertifiedLook(RegisteredState(state, Nanos(NOW + left_ns)), 1, NOW)


def alarms_after(*looks: CertifiedLook) -> tuple[list[str], bool]:
    alarms = Alarms()
    reporter = Reporter(Disk(), alarms)
    for seen in looks:
        reporter.looked(TERMS.channel, seen)
    return [alarm.kind for alarm in alarms.current()], reporter.wrong


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (look(5, 995), []),
        (look(3, 997), []),  # it is being refuted: that is told by whoever does it
        (look(5, 996), ["channel.conflicting_state_registered"]),
        (look(3, 997, left_ns=0), ["channel.settled_below_ours"]),
        (look(6, 994), []),  # the node may just have signed it
        (CertifiedLook(None, 1, NOW), []),
    ],
)
def test_whole_states_are_compared(seen: CertifiedLook, expected: list[str]) -> None:
    assert alarms_after(seen, seen) == (expected, bool(expected))


def test_an_alarm_of_the_watcher_makes_a_round_wrong_and_its_end_is_heard() -> None:
    alarms = Alarms()
    reporter = Reporter(Disk(), alarms)
    reporter.noticed("watcher.sees", None, {"channels": 1})
    assert alarms.current() == []
    reporter.noticed("watcher.blind", None, {"channels": 1, "alarm": True})
    reporter.refuting(TERMS.channel, 3, 5)
    assert reporter.wrong
    assert {alarm.kind for alarm in alarms.current()} == {"watcher.blind", "channel.refuting"}
    reporter.noticed("watcher.sees", None, {"channels": 1})
    reporter.refuted(TERMS.channel, 5)
    assert alarms.current() == []


def test_a_look_that_fails_is_something_wrong() -> None:
    reporter = Reporter(Disk(), Alarms())
    reporter.look_failed(TERMS.channel, "no answer")
    assert reporter.wrong
