"""Logs whose pages are bounded and whose indices stay."""

from __future__ import annotations

from devnet.perun.interface import Concluded, Funded
from devnet.perun.journal import MAX_DISPUTES_PAGE, MAX_EVENTS_KEPT, MAX_EVENTS_PAGE, DisputeLog, EventLog


def test_a_reader_of_the_log_of_disputes_sees_every_channel_however_they_move() -> None:
    log = DisputeLog()
    channels = [n.to_bytes(4, "big") for n in range(2 * MAX_DISPUTES_PAGE + 5)]
    for channel in channels:
        log.move_to_end(channel)
    page = log.page(0, 2**32 - 1)
    assert len(page) == MAX_DISPUTES_PAGE
    for channel in channels[:10] * 700:  # the log cleans up behind itself
        log.move_to_end(channel)
    seen = {channel for _, channel in page}
    while page := log.page(page[-1][0] + 1, 2**32 - 1):
        seen |= {channel for _, channel in page}
    assert seen == set(channels)
    assert len(log.entries()) == len(channels)
    assert log.head == len(channels) + 7_000


def test_a_saved_log_of_disputes_goes_on_where_it_was() -> None:
    log = DisputeLog()
    for channel in (b"a", b"b", b"a", b"c"):
        log.move_to_end(channel)
    again = DisputeLog(log.entries(), log.head)
    assert again.page(0, 10) == log.page(0, 10) == [(1, b"b"), (2, b"a"), (3, b"c")]
    again.move_to_end(b"b")
    assert again.page(3, 10) == [(3, b"c"), (4, b"b")]


def test_the_oldest_events_go_when_there_are_too_many_and_indices_stay() -> None:
    log = EventLog()
    for n in range(MAX_EVENTS_KEPT + 7):
        log = log.appended(Funded(b"who", n))
    assert log.page(MAX_EVENTS_KEPT) == tuple(Funded(b"who", MAX_EVENTS_KEPT + n) for n in range(7))
    assert log.page(0) == tuple(Funded(b"who", 7 + n) for n in range(MAX_EVENTS_PAGE))


def test_since_its_conclusion() -> None:
    log = EventLog().appended(Funded(b"who", 1)).appended(Concluded()).appended(Funded(b"who", 2))
    assert log.since_conclusion() == EventLog(1, (Concluded(), Funded(b"who", 2)))
    assert log.since_conclusion().since_conclusion() == log.since_conclusion()
