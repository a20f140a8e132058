"""A queue of payments is a list of payments, in columns."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import Undecodable
from protocol.messages import Offer, Update
from protocol.payments import EMPTY, Batch, Payment
from protocol.queue import PaymentQueue, room_of
from protocol.types import MAX_NAT64, ChannelId
from wire.codec import encode

CHANNEL = ChannelId(b"\xff" * 64)
amounts = st.integers(1, MAX_NAT64) | st.just(MAX_NAT64) | st.integers(1, 300)
memos = st.just(b"") | st.binary(max_size=256) | st.just(b"\xff" * 256)


@st.composite
def payments(draw: st.DrawFn, max_size: int = 30) -> list[Payment]:
    rows = draw(st.lists(st.tuples(amounts, memos), max_size=max_size))
    start = draw(st.integers(0, 2**100))
    return [Payment((start + n).to_bytes(16, "big"), a, m) for n, (a, m) in enumerate(rows)]


@given(payments())
def test_a_batch_is_its_payments(rows: list[Payment]) -> None:
    batch = Batch.of(rows)
    assert list(batch) == rows
    assert len(batch) == len(rows)
    assert batch.total_e8s == sum(p.amount_e8s for p in rows)
    assert list(batch.each_id()) == [p.id for p in rows]


@settings(max_examples=200)
@given(st.data())
def test_a_queue_is_a_list(data: st.DataObject) -> None:
    queue, model = PaymentQueue(), list[Payment]()
    fresh: Iterator[int] = iter(range(10**6))
    for _ in range(data.draw(st.integers(1, 12))):
        match data.draw(st.sampled_from(["append", "append", "take", "remove", "miss"])):
            case "append":
                rows = [p._replace(id=next(fresh).to_bytes(16, "big")) for p in data.draw(payments(8))]
                queue.append(Batch.of(rows))
                model += rows
            case "take":
                room = data.draw(st.integers(0, 2000))
                taken = list(queue.take(room))
                assert taken == model[: len(taken)]
                assert room_of(Batch.of(taken)) <= room
                if len(taken) < len(model):  # as many as fit, and not one less
                    assert room_of(Batch.of(model[: len(taken) + 1])) > room
                del model[: len(taken)]
            case "remove" if model:
                gone = data.draw(st.sampled_from(model))
                assert queue.remove(gone.id) == gone
                model.remove(gone)
            case _:
                assert queue.remove(b"\xff" * 16) is None
                assert queue.remove(b"") is None
                assert queue.remove(b"\0" * 15) is None
        assert list(queue.peek()) == model
        assert len(queue) == len(model)
        assert queue.total_e8s == sum(p.amount_e8s for p in model)


def test_an_id_across_two_ids_is_no_id() -> None:
    queue = PaymentQueue()
    queue.append(Batch.of([Payment(bytes(range(16)), 1), Payment(bytes(range(16, 32)), 2)]))
    assert queue.remove(bytes(range(8, 24))) is None
    assert queue.remove(bytes(range(16, 32))) == Payment(bytes(range(16, 32)), 2)


@given(payments(40), payments(40))
def test_room_is_never_less_than_what_is_on_the_wire(from_0: list[Payment], from_1: list[Payment]) -> None:
    a, b = Batch.of(from_0), Batch.of(from_1)
    signature = b"\1" * 64
    empty = Update(CHANNEL, 2**63 - 1, (2**63, 2**63 - 1), True, EMPTY, EMPTY, signature)
    assert len(encode(empty)) <= 512 - 4 * 5  # the fixed fields, and longer frames of four columns and two maps
    fixed = 512
    assert len(encode(Update(CHANNEL, 2**63 - 1, (2**63, 2**63 - 1), True, a, b, signature))) <= (
        fixed + room_of(a) + room_of(b)
    )
    assert len(encode(Offer(CHANNEL, a))) <= fixed + room_of(a)


@pytest.mark.parametrize(
    ("ids", "amounts_e8s", "memos", "why"),
    [
        (b"\1" * 15, (1,), {}, "bytes of ids"),
        (b"\1" * 16, (), {}, "bytes of ids"),
        (b"\1" * 16, (0,), {}, "at least 1"),
        (b"\1" * 16, (-1,), {}, "at least 1"),
        (b"\1" * 32, (1, 2), {}, "stands twice"),
        (b"", (), {0: b"m"}, "without payments"),
        (b"\1" * 16, (1,), {1: b"m"}, "memo for payment 1"),
        (b"\1" * 16, (1,), {-1: b"m"}, "memo for payment -1"),
        (b"\1" * 16, (1,), {0: b""}, "memo of 0 bytes"),
        (b"\1" * 16, (1,), {0: b"m" * 257}, "memo of 257 bytes"),
    ],
)
def test_columns_that_do_not_fit_each_other(
    ids: bytes, amounts_e8s: tuple[int, ...], memos: dict[int, bytes], why: str
) -> None:
    with pytest.raises(Undecodable, match=why):
        Batch(ids, amounts_e8s, memos)
