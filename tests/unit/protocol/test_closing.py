"""Closing together, and what ends with a settlement (DESIGN, section 7)."""

from __future__ import annotations

import pytest

from protocol.effects import Delivered, PaymentsEnded, Phase, Received
from protocol.errors import CallerMistake
from protocol.messages import Ack, ChannelReady, CloseRequest, Message, SignedStateMessage, Update
from protocol.payments import Batch
from tests.unit.protocol.scene import NAMES, Scene


@pytest.fixture
def scene() -> Scene:
    scene = Scene().ready()
    scene.pay("alice", 10)
    scene.run()
    return scene


@pytest.mark.parametrize("name", NAMES)
def test_either_side_closes(scene: Scene, name: str) -> None:
    scene.close(name)
    scene.run()
    state = scene.alice.disk.newest.state
    assert scene.allocation == (990, 1010)
    assert state.finalized and state.version == 2
    assert scene.alice.disk.phase is scene.bob.disk.phase is Phase.CLOSING
    assert scene.alice.channel.final == scene.bob.channel.final == scene.alice.disk.newest


@pytest.mark.parametrize("kind", [Update, Ack, CloseRequest])
@pytest.mark.parametrize("restarted", [(), ("alice",), ("bob",), ("alice", "bob")], ids="+".join)
def test_what_is_lost_while_closing_is_said_again(
    scene: Scene, kind: type[Message], restarted: tuple[str, ...]
) -> None:
    scene.lose(kind)
    scene.close("bob")
    scene.run()
    assert not scene.up
    for name in restarted:
        scene.restart(name)
    scene.ready()
    assert scene.alice.disk.newest.state.finalized
    assert scene.alice.disk.newest == scene.bob.disk.newest
    assert not scene.frozen("alice") and not scene.frozen("bob")


def test_both_ask_at_once(scene: Scene) -> None:
    scene.close("alice")
    scene.close("bob")
    scene.close("alice")
    scene.run()
    assert scene.alice.disk.newest.state.finalized
    assert len(scene.sent("alice", Update)) == 2


def test_what_is_queued_and_offered_fails_when_the_final_state_is_signed(scene: Scene) -> None:
    (outstanding,) = scene.pay("alice", 1)
    (queued,) = scene.pay("alice", 2)
    scene.close("alice")
    (offered,) = scene.pay("bob", 3)
    assert scene.status("alice", queued) == "queued"
    scene.run()
    assert scene.statuses(outstanding) == ("delivered", "delivered")
    assert scene.status("alice", queued) == "failed"
    assert scene.statuses(offered) == ("unknown", "failed")
    ends = [(e.status, e.code) for s in scene.sides for e in s.told if isinstance(e, PaymentsEnded)]
    assert ends == [("failed", "channel_closed")] * 2
    assert scene.allocation == (989, 1011)


def test_the_final_update_comes_after_the_outstanding_one_and_carries_nothing(scene: Scene) -> None:
    scene.pay("alice", 1)
    scene.pay("bob", 2)
    scene.close("bob")
    scene.run()
    *_, final = scene.sent("alice", Update)
    assert isinstance(final, Update)
    assert final.finalized and not final.from_0 and not final.from_1
    assert final.allocation == scene.allocation


def test_nothing_is_signed_after_the_final_state(scene: Scene) -> None:
    scene.close("alice")
    scene.drain()
    signed = [dict(side.disk.signed) for side in scene.sides]
    for name in NAMES:
        with pytest.raises(CallerMistake) as caught:
            scene.pay(name, 1)
        assert caught.value.code == "channel_not_open"
    scene.restart("alice")
    scene.restart("bob")
    scene.ready()
    scene.look()
    assert [side.disk.signed for side in scene.sides] == signed
    assert scene.alice.disk.newest.state.finalized


def test_a_withheld_last_acknowledgement_costs_time_and_nothing_else(scene: Scene) -> None:
    scene.close("alice")
    scene.deliver("bob")
    scene.wire[0].clear()
    assert not scene.alice.disk.newest.state.finalized
    scene.leave("alice")
    assert scene.alice.disk.phase is Phase.LEAVING
    signed = dict(scene.alice.disk.signed)
    scene.ready()
    assert scene.alice.disk.newest.state.allocation == scene.bob.disk.newest.state.allocation
    assert scene.alice.disk.signed == signed


def test_closing_needs_an_open_channel() -> None:
    scene = Scene(phase=Phase.FUNDING).ready()
    for name in NAMES:
        with pytest.raises(CallerMistake) as caught:
            scene.close(name)
        assert caught.value.code == "channel_not_open"


def test_leaving_is_said_once_and_can_come_after_closing(scene: Scene) -> None:
    scene.close("bob")
    scene.leave("bob")
    count = len(scene.bob.disk.events)
    scene.leave("bob")
    assert len(scene.bob.disk.events) == count
    scene.do(scene.bob, lambda: scene.bob.channel.closed(scene.now, "withdrawn"))
    scene.do(scene.bob, lambda: scene.bob.channel.closed(scene.now, "withdrawn"))
    assert scene.bob.disk.phase is Phase.CLOSED
    assert len(scene.bob.disk.events) == count + 1
    with pytest.raises(CallerMistake) as caught:
        scene.leave("bob")
    assert caught.value.code == "channel_closed"


def test_a_final_state_is_not_signed_before_both_are_ready() -> None:
    """Regression: bob signed it in an under-funded channel, where the canister refuses every version above 0."""
    scene = Scene(phase=Phase.FUNDING).ready()
    scene.receive("bob", scene.signed_update(finalized=True))
    scene.look("bob")
    assert scene.bob.disk.signed.keys() == {0}
    assert not scene.sent("bob", Ack)


