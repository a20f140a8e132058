"""A node that recovers signs a final state by itself only on the shares of a state that was adopted (rule 7).

The one who wins when that is wrong is the peer: he had paid, hides it, and has the end signed on shares from before.
Nothing that he says, and nothing that he does not show, is proof: an equal version least of all.
"""

from __future__ import annotations

import copy

import pytest

from protocol.effects import Phase
from protocol.errors import CallerMistake
from protocol.messages import Ack, CloseRequest, Resume, ResumePhase, Update
from protocol.standing import WayOut, way_out
from protocol.types import State
from tests.unit.protocol.scene import NAMES, Scene, sign_both
from tests.unit.protocol.test_recalling import PEER, held, marked, recall

FAR = 2**32


def hidden(name: str, *, towers: bool = False, phase: Phase = Phase.OPEN) -> Scene:
    """One side is back at version 0, marked as a copy; its peer, which had paid it 300, plays that nothing was paid."""
    scene = Scene().ready()
    old = marked(scene[name].disk)
    old.phase = phase
    young = copy.deepcopy(scene[PEER[name]].disk)
    scene.pay(PEER[name], 300)
    scene.run()
    scene.cut()
    scene.restore(name, old)
    scene[name].channel.awaits_towers = towers
    scene.restore(PEER[name], young)
    scene[PEER[name]].rules.left = {}
    scene[name].sent.clear()
    scene.look()
    return scene


def signed_nothing(scene: Scene, name: str) -> bool:
    return set(scene[name].disk.signed) == {0} and not [m for m in scene[name].sent if isinstance(m, Update | Ack)]


@pytest.mark.parametrize("name", NAMES)
def test_it_signs_nothing_whatever_the_peer_proposes(name: str) -> None:
    scene = hidden(name)
    scene.ready()
    assert scene[name].channel.recovering
    scene.close(PEER[name])  # the peer proposes the far final state, or asks for it
    for _ in range(3):
        scene.run()
        scene.look()
        scene.ready()
    assert signed_nothing(scene, name)
    assert way_out(scene[name].channel) is WayOut.UNPROVEN


@pytest.mark.parametrize("name", NAMES)
def test_towers_that_hold_nothing_newer_prove_nothing(name: str) -> None:
    scene = hidden(name, towers=True)
    scene.ready()
    assert way_out(scene[name].channel) is WayOut.TOWERS
    recall(scene, name, sign_both(scene.alice.terms.state_0()))  # as old as what is here
    scene.do(scene[name], lambda: scene[name].channel.towers_answered(scene.now))
    scene.close(PEER[name])
    scene.run()
    scene.look()
    scene.run()
    assert signed_nothing(scene, name)
    assert way_out(scene[name].channel) is WayOut.UNPROVEN


@pytest.mark.parametrize("claim", [0, 5, FAR], ids=["the same version", "a newer one", "far above"])
@pytest.mark.parametrize("name", NAMES)
def test_what_the_peer_says_is_no_proof(name: str, claim: int) -> None:
    scene = hidden(name)
    side, state = scene[name], scene[name].channel.newest.state
    scene.connect()
    scene.mute()
    digest = state.digest if not claim else b"\7" * 32
    scene.receive(name, Resume(state.channel, ResumePhase.CLOSING, claim, digest, 0, b"", recovering=True))
    if name == "alice":
        scene.receive(name, CloseRequest(state.channel))
    else:
        scene.receive(name, scene.signed_update(version=FAR, finalized=True))
    scene.look()
    scene.mute()
    assert signed_nothing(scene, name)
    assert side.channel.peer_version == claim


@pytest.mark.parametrize("name", NAMES)
def test_its_own_user_cannot_close_it_without_knowing(name: str) -> None:
    scene = hidden(name)
    scene.ready()
    with pytest.raises(CallerMistake) as refused:
        scene.close(name)
    assert refused.value.code == "channel_recovering"
    assert signed_nothing(scene, name)


