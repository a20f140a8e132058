"""Rule 4: no update is signed or acknowledged, and nothing counts as received, without a fresh clean look."""

from __future__ import annotations

import pytest

from protocol.effects import Delivered, Moment, Phase, Received
from protocol.errors import CallerMistake
from protocol.messages import Ack, Update
from protocol.types import Nanos
from tests.unit.protocol.scene import FRESH_NS, Scene, sign_both


def test_without_a_look_nothing_is_signed() -> None:
    scene = Scene()
    scene.connect()
    scene.run(looks=0)
    (paid,) = scene.pay("alice", 1)
    assert not scene.sent("alice", Update)
    assert scene.alice.wants_look
    assert scene.status("alice", paid) == "queued"
    scene.look("alice")
    assert scene.sent("alice", Update)
    scene.drain()
    assert not scene.sent("bob", Ack)
    assert scene.bob.wants_look
    scene.look("bob")
    assert scene.sent("bob", Ack)
    scene.run()
    assert scene.allocation == (999, 1001)


@pytest.mark.parametrize(("age_ns", "signs"), [(0, True), (FRESH_NS - 1, True), (FRESH_NS, False), (10**15, False)])
def test_a_look_is_as_old_as_its_request(age_ns: int, signs: bool) -> None:
    scene = Scene()
    scene.connect()
    scene.run(looks=0)
    scene.look(asked_ns=scene.elapsed_ns - age_ns)
    scene.pay("alice", 1)
    assert bool(scene.sent("alice", Update)) is signs


def test_a_look_that_arrives_late_does_not_make_an_older_one_of_a_newer() -> None:
    scene = Scene().ready()
    scene.look(asked_ns=scene.elapsed_ns - FRESH_NS)
    scene.pay("alice", 1)
    scene.run(looks=0)
    assert scene.allocation == (999, 1001)


def test_a_stale_look_holds_the_acknowledgement_until_a_fresh_one() -> None:
    scene = Scene().ready()
    (paid,) = scene.pay("alice", 1)
    scene.pass_time(FRESH_NS)
    scene.run(looks=0)
    assert not scene.sent("bob", Ack)
    assert scene.status("bob", paid) == "unknown"
    scene.look("bob")
    scene.run(looks=0)
    assert scene.statuses(paid) == ("delivered", "delivered")
    assert scene.allocation == (999, 1001)


def test_a_held_update_is_checked_when_its_time_comes() -> None:
    scene = Scene().ready()
    scene.pass_time(FRESH_NS)
    scene.receive("bob", scene.signed_update())
    assert not scene.frozen("bob")
    scene.look("bob")
    assert scene.frozen("bob") == "empty_update"


def test_a_held_update_is_forgotten_with_its_session_and_comes_again() -> None:
    scene = Scene().ready()
    scene.pay("alice", 1)
    scene.pass_time(FRESH_NS)
    scene.run(looks=0)
    scene.connect()
    scene.run()
    assert scene.allocation == (999, 1001)
    assert len(scene.sent("bob", Ack)) == 1


def test_what_alice_gets_with_an_old_look_is_received_when_she_has_looked() -> None:
    scene = Scene().ready()
    (paid,) = scene.pay("bob", 5)
    scene.deliver("alice")
    scene.deliver("bob")
    scene.pass_time(FRESH_NS)
    scene.deliver("alice")
    assert scene.alice.channel.balance_e8s == 1005  # it is a fully signed state, and she refutes with it
    assert not [e for e in scene.alice.told if isinstance(e, Received)]
    scene.look("alice")
    assert [e.payments.ids for e in scene.alice.told if isinstance(e, Received)] == [paid]


def test_what_alice_gets_when_a_state_is_registered_is_not_received() -> None:
    scene = Scene().ready()
    old = scene.alice.disk.newest
    (paid,) = scene.pay("bob", 5)
    scene.deliver("alice")
    scene.deliver("bob")
    scene.register(old)
    scene.look("alice")
    scene.deliver("alice")
    assert not [e for e in scene.alice.told if isinstance(e, Received)]
    scene.settle(scene.alice.disk.newest.state, "alice")  # it was refuted with the state that pays her
    assert [e.payments.ids for e in scene.alice.told if isinstance(e, Received)] == [paid]


