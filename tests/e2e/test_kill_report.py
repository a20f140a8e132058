"""The comparison behind the report of `test_kill_stream` finds what it is there to find."""

from dataclasses import replace
from typing import Literal

import msgspec
import pytest

from perund.control.schema import Payment
from perund.control.values import E8s
from tests.e2e.kill_report import Asked, Comparison, Purse, compare

CHANNEL = "ab" * 64
Direction = Literal["sent", "received"]


def listing(number: int, direction: Direction, e8s: int, memo: str | None) -> Payment:
    return Payment(
        payment=f"{number:032x}",
        channel=CHANNEL,
        direction=direction,
        amount_e8s=E8s(e8s),
        memo=memo,
        status="delivered",
        version=number,
        created_at="2026-01-01T00:00:00Z",
    )


class Books:
    """Alice paid 300, 200 (a bare one) and 50, bob paid 70; everything agrees, until a test says otherwise."""

    def __init__(self) -> None:
        paid = [("alice", 300, "tea"), ("alice", 200, None), ("alice", 50, "milk"), ("bob", 70, "change")]
        self.asked = [Asked(CHANNEL, who, e8s, memo, "delivered") for who, e8s, memo in paid]
        self.listed: dict[str, list[Payment]] = {"alice": [], "bob": []}
        for number, (who, e8s, memo) in enumerate(paid):
            other = "bob" if who == "alice" else "alice"
            self.listed[who].append(listing(number, "sent", e8s, memo))
            self.listed[other].append(listing(number, "received", e8s, memo))
        self.purses = [
            Purse("alice", CHANNEL, 5_000, 4_520),
            Purse("bob", CHANNEL, 5_000, 5_480),
            Purse("alice", None, 9_000, 8_500, fees_e8s=20),
            Purse("bob", None, 9_000, 9_460, fees_e8s=20),
        ]

    def compared(self) -> Comparison:
        return compare(self.asked, self.listed, self.purses)


@pytest.fixture
def books() -> Books:
    return Books()


def test_books_that_agree(books: Books) -> None:
    found = books.compared()
    assert not found.wrong
    assert str(found) == "payments 4, lost 0, doubled 0, e8s unaccounted 0"


@pytest.mark.parametrize("place", [0, 1])
def test_a_payment_that_the_receiver_does_not_have(books: Books, place: int) -> None:
    gone = books.listed["bob"].pop(place)
    found = books.compared()
    assert len(found.lost) == 1
    assert found.unaccounted_e8s == gone.amount_e8s
    assert found.doubled == []


def test_a_payment_that_nobody_has(books: Books) -> None:
    for node in ("alice", "bob"):
        del books.listed[node][0]
    assert len(books.compared().lost) == 1


def test_a_payment_that_was_said_to_be_delivered_and_failed(books: Books) -> None:
    failed = msgspec.structs.replace(books.listed["alice"][0], status="failed", code="channel_closed")
    books.listed["alice"][0] = failed
    del books.listed["bob"][0]
    assert str(books.compared()) == "payments 4, lost 1, doubled 0, e8s unaccounted 600", "300 by each list"


@pytest.mark.parametrize("place", [0, 1])
def test_a_payment_that_was_made_twice(books: Books, place: int) -> None:
    for node in ("alice", "bob"):
        books.listed[node].append(msgspec.structs.replace(books.listed[node][place], payment=f"{99:032x}"))
    found = books.compared()
    assert len(found.doubled) == 1
    assert found.unaccounted_e8s == 2 * books.asked[place].amount_e8s, "by both lists"
    assert found.lost == []


def test_a_payment_that_is_listed_twice_under_one_id(books: Books) -> None:
    books.listed["bob"].append(books.listed["bob"][0])
    assert any("id 0000" in what for what in books.compared().doubled)


def test_a_payment_that_is_wrong_by_one_e8(books: Books) -> None:
    books.listed["bob"][0] = listing(0, "received", 301, "tea")
    found = books.compared()
    assert found.unaccounted_e8s == 1
    assert any("sent (300, 'tea'), received (301, 'tea')" in what for what in found.others)


@pytest.mark.parametrize("place", range(4))
def test_a_purse_that_is_wrong_by_one_e8(books: Books, place: int) -> None:
    books.purses[place] = replace(books.purses[place], after_e8s=books.purses[place].after_e8s - 1)
    found = books.compared()
    assert found.unaccounted_e8s == 1
    assert found.wrong == [f"-1 e8s: {found.unaccounted[0][0]}"]


def test_a_payment_that_was_refused_and_made(books: Books) -> None:
    books.asked[0] = replace(books.asked[0], end="refused")
    assert any("nothing promised it" in what for what in books.compared().others)


@pytest.mark.parametrize(("status", "code"), [("signed", None), ("unknown", "data_loss"), ("declined", "too_many")])
def test_a_payment_that_may_not_end_like_that(books: Books, status: str, code: str | None) -> None:
    books.asked[2] = replace(books.asked[2], end="ended")
    books.listed["alice"][2] = msgspec.structs.replace(books.listed["alice"][2], status=status, code=code)
    del books.listed["bob"][2]
    assert any(f"is {status}" in what for what in books.compared().others)


def test_a_payment_that_the_end_of_the_channel_cut_off(books: Books) -> None:
    books.asked[2] = replace(books.asked[2], end="ended")
    cut = msgspec.structs.replace(books.listed["alice"][2], status="failed", code="channel_closed")
    books.listed["alice"][2] = cut
    del books.listed["bob"][2]
    moved = (50, -50, 50, -50)
    books.purses = [replace(p, after_e8s=p.after_e8s + e8s) for p, e8s in zip(books.purses, moved, strict=True)]
    found = books.compared()
    assert not found.wrong
    assert found.ended == {"failed: channel_closed": 1}
    assert found.delivered == 3