# --- settled -----------------------------------------------------------------------------------------------


def test_settled_on_our_outstanding_state_counts_as_delivered(scene: Scene) -> None:
    (from_bob,) = scene.pay("bob", 5)
    scene.deliver("alice")
    scene.deliver("bob")  # bob acknowledges, and alice does not get it
    (queued,) = scene.pay("alice", 1)
    scene.wire[0].clear()
    state = scene.bob.disk.newest.state
    scene.register(scene.bob.disk.newest)
    scene.look()
    scene.settle(state)
    assert scene.statuses(from_bob) == ("delivered", "delivered")
    assert [e.payments.ids for e in scene.alice.told if isinstance(e, Received)] == [from_bob]
    assert scene.status("alice", queued) == "failed"


def test_settled_on_our_outstanding_payment(scene: Scene) -> None:
    (paid,) = scene.pay("alice", 5)
    scene.deliver("bob")
    scene.wire[0].clear()
    scene.register(scene.bob.disk.newest)
    scene.look()
    scene.settle(scene.bob.disk.newest.state)
    assert scene.statuses(paid) == ("delivered", "delivered")
    assert [e.payments.ids for e in scene.alice.told if isinstance(e, Delivered)][-1] == paid


def test_settled_without_our_outstanding_payment_is_failed(scene: Scene) -> None:
    (paid,) = scene.pay("alice", 5)
    scene.wire[1].clear()
    scene.register(scene.bob.disk.newest)
    scene.look()
    scene.settle(scene.bob.disk.newest.state)
    assert scene.statuses(paid) == ("failed", "unknown")
    ended = [e for e in scene.alice.told if isinstance(e, PaymentsEnded)]
    assert [(e.ids, e.code) for e in ended] == [(paid, "settled_without_it")]


def test_settled_ends_bobs_offers_and_confirms_what_is_in_the_state(scene: Scene) -> None:
    (included,) = scene.pay("bob", 5)
    scene.deliver("alice")
    scene.deliver("bob")
    (offered,) = scene.pay("bob", 6)
    scene.settle(scene.bob.disk.newest.state, "bob")
    assert scene.status("bob", included) == "delivered"
    assert scene.status("bob", offered) == "failed"
    assert scene.bob.channel.committed_e8s == 0


def test_settled_below_ours_ends_what_was_above(scene: Scene) -> None:
    """Regression: what bob had paid above the settled version stayed `signed` for ever."""
    old = scene.bob.disk.newest.state
    (lost,) = scene.pay("bob", 5)
    scene.deliver("alice")
    scene.deliver("bob")
    scene.settle(old, "bob")
    assert scene.status("bob", lost) == "failed"


def test_settled_on_a_state_that_we_never_saw_leaves_the_unfinished_unknown(scene: Scene) -> None:
    """Regression: "failed" would have the user pay again what the settled state may contain."""
    (outstanding,) = scene.pay("alice", 5)
    (queued,) = scene.pay("alice", 6)
    state = scene.alice.disk.newest.state
    unseen = type(state)(state.channel, state.version + 9, (500, 1500), finalized=False)
    scene.settle(unseen, "alice")
    assert scene.status("alice", outstanding) == scene.status("alice", queued) == "unknown"
    assert {e.status for e in scene.alice.told if isinstance(e, PaymentsEnded)} == {"unknown"}


def test_what_a_peer_says_after_the_settlement_changes_nothing(scene: Scene) -> None:
    """Regression: a lost last acknowledgement, a conclude by the peer and a reconnect were taken for data loss."""
    scene.close("alice")
    scene.deliver("bob")
    scene.cut()
    scene.register(scene.bob.disk.newest)
    scene.look()
    scene.settle(scene.bob.disk.newest.state)
    scene.ready()
    late = scene.sent("bob", Ack)[-1]
    assert isinstance(late, Ack)
    scene.receive("alice", late)
    assert not scene.frozen("alice") and not scene.frozen("bob")


def test_settled_twice_is_settled_once(scene: Scene) -> None:
    scene.pay("alice", 5)
    for _ in range(2):
        scene.settle(scene.bob.disk.newest.state)
    assert len([e for e in scene.alice.told if isinstance(e, PaymentsEnded)]) == 1


def test_who_leaves_while_funding_does_not_say_ready_after_a_restart() -> None:
    """Regression: everything but the phase `funding` counted as ready."""
    scene = Scene(phase=Phase.FUNDING).ready()
    scene.leave("alice")
    scene.restart("alice")
    scene.ready()
    assert not scene.sent("alice", ChannelReady)
    scene.fund_complete("bob")
    scene.run()
    assert scene.bob.channel.phase is Phase.FUNDING


def test_an_outstanding_update_is_completed_by_a_shown_state_without_a_second_payment(scene: Scene) -> None:
    (paid,) = scene.pay("alice", 5)
    scene.deliver("bob")
    scene.wire[0].clear()
    newest = scene.bob.disk.newest
    state, signatures = newest.state, newest.signatures
    scene.receive(
        "alice", SignedStateMessage(state.channel, state.version, state.allocation, False, signatures[0], signatures[1])
    )
    assert scene.alice.disk.newest == newest
    scene.settle(state)
    assert scene.statuses(paid) == ("delivered", "delivered")


def test_a_payment_list_that_was_gathered_while_the_channel_closed(scene: Scene) -> None:
    batch = Batch.of([scene.new_payment("bob", 3)])
    scene.close("bob")
    with pytest.raises(CallerMistake):
        scene.bob.channel.check_payable(batch.total_e8s)
