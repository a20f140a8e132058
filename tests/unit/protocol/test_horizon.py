"""The horizon counts as a look at a quiet channel, and never at one in which something is registered (rule 4)."""

import dataclasses

from protocol.effects import Look, Phase
from protocol.horizon import Horizon
from protocol.messages import Ack, Update
from protocol.types import Nanos
from tests.unit.protocol.scene import FRESH_NS, Scene


def test_payments_go_on_by_the_horizon_alone() -> None:
    scene = Scene().ready()
    horizon = Horizon()
    for side in (scene.alice, scene.bob):
        side.channel.horizon = horizon
    scene.pass_time(10 * FRESH_NS)
    assert not scene.alice.channel.may_update(scene.now)
    horizon.move(scene.elapsed_ns - 1, scene.now.chain_ns)
    scene.pay("alice", 1)
    assert scene.sent("alice", Update)
    scene.run(looks=0)
    assert scene.sent("bob", Ack)
    assert scene.allocation == (999, 1001)
    assert scene.alice.channel.looked_at_ns == scene.elapsed_ns - 1


def test_an_old_horizon_takes_nothing_from_a_newer_look() -> None:
    scene = Scene().ready()
    asked_ns = scene.alice.channel.looked_at_ns
    scene.alice.channel.horizon.move(1, Nanos(1))
    assert scene.alice.channel.looked_at_ns == asked_ns
    assert scene.alice.channel.may_update(scene.now)


def test_a_horizon_is_no_look_at_a_channel_that_had_none() -> None:
    """Only whoever watches knows which channels the horizon speaks of: those that had a look since they are watched."""
    scene = Scene()
    scene.alice.channel.horizon.move(scene.elapsed_ns, scene.now.chain_ns)
    assert scene.alice.channel.looked_at_ns is None
    assert not scene.alice.channel.may_update(scene.now)


def test_a_horizon_says_nothing_of_a_channel_with_a_registered_state() -> None:
    scene = Scene().ready()
    scene.register(scene.alice.disk.newest)
    scene.look("alice")
    scene.alice.channel.horizon.move(scene.elapsed_ns + 1, scene.now.chain_ns)
    assert not scene.alice.channel.may_update(scene.now)
    assert scene.alice.channel.look is not None
    assert scene.alice.channel.looked_at_ns == scene.alice.channel.look.asked_ns


def test_a_look_that_was_overtaken_counts_when_it_shows_more() -> None:
    """Its request was signed before the newest look's, and executed after it: what is registered stays registered."""
    scene = Scene().ready()
    channel = scene.alice.channel
    newest = channel.look
    assert newest is not None
    state = channel.newest.state
    more = Look(newest.asked_ns - 1, Nanos(newest.chain_ns), state.version, state.digest, settled=False)
    channel.looked(more, scene.now)
    assert channel.phase is Phase.LEAVING
    assert not channel.may_update(scene.now)
    assert channel.look == dataclasses.replace(more, asked_ns=newest.asked_ns)
    less = dataclasses.replace(newest, asked_ns=newest.asked_ns - 2)
    channel.looked(less, scene.now)
    assert channel.look is not None
    assert channel.look.version == state.version
