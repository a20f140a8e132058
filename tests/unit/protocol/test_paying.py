"""Payments between two sides that can talk (DESIGN, section 6)."""

from __future__ import annotations

import pytest

from protocol.effects import Delivered, PaymentsEnded, Received
from protocol.errors import CallerMistake
from protocol.messages import Confirm, Decline, Offer, Update
from protocol.payments import Batch
from protocol.types import MAX_E8S
from tests.unit.protocol.scene import Scene
from wire.codec import decode, encode


@pytest.fixture
def scene() -> Scene:
    return Scene().ready()


def test_alice_pays_bob_in_one_round_trip(scene: Scene) -> None:
    (paid,) = scene.pay("alice", 10)
    assert len(scene.sent("alice", Update)) == 1
    assert scene.deliver("bob") == 1
    assert scene.deliver("alice") == 1
    assert scene.allocation == (990, 1010)
    assert scene.statuses(paid) == ("delivered", "delivered")
    assert [e for e in scene.alice.told if isinstance(e, Delivered)][-1].payments.ids == paid


def test_an_idle_channel_pays_with_one_transaction_each(scene: Scene) -> None:
    before = scene.alice.disk.transactions, scene.bob.disk.transactions
    scene.pay("alice", 10)
    assert scene.alice.disk.transactions == before[0] + 1
    scene.deliver("bob")
    assert scene.bob.disk.transactions == before[1] + 1


def test_bob_pays_alice_and_learns_that_she_holds_it(scene: Scene) -> None:
    (paid,) = scene.pay("bob", 7)
    scene.deliver("alice")  # the offer
    scene.deliver("bob")  # the update
    assert scene.statuses(paid) == ("signed", "signed")
    scene.run()
    assert scene.allocation == (1007, 993)
    assert scene.statuses(paid) == ("delivered", "delivered")
    assert len(scene.sent("alice", Confirm)) >= 1


def test_both_directions_share_one_update(scene: Scene) -> None:
    first = scene.pay("alice", 1)  # an update is outstanding: what comes now waits for the next
    from_bob = scene.pay("bob", 30, 40)
    from_alice = scene.pay("alice", 5, 6, 7)
    scene.run()
    assert scene.alice.channel.version == 2
    second = scene.sent("alice", Update)[1]
    assert isinstance(second, Update)
    assert list(second.from_0.each_id()) == from_alice
    assert list(second.from_1.each_id()) == from_bob
    assert scene.allocation == (1000 - 1 - 18 + 70, 1000 + 1 + 18 - 70)
    for paid in first + from_bob + from_alice:
        assert scene.statuses(paid) == ("delivered", "delivered")


def test_what_arrives_under_an_outstanding_update_goes_into_the_next(scene: Scene) -> None:
    scene.pay("alice", 1)
    for _ in range(100):
        scene.pay("alice", 1)
        scene.pay("bob", 2)
    assert len(scene.sent("alice", Update)) == 1
    scene.run()
    assert scene.alice.channel.version <= 3
    assert scene.allocation == (1000 - 101 + 200, 1000 + 101 - 200)


def test_memos_arrive_with_their_payments(scene: Scene) -> None:
    scene.pay("alice", 1)
    scene.pay("alice", 2)
    (with_memo,) = scene.pay("alice", 3, memo=b"for the roof")
    (from_bob,) = scene.pay("bob", 4, memo=b"\xff" * 256)
    scene.run()
    assert scene.bob.disk.rows[(0, with_memo)].payment.memo == b"for the roof"
    assert scene.alice.disk.rows[(1, from_bob)].payment.memo == b"\xff" * 256
    assert sum(bool(row.payment.memo) for row in scene.bob.disk.rows.values()) == 2


def test_nothing_is_queued_beyond_the_balance(scene: Scene) -> None:
    scene.pay("alice", 600)
    with pytest.raises(CallerMistake) as caught:
        scene.pay("alice", 401)
    assert caught.value.code == "insufficient_balance"
    scene.pay("alice", 400)
    scene.pay("bob", 999)
    with pytest.raises(CallerMistake):
        scene.pay("bob", 2)
    scene.run()
    assert scene.allocation == (999, 1001)


def test_money_that_was_received_can_be_sent(scene: Scene) -> None:
    scene.pay("alice", 1000)
    scene.run()
    scene.pay("bob", 2000)
    scene.run()
    assert scene.allocation == (2000, 0)
    assert scene.bob.channel.sendable_e8s == 0


def test_amounts_below_the_peers_minimum_are_refused_here(scene: Scene) -> None:
    scene.do(scene.alice, lambda: scene.alice.channel.session_began(5))
    with pytest.raises(CallerMistake) as caught:
        scene.pay("alice", 4)
    assert caught.value.code == "amount_too_small"
    with pytest.raises(CallerMistake):
        scene.pay("alice", 100, 4)
    with pytest.raises(CallerMistake):
        scene.alice.channel.check_payable(0)


