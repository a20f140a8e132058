"""Offers that are declined: final for ever, and remembered in bounded room."""

from __future__ import annotations

import pytest

from protocol import ordering
from protocol.messages import Decline, Offer, Update
from protocol.payments import Batch, Payment
from tests.unit.protocol.scene import Scene

MANY = 40


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(ordering, "MAX_DECLINED", MANY)
    return Scene().ready()


def offer(scene: Scene, *numbers: int, amount_e8s: int = 5_000, memo: bytes = b"") -> None:
    """Bob, played by the test, offers payments with these ids."""
    payments = Batch.of([Payment(number.to_bytes(16, "big"), amount_e8s, memo) for number in numbers])
    scene.mute()
    scene.receive("alice", Offer(scene.alice.channel.id, payments))


def declined(scene: Scene) -> set[int]:
    ids = [message.ids for message in scene.sent("alice", Decline) if isinstance(message, Decline)]
    return {int.from_bytes(joined[i : i + 16], "big") for joined in ids for i in range(0, len(joined), 16)}


def rows(scene: Scene) -> int:
    return sum(sender == 1 for sender, _ in scene.alice.disk.rows)


def test_any_number_of_declines_takes_bounded_room(scene: Scene) -> None:
    for first in range(1, 100 * MANY, 10):
        offer(scene, *range(first, first + 10))
        assert rows(scene) <= MANY + 10
    assert declined(scene) == set(range(1, 100 * MANY + 1))
    assert scene.alice.disk.declined_up_to


@pytest.mark.parametrize("again", ["at once", "after a reconnect", "after a restart"])
def test_what_was_declined_stays_declined_when_its_id_is_not_remembered(scene: Scene, again: str) -> None:
    for first in range(1, 3 * MANY, 10):
        offer(scene, *range(first, first + 10))
    if again == "after a restart":
        scene.restart("alice")
    if again != "at once":
        scene.look()
        scene.connect()
        scene.run()
    before = len(scene.sent("alice", Update))
    offer(scene, 7, 8, 9, amount_e8s=1)  # now it could be paid: a decline is final all the same
    scene.alice.rules.books(scene.alice.disk)
    assert len(scene.sent("alice", Update)) == before
    last = scene.sent("alice", Decline)[-1]
    assert isinstance(last, Decline)
    assert (len(last.ids) // 16, last.code) == (3, "declined_before")


def test_what_is_above_is_taken_as_ever(scene: Scene) -> None:
    for first in range(1, 3 * MANY, 10):
        offer(scene, *range(first, first + 10))
    offer(scene, 10_000, amount_e8s=3)
    update = scene.sent("alice", Update)[-1]
    assert isinstance(update, Update)
    assert update.from_1.total_e8s == 3


def test_an_offer_that_waits_stays_good(scene: Scene) -> None:
    scene.pay("alice", 1)  # outstanding: offers wait
    offer(scene, 50, amount_e8s=3)
    for first in range(100, 100 + 3 * MANY, 10):
        offer(scene, *range(first, first + 10), amount_e8s=0 + 1)
    assert not declined(scene)


def test_memos_of_offers_that_wait_are_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordering, "MAX_OFFERED_BYTES", 20_000)
    scene.pay("alice", 1)
    for number in range(200):
        offer(scene, 10 * number, 10 * number + 1, amount_e8s=1, memo=bytes(200))
    assert len(declined(scene)) > 200
    last = scene.sent("alice", Decline)[-1]
    assert isinstance(last, Decline)
    assert last.code in ("too_many_offers", "declined_before")
