"""What is lost with a session is said again in the next (DESIGN, section 6, after a reconnect)."""

from __future__ import annotations

import copy

import pytest

from protocol.effects import Phase
from protocol.messages import Ack, ChannelReady, Confirm, Decline, Message, Offer, Resume, SignedStateMessage, Update
from protocol.types import SignedState, State
from tests.unit.protocol.scene import Scene, sign_both


@pytest.fixture
def scene() -> Scene:
    return Scene().ready()


@pytest.mark.parametrize("lagging", [False, True], ids=["prompt", "lagging"])
@pytest.mark.parametrize("restarted", [(), ("alice",), ("bob",), ("alice", "bob")], ids="+".join)
@pytest.mark.parametrize("kind", [Update, Ack, Offer, Confirm, Resume])
def test_a_lost_message(kind: type[Message], restarted: tuple[str, ...], lagging: bool) -> None:
    scene = Scene(lagging_disks=lagging)
    if kind is not Resume:
        scene.ready()
    scene.lose(kind)
    if kind is Resume:
        scene.ready()
    ids = scene.pay("alice", 10) + scene.pay("bob", 20)
    scene.run()
    assert not scene.up
    for name in restarted:
        scene.restart(name)
    scene.ready()
    assert scene.allocation == (1010, 990)
    assert [scene.statuses(i) for i in ids] == [("delivered", "delivered")] * 2
    assert not scene.frozen("alice") and not scene.frozen("bob")
    scene.check_agreement()


@pytest.mark.parametrize("restarted", [(), ("alice",), ("bob",), ("alice", "bob")], ids="+".join)
def test_a_lost_decline(restarted: tuple[str, ...]) -> None:
    scene = Scene().ready()
    scene.alice.channel.minimum_e8s = 5
    scene.lose(Decline)
    (small,) = scene.pay("bob", 4)
    scene.run()
    assert scene.statuses(small) == ("declined", "offered")
    for name in restarted:
        scene.restart(name)
    scene.ready()
    assert scene.statuses(small) == ("declined", "declined")
    assert scene.bob.channel.committed_e8s == 0
    assert scene.allocation == (1000, 1000)


@pytest.mark.parametrize("kind", [Update, Ack, Offer, Confirm, Decline, Resume])
def test_a_message_that_arrives_twice(kind: type[Message]) -> None:
    scene = Scene()
    scene.alice.channel.minimum_e8s = 5
    scene.repeat(kind)
    scene.ready()
    ids = scene.pay("alice", 10) + scene.pay("bob", 20)
    small = scene.pay("bob", 4)
    scene.run()
    assert scene.allocation == (1010, 990)
    assert [scene.statuses(i) for i in ids] == [("delivered", "delivered")] * 2
    assert scene.statuses(small[0]) == ("declined", "declined")
    assert not scene.frozen("alice") and not scene.frozen("bob")


def test_a_lost_update_is_sent_again_byte_for_byte(scene: Scene) -> None:
    scene.lose(Update)
    scene.pay("alice", 10)
    scene.pay("alice", 11)  # must not find its way into the update that is out already
    scene.restart("alice")
    scene.pay("alice", 12)
    scene.ready()
    first, again, *_ = scene.sent("alice", Update)
    assert first == again
    assert scene.allocation == (1000 - 33, 1000 + 33)


def test_an_update_that_was_durable_but_never_sent_is_the_one_that_is_sent(scene: Scene) -> None:
    scene.alice.fuse = 1  # the transaction happens, the sending does not
    scene.pay("alice", 10)
    assert not scene.alice.alive
    outstanding = scene.alice.disk.outstanding
    assert outstanding is not None
    scene.restart("alice")
    scene.pay("alice", 99)
    scene.ready()
    assert scene.sent("alice", Update)[0] == outstanding


def test_an_update_that_was_never_durable_never_was(scene: Scene) -> None:
    scene.alice.fuse = 0
    scene.pay("alice", 10)
    scene.restart("alice")
    scene.ready()
    scene.pay("alice", 99)
    scene.run()
    assert scene.allocation == (901, 1099)
    assert scene.alice.channel.version == 1


def test_nothing_but_resume_is_said_first(scene: Scene) -> None:
    scene.pay("alice", 10)
    scene.pay("bob", 10)
    scene.cut()
    sent = len(scene.alice.sent), len(scene.bob.sent)
    scene.connect()
    for side, count in zip(scene.sides, sent, strict=True):
        new = side.sent[count:]
        assert isinstance(new[0], Resume)
        assert all(isinstance(m, ChannelReady) for m in new[1:])