def test_offers_below_the_minimum_are_declined_for_good(scene: Scene) -> None:
    scene.alice.channel.minimum_e8s = 5
    small, large = scene.pay("bob", 4, 5)
    scene.run()
    assert scene.statuses(small) == ("declined", "declined")
    assert scene.statuses(large) == ("delivered", "delivered")
    ended = [e for e in scene.bob.told if isinstance(e, PaymentsEnded)]
    assert [(e.ids, e.status, e.code) for e in ended] == [(small, "declined", "amount_too_small")]


def test_an_offer_beyond_the_balance_is_declined_and_the_others_are_included(scene: Scene) -> None:
    """Bob can only offer what he has; a bob who does not keep to that is declined, not obeyed."""
    good = scene.new_payment("bob", 300)
    bad = scene.new_payment("bob", 1001)
    also_good = scene.new_payment("bob", 700)
    batch = Batch.of([good, bad, also_good])
    scene.do(scene.bob, lambda: scene.bob.channel.pay(batch, scene.now))
    scene.run()
    assert scene.allocation == (2000, 0)
    assert scene.alice.disk.status(1, bad.id) == scene.bob.disk.status(1, bad.id) == "declined"
    assert scene.bob.channel.committed_e8s == 0


def test_a_declined_offer_stays_declined_when_it_comes_again(scene: Scene) -> None:
    bad = scene.new_payment("bob", 1001)
    offer = Offer(scene.alice.channel.id, Batch.of([bad]))
    scene.receive("alice", offer)
    scene.receive("alice", offer)
    scene.pay("alice", 1)
    scene.run()
    scene.receive("alice", offer)  # now bob could afford it
    declines = scene.sent("alice", Decline)
    assert [getattr(d, "code", "") for d in declines] == ["insufficient_balance", "declined_before", "declined_before"]
    assert scene.allocation == (999, 1001)


def test_an_offer_that_is_included_already_is_not_included_again(scene: Scene) -> None:
    (paid,) = scene.pay("bob", 10)
    (offer,) = scene.sent("bob", Offer)
    assert isinstance(offer, Offer)
    scene.receive("alice", offer)  # waiting or outstanding: the same offer
    scene.run()
    scene.receive("alice", offer)  # included
    later = scene.new_payment("bob", 3)
    scene.receive("alice", Offer(offer.channel, Batch.of([*offer.payments, later])))
    scene.receive("alice", Offer(offer.channel, Batch.of([later])))
    assert scene.allocation == (1010, 990)
    assert scene.alice.rules.told[("received", paid)] == 1
    assert [e.code for e in scene.bob.errors] == [] or all(e.code == "replayed_payment" for e in scene.bob.errors)
    pending = scene.alice.channel.pending
    assert pending is not None
    assert list(pending.from_1.each_id()) == [later.id]


def test_an_offer_beside_a_replayed_one_cannot_be_replayed_itself() -> None:
    """Regression: an id that came beside a known one was not remembered as seen, so that it was new twice."""
    scene = Scene().ready()
    scene.pay("bob", 10)
    (first,) = scene.sent("bob", Offer)
    assert isinstance(first, Offer)
    scene.run()
    second = scene.new_payment("bob", 3)
    scene.do(scene.bob, lambda: scene.bob.channel.pay(Batch.of([second]), scene.now))
    scene.wire[0].clear()
    scene.receive("alice", Offer(first.channel, Batch.of([*first.payments, second])))
    scene.run()
    assert scene.allocation == (1013, 987)
    scene.receive("alice", Offer(first.channel, Batch.of([second])))
    assert scene.alice.channel.pending is None
    scene.run()
    assert scene.allocation == (1013, 987)


def test_a_queued_payment_can_be_cancelled_and_a_sent_one_cannot(scene: Scene) -> None:
    (outstanding,) = scene.pay("alice", 10)
    first, second, third = scene.pay("alice", 20, 21, 22)
    scene.cancel("alice", second)
    for gone in (outstanding, second, b"\0" * 16, b""):
        with pytest.raises(CallerMistake) as caught:
            scene.cancel("alice", gone)
        assert caught.value.code == "payment_not_queued"
    scene.run()
    assert scene.status("alice", second) == "cancelled"
    assert scene.status("bob", second) == "unknown"
    assert scene.statuses(first) == scene.statuses(third) == ("delivered", "delivered")
    assert scene.allocation == (1000 - 52, 1000 + 52)


def test_bob_can_cancel_until_he_has_offered(scene: Scene) -> None:
    scene.cut()
    queued, kept = scene.pay("bob", 5, 6)
    scene.cancel("bob", queued)
    scene.connect()
    scene.run()
    assert scene.statuses(kept) == ("delivered", "delivered")
    assert scene.status("bob", queued) == "cancelled"
    (offered,) = scene.pay("bob", 7)
    with pytest.raises(CallerMistake):
        scene.cancel("bob", offered)


def test_queued_payments_survive_a_restart_in_their_order(scene: Scene) -> None:
    scene.cut()
    ids = scene.pay("alice", 1, 2) + scene.pay("alice", 3)
    from_bob = scene.pay("bob", 4)
    scene.restart("alice")
    scene.restart("bob")
    scene.ready()
    update = scene.sent("alice", Update)[0]
    assert isinstance(update, Update)
    assert list(update.from_0.each_id()) == ids
    assert scene.statuses(from_bob[0]) == ("delivered", "delivered")
    assert scene.allocation == (1000 - 6 + 4, 1000 + 6 - 4)


