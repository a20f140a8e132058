"""One day in a channel, with the power of either side cut after every single thing it does.

Whatever is lost, once both run and talk again each payment ended once and both books say the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from protocol.effects import Phase
from protocol.errors import CallerMistake
from tests.unit.protocol.scene import NAMES, Scene


def day(scene: Scene) -> None:
    """Payments both ways, alone and in lists, a decline, a reconnect, an old look, a cancelled payment, a close."""

    def tried(action: Callable[[], object]) -> None:
        with contextlib.suppress(CallerMistake):  # the channel is not open any more: its user is told so
            action()
        for side in scene.sides:
            if not side.alive:
                scene.restart(side.name)
                scene.look(side.name)
                scene.fund_complete(side.name)
                scene.connect()

    scene.ready()
    tried(scene.fund_complete)
    scene.run()
    tried(lambda: scene.pay("alice", 10))
    tried(lambda: scene.pay("bob", 20, 21, memo=b"rent"))
    scene.deliver("bob")
    tried(lambda: scene.pay("alice", 11, 12))
    scene.deliver("alice")
    tried(lambda: scene.pay("bob", 22))
    scene.run()
    tried(lambda: scene.pay("alice", 400))
    tried(lambda: scene.pay("bob", 30))
    scene.connect()
    tried(lambda: scene.pay("bob", 31))
    scene.run()
    scene.pass_time(scene.alice.terms.params.challenge_duration_ns)
    tried(lambda: scene.pay("alice", 40))
    for queued in scene.alice.channel.queue.peek().each_id():
        tried(lambda i=queued: scene.cancel("alice", i))  # type: ignore[misc]
    tried(lambda: scene.pay("bob", 41))
    scene.run()
    tried(lambda: scene.pay("alice", 50))
    tried(lambda: scene.close("bob"))
    scene.run()


def run_day(scene: Scene) -> None:
    day(scene)
    scene.heal()


def things_done(name: str, *, lagging: bool) -> int:
    scene = Scene(lagging_disks=lagging, phase=Phase.FUNDING)
    scene[name].fuse = 10**6
    day(scene)
    fuse = scene[name].fuse
    assert fuse is not None
    return 10**6 - fuse


@pytest.mark.parametrize("lagging", [False, True], ids=["prompt", "lagging"])
def test_without_a_crash_the_day_ends_with_a_final_state(lagging: bool) -> None:
    scene = Scene(lagging_disks=lagging, phase=Phase.FUNDING)
    run_day(scene)
    scene.check_agreement()
    assert scene.alice.disk.newest.state.finalized
    assert not scene.frozen("alice")
    assert not scene.frozen("bob")
    assert sum(scene.alice.disk.status(*key) == "delivered" for key in scene.paid) >= 10


@pytest.mark.parametrize("lagging", [False, True], ids=["prompt", "lagging"])
@pytest.mark.parametrize("name", NAMES)
def test_power_cut_after_each_thing_done(name: str, lagging: bool) -> None:
    total = things_done(name, lagging=lagging)
    assert total > 40
    for fuse in range(total):
        scene = Scene(lagging_disks=lagging, phase=Phase.FUNDING)
        scene[name].fuse = fuse
        run_day(scene)
        scene.fund_complete()
        scene.run()
        try:
            scene.close("alice")
        except CallerMistake:
            assert scene.alice.channel.phase is Phase.CLOSING, fuse
        scene.run()
        scene.check_agreement()
        assert scene.alice.disk.newest.state.finalized, f"power cut after {fuse}"
        assert not scene.frozen("alice"), (fuse, scene.alice.channel.frozen)
        assert not scene.frozen("bob"), (fuse, scene.bob.channel.frozen)


@pytest.mark.parametrize("first", range(0, 60, 4))
def test_both_lose_power(first: int) -> None:
    for second in range(0, 60, 6):
        scene = Scene(lagging_disks=True, phase=Phase.FUNDING)
        scene.alice.fuse, scene.bob.fuse = first, second
        run_day(scene)
        scene.fund_complete()
        scene.run()
        if scene.alice.channel.phase is Phase.OPEN:
            scene.close("alice")
        scene.run()
        scene.check_agreement()
        assert scene.alice.disk.newest.state.finalized