@pytest.mark.parametrize("peer_proposes", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_operator_declares_it_the_newest_and_it_closes_on_those_shares(name: str, peer_proposes: bool) -> None:
    scene = hidden(name)
    scene.ready()
    if peer_proposes:
        scene.close(PEER[name])
        scene.run()
        proposed = scene[name].channel.proposed_end
        assert (proposed is not None) is (name == "bob")
    scene.declare_newest(name)
    assert way_out(scene[name].channel) in (WayOut.PROVEN, WayOut.SETTLES)
    scene.run()
    final = scene[name].disk.newest.state
    assert (final.version, final.finalized, final.allocation) == (FAR, True, (1000, 1000))
    assert scene.alice.disk.newest == scene.bob.disk.newest


@pytest.mark.parametrize("name", NAMES)
def test_a_declaration_outlives_a_restart_and_needs_no_session(name: str) -> None:
    scene = hidden(name)
    scene.declare_newest(name)
    scene.restart(name)
    scene[name].channel.awaits_towers = False
    scene.look()
    assert scene[name].channel.loss_is_proven
    scene.ready()
    assert scene[name].disk.newest.state.version == FAR


@pytest.mark.parametrize("name", NAMES)
def test_other_shares_than_those_declared_are_never_signed(name: str) -> None:
    scene = hidden(name)
    scene.declare_newest(name)
    scene.connect()
    scene.mute()
    side, state = scene[name], scene[name].channel.newest.state
    scene.receive(name, Resume(state.channel, ResumePhase.CLOSING, 0, state.digest, 0, b"", recovering=False))
    scene.mute()
    if name == "alice":
        assert [m.allocation for m in side.sent if isinstance(m, Update)] == [(1000, 1000)]
        return
    for allocation in ((2000, 0), (999, 1001), (1001, 999)):
        worse = State(state.channel, FAR, allocation, finalized=True)
        good = scene.signed_update(version=FAR, finalized=True)
        lie = Update(worse.channel, FAR, allocation, True, good.from_0, good.from_1, sign_both(worse).signatures[0])
        scene.receive(name, lie)
    assert signed_nothing(scene, name)


@pytest.mark.parametrize("name", NAMES)
def test_a_newer_state_that_comes_after_the_declaration_takes_its_place(name: str) -> None:
    scene = hidden(name)
    scene.declare_newest(name)
    newest = sign_both(State(scene.alice.channel.id, 4, (700, 1300), finalized=False))
    recall(scene, name, newest)
    assert scene[name].channel.loss_is_proven
    assert scene[name].channel.version == 4
    with pytest.raises(CallerMistake) as refused:
        scene[name].channel.declare_newest(0, scene.now)
    assert refused.value.code == "version_changed"


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_of_a_node_whose_loss_was_proven_is_not_proven(name: str) -> None:
    """What was adopted before the copy was made says nothing of what was adopted after it."""
    scene = hidden(name)
    recall(scene, name, sign_both(State(scene.alice.channel.id, 2, (1200, 800), finalized=False)))
    assert scene[name].channel.loss_is_proven
    copied = marked(scene[name].disk)
    scene.restore(name, copied)
    assert scene[name].channel.recovering
    assert not scene[name].channel.loss_is_proven


@pytest.mark.parametrize(
    ("prepare", "code"),
    [
        (lambda s, n: None, "towers_not_asked"),
        (lambda s, n: s.leave(n), "channel_closing"),
        (lambda s, n: setattr(s[n].channel, "phase", Phase.FUNDING), "channel_not_open"),
        (lambda s, n: s.do(s[n], lambda: s[n].channel.accept_risk(s.now)), "not_recovering"),
    ],
    ids=["before the towers were asked", "when it leaves", "before it is funded", "after the risk was accepted"],
)
@pytest.mark.parametrize("name", NAMES)
def test_when_nothing_can_be_declared(name: str, prepare: object, code: str) -> None:
    scene = hidden(name, towers=True)
    prepare(scene, name)  # type: ignore[operator]  # one of the functions above
    with pytest.raises(CallerMistake) as refused:
        scene.declare_newest(name)
    assert refused.value.code == code
    assert signed_nothing(scene, name)


@pytest.mark.parametrize("name", NAMES)
def test_a_version_above_that_comes_from_both_is_proof(name: str) -> None:
    """The rule does not hold up what is proven: adopted, it closes by itself on those shares."""
    scene = hidden(name)
    newest = sign_both(State(scene.alice.channel.id, 4, (700, 1300), finalized=False))
    assert held(newest).version == 4
    recall(scene, name, newest)
    scene.ready()
    final = scene[name].disk.newest.state
    assert (final.version, final.allocation) == (FAR, (700, 1300))