def test_a_session_that_replaces_another_starts_over(scene: Scene) -> None:
    scene.pay("bob", 10)
    for _ in range(5):
        scene.connect()
        scene.deliver("alice")
    scene.run()
    assert scene.allocation == (1010, 990)
    assert not scene.frozen("alice") and not scene.frozen("bob")


def test_ready_that_was_lost_is_said_again() -> None:
    for restarted in ("", "alice", "bob"):
        scene = Scene(phase=Phase.FUNDING)
        scene.ready()
        scene.lose(ChannelReady)
        scene.fund_complete()
        scene.run()
        if restarted:
            scene.restart(restarted)
            if scene[restarted].channel.phase is Phase.FUNDING:
                scene.fund_complete(restarted)
        scene.ready()
        assert scene.alice.channel.phase is scene.bob.channel.phase is Phase.OPEN
        scene.pay("alice", 1)
        scene.run()
        assert scene.allocation == (999, 1001)


def test_an_offer_that_comes_before_we_are_open_is_not_forgotten() -> None:
    """Regression: alice forgot in a crash that she had said ready; bob was open already and his offer was dropped."""
    scene = Scene(phase=Phase.FUNDING).ready()
    scene.lose(ChannelReady)
    scene.fund_complete("bob")
    scene.fund_complete("alice")
    scene.connect()
    scene.deliver("bob", 2)  # alice's resume and her ready
    assert scene.bob.channel.phase is Phase.OPEN
    scene.crash("alice")
    assert scene.alice.disk.phase is Phase.FUNDING
    (paid,) = scene.pay("bob", 5)
    scene.restart("alice")
    scene.ready()
    assert scene.statuses(paid) == ("unknown", "offered")
    scene.fund_complete("alice")
    scene.run()
    assert scene.statuses(paid) == ("delivered", "delivered")


def test_an_update_that_comes_before_we_are_open_waits_without_asking_for_looks() -> None:
    """Regression: every look led to another, as fast as the canister answered."""
    scene = Scene(phase=Phase.FUNDING).ready()
    scene.fund_complete("bob")
    scene.run()
    scene.fund_complete("alice")
    assert scene.alice.channel.phase is Phase.OPEN
    scene.crash("bob")
    assert scene.bob.disk.phase is Phase.FUNDING
    (paid,) = scene.pay("alice", 5)
    scene.restart("bob")
    scene.ready()
    assert scene.status("bob", paid) == "unknown"
    scene.look("bob")
    assert not scene.bob.wants_look
    scene.fund_complete("bob")
    scene.run()
    assert scene.statuses(paid) == ("delivered", "delivered")


# --- copies of old data (rule 7) ---------------------------------------------------------------------------


@pytest.mark.parametrize("outstanding", [False, True])
def test_alice_from_an_old_copy_adopts_the_newest_state_and_only_closes(outstanding: bool) -> None:
    scene = Scene().ready()
    scene.pay("alice", 1)
    scene.run()
    if outstanding:
        scene.lose(Update)
        scene.pay("alice", 2)
    old = copy.deepcopy(scene.alice.disk)
    scene.ready()
    for amount in (3, 4, 5):
        scene.pay("alice", amount)
        scene.pay("bob", 10)
        scene.run()
    newest = scene.bob.disk.newest
    scene.restore("alice", old)
    signed = dict(scene.alice.disk.signed)
    scene.ready()
    assert scene.frozen("alice") == "data_loss"
    assert scene.sent("bob", SignedStateMessage)
    assert not scene.frozen("bob")  # the peer's loss is no violation
    check_closed_far_above(scene, newest, "alice", signed)
    if outstanding:
        ended = [r for (s, _), r in scene.alice.disk.rows.items() if s == 0 and r.payment.amount_e8s == 2]
        assert [r.status for r in ended] == ["unknown"]  # it was delivered: "failed" would have it paid twice


def check_closed_far_above(scene: Scene, newest: SignedState, name: str, signed: dict[int, bytes]) -> None:
    """The only thing signed after a loss is a final state with the newest allocation, where no lost state can be."""
    final = scene[name].disk.newest.state
    assert final.finalized
    assert final.version == 2**32
    assert final.allocation == newest.state.allocation
    assert scene.alice.disk.newest == scene.bob.disk.newest
    adopted = {newest.state.version: newest.state.digest}  # it bears our signature: rule 1 covers it too
    assert {v: d for v, d in scene[name].disk.signed.items() if v != final.version} == signed | adopted
    scene.settle(final, name)


