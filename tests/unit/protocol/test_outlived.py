"""A channel of a life that is over says nothing that bears a signature of it, whatever the peer says (rule 1).

The driver keeps such messages back as well; here the machine has to do without it.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from protocol.errors import CallerMistake
from protocol.messages import (
    Ack,
    ChannelMessage,
    CloseRequest,
    Confirm,
    Offer,
    Resume,
    ResumePhase,
    SignedStateMessage,
    TowerHeld,
    Update,
)
from protocol.payments import EMPTY, Batch
from protocol.types import SignedState, State
from tests.unit.protocol.scene import KEYS, NAMES, Scene, sign_both

STANDINGS = ("at rest", "lost update", "lost ack", "offered", "final proposed", "proven loss")


def standing(name: str, which: str) -> tuple[Scene, list[Update]]:
    """A channel in which both paid, and the updates that alice said: of all of them bob may be told again."""
    scene = Scene().ready()
    for payer in NAMES:
        scene.pay(payer, 10)
        scene.run()
    match which:
        case "lost update":
            scene.lose(Update)
            scene.pay("alice", 5)
        case "lost ack":
            scene.lose(Ack)
            scene.pay("alice", 5)
        case "offered":
            scene.lose(Update)
            scene.pay("bob", 5)
        case "final proposed":
            scene.lose(Ack)
            scene.close("alice")
        case "proven loss":
            state = State(scene.alice.channel.id, 9, (900, 1100), finalized=False)
            held = TowerHeld(state.channel, 9, state.allocation, False, *sign_both(state).signatures)
            for side in scene.sides:
                side.rules.complete = False
            scene.do(scene[name], lambda: scene[name].channel.recalled(held, scene.now))
        case _:
            pass
    scene.run()
    return scene, [m for m in scene.sent("alice", Update) if isinstance(m, Update)]


def shown(signed: SignedState) -> SignedStateMessage:
    state = signed.state
    return SignedStateMessage(state.channel, state.version, state.allocation, state.finalized, *signed.signatures)


def update_on(signed: SignedState, version: int, *, finalized: bool) -> Update:
    """A correct update that leaves the shares as they are."""
    state = replace(signed.state, version=version, finalized=finalized)
    return Update(state.channel, version, state.allocation, finalized, EMPTY, EMPTY, KEYS[0].sign_state(state))


def resumes(signed: SignedState, pending: list[State]) -> list[ChannelMessage]:
    state = signed.state
    none = [(0, b"")]
    return [
        Resume(state.channel, phase, state.version, state.digest, *claim, recovering=recovering)
        for phase in (ResumePhase.OPEN, ResumePhase.CLOSING)
        for recovering in (False, True)
        for claim in none + [(each.version, each.digest) for each in pending]
    ]


def everything(scene: Scene, name: str, updates: list[Update]) -> list[ChannelMessage]:
    """What a peer that has all signatures could say, in its role."""
    newest = scene[name].channel.newest
    states = [State(u.channel, u.version, u.allocation, u.finalized) for u in updates]
    completed = [sign_both(state) for state in states]
    said: list[ChannelMessage] = [*resumes(newest, states), CloseRequest(newest.state.channel)]
    for signed in completed:
        said += [shown(signed), *resumes(signed, [])]
    if name == "alice":
        said += [Offer(newest.state.channel, Batch.of([scene.new_payment("bob", 3)]))]
        said += [Ack(u.channel, u.version, signed.signatures[1]) for u, signed in zip(updates, completed, strict=True)]
        return said
    said += updates
    said += [update_on(newest, newest.state.version + 1, finalized=final) for final in (False, True)]
    said += [update_on(newest, 2**32, finalized=True)]
    return [*said, Confirm(newest.state.channel, newest.state.version)]


@pytest.mark.parametrize("which", STANDINGS)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_signed_leaves_whatever_is_said_asked_for_and_seen(name: str, which: str) -> None:
    scene, updates = standing(name, which)
    side = scene[name]
    signed = dict(side.disk.signed)
    side.rules.complete = False  # the other copy may have signed what is shown
    scene.cut()
    side.sent.clear()
    scene.do(side, lambda: side.channel.outlive("another life runs", scene.now))
    assert side.channel.recovering
    assert not side.channel.loss_is_proven

    for message in everything(scene, name, updates):
        scene.up, scene.session = True, scene.session + 1
        scene.do(side, lambda: side.channel.session_began(1))
        scene.receive(name, resumes(side.channel.newest, [])[0])
        scene.receive(name, message)
        scene.look(name)
        for asked in (lambda: scene.pay(name, 1), lambda: scene.close(name), lambda: scene.declare_newest(name)):
            with pytest.raises(CallerMistake):
                asked()
        scene.do(side, lambda: side.channel.towers_answered(scene.now))
        scene.cut()

    newly = {version for version in side.disk.signed if version not in signed}
    adopted = {version for version in newly if version <= max(u.version for u in updates)}
    assert newly == adopted, "a signature that nobody had"
    assert not [m for m in side.sent if isinstance(m, Update | Ack)]
