"""What a tower gives back after a loss is adopted like what the peer shows, and the peer cannot hide it (rule 7)."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from protocol.effects import LookNow, Phase, SignatureRecord
from protocol.errors import PeerViolation, PerundError
from protocol.messages import Ack, CloseRequest, Resume, SignedStateMessage, TowerHeld, Update
from protocol.types import ChannelId, SignedState, State
from tests.unit.protocol.disk import Disk
from tests.unit.protocol.scene import NAMES, Scene, sign_both

PEER = {"alice": "bob", "bob": "alice"}


def held(signed: SignedState) -> TowerHeld:
    state = signed.state
    return TowerHeld(state.channel, state.version, state.allocation, state.finalized, *signed.signatures)


def recall(scene: Scene, name: str, signed: SignedState) -> None:
    scene.do(scene[name], lambda: scene[name].channel.recalled(held(signed), scene.now))


def answered(scene: Scene, name: str) -> None:
    scene.do(scene[name], lambda: scene[name].channel.towers_answered(scene.now))


def marked(disk: Disk) -> Disk:
    """A copy of a disk that knows that it is one."""
    made = copy.deepcopy(disk)
    made.frozen, made.loss_end_version = "data_loss: this store is a copy", None
    return made


def after_a_loss(name: str, versions: int = 4) -> tuple[Scene, SignedState]:
    """Both paid; one side is at version 0 again, knows it, and is alone. Returns what was the newest."""
    scene = Scene().ready()
    old = marked(scene[name].disk)
    for version in range(1, versions + 1):
        scene.pay("alice", version)
        scene.run()
    newest = scene.alice.disk.newest
    assert newest.state.version == versions
    scene.cut()
    scene.restore(name, old)
    scene.look()
    return scene, newest


def check_ended_far_above(scene: Scene, name: str, newest: SignedState, *shown: int) -> None:
    """One final state with that allocation, where no lost state can be, and nothing else was signed.

    The record of signatures covers what came back as well; `shown`: versions that came back before the newest.
    """
    final = scene[name].disk.newest.state
    assert (final.version, final.finalized, final.allocation) == (2**32, True, newest.state.allocation)
    assert scene.alice.disk.newest == scene.bob.disk.newest
    assert set(scene[name].disk.signed) == {0, *shown, newest.state.version, 2**32}


@pytest.mark.parametrize("name", NAMES)
def test_alone_it_adopts_signs_nothing_and_settles_on_that_state_when_the_risk_is_accepted(name: str) -> None:
    scene, newest = after_a_loss(name)
    side = scene[name]
    sent = len(side.sent)

    recall(scene, name, newest)

    assert side.disk.newest == side.channel.newest == newest
    assert side.channel.recovering
    assert side.disk.phase is Phase.CLOSING
    # The record covers what came back, for it bears our signature; nothing else was signed or said.
    assert (set(side.disk.signed), len(side.sent)) == ({0, 4}, sent)
    [event] = [e for e in side.disk.events if e.kind == "channel.adopted"]
    assert event.data == {"version": 4, "had": 0, "from": "a watchtower"}
    scene.restart(name)  # all of it is on the disk
    assert (side.channel.newest, side.channel.recovering) == (newest, True)

    scene.do(side, lambda: side.channel.accept_risk(scene.now))
    scene.leave(name)
    assert (side.disk.phase, side.disk.newest) == (Phase.LEAVING, newest)
    assert set(side.disk.signed) == {0, 4}


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_when_the_peer_comes_they_close_far_above(name: str, restarted: bool) -> None:
    scene, newest = after_a_loss(name)
    recall(scene, name, newest)
    if restarted:
        scene.restart(name)
    scene.ready()
    check_ended_far_above(scene, name, newest)
    assert not scene.frozen(PEER[name])


@pytest.mark.parametrize("kind", [Update, Ack, Resume, CloseRequest])
@pytest.mark.parametrize("name", NAMES)
def test_what_ends_a_loss_is_said_again_when_it_was_lost(name: str, kind: type[Update]) -> None:
    """Regression: participant 0 never sent the final state again when its session ended."""
    scene, newest = after_a_loss(name)
    recall(scene, name, newest)
    scene.lose(kind)
    scene.ready()
    for _ in range(2):
        scene.ready()
    check_ended_far_above(scene, name, newest)


@pytest.mark.parametrize("name", NAMES)
def test_who_lost_the_same_is_shown_what_the_tower_kept(name: str) -> None:
    scene, newest = after_a_loss(name)
    peer = PEER[name]
    young = copy.deepcopy(scene[peer].disk)
    young.newest, young.outstanding = SignedState(scene.alice.terms.state_0(), scene[name].disk.newest.signatures), None
    young.signature = SignatureRecord(newest.state.channel, 0, young.newest.state.digest, finalized=False)
    young.signed = {0: young.newest.state.digest}
    scene.restore(peer, young)
    scene.ready()
    assert scene.allocation == (1000, 1000)

    recall(scene, name, newest)
    scene.run()

    final = scene.alice.disk.newest.state
    assert (final.version, final.allocation) == (2**32, newest.state.allocation)
    assert scene.bob.disk.newest == scene.alice.disk.newest
    assert scene.frozen(peer) == "data_loss"


@pytest.mark.parametrize("name", NAMES)
def test_a_peer_that_hides_the_newest_state_gets_no_signature_before_the_towers_were_asked(name: str) -> None:
    scene = Scene().ready()
    old = marked(scene[name].disk)
    scene.pay("bob", 300)
    scene.run()
    hidden = copy.deepcopy(scene[PEER[name]].disk)  # what the peer shows later
    scene.pay("alice", 700)
    scene.run()
    newest = scene.alice.disk.newest
    scene.restore(PEER[name], hidden)
    scene.restore(name, old)
    side = scene[name]
    side.channel.awaits_towers = True

    scene.ready()
    scene.look()
    scene.run()
    assert side.disk.newest.state.version == 1
    assert side.channel.connected
    assert set(side.disk.signed) == {0, 1}
    scene.ready()
    assert set(side.disk.signed) == {0, 1}

    recall(scene, name, newest)
    assert set(side.disk.signed) == {0, 1, 2}
    answered(scene, name)
    scene.run()
    check_ended_far_above(scene, name, newest, 1)
    assert SignedStateMessage in map(type, side.sent)


@pytest.mark.parametrize("name", NAMES)
def test_towers_that_have_nothing_hold_nothing_up(name: str) -> None:
    scene, newest = after_a_loss(name)
    scene[name].channel.awaits_towers = True
    scene.ready()
    assert scene[name].disk.newest == newest
    answered(scene, name)
    scene.run()
    check_ended_far_above(scene, name, newest)


@pytest.mark.parametrize("name", NAMES)
def test_a_tower_that_is_faster_than_the_peers_proof(name: str) -> None:
    """The peer has claimed the newest state and shows it a moment later: it is no claim any more."""
    scene, newest = after_a_loss(name)
    scene.connect()
    scene.deliver(name)
    assert not scene[name].channel.connected
    recall(scene, name, newest)
    assert not scene[name].channel.connected
    scene.run()
    check_ended_far_above(scene, name, newest)


def test_a_claim_that_is_not_shown_is_not_believed_either() -> None:
    scene, newest = after_a_loss("bob")
    scene.connect()
    scene.mute()
    claim = Resume(scene.bob.channel.id, scene.bob.channel._resume().phase, 9, bytes(32), 0, b"", recovering=False)
    scene.receive("bob", claim)
    recall(scene, "bob", newest)
    scene.mute()
    assert not scene.bob.channel.connected
    assert CloseRequest not in map(type, scene.bob.sent)


def changed(signed: SignedState, **changes: object) -> TowerHeld:
    return replace(held(signed), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("recovering", [True, False])
def test_what_is_no_state_of_both_changes_nothing(name: str, recovering: bool) -> None:
    scene, newest = after_a_loss(name) if recovering else (Scene().ready(), None)
    side = scene[name]
    other = sign_both(State(ChannelId(bytes(64)), 9, (1000, 1000), finalized=False))
    richer = sign_both(State(side.channel.id, 9, (1000, 1001), finalized=False))
    good = newest or sign_both(State(side.channel.id, 9, (900, 1100), finalized=False))
    signed_by_one = (good.signatures[0], good.signatures[0])
    lies = [
        held(richer),
        changed(other, channel=side.channel.id),
        changed(good, version=good.state.version + 1),
        changed(good, allocation=(999, 1001)),
        changed(good, finalized=True),
        changed(good, signature_0=bytes(64)),
        changed(good, signature_0=signed_by_one[0], signature_1=signed_by_one[1]),
        changed(good, allocation=(2**64 - 1, 2**64 - 1)),
    ]
    before = copy.deepcopy(side.disk), side.channel.newest, side.channel.frozen
    for lie in lies:
        with pytest.raises(PerundError):
            side.channel.recalled(lie, scene.now)
    assert (side.disk, side.channel.newest, side.channel.frozen) == before
    if recovering:
        recall(scene, name, good)
        assert side.disk.newest == good


def test_what_is_not_newer_changes_nothing() -> None:
    scene = Scene().ready()
    scene.pay("alice", 1)
    scene.run()
    for state in (scene.alice.terms.state_0(), scene.alice.channel.newest.state):
        step = scene.alice.channel.recalled(held(sign_both(state)), scene.now)
        assert (step.durable, step.outgoing) == ((), ())
    assert not scene.frozen("alice")


@pytest.mark.parametrize("name", NAMES)
def test_who_did_not_know_of_a_loss_learns_it_loudly(name: str) -> None:
    scene = Scene().ready()
    copied = copy.deepcopy(scene[name].disk)  # not marked: somebody put it back by hand
    scene.pay("alice", 40)
    scene.run()
    newest = scene.alice.disk.newest
    scene.cut()
    scene.restore(name, copied)
    scene.look()
    (unclear,) = scene.pay(name, 5)

    recall(scene, name, newest)

    side = scene[name]
    assert side.channel.recovering
    assert side.disk.frozen == "data_loss: version 1 came from a watchtower: this node had lost it"
    [event] = [e for e in side.disk.events if e.kind == "channel.frozen"]
    assert event.data["alarm"] is True
    assert side.disk.status(side.terms.our_index, unclear) == "unknown"
    scene.ready()
    check_ended_far_above(scene, name, newest)


def test_our_own_outstanding_state_is_an_acknowledgement_and_no_loss() -> None:
    """The tower got it from a life in which the acknowledgement had arrived; this store has the update itself."""
    scene = Scene().ready()
    scene.lose(Ack)
    (paid,) = scene.pay("alice", 10)
    scene.run()
    newest = scene.bob.disk.newest
    assert scene.alice.channel.pending is not None

    recall(scene, "alice", newest)

    assert scene.alice.disk.newest == newest
    assert not scene.frozen("alice")
    assert scene.status("alice", paid) == "delivered"
    scene.ready()
    scene.pay("bob", 3)
    scene.run()
    assert scene.allocation == (993, 1007)


@pytest.mark.parametrize("source", ["tower", "peer"])
@pytest.mark.parametrize("name", NAMES)
def test_a_final_state_that_comes_back_is_the_last_one(name: str, source: str) -> None:
    """Rule 1: whoever signed it in the life that was lost signs nothing after it, not even far above."""
    scene, newest = after_a_loss(name)
    state = replace(newest.state, version=5, finalized=True)
    final = sign_both(state)
    peer = scene[PEER[name]]
    peer.disk.newest, peer.disk.phase = final, Phase.CLOSING
    scene.restore(PEER[name], peer.disk)
    if source == "tower":
        recall(scene, name, final)
    scene.ready()
    if name == "bob":
        scene.receive("bob", scene.signed_update(version=2**32, finalized=True))
    assert scene[name].disk.newest == final
    assert set(scene[name].disk.signed) == {0, 5}


@pytest.mark.parametrize("name", NAMES)
def test_a_look_is_asked_for_when_something_is_registered(name: str) -> None:
    """What is registered may be below what came back: the watcher has to refute it at once."""
    scene, newest = after_a_loss(name)
    scene.register(sign_both(State(newest.state.channel, 2, (997, 1003), finalized=False)))
    scene.look(name)
    assert scene[name].disk.phase is Phase.LEAVING
    step = scene[name].channel.recalled(held(newest), scene.now)
    assert any(isinstance(effect, LookNow) for effect in step.outgoing)
    assert scene[name].channel.newest == newest


def test_what_is_settled_stays_as_it_is() -> None:
    scene, newest = after_a_loss("alice")
    scene.settle(scene.alice.terms.state_0(), "alice")
    step = scene.alice.channel.recalled(held(newest), scene.now)
    assert (step.durable, step.outgoing) == ((), ())


def test_a_violation_by_a_tower_is_no_violation_by_the_peer() -> None:
    scene = Scene().ready()
    with pytest.raises(PeerViolation):
        scene.alice.channel.recalled(TowerHeld(scene.alice.channel.id, 9, (1, 1999), False, bytes(64), bytes(64)),
                                     scene.now)  # fmt: skip
    scene.pay("alice", 1)
    scene.run()
    assert scene.allocation == (999, 1001)


@pytest.mark.parametrize("name", NAMES)
def test_a_life_that_is_over_signs_not_even_the_end_of_a_loss(name: str) -> None:
    """Another copy of the node goes on: a final state far above would end the channel under its hands (ADR 0012)."""
    scene, newest = after_a_loss(name)
    channel = scene[name].channel
    channel.outlived = True
    scene.connect()
    recall(scene, name, newest)
    answered(scene, name)
    scene.close(PEER[name])
    scene.run()
    assert channel.version == newest.state.version
    assert not scene[name].disk.newest.state.finalized
    assert max(scene[name].disk.signed) == newest.state.version, "only what came back is in the record"


@pytest.mark.parametrize("name", NAMES)
def test_a_life_that_is_over_neither_proposes_nor_acknowledges(name: str) -> None:
    scene = Scene().ready()
    scene.pay("alice", 1)
    scene.run()
    before = {kind: len(scene.sent(name, kind)) for kind in (Update, Ack)}
    scene[name].channel.outlived = True
    for payer in ("alice", "bob"):
        scene.pay(payer, 5)
        scene.run()
    scene.cut()
    scene.connect()  # what was outstanding is not said again either
    scene.run()
    scene.close("bob" if name == "alice" else "alice")
    scene.run()
    assert {kind: len(scene.sent(name, kind)) for kind in (Update, Ack)} == before
    assert scene[name].channel.version == 1
