"""What others can have written is bounded, and what matters stays."""

from __future__ import annotations

import time

import pytest

from perund.store import store as store_module
from protocol.effects import DeclinesRecord, EventRecord, PaymentsEndedRecord
from protocol.payments import Batch
from tests.unit.store.books import Books, batch, payment, terms_of


def ids(*numbers: int) -> bytes:
    return b"".join(payment(number).id for number in numbers)


async def test_one_id_stands_for_many_that_were_declined(books: Books) -> None:
    terms = await books.add(terms_of())
    await books.store.write([PaymentsEndedRecord(terms.channel, 1, ids(*range(1, 200)), "declined", "no")])
    assert books.row().memory.declined == 199
    known = books.store.known(terms.channel, 1, Batch(ids(5, 500, 199), (1, 1, 1)))
    assert known == {payment(5).id: "declined", payment(199).id: "declined"}
    await books.store.write([DeclinesRecord(terms.channel, 1, payment(150).id)])
    books.reopen()
    memory = books.row().memory
    assert (memory.declined, memory.declined_up_to) == (49, payment(150).id)
    await books.store.write([DeclinesRecord(terms.channel, 1, payment(100).id)])
    assert books.row().memory.declined_up_to == payment(150).id, "it only rises"


async def test_payments_of_ours_that_were_declined_stay_in_the_list(books: Books) -> None:
    terms = await books.add(terms_of())
    await books.store.write([PaymentsEndedRecord(terms.channel, 1, ids(3), "declined", "no")])
    from protocol.effects import PaymentsQueuedRecord

    await books.store.write([PaymentsQueuedRecord(terms.channel, 0, batch(1, 2), offered=True)])
    await books.store.write([PaymentsEndedRecord(terms.channel, 0, ids(1), "declined", "no")])
    await books.store.write([DeclinesRecord(terms.channel, 1, payment(99).id)])
    assert books.status(1) == "declined"
    assert books.store.read.known_payments(1, 1, Batch(ids(3), (1,))) == {}


async def test_a_stream_of_states_pushes_out_no_other_event(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "KEPT_EVENTS", 200)
    monkeypatch.setattr(store_module, "FORGET_EVERY", 10)
    await books.add(terms_of())
    await books.store.write([EventRecord("channel.refuting", None, {"alarm": True})])
    for _ in range(100):
        await books.store.write([EventRecord("channel.updated", None, {"version": n}) for n in range(20)])
    found = books.store.read.events(0, 10_000)
    assert len(found) <= 212
    assert found[0].kind == "channel.refuting"
    assert found[-1].cursor == books.store.read.highest("event")
    books.reopen()
    found = books.store.read.events(0, 10_000)
    assert (found[0].kind, len(found) <= 212) == ("channel.refuting", True)
    await books.store.write([EventRecord("channel.open", None, {"n": n}) for n in range(300)])
    books.reopen()
    others = [event for event in books.store.read.events(0, 10_000) if event.kind != "channel.updated"]
    assert len(others) == 200


async def test_events_of_a_kind_are_found_without_looking_at_the_others(books: Books) -> None:
    await books.add(terms_of())
    books.store._writer.commit([])
    rare = [EventRecord("channel.open", None, {"n": n}) for n in range(3)]
    noise = [EventRecord(kind, None, {}) for _ in range(20_000) for kind in ("channel.updated", "peer.complained")]
    await books.store.write([rare[0], *noise, rare[1], *noise, rare[2]])
    read = books.store.read
    newest = read.highest("event")
    start = time.process_time()
    for _ in range(100):
        assert read.events_of(["never.comes"], 0, newest, 500) == []
        assert [event.data["n"] for event in read.events_of(["channel.open"], 1, newest, 500)] == [1, 2]
    assert time.process_time() - start < 0.5, "a hundred looks at 80,000 events"
    both = read.events_of(["channel.open", "channel.updated"], 0, 2_000, 500)
    assert len(both) == 500
    assert [event.cursor for event in both] == sorted(event.cursor for event in both)
    assert {event.kind for event in both} == {"channel.open", "channel.updated"}


async def test_a_store_of_before_is_read_as_it_is(books: Books) -> None:
    await books.add(terms_of())
    books.store.close()
    from perund.store.reading import open_reader
    from perund.store.store import connect

    database = connect(books.path)
    database.execute("ALTER TABLE channel_state DROP COLUMN declined_up_to")
    database.close()
    (row,) = open_reader(books.path).live_channels()
    assert (row.memory.declined, row.memory.declined_up_to) == (0, b"")
    books.store = store_module.Store(books.directory / "another.db", b"\x11" * 32, books.failures.append)