def test_a_peer_that_lost_data_cannot_acknowledge_what_is_outstanding(scene: Scene) -> None:
    """It may have signed that version before: the final state supersedes it, and the payment is in no state then."""
    old = copy.deepcopy(scene.bob.disk)
    scene.pay("alice", 1)
    scene.run()
    scene.lose(Update)
    (unclear,) = scene.pay("alice", 2)
    scene.run()
    newest, signed = scene.alice.disk.newest, dict(old.signed)
    scene.restore("bob", old)
    scene.ready()
    check_closed_far_above(scene, newest, "bob", signed)
    assert scene.alice.disk.status(0, unclear) == "unknown"  # who completed it might have it settled unrefuted
    scene.settle(scene.alice.disk.newest.state, "alice")
    assert scene.alice.disk.status(0, unclear) == "failed"


def test_a_peer_that_lost_data_does_not_sign_the_next_version_not_even_a_final_one(scene: Scene) -> None:
    """It may have signed another state of that version in the life that it lost (rule 1)."""
    old = copy.deepcopy(scene.bob.disk)
    scene.pay("alice", 1)
    scene.run()
    signed = old.signed | {1: scene.alice.disk.newest.state.digest}
    scene.restore("bob", old)
    scene.lose(Update)  # the final state far above, which an honest alice offers
    scene.ready()
    assert scene.bob.channel.recovering
    assert scene.bob.channel.version == 1
    for version in (2, 3, 2**32 - 1, 2**33):
        scene.connect()
        scene.deliver("bob")  # alice's resume; the update that comes behind it is not hers
        scene.receive("bob", scene.signed_update(version=version, finalized=True))
        assert scene.bob.disk.signed == signed
        assert scene.bob.disk.newest.state.version == 1
    scene.connect()
    scene.deliver("bob")
    scene.receive("bob", scene.signed_update(version=2**32, finalized=True))
    assert scene.bob.disk.newest.state.version == 2**32


def test_the_final_state_that_ends_a_loss_is_lost_with_its_session(scene: Scene) -> None:
    """Regression: bob took the pending far version for a claim that alice holds more, and never closed with her."""
    old = copy.deepcopy(scene.bob.disk)
    scene.pay("alice", 1)
    scene.run()
    newest, signed = scene.alice.disk.newest, dict(old.signed)
    scene.restore("bob", old)
    scene.lose(Update)
    scene.ready()
    assert scene.bob.channel.version == 1
    scene.ready()
    check_closed_far_above(scene, newest, "bob", signed)


def test_bob_from_an_old_copy_freezes_and_adopts() -> None:
    scene = Scene().ready()
    scene.pay("alice", 1)
    scene.run()
    scene.cut()
    (unclear,) = scene.pay("bob", 9)
    old = copy.deepcopy(scene.bob.disk)
    scene.ready()
    scene.restore("bob", old)
    newest, signed = scene.alice.disk.newest, dict(scene.bob.disk.signed)
    scene.ready()
    assert scene.frozen("bob") == "data_loss"
    assert not scene.frozen("alice")
    check_closed_far_above(scene, newest, "bob", signed)
    assert any(e.kind == "channel.peer_is_behind" for e in scene.alice.disk.events)
    scene.settle(scene.alice.disk.newest.state, "bob")
    assert scene.bob.disk.status(1, unclear) == "unknown"


def test_one_version_behind_with_the_record_of_our_signature_alone_is_no_data_loss(scene: Scene) -> None:
    """What our own store shows that we signed proves no loss, whatever else of it is gone."""
    scene.lose(Ack)
    scene.pay("alice", 1)
    scene.run()
    disk = scene.alice.disk
    assert disk.outstanding is not None
    disk.outstanding = None
    scene.restart("alice")
    scene.ready()
    assert not scene.frozen("alice")
    assert scene.alice.disk.newest == scene.bob.disk.newest
    scene.pay("bob", 3)
    scene.run()
    assert scene.allocation == (1002, 998)


def test_one_version_behind_without_any_record_of_our_signature_is_data_loss(scene: Scene) -> None:
    old = copy.deepcopy(scene.alice.disk)
    scene.pay("alice", 1)
    scene.run()
    scene.restore("alice", old)
    scene.ready()
    assert scene.frozen("alice") == "data_loss"


def test_a_state_that_is_shown_and_does_not_verify_is_not_adopted(scene: Scene) -> None:
    state = scene.bob.disk.newest
    for allocation, signature in (((2000, 0), b"\1" * 64), ((2**64 - 1, 2**64 - 1), b"\1" * 64), ((1, 2), b"\1" * 64)):
        scene = Scene().ready()
        message = SignedStateMessage(
            state.state.channel, 9, allocation, finalized=False, signature_0=signature, signature_1=signature
        )
        scene.receive("alice", message)
        assert scene.frozen("alice") in ("bad_signature", "bad_state")
        assert scene.alice.disk.newest == state


