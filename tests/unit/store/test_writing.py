"""Group commit: what waits together shares a transaction, and nobody is told before it is on the disk."""

from __future__ import annotations

import asyncio

import pytest

from perund.store.errors import End, StorageFailed
from perund.store.writer import Statement
from protocol.effects import EventRecord, SignatureRecord
from protocol.types import State
from tests.unit.store.books import Books, signature_of, terms_of


def event(number: int) -> EventRecord:
    return EventRecord("test.happened", None, {"number": number})


async def test_units_of_one_moment_share_a_transaction(books: Books) -> None:
    await books.store.write([event(0)])
    before = books.store.transactions
    told: list[int] = []
    for number in range(500):
        books.store.commit([event(number)], lambda n=number: told.append(n))  # type: ignore[misc]
    await books.store.write(())

    assert told == list(range(500))  # in the order of the commits
    assert books.store.transactions - before < 50
    assert len(books.store.read.events(0, 1000)) == 501


async def test_nobody_is_told_before_it_would_survive_a_power_cut(books: Books) -> None:
    found: list[tuple[int, int]] = []

    def durable(number: int) -> None:
        newest = books.as_after_a_power_cut().events(0, 1000)[-1]
        assert isinstance(newest.data["number"], int)
        found.append((number, newest.data["number"]))

    for number in range(20):
        books.store.commit([event(number)], lambda n=number: durable(n))  # type: ignore[misc]
    await books.store.write(())

    assert [number for number, _ in found] == list(range(20))
    assert all(on_disk >= number for number, on_disk in found)


async def test_listeners_hear_of_events_when_they_are_durable_with_the_cursors_of_the_disk(books: Books) -> None:
    heard: list[tuple[int, bool]] = []
    books.store.listen(
        lambda rows: heard.extend((row.cursor, row in books.store.read.events(row.cursor - 1, 1)) for row in rows)
    )
    await books.store.write([event(1), event(2)])
    books.reopen()
    books.store.listen(lambda rows: heard.extend((row.cursor, True) for row in rows))
    await books.store.write([event(3)])

    assert heard == [(1, True), (2, True), (3, True)]


async def test_a_unit_that_fails_takes_nothing_with_it_and_ends_the_writing(books: Books) -> None:
    terms = await books.add(terms_of())
    told: list[str] = []
    broken = Statement("INSERT INTO no_such_table VALUES (1)")
    books.store.commit([event(1), broken], lambda: told.append("told"))
    with pytest.raises(StorageFailed, match="no_such_table"):
        await books.store.write([event(2)])

    assert [str(failure) for failure in books.failures] == ["a write to the store failed: no such table: no_such_table"]
    assert told == []
    assert books.as_after_a_power_cut().events(0, 10) == []
    # Rule 8: nothing is written any more, so nothing can be signed any more either.
    state = State(terms.channel, 1, (999, 501), finalized=False)
    with pytest.raises(StorageFailed):
        books.store.commit([signature_of(state)])
    with pytest.raises(StorageFailed):
        await books.store.write(())


async def test_each_unit_has_an_end_that_can_be_asked_for(books: Books) -> None:
    store = books.store
    written = store.commit([event(1)])
    assert store.end_of(written) is End.UNKNOWN, "on its way"
    await store.write(())
    broken = store.commit([event(2), Statement("INSERT INTO no_such_table VALUES (1)")])
    behind = store.commit([event(3)])
    with pytest.raises(StorageFailed):
        await store.write(())

    assert [store.end_of(unit) for unit in (0, written, broken, behind)] == [
        End.WRITTEN,
        End.WRITTEN,
        End.NOT_WRITTEN,
        End.NOT_WRITTEN,
    ]
    assert [row.data["number"] for row in books.as_after_a_power_cut().events(0, 10)] == [1]


async def test_the_end_of_a_unit_that_close_writes_is_known(books: Books) -> None:
    unit = books.store.commit([event(1)])
    books.store.close()
    assert books.store.end_of(unit) is End.WRITTEN