def withheld(payer: str, registered: int = 0) -> tuple[Scene, list[bytes]]:
    """Bob keeps his acknowledgement of what `payer` pays; an old state is registered; then it comes."""
    scene = Scene().ready()
    for _ in range(registered):
        scene.pay("alice", 1)
        scene.run()
    old = scene.alice.disk.newest
    paid = scene.pay(payer, 5)
    scene.deliver("alice")
    scene.deliver("bob")
    scene.register(old)
    scene.look("alice")
    scene.deliver("alice")
    assert scene.alice.disk.newest.state.version == registered + 1  # she refutes with it all the same
    return scene, paid


def updates(scene: Scene, name: str) -> list[object]:
    return [e.data["version"] for e in scene[name].disk.events if e.kind == "channel.updated"]


@pytest.mark.parametrize("registered", [0, 1, 2])
@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("payer", ["alice", "bob"])
def test_an_acknowledgement_that_comes_when_the_canister_settles_pays_nobody(
    payer: str, registered: int, restarted: bool
) -> None:
    scene, (paid,) = withheld(payer, registered)
    old = scene.registered
    assert old is not None
    assert scene.status("alice", paid) == "signed"
    assert updates(scene, "alice") == list(range(1, registered + 1))  # nobody hears of money that does not count
    if restarted:
        scene.restart("alice")
        scene.look("alice")
        assert scene.status("alice", paid) == "signed"
    scene.settle(old.state, "alice")
    assert scene.status("alice", paid) == "failed"
    assert updates(scene, "alice") == list(range(1, registered + 1))
    assert not [e for e in scene.alice.told if isinstance(e, Received | Delivered) and paid in e.payments.each_id()]


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("payer", ["alice", "bob"])
def test_an_acknowledgement_that_comes_late_and_refutes_pays(payer: str, restarted: bool) -> None:
    scene, (paid,) = withheld(payer)
    if restarted:
        scene.restart("alice")
        scene.look("alice")
    scene.settle(scene.alice.disk.newest.state, "alice")
    assert scene.status("alice", paid) == "delivered"
    if not restarted or payer == "bob":  # who waited for her own payment is gone with the process
        assert [
            paid for e in scene.alice.told if isinstance(e, Received | Delivered) and paid in e.payments.each_id()
        ] == [paid]
    assert updates(scene, "alice") == [1]


def test_a_confirmation_that_comes_when_the_canister_settles_delivers_nothing() -> None:
    """The other role: alice keeps from bob that she holds his payment, registers what was before, then confirms."""
    scene = Scene().ready()
    old = scene.bob.disk.newest
    (paid,) = scene.pay("bob", 5)
    scene.deliver("alice")
    scene.deliver("bob")
    scene.deliver("alice")
    scene.register(old)
    scene.look("bob")
    scene.deliver("bob")  # Confirm
    assert scene.status("bob", paid) == "signed"
    scene.settle(old.state, "bob")
    assert scene.status("bob", paid) == "failed"
    assert not [e for e in scene.bob.told if isinstance(e, Delivered)]