def test_a_state_that_is_shown_and_old_changes_nothing(scene: Scene) -> None:
    scene.pay("alice", 1)
    scene.run()
    newest = scene.alice.disk.newest
    message = SignedStateMessage(scene.alice.channel.id, 0, (1000, 1000), False, b"\1" * 64, b"\1" * 64)
    scene.receive("bob", message)
    assert scene.bob.disk.newest == newest
    assert not scene.frozen("bob")


def test_a_state_with_another_total_is_not_adopted_whoever_signed_it(scene: Scene) -> None:
    state = State(scene.alice.channel.id, 7, (1000, 1001), finalized=False)
    signatures = sign_both(state).signatures
    scene.receive("alice", SignedStateMessage(state.channel, 7, state.allocation, False, *signatures))
    assert scene.frozen("alice") == "bad_signature"
    assert scene.alice.disk.newest.state.version == 0


def test_a_resume_confirms_the_version_that_it_names(scene: Scene) -> None:
    (paid,) = scene.pay("bob", 5)
    scene.lose(Confirm)
    scene.run()
    scene.do(scene.alice, lambda: scene.alice.channel.freeze("test", "so that she confirms nothing", scene.now))
    assert scene.status("bob", paid) == "signed"
    scene.ready()
    assert scene.status("bob", paid) == "delivered"


def test_an_outstanding_offer_that_comes_again_is_no_replay(scene: Scene) -> None:
    (paid,) = scene.pay("bob", 5)
    scene.lose(Update)
    scene.run()
    assert scene.status("alice", paid) == "signed"
    scene.ready()
    assert scene.statuses(paid) == ("delivered", "delivered")
    assert not scene.bob.errors


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_a_lost_final_state_that_is_shown_is_the_last_one(scene: Scene, name: str) -> None:
    """Regression: alice, who had signed it, made another one far above it. The canister takes either (rule 1)."""
    old = copy.deepcopy(scene[name].disk)
    scene.pay("alice", 1)
    scene.run()
    scene.close("bob")
    scene.run()
    final = scene.alice.disk.newest
    assert final.state.finalized
    scene.restore(name, old)
    scene.ready()
    assert scene.alice.disk.newest == scene.bob.disk.newest == final
    assert scene[name].disk.signed == old.signed | {2: final.state.digest}
    assert not scene.frozen("bob" if name == "alice" else "alice")


@pytest.mark.parametrize("finalized", [False, True], ids=["payment", "final"])
def test_alice_on_a_copy_closes_whatever_the_copy_has_outstanding(scene: Scene, finalized: bool) -> None:
    """Nothing was lost, and nobody knows that: a final state that is out already is the one, all else is far above."""
    scene.lose(Update)
    if finalized:
        scene.close("alice")
    else:
        scene.pay("alice", 1)
    scene.run()
    copied = copy.deepcopy(scene.alice.disk)
    copied.frozen = "data_loss: this store is a copy"
    scene.restore("alice", copied)
    scene.ready()
    if not finalized:
        assert scene.bob.disk.newest.state.version == 0, "payments are not sent again (rule 7)"
        assert scene.bob.disk.newest.state.version == 0, "nobody knows that nothing was lost"
        scene.declare_newest("alice")
        scene.run()
    final = scene.bob.disk.newest.state
    assert (final.version, final.finalized) == (1 if finalized else 2**32, True)
    assert final.allocation == (1000, 1000)
    assert scene.alice.disk.newest == scene.bob.disk.newest


@pytest.mark.parametrize("closes", [True, False])
def test_an_update_that_a_peer_with_lost_data_has_is_not_given_up(scene: Scene, closes: bool) -> None:
    """Regression: alice ended the loss on the state before it, while its acknowledgement was on the way again."""
    scene.lose(Ack)
    (paid,) = scene.pay("alice", 5)
    scene.run()
    copied = copy.deepcopy(scene.bob.disk)
    copied.frozen = "data_loss: this store is a copy"
    scene.restore("bob", copied)
    scene.connect()
    scene.deliver("alice")  # bob's resume, and nothing after it yet
    if closes:
        scene.close("alice")
    scene.declare_newest("bob")
    scene.run()
    final = scene.alice.disk.newest.state
    assert (final.version, final.allocation) == (2**32, (995, 1005))
    assert scene.alice.disk.newest == scene.bob.disk.newest
    assert scene.statuses(paid) == ("delivered", "delivered")
    assert not scene.frozen("alice")