async def test_everybody_who_waits_hears_of_a_failure(books: Books) -> None:
    """Also for a value that SQLite cannot hold: a writer that ends silently would have them wait for ever."""
    too_large = Statement("INSERT INTO cost(number, what, amount) VALUES (NULL, 'x', ?)", (2**63,))
    waiting = [asyncio.ensure_future(books.store.write([record])) for record in (event(1), too_large, event(2))]
    ends = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)

    assert any(isinstance(end, StorageFailed) for end in ends)
    assert all(end is None or isinstance(end, StorageFailed) for end in ends)
    assert len(books.failures) == 1


async def test_a_defect_in_one_follow_up_does_not_keep_the_others_from_theirs(books: Books) -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))

    def defect() -> None:
        raise RuntimeError("a defect")

    books.store.commit([event(1)], defect)
    await asyncio.wait_for(books.store.write([event(2)]), 5)

    assert [str(error) for error in reported] == ["a defect"]


async def test_close_writes_what_is_queued_and_refuses_what_comes_later(books: Books) -> None:
    for number in range(100):
        books.store.commit([event(number)])
    books.store.close()

    assert len(books.as_after_a_power_cut().events(0, 1000)) == 100
    with pytest.raises(StorageFailed, match="closed"):
        await asyncio.wait_for(books.store.write([event(1)]), 5)
    assert books.failures == []


async def test_a_waiter_that_gave_up_is_no_failure(books: Books) -> None:
    waiting = asyncio.ensure_future(books.store.write([event(1)]))
    await asyncio.sleep(0)
    waiting.cancel()
    await books.store.write([event(2)])

    assert len(books.store.read.events(0, 10)) == 2
    assert books.failures == []


# --- rule 1 -----------------------------------------------------------------------------------------------


async def signed_up_to(books: Books, *states: State) -> None:
    await books.store.write([signature_of(state) for state in states])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((3, (990, 510), False), (3, (989, 511), False)),
        ((3, (990, 510), False), (2, (995, 505), False)),
        ((3, (990, 510), True), (4, (990, 510), False)),
        ((3, (990, 510), True), (4, (990, 510), True)),
        ((3, (990, 510), False), (3, (990, 510), True)),
    ],
    ids=["another content", "a lower version", "after a final state", "a second final state", "the same, now final"],
)
async def test_the_disk_refuses_a_signature_that_breaks_rule_1(
    books: Books, first: tuple[int, tuple[int, int], bool], second: tuple[int, tuple[int, int], bool]
) -> None:
    channel = (await books.add(terms_of())).channel
    await signed_up_to(books, State(channel, *first))
    with pytest.raises(StorageFailed, match="rule 1"):
        await signed_up_to(books, State(channel, *second))

    kept = books.row().memory.last_signature
    assert kept == signature_of(State(channel, *first))
    assert len(books.failures) == 1
    with pytest.raises(StorageFailed):
        await signed_up_to(books, State(channel, 9, (980, 520), finalized=False))


async def test_the_disk_refuses_it_also_within_one_transaction_and_after_a_restart(books: Books) -> None:
    channel = (await books.add(terms_of())).channel
    await signed_up_to(books, State(channel, 1, (990, 510), finalized=False))
    books.reopen()
    books.store.name(channel, 1)
    two = State(channel, 2, (980, 520), finalized=False)
    other_two = State(channel, 2, (970, 530), finalized=False)
    with pytest.raises(StorageFailed, match="rule 1"):
        await signed_up_to(books, two, other_two)

    assert books.row().memory.last_signature == SignatureRecord(
        channel, 1, State(channel, 1, (990, 510), finalized=False).digest, finalized=False
    )


async def test_the_same_signature_again_is_no_second_one(books: Books) -> None:
    channel = (await books.add(terms_of())).channel
    state = State(channel, 1, (990, 510), finalized=True)
    await signed_up_to(books, state, state)
    await signed_up_to(books, state)

    assert books.failures == []
