"""A channel that breaks a rule is caught, by the checks that every test here and the properties rely on."""

from __future__ import annotations

import pytest

from protocol.effects import (
    PaymentsEndedRecord,
    PaymentsQueuedRecord,
    Record,
    SignatureRecord,
    StateRecord,
    UpdateRecord,
)
from protocol.errors import InvariantBroken
from protocol.messages import Update
from protocol.payments import EMPTY, Batch, Payment
from protocol.signer import StateSigner
from protocol.types import MAX_VERSION, State
from tests.unit.protocol import broken
from tests.unit.protocol.scene import FRESH_NS, KEYS, Scene


def test_rule_1_two_states_of_one_version() -> None:
    scene = Scene(make=broken.forgetful(broken.DropsTheUnanswered)).ready()
    scene.lose(Update)
    scene.pay("alice", 10)
    scene.pay("alice", 11)
    scene.connect()
    with pytest.raises(AssertionError, match="rule 1: two states of version 1"):
        scene.run()


def test_rule_1_a_signature_after_the_final_one() -> None:
    scene = Scene(make=broken.forgetful(broken.DropsTheUnanswered)).ready()
    scene.lose(Update)
    scene.close("alice")
    scene.alice.channel.phase = scene.alice.disk.phase.OPEN
    scene.pay("alice", 11)
    scene.connect()
    with pytest.raises(AssertionError, match="rule 1"):
        scene.run()


def test_rule_1_the_signer_alone_stops_a_machine_that_would_break_it() -> None:
    scene = Scene(make=broken.instead(broken.DropsTheUnanswered)).ready()
    scene.lose(Update)
    scene.pay("alice", 10)
    scene.connect()
    scene.run()
    with pytest.raises(InvariantBroken, match="version 1 is signed"):
        scene.pay("alice", 11)


@pytest.mark.parametrize(
    ("lost", "caught"),
    [
        (SignatureRecord, "rule 2"),
        (UpdateRecord, "rule 2"),
        (StateRecord, "rule 2"),
        (PaymentsQueuedRecord, "rule 2"),
        (PaymentsEndedRecord, "rule 2"),
    ],
)
def test_rule_2_what_is_sent_is_not_durable(lost: type[Record], caught: str) -> None:
    scene = Scene(make=broken.without_writing(lost)).ready()
    scene.alice.channel.minimum_e8s = 2

    def talk() -> None:
        scene.pay("alice", 10)
        scene.pay("bob", 10)
        scene.pay("bob", 1)
        scene.run()

    with pytest.raises(AssertionError, match=caught):
        talk()


@pytest.mark.parametrize("kind", [broken.FreshOrderer, broken.FreshFollower])
def test_rule_4_an_old_look(kind: type[broken.FreshOrderer | broken.FreshFollower]) -> None:
    scene = Scene(make=broken.instead(kind)).ready()
    if kind is broken.FreshFollower:
        scene.pay("alice", 1)
    scene.pass_time(FRESH_NS)
    with pytest.raises(AssertionError, match="rule 4"):
        scene.pay("alice", 1) if kind is broken.FreshOrderer else scene.run()


def test_rule_4_a_registered_state() -> None:
    scene = Scene(make=broken.instead(broken.FreshFollower)).ready()
    scene.pay("alice", 1)
    scene.register(scene.alice.disk.newest)
    scene.look("bob")
    scene.bob.channel.phase = scene.bob.disk.phase.OPEN
    with pytest.raises(AssertionError, match="rule 4"):
        scene.run()


def test_rule_6_money_is_made() -> None:
    scene = Scene(make=broken.instead(broken.Mints)).ready()
    with pytest.raises(AssertionError, match="rule 6"):
        scene.pay("alice", 1)


@pytest.mark.parametrize("allocation", [(990, 1011), (1000, 1000), (1010, 990)])
def test_rule_6_a_wrong_allocation_is_signed(allocation: tuple[int, int]) -> None:
    scene = Scene(make=broken.instead(broken.Trusting)).ready()
    with pytest.raises(AssertionError, match="rule 6"):
        scene.receive("bob", scene.signed_update(Batch.of([Payment(b"\1" * 16, 10)]), allocation=allocation))


def test_a_payment_that_is_taken_twice() -> None:
    scene = Scene(make=broken.instead(broken.TakesReplays)).ready()
    payment = Batch.of([Payment(b"\1" * 16, 10)])
    scene.receive("bob", scene.signed_update(payment))
    with pytest.raises(AssertionError, match="in two updates"):
        scene.receive("bob", scene.signed_update(payment))


# --- the signer --------------------------------------------------------------------------------------------


def state(version: int, first: int = 1000, *, finalized: bool = False) -> State:
    return State(Scene().alice.channel.id, version, (first, 2000 - first), finalized)


def test_the_signer_signs_one_content_per_version() -> None:
    signer = StateSigner(KEYS[0], None)
    signature, record = signer.sign(state(3))
    assert record == SignatureRecord(state(3).channel, 3, state(3).digest, finalized=False)
    assert signer.sign(state(3)) == (signature, record)  # byte for byte
    for bad in (state(3, 999), state(3, finalized=True), state(2)):
        with pytest.raises(InvariantBroken):
            signer.sign(bad)
    assert signer.sign(state(3)) == (signature, record)
    signer.sign(state(4, 999))
    with pytest.raises(InvariantBroken):
        signer.sign(state(3))


def test_the_signer_signs_nothing_after_a_final_state() -> None:
    signer = StateSigner(KEYS[0], None)
    again = signer.sign(state(3, finalized=True))
    assert signer.signed_final
    for bad in (state(4), state(4, finalized=True), state(3)):
        with pytest.raises(InvariantBroken):
            signer.sign(bad)
    assert signer.sign(state(3, finalized=True)) == again


def test_the_signer_remembers_what_the_store_remembers() -> None:
    _, record = StateSigner(KEYS[0], None).sign(state(3, finalized=True))
    signer = StateSigner(KEYS[0], record)
    assert signer.signed_final
    with pytest.raises(InvariantBroken):
        signer.sign(state(4))
    assert signer.sign(state(3, finalized=True))[1] == record


def test_the_signer_signs_no_version_that_could_not_be_refuted() -> None:
    signer = StateSigner(KEYS[0], None)
    signer.sign(state(MAX_VERSION))
    with pytest.raises(InvariantBroken):
        signer.sign(state(MAX_VERSION + 1))


def test_at_the_last_version_nothing_is_taken_from_the_queue() -> None:
    scene = Scene().ready()
    for side in scene.sides:
        last = state(MAX_VERSION)
        from tests.unit.protocol.scene import sign_both

        side.disk.newest = side.channel.newest = sign_both(last)
    (paid,) = scene.pay("alice", 10)
    assert scene.alice.channel.committed_e8s == 10
    assert not scene.sent("alice", Update)
    scene.cancel("alice", paid)
    assert scene.alice.channel.queue.peek() == EMPTY