def test_what_was_not_counted_before_a_restart_is_counted_by_the_first_fresh_look_after_it() -> None:
    scene = Scene().ready()
    (paid,) = scene.pay("bob", 5)
    scene.deliver("alice")
    scene.deliver("bob")
    scene.pass_time(FRESH_NS)
    scene.deliver("alice")
    scene.restart("alice")
    assert scene.status("alice", paid) == "signed"
    scene.look("alice")
    assert scene.status("alice", paid) == "delivered"
    assert updates(scene, "alice") == [1]
    (event,) = [e for e in scene.alice.disk.events if e.kind == "channel.updated"]
    assert (event.data["change_e8s"], event.data["received"]) == ("5", 1)
    assert [e.payments.ids for e in scene.alice.told if isinstance(e, Received)] == [paid]


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_a_machine_that_was_paused_takes_no_look_from_before_for_fresh(name: str) -> None:
    """Its own clock stood still. The first certificate after it shows what time it is."""
    scene = Scene().ready()
    channel = scene[name].channel
    assert channel.may_update(scene.now)
    assert not channel.may_update(Moment(scene.elapsed_ns, Nanos(scene.now.chain_ns + FRESH_NS)))


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_a_registered_state_stops_both_sides(name: str) -> None:
    scene = Scene().ready()
    scene.register(scene.alice.disk.newest)
    scene.look()
    assert scene.alice.disk.phase is scene.bob.disk.phase is Phase.LEAVING
    with pytest.raises(CallerMistake) as caught:
        scene.pay(name, 1)
    assert caught.value.code == "channel_not_open"
    with pytest.raises(CallerMistake):
        scene.close(name)


def test_a_registered_state_stops_an_update_on_its_way() -> None:
    scene = Scene().ready()
    (paid,) = scene.pay("alice", 10)
    scene.register(scene.alice.disk.newest)
    scene.look("bob")
    scene.run()
    assert not scene.sent("bob", Ack)
    assert scene.bob.disk.newest.state.version == 0
    scene.look("alice")
    scene.settle(scene.bob.disk.newest.state)
    assert scene.status("alice", paid) == "failed"
    assert scene.bob.disk.signed.keys() == {0}


def test_a_registered_state_stops_what_is_queued() -> None:
    scene = Scene().ready()
    scene.pay("alice", 10)
    queued = scene.pay("alice", 11)
    scene.register(scene.alice.disk.newest)
    scene.look("alice")
    scene.run()  # bob's acknowledgement of the first comes
    assert len(scene.sent("alice", Update)) == 1
    assert scene.status("alice", queued[0]) == "queued"


def test_the_final_state_needs_no_look() -> None:
    scene = Scene().ready()
    scene.pass_time(10 * FRESH_NS)
    scene.close("alice")
    scene.run(looks=0)
    assert scene.alice.disk.newest.state.finalized
    assert scene.bob.disk.newest == scene.alice.disk.newest


def alarms(scene: Scene, name: str) -> list[str]:
    return [e.kind for e in scene[name].disk.events if e.data.get("alarm") is True]


def test_what_is_registered_is_compared_with_what_we_have() -> None:
    scene = Scene().ready()
    scene.pay("alice", 10)
    scene.run()
    first = scene.alice.disk.newest
    scene.register(first)
    scene.look("alice")
    assert alarms(scene, "alice") == []

    state = first.state
    other = sign_both(type(state)(state.channel, state.version, (1000, 1000), finalized=False))
    scene.register(other)
    for _ in range(3):
        scene.look("alice")
    assert alarms(scene, "alice") == ["channel.conflicting_state_registered"]

    newer = sign_both(type(state)(state.channel, 7, (1, 1999), finalized=False))
    scene.register(newer)
    for _ in range(3):
        scene.look("bob")
    assert alarms(scene, "bob") == ["channel.newer_state_registered", "channel.frozen"]
    assert scene.frozen("bob") == "data_loss"  # the canister shows what this node does not have (rule 7)


def test_our_own_outstanding_state_may_be_the_registered_one() -> None:
    scene = Scene().ready()
    scene.pay("alice", 10)
    scene.deliver("bob")
    scene.wire[0].clear()  # bob keeps his signature to himself, and disputes with the state
    scene.register(scene.bob.disk.newest)
    scene.look()
    assert alarms(scene, "alice") == []


def test_settled_below_ours_is_an_alarm() -> None:
    scene = Scene().ready()
    old = scene.alice.disk.newest
    scene.pay("bob", 10)
    scene.run()
    scene.register(old)
    scene.look("alice")
    assert alarms(scene, "alice") == []  # there is time to refute it
    scene.pass_time(4 * FRESH_NS)
    scene.look("alice")
    assert alarms(scene, "alice") == ["channel.settled_below_ours"]