def test_lists_larger_than_a_frame_are_cut_into_frames() -> None:
    scene = Scene(10**6, 10**6).ready()
    scene.pay("alice", 1)
    scene.pay("alice", *[1] * 4000)
    scene.pay("bob", *[2] * 6000)
    scene.pay("bob", *[3] * 900, memo=b"m")
    scene.run()
    assert scene.allocation == (10**6 - 4001 + 12_000 + 2700, 10**6 + 4001 - 12_000 - 2700)
    for message in scene.alice.sent + scene.bob.sent:
        assert decode(encode(message)) == message
    assert max(len(encode(m)) for m in scene.alice.sent) > 40_000


@pytest.mark.parametrize("from_bob", [b"", b"m", b"m" * 256])
@pytest.mark.parametrize("from_alice", [b"", b"m", b"m" * 256])
def test_a_full_update_with_memos_fits_a_frame(from_alice: bytes, from_bob: bytes) -> None:
    """Regression: the room of bob's memos was counted without their frames, and an update of 71 kB was signed
    that no link could carry, for ever.
    """
    scene = Scene(10**16, 10**16).ready()
    scene.pay("alice", 1)
    scene.pay("bob", *[2**40 + n for n in range(2600)], memo=from_bob)
    scene.pay("alice", *[2**41 + n for n in range(2600)], memo=from_alice)
    scene.run()
    updates = scene.sent("alice", Update)
    assert len(updates) >= 3
    assert isinstance(updates[1], Update)
    assert min(len(updates[1].from_0), len(updates[1].from_1)) > 50  # neither side waits for the other's list
    for update in updates:
        assert len(encode(update)) <= 65_535
        assert decode(encode(update)) == update
    assert all(scene.statuses(i) == ("delivered", "delivered") for _, i in scene.paid)


def test_more_declined_offers_than_fit_a_frame_do_not_leave_the_rest_waiting() -> None:
    """Regression: after a whole frame of declined offers, those behind it waited for another event."""
    scene = Scene(1000, 1000).ready()
    scene.pay("alice", 1)
    batch = Batch.of([scene.new_payment("bob", 5000) for _ in range(3000)] + [scene.new_payment("bob", 1)])
    scene.do(scene.bob, lambda: scene.bob.channel.pay(batch, scene.now))
    scene.run()
    statuses = [scene.bob.disk.status(1, p.id) for p in batch]
    assert statuses == ["declined"] * 3000 + ["delivered"]


def test_amounts_at_the_edge_of_nat64() -> None:
    scene = Scene(MAX_E8S, 0).ready()
    (paid,) = scene.pay("alice", MAX_E8S)
    scene.run()
    assert scene.allocation == (0, MAX_E8S)
    scene.pay("bob", MAX_E8S - 1)
    scene.pay("bob", 1)
    scene.run()
    assert scene.allocation == (MAX_E8S, 0)
    assert scene.statuses(paid) == ("delivered", "delivered")
    with pytest.raises(CallerMistake):
        scene.pay("bob", 1)
    with pytest.raises(CallerMistake):
        scene.pay("alice", MAX_E8S + 1)


def test_each_payment_is_told_once(scene: Scene) -> None:
    ids = scene.pay("alice", 1, 2) + scene.pay("bob", 3, 4)
    scene.run()
    received = [i for side in scene.sides for e in side.told if isinstance(e, Received) for i in e.payments.each_id()]
    delivered = [i for side in scene.sides for e in side.told if isinstance(e, Delivered) for i in e.payments.each_id()]
    assert sorted(received) == sorted(delivered) == sorted(ids)


def test_surplus_offers_are_declined() -> None:
    scene = Scene(10, 10**9).ready()
    scene.pay("alice", 1)  # outstanding: offers pile up
    count = 0
    while count <= 100_000:
        batch = Batch.of([scene.new_payment("bob", 1) for _ in range(2500)])
        scene.receive("alice", Offer(scene.alice.channel.id, batch))
        count += 2500
    declined = scene.sent("alice", Decline)
    assert declined
    assert all(isinstance(d, Decline) and d.code == "too_many_offers" for d in declined)
    assert sum(len(d.ids) // 16 for d in declined if isinstance(d, Decline)) == count - 100_000


def test_the_next_update_shows_that_the_last_one_arrived() -> None:
    scene = Scene().ready()
    (from_bob,) = scene.pay("bob", 5)
    scene.deliver("alice")
    scene.pay("alice", 1)  # goes into the next update, at once: no separate confirmation is needed
    scene.deliver("bob")
    scene.deliver("alice")
    confirms = len(scene.sent("alice", Confirm))
    assert scene.status("bob", from_bob) == "signed"
    scene.deliver("bob")
    assert scene.status("bob", from_bob) == "delivered"
    assert len(scene.sent("alice", Confirm)) == confirms
