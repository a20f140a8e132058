"""What our own store shows that we signed proves no loss: it is an acknowledgement that comes late (rule 7).

The one who wins when that is wrong is bob: he keeps his acknowledgement, says that he lost data and wants to close, and
shows alice her own update completed. A node that takes that for a loss of its own disputes nothing any more.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from protocol.effects import Look, Phase, Received
from protocol.messages import (
    Ack,
    CloseRequest,
    ErrorMessage,
    Resume,
    ResumePhase,
    SignedStateMessage,
    TowerHeld,
    Update,
)
from protocol.payments import Batch
from protocol.standing import WayOut, way_out
from protocol.types import SignedState, State
from tests.unit.protocol.scene import Scene, sign_both


def update_state(update: Update) -> State:
    return State(update.channel, update.version, update.allocation, update.finalized)


def feigned_loss(*, restarted: bool = False, theirs: int = 0) -> tuple[Scene, Update, SignedState, list[bytes]]:
    """Bob has kept the acknowledgement of an update that pays him 50 (and alice `theirs`), and feigns a loss.

    Returns the update, the same fully signed, and the ids of its payments. Alice has given it up for a final state.
    """
    scene = Scene().ready()
    ids = []
    if theirs:
        ids.append(scene.pay("bob", theirs)[0])
        scene.deliver("alice", 1)
        scene.mute()
        scene.cut()
    else:
        ids.append(scene.pay("alice", 50)[0])
        scene.mute()
        scene.cut()
    update = scene.alice.channel.pending
    assert update is not None
    scene.crash("bob")  # bob is played by the test from here on
    scene.session += 1
    scene.up = True
    scene.do(scene.alice, lambda: scene.alice.channel.session_began(1))
    state_0 = scene.alice.channel.newest.state
    claim = Resume(state_0.channel, ResumePhase.CLOSING, 0, state_0.digest, 0, b"", recovering=True)
    scene.receive("alice", claim)
    scene.receive("alice", CloseRequest(state_0.channel))
    final = scene.alice.channel.pending
    assert final is not None and final.finalized and final.version == 2**32
    if restarted:
        scene.restart("alice")
        scene.session += 1
        scene.up = True
        scene.look("alice")
        scene.do(scene.alice, lambda: scene.alice.channel.session_began(1))
    return scene, update, sign_both(update_state(update)), ids


def shown(signed: SignedState) -> SignedStateMessage:
    state = signed.state
    return SignedStateMessage(state.channel, state.version, state.allocation, state.finalized, *signed.signatures)


def as_message(scene: Scene, signed: SignedState) -> None:
    scene.receive("alice", shown(signed))


def as_ack(scene: Scene, signed: SignedState) -> None:
    resume_again(scene, signed)
    scene.receive("alice", Ack(signed.state.channel, signed.state.version, signed.signatures[1]))


def as_resume_then_message(scene: Scene, signed: SignedState) -> None:
    resume_again(scene, signed)
    scene.receive("alice", shown(signed))


def resume_again(scene: Scene, signed: SignedState) -> None:
    state = signed.state
    claim = Resume(state.channel, ResumePhase.CLOSING, state.version, state.digest, 0, b"", recovering=True)
    scene.receive("alice", claim)


def from_a_tower(scene: Scene, signed: SignedState) -> None:
    state = signed.state
    held = TowerHeld(state.channel, state.version, state.allocation, state.finalized, *signed.signatures)
    scene.do(scene.alice, lambda: scene.alice.channel.recalled(held, scene.now))


WAYS: dict[str, Callable[[Scene, SignedState], None]] = {
    "a signed state": as_message,
    "the acknowledgement": as_ack,
    "a resume, then the state": as_resume_then_message,
    "a tower": from_a_tower,
}


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_an_update_that_was_given_up_comes_back_as_its_acknowledgement(way: str, restarted: bool) -> None:
    scene, _, signed, (paid,) = feigned_loss(restarted=restarted)
    signed_before = dict(scene.alice.disk.signed)
    WAYS[way](scene, signed)

    assert not scene.frozen("alice")
    assert not any(e.kind in ("channel.adopted", "channel.peer_claims_newer") for e in scene.alice.disk.events)
    assert scene.alice.disk.newest == scene.alice.channel.newest == signed
    assert scene.status("alice", paid) == "signed"  # bob can complete the final state, too: the canister decides
    # Rule 1 stands: the final state far above is the last one that is signed, and it is not lost sight of.
    assert scene.alice.disk.signed == signed_before
    assert scene.alice.channel.pending is not None and scene.alice.channel.pending.version == 2**32
    assert way_out(scene.alice.channel) is WayOut.FORCED  # the node settles alone, with that state
    scene.restart("alice")
    assert (scene.alice.channel.newest, scene.frozen("alice")) == (signed, "")


@pytest.mark.parametrize("restarted", [False, True])
def test_the_same_state_registered_on_the_canister_is_no_loss(restarted: bool) -> None:
    scene, _, signed, (paid,) = feigned_loss(restarted=restarted)
    scene.register(signed)
    scene.look("alice")
    assert not scene.frozen("alice")
    assert scene.alice.channel.phase is Phase.LEAVING
    scene.settle(signed.state, "alice")
    assert scene.status("alice", paid) == "delivered"


@pytest.mark.parametrize("restarted", [False, True])
def test_what_the_peer_paid_in_it_is_received_when_it_is_settled_and_not_before(restarted: bool) -> None:
    """Alice signed a final state without it: bob can complete that too, and what he paid would be his again."""
    scene, _, signed, _ = feigned_loss(restarted=restarted, theirs=40)
    scene.receive("alice", shown(signed))
    scene.look("alice")
    assert scene.alice.disk.newest == signed
    assert not any(isinstance(effect, Received) for effect in scene.alice.told)
    scene.settle(signed.state, "alice")
    [received] = [effect for effect in scene.alice.told if isinstance(effect, Received)]
    assert received.version == signed.state.version


@pytest.mark.parametrize("was_shown", [False, True])
def test_what_is_in_neither_of_them_ends_when_the_final_state_is_settled(was_shown: bool) -> None:
    """Bob completes the final state after all: the payment is his loss, and alice does not call it delivered."""
    scene, _, signed, (paid,) = feigned_loss()
    if was_shown:
        scene.receive("alice", shown(signed))
        assert scene.status("alice", paid) == "signed"
    final = scene.alice.channel.pending
    assert final is not None
    scene.settle(update_state(final), "alice")
    assert scene.status("alice", paid) == "failed"


@pytest.mark.parametrize("was_shown", [False, True])
@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("refuted", [False, True])
def test_the_final_state_acknowledged_ends_what_was_given_up_when_it_is_settled(
    was_shown: bool, refuted: bool, restarted: bool
) -> None:
    """Bob can still register it, and has it settled when nobody refutes: who was told that it failed pays twice."""
    scene, _, signed, (paid,) = feigned_loss()
    if was_shown:
        scene.receive("alice", shown(signed))
    final = scene.alice.channel.pending
    assert final is not None
    scene.receive("alice", Ack(final.channel, final.version, sign_both(update_state(final)).signatures[1]))
    assert scene.alice.disk.newest.state == update_state(final)
    assert scene.status("alice", paid) == "unknown"
    if restarted:
        scene.restart("alice")
    scene.settle(update_state(final) if refuted else signed.state, "alice")
    assert scene.status("alice", paid) == ("failed" if refuted else "delivered")


def test_a_given_up_update_needs_the_peers_signature() -> None:
    scene, _, signed, _ = feigned_loss()
    scene.receive("alice", Ack(signed.state.channel, signed.state.version, b"\1" * 64))
    assert scene.frozen("alice") == "bad_signature"
    assert scene.alice.disk.newest.state.version == 0


def test_another_state_of_that_version_is_no_acknowledgement() -> None:
    """Both signatures on other content: that was signed in a life that is gone, and it proves a loss."""
    scene, _, signed, _ = feigned_loss()
    other = sign_both(State(signed.state.channel, signed.state.version, (1500, 500), finalized=False))
    scene.alice.rules.complete = False  # what leads to that state is lost
    scene.receive("alice", shown(other))
    assert scene.frozen("alice") == "data_loss"


@pytest.mark.parametrize("marked", [False, True], ids=["put back by hand", "marked"])
def test_a_copy_that_has_it_outstanding_is_not_proven_old_by_it(marked: bool) -> None:
    """It is completed in the life that went on, and shows nothing of what came after it: nothing is signed on it."""
    scene = Scene().ready()
    scene.lose(Ack)
    (paid,) = scene.pay("alice", 50)
    scene.run()
    copied = copy.deepcopy(scene.alice.disk)
    if marked:
        copied.frozen, copied.loss_end_version = "data_loss: this store is a copy", None
    scene.restore("alice", copied)
    scene.ready()
    assert scene.alice.disk.newest.state.version == 1
    assert scene.status("alice", paid) == "delivered"
    assert (scene.frozen("alice") == "data_loss") is marked
    assert not scene.alice.channel.loss_is_proven
    assert not scene.alice.disk.signature.finalized


def test_a_registered_state_that_nobody_here_signed_is_a_loss() -> None:
    scene, _, signed, _ = feigned_loss()
    strange = State(signed.state.channel, 7, (1500, 500), finalized=False)
    look = Look(scene.elapsed_ns, scene.now.chain_ns, 7, strange.digest, settled=False)
    scene.do(scene.alice, lambda: scene.alice.channel.looked(look, scene.now))
    assert scene.frozen("alice") == "data_loss"


def test_a_payment_of_an_update_that_was_given_up_is_not_offered_twice() -> None:
    """Its ids are known: bob's offer of the same payment is a replay when the update has come back."""
    scene, update, signed, _ = feigned_loss(theirs=40)
    scene.receive("alice", shown(signed))
    assert isinstance(update.from_1, Batch)
    assert scene.alice.disk.known(update.channel, 1, update.from_1)
    assert not [m for m in scene.alice.sent if isinstance(m, ErrorMessage)]
