"""Payments in the store: what a user is told about each, and what the machine is told about ids."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perund.store.schema import MIGRATIONS, migrate
from perund.store.statements import COLUMNS_FROM
from perund.store.writer import Statement
from protocol.effects import (
    CountedRecord,
    PaymentsEndedRecord,
    PaymentsOfferedRecord,
    PaymentsQueuedRecord,
    PeerHoldsRecord,
    StateRecord,
    UpdateRecord,
)
from protocol.messages import Update
from protocol.payments import EMPTY, Batch, Payment
from protocol.types import ChannelId, ParticipantIndex
from tests.unit.store.books import Books, batch, payment, signed, terms_of


def update(channel: ChannelId, version: int, from_0: Batch = EMPTY, from_1: Batch = EMPTY) -> UpdateRecord:
    return UpdateRecord(Update(channel, version, (1000, 500), False, from_0, from_1, b"\x01" * 64))


def agreed(
    channel: ChannelId, version: int, from_0: Batch = EMPTY, from_1: Batch = EMPTY, *, counts: bool = False
) -> StateRecord:
    return StateRecord(signed(channel, version, 1000, 500), from_0, from_1, counts=counts)


def ended(channel: ChannelId, sender: ParticipantIndex, status: str, *numbers: int) -> PaymentsEndedRecord:
    return PaymentsEndedRecord(channel, sender, b"".join(payment(n).id for n in numbers), status, "because")


async def test_a_batch_in_columns_and_one_row_by_row_are_equal_in_the_store(books: Books) -> None:
    channel = (await books.add(terms_of())).channel
    numbers = range(1, COLUMNS_FROM + 3)
    with_memo = Batch.of([payment(n, n * 10**15, b"memo" if n == 2 else b"") for n in numbers])
    without = Batch(with_memo.ids, with_memo.amounts_e8s)
    other = (await books.add(terms_of(2), 2)).channel
    await books.store.write([PaymentsQueuedRecord(channel, 0, with_memo, offered=False)])
    await books.store.write([PaymentsQueuedRecord(other, 0, without, offered=False)])

    by_row, by_column = ([row for _, row in books.store.read.payments(n, (0, -1, b""), 99)] for n in (1, 2))
    assert [p.payment.memo for p in by_row] == [b"", b"memo", *[b""] * COLUMNS_FROM]
    assert [(p.payment.id, p.payment.amount_e8s, p.status) for p in by_row] == [
        (p.payment.id, p.payment.amount_e8s, p.status) for p in by_column
    ]
    assert books.row(1).memory.queued == with_memo
    assert books.row(2).memory.queued == without


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.binary(min_size=16, max_size=16), st.integers(1, 2**63 - 1)), min_size=1, max_size=20,
        unique_by=lambda pair: pair[0],
    ),
    st.sets(st.integers(0, 19)),
)  # fmt: skip
async def test_any_batch_comes_back_sorted_by_id(
    books: Books, pairs: list[tuple[bytes, int]], with_memo: set[int]
) -> None:
    payments = [Payment(i, amount, b"\x00\xff" if n in with_memo else b"") for n, (i, amount) in enumerate(pairs)]
    if books.store.read.channel(1) is None:
        await books.add(terms_of())
    await books.store.write([Statement("DELETE FROM payment")])
    await books.store.write([PaymentsQueuedRecord(terms_of().channel, 0, Batch.of(payments), offered=True)])
    assert list(books.row().memory.offered) == sorted(payments)


async def test_our_payment_as_participant_0(books: Books) -> None:
    channel = (await books.add(terms_of(ours=0))).channel
    store = books.store
    await store.write([PaymentsQueuedRecord(channel, 0, batch(1), offered=False)])
    assert books.status(1) == "queued"
    await store.write([update(channel, 1, batch(1))])
    assert books.status(1) == "signed"
    await store.write([agreed(channel, 1)])
    assert books.status(1) == "signed"  # delivered when the peer has shown that it holds the state
    await store.write([PeerHoldsRecord(channel, 1)])
    assert books.status(1) == "delivered"


async def test_our_payment_as_participant_1(books: Books) -> None:
    channel = (await books.add(terms_of(ours=1))).channel
    store = books.store
    await store.write([PaymentsQueuedRecord(channel, 1, batch(1, 2), offered=False)])
    await store.write([PaymentsOfferedRecord(channel, 1)])
    assert books.status(1, 1) == "offered"
    await store.write([agreed(channel, 1, from_1=batch(1))])
    assert (books.status(1, 1), books.status(2, 1)) == ("signed", "offered")
    await store.write([PeerHoldsRecord(channel, 1), ended(channel, 1, "declined", 2)])
    assert (books.status(1, 1), books.status(2, 1)) == ("delivered", "declined")


@pytest.mark.parametrize("status", ["failed", "cancelled", "declined", "unknown"])
async def test_payments_that_ended(books: Books, status: str) -> None:
    channel = (await books.add(terms_of())).channel
    await books.store.write([PaymentsQueuedRecord(channel, 0, batch(1), offered=False)])
    await books.store.write([ended(channel, 0, status, 1)])
    row = books.store.read.payment(1, 0, payment(1).id)
    assert row is not None
    assert (row.status, row.code, row.version, row.ours) == (status, "because", None, True)
    assert books.row().memory.queued == EMPTY


async def test_one_that_was_signed_and_settled_without_it_failed(books: Books) -> None:
    channel = (await books.add(terms_of())).channel
    await books.store.write([update(channel, 1, batch(1))])
    await books.store.write([ended(channel, 0, "failed", 1)])
    assert books.status(1) == "failed"


async def test_a_payment_of_the_peer(books: Books) -> None:
    channel = (await books.add(terms_of(ours=0))).channel
    await books.store.write([update(channel, 1, from_1=batch(1))])
    assert books.status(1, 1) == "signed"  # not received before the state is fully signed (rule 4)
    await books.store.write([agreed(channel, 1)])
    assert books.status(1, 1) == "signed"  # nor before a fresh look showed nothing registered
    memory = books.row().memory
    assert (memory.counted, memory.uncounted_sent, memory.uncounted_received) == (0, EMPTY, batch(1))
    await books.store.write([CountedRecord(channel, 1)])
    assert books.status(1, 1) == "delivered"
    memory = books.row().memory
    assert (memory.counted, memory.uncounted_sent, memory.uncounted_received) == (1, EMPTY, EMPTY)
    row = books.store.read.payment(1, 1, payment(1).id)
    assert row is not None
    assert not row.ours


@pytest.mark.parametrize("sender", [0, 1])
async def test_our_pending_update_counts_when_it_is_the_one_settled(books: Books, sender: ParticipantIndex) -> None:
    """DESIGN, section 8: the peer never acknowledged it, and settled on it. Both directions are paid then."""
    channel = (await books.add(terms_of(ours=0))).channel
    await books.store.write([update(channel, 1, batch(1), batch(1))])
    assert books.status(1, sender) == "signed"
    await books.store.write([Statement("UPDATE channel_state SET settled_version = 1")])
    assert books.status(1, sender) == "delivered"


@pytest.mark.parametrize("ours", [0, 1])
@pytest.mark.parametrize("sender", [0, 1])
async def test_what_the_settlement_leaves_out_failed_whatever_was_believed_before(
    books: Books, ours: ParticipantIndex, sender: ParticipantIndex
) -> None:
    channel = (await books.add(terms_of(ours=ours))).channel
    await books.store.write([agreed(channel, 1, batch(1), batch(1), counts=True)])
    await books.store.write([agreed(channel, 2, batch(2), batch(2), counts=True), PeerHoldsRecord(channel, 2)])
    assert [books.status(n, sender) for n in (1, 2)] == ["delivered", "delivered"]
    await books.store.write([Statement("UPDATE channel_state SET settled_version = 1")])
    assert [books.status(n, sender) for n in (1, 2)] == ["delivered", "failed"]
    row = books.store.read.payment(1, sender, payment(2).id)
    assert row is not None
    assert row.code == "settled_without_it"


async def test_a_store_of_before_keeps_what_it_counted_but_where_a_state_is_registered(tmp_path: Path) -> None:
    database = apsw.Connection(str(tmp_path / "perund.db"))
    migrate(database, MIGRATIONS[:4])
    for number in (1, 2):
        database.execute(
            "INSERT INTO channel_state(number, phase, since_ns, force_after_ns, version, allocation_0, allocation_1, "
            "finalized, signature_0, signature_1, signed_version, signed_digest, signed_final) "
            "VALUES (?, 'open', 0, 0, 5, 1, 1, 0, x'', x'', 5, x'', 0)",
            (number,),
        )
    database.execute("INSERT INTO registered VALUES (2, 0, 1, 1, 0, 9)")
    migrate(database, MIGRATIONS)
    assert database.execute("SELECT counted FROM channel_state ORDER BY number").fetchall() == [(5,), (0,)]


async def test_what_went_straight_into_an_update_is_not_queued_by_a_record_that_comes_later(books: Books) -> None:
    channel = (await books.add(terms_of())).channel
    await books.store.write([update(channel, 1, batch(1))])
    await books.store.write([PaymentsQueuedRecord(channel, 0, batch(1), offered=False)])
    assert books.status(1) == "signed"
    assert books.row().memory.queued == EMPTY


async def test_sender_and_channel_are_part_of_what_a_payment_is(books: Books) -> None:
    channel = (await books.add(terms_of())).channel
    other = (await books.add(terms_of(2), 2)).channel
    await books.store.write([PaymentsQueuedRecord(channel, 0, batch(1), offered=False), agreed(other, 1, from_1=batch(1), counts=True)])  # fmt: skip  # noqa: E501
    assert books.status(1, 0, 1) == "queued"
    assert books.status(1, 1, 1) == "absent"
    assert books.status(1, 1, 2) == "delivered"


# --- known ids --------------------------------------------------------------------------------------------


async def test_ids_are_known_once_they_were_in_an_update_or_declined(books: Books) -> None:
    channel = (await books.add(terms_of())).channel
    await books.store.write([update(channel, 1, from_1=batch(1)), ended(channel, 1, "declined", 2)])
    asked = batch(1, 2, 3)
    expected = {payment(1).id: "included", payment(2).id: "declined"}
    assert books.store.known(channel, 1, asked) == expected
    assert books.store.known(channel, 0, asked) == {}
    books.reopen()
    books.store.name(channel, 1)
    assert books.store.known(channel, 1, asked) == expected


async def test_ids_are_known_from_the_moment_their_record_is_on_its_way(books: Books) -> None:
    """Between the decision and the disk a peer can ask once more: neither twice included, nor declined and included."""
    channel = (await books.add(terms_of())).channel
    asked = batch(1, 2, 3)
    books.store.commit([update(channel, 1, from_1=batch(1))])
    books.store.commit([ended(channel, 1, "declined", 2)])
    expected = {payment(1).id: "included", payment(2).id: "declined"}
    assert books.store.known(channel, 1, asked) == expected
    await books.store.write(())
    assert books.store.known(channel, 1, asked) == expected
    assert books.store._unwritten == []


async def test_a_declined_offer_is_no_payment_of_the_list(books: Books) -> None:
    channel = (await books.add(terms_of())).channel
    await books.store.write([ended(channel, 1, "declined", 1)])
    assert books.store.read.payments(None, (0, -1, b""), 9) == []
    assert books.row().memory.highest_peer_id == payment(1).id


# --- pages ------------------------------------------------------------------------------------------------


async def test_payments_in_pages_of_one_channel_and_of_all(books: Books) -> None:
    for number in (1, 2, 3):
        channel = (await books.add(terms_of(number), number)).channel
        await books.store.write([agreed(channel, 1, batch(1, 2, 256), batch(3))])

    def pages(number: int | None, limit: int) -> list[tuple[int, int, int]]:
        found: list[tuple[int, int, int]] = []
        after = (0, -1, b"")
        while page := books.store.read.payments(number, after, limit):
            after = page[-1][0]
            found += [(n, sender, int.from_bytes(i, "big")) for (n, sender, i), _ in page]
        return found

    of_one = [(0, 1), (0, 2), (0, 256), (1, 3)]
    for limit in (1, 2, 3, 100):
        assert pages(None, limit) == [(n, *rest) for n in (1, 2, 3) for rest in of_one]
        assert pages(2, limit) == [(2, *rest) for rest in of_one]
        assert pages(4, limit) == []
    assert books.store.read.payments(2, (3, 0, b""), 9) == []
    for number in (1, 2, 256):  # an id that ends in zero, and the one before it
        row = books.store.read.payment(2, 0, payment(number).id)
        assert row is not None
        assert row.payment == payment(number, 10 + number)
    assert books.store.read.payment(2, 0, payment(255).id) is None


async def test_a_page_of_one_channel_reads_that_channel_only(books: Books) -> None:
    """With millions of payments in others, listing those of a channel must not read them."""
    seen: list[str] = []

    def trace(_cursor: apsw.Cursor, sql: str, _values: object) -> bool:
        seen.append(sql)
        return True

    books.store.read._database.exec_trace = trace
    books.store.read.payments(7, (0, -1, b""), 5)
    books.store.read._database.exec_trace = None
    plan = books.store.read._rows(f"EXPLAIN QUERY PLAN {seen[0]}", (7, -1, b"", 5))
    assert any("SEARCH p USING PRIMARY KEY (number=?" in str(row[3]) for row in plan), plan
