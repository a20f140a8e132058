"""A violation is named, told, remembered, and stops the updates; the last good state stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from protocol.errors import CallerMistake
from protocol.messages import (
    Ack,
    ChannelMessage,
    ChannelReady,
    CloseRequest,
    Confirm,
    Decline,
    ErrorMessage,
    Offer,
    Resume,
    ResumePhase,
    SignedStateMessage,
    Update,
)
from protocol.payments import EMPTY, Batch, Payment
from protocol.types import State
from tests.unit.protocol.scene import KEYS, Scene, sign_both

A, B, C = (Payment(bytes([n]) * 16, n * 10) for n in (1, 2, 3))


def batch(*payments: Payment) -> Batch:
    return Batch.of(list(payments))


def offered(scene: Scene, *payments: Payment) -> None:
    """Bob has offered these, and nothing has reached alice."""
    scene.do(scene.bob, lambda: scene.bob.channel.pay(batch(*payments), scene.now))
    scene.wire[0].clear()


def resigned(update: Update, **changes: object) -> Update:
    fields = {name: getattr(update, name) for name in Update.__slots__} | changes
    return Update(**fields)


def resume(scene: Scene, name: str, **changes: object) -> Resume:
    side = scene[name]
    state = side.channel.newest.state
    fields: dict[str, object] = {
        "channel": state.channel, "phase": ResumePhase.OPEN, "version": state.version, "state_hash": state.digest,
        "pending_version": 0, "pending_hash": b"", "recovering": False,
    }  # fmt: skip
    return Resume(**(fields | changes))  # type: ignore[arg-type]


def after_a(s: Scene) -> State:
    return State(s.bob.channel.id, 1, (990, 1010), finalized=False)


def old_version(s: Scene) -> Update:
    s.receive("bob", s.signed_update(batch(A)))
    return s.signed_update(batch(B), version=0)


def other_outstanding(s: Scene) -> Resume:
    s.receive("bob", s.signed_update(batch(A)))
    return resume(s, "alice", pending_version=1, pending_hash=b"\1" * 32)


def not_offered_amount(s: Scene) -> Update:
    offered(s, A)
    return s.signed_update(from_1=batch(Payment(A.id, 11)))


def not_offered_memo(s: Scene) -> Update:
    offered(s, A)
    return s.signed_update(from_1=batch(Payment(A.id, A.amount_e8s, b"not this")))


def replay(s: Scene) -> Update:
    s.receive("bob", s.signed_update(batch(A)))
    return s.signed_update(batch(B, A))


def offer_twice(s: Scene) -> Update:
    offered(s, A)
    s.receive("bob", s.signed_update(EMPTY, batch(A)))
    return s.signed_update(EMPTY, batch(A))


def after_final(s: Scene) -> Update:
    s.receive("bob", s.signed_update(finalized=True))
    return s.signed_update(batch(A))


def other_content(s: Scene) -> Update:
    s.receive("bob", s.signed_update(batch(A)))
    return s.signed_update(allocation=(1000, 1000), version=1)


def too_much_at_same_version(s: Scene) -> Update:
    return Update(s.bob.channel.id, 0, (2**64 - 1, 2**64 - 1), False, EMPTY, EMPTY, b"\1" * 64)


TO_BOB: dict[str, tuple[str, Callable[[Scene], ChannelMessage]]] = {
    "a version is left out": ("wrong_version", lambda s: s.signed_update(batch(A), version=2)),
    "an old version": ("wrong_version", old_version),
    "a version above 2^63": ("wrong_version", lambda s: s.signed_update(batch(A), version=2**63 + 1)),
    "no payment": ("empty_update", lambda s: s.signed_update()),
    "a final state that pays": ("final_with_payments", lambda s: s.signed_update(batch(A), finalized=True)),
    "one e8 too much for alice": ("wrong_allocation", lambda s: s.signed_update(batch(A), allocation=(991, 1009))),
    "a total that grows": ("wrong_allocation", lambda s: s.signed_update(batch(A), allocation=(990, 1011))),
    "a total that shrinks": ("wrong_allocation", lambda s: s.signed_update(batch(A), allocation=(990, 1009))),
    "a final state that moves": ("wrong_allocation", lambda s: s.signed_update(allocation=(1001, 999), finalized=True)),
    "more than alice has": (
        "wrong_allocation",
        lambda s: Update(s.bob.channel.id, 1, (0, 2000), False, batch(Payment(A.id, 1001)), EMPTY, b"\1" * 64),
    ),
    "amounts beyond nat64": (
        "wrong_allocation",
        lambda s: Update(s.bob.channel.id, 1, (0, 2000), False, batch(Payment(A.id, 2**70)), EMPTY, b"\1" * 64),
    ),
    "a payment that bob never offered": ("not_offered", lambda s: s.signed_update(from_1=batch(A))),
    "another amount than offered": ("not_offered", not_offered_amount),
    "another memo than offered": ("not_offered", not_offered_memo),
    "an offer that was included before": ("not_offered", offer_twice),
    "a payment that came before": ("replayed_payment", replay),
    "a signature that is not alice's": (
        "bad_signature",
        lambda s: resigned(s.signed_update(batch(A)), signature=KEYS[1].sign_state(after_a(s))),
    ),
    "a signature on another state": (
        "bad_signature",
        lambda s: resigned(s.signed_update(batch(A)), signature=s.signed_update(batch(B)).signature),
    ),
    "an update after the final state": ("after_final", after_final),
    "the same version, other content": ("state_conflict", other_content),
    "the same version, no state at all": ("bad_state", too_much_at_same_version),
    "a confirmation of what does not exist": ("wrong_version", lambda s: Confirm(s.bob.channel.id, 1)),
    "an acknowledgement": ("wrong_role", lambda s: Ack(s.bob.channel.id, 1, b"\1" * 64)),
    "an offer": ("wrong_role", lambda s: Offer(s.bob.channel.id, batch(A))),
    "a request to close": ("wrong_role", lambda s: CloseRequest(s.bob.channel.id)),
    "a resume with another state": ("state_conflict", lambda s: resume(s, "alice", state_hash=b"\1" * 32)),
    "a resume with another outstanding state": ("state_conflict", other_outstanding),
    "a state that is not signed by both": (
        "bad_signature",
        lambda s: SignedStateMessage(s.bob.channel.id, 7, (1000, 1000), False, b"\1" * 64, b"\1" * 64),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", TO_BOB)
def test_alice_breaks_the_protocol(what: str) -> None:
    scene = Scene().ready()
    code, make = TO_BOB[what]
    message = make(scene)
    good = scene.bob.disk.newest
    signed = dict(scene.bob.disk.signed)
    scene.receive("bob", message)
    check_frozen(scene, "bob", code)
    assert scene.bob.disk.newest == good
    assert scene.bob.disk.signed == signed


TO_ALICE: dict[str, tuple[str, Callable[[Scene], ChannelMessage]]] = {
    "an acknowledgement of nothing": ("unexpected_ack", lambda s: Ack(s.alice.channel.id, 1, b"\1" * 64)),
    "an acknowledgement of another version": (
        "unexpected_ack",
        lambda s: (s.pay("alice", 1), Ack(s.alice.channel.id, 2, b"\1" * 64))[1],
    ),
    "an acknowledgement with a wrong signature": (
        "bad_signature",
        lambda s: (s.pay("alice", 1), Ack(s.alice.channel.id, 1, b"\1" * 64))[1],
    ),
    "an acknowledgement with alice's own signature": (
        "bad_signature",
        lambda s: (s.pay("alice", 1), Ack(s.alice.channel.id, 1, s.alice.channel.pending.signature))[1],  # type: ignore[union-attr]
    ),
    "an update": ("wrong_role", lambda s: s.signed_update(batch(A))),
    "a decline": ("wrong_role", lambda s: Decline(s.alice.channel.id, A.id, "no")),
    "a confirmation": ("wrong_role", lambda s: Confirm(s.alice.channel.id, 0)),
    "a resume with another state": ("state_conflict", lambda s: resume(s, "bob", state_hash=b"\1" * 32)),
    "a resume with another state than the outstanding one": (
        "state_conflict",
        lambda s: (s.pay("alice", 1), resume(s, "bob", version=1, state_hash=b"\1" * 32))[1],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", TO_ALICE)
def test_bob_breaks_the_protocol(what: str) -> None:
    scene = Scene().ready()
    code, make = TO_ALICE[what]
    message = make(scene)
    good, signed = scene.alice.disk.newest, dict(scene.alice.disk.signed)
    scene.receive("alice", message)
    check_frozen(scene, "alice", code)
    assert scene.alice.disk.newest == good
    assert scene.alice.disk.signed == signed


@pytest.mark.parametrize(
    ("liar", "lie"),
    [
        ("alice", {"version": 5, "state_hash": b"\1" * 32}),
        ("alice", {"pending_version": 3, "pending_hash": b"\1" * 32}),
        ("bob", {"version": 1, "state_hash": b"\1" * 32}),
    ],
)
def test_a_claim_to_hold_more_takes_nothing_away(liar: str, lie: dict[str, Any]) -> None:
    """Only the state itself proves that data was lost (rule 7): a claim must not cost us our dispute."""
    scene = Scene().ready()
    name = "bob" if liar == "alice" else "alice"
    scene.receive(name, resume(scene, liar, **lie))
    assert not scene.frozen(name)
    error = scene.sent(name, ErrorMessage)[-1]
    assert isinstance(error, ErrorMessage)
    assert error.code == "unproven_claim"
    assert not scene[name].channel.connected
    assert scene[name].disk.events[-1].kind == "channel.peer_claims_newer"
    scene.ready()
    scene.pay("alice", 5)
    scene.run()
    assert scene.bob.disk.newest.state.version == 1


def check_frozen(scene: Scene, name: str, code: str) -> None:
    """Frozen in memory and on disk, told to the peer and to the user, and nothing is signed any more."""
    side = scene[name]
    assert scene.frozen(name) == code
    assert side.disk.frozen == side.channel.frozen
    [event] = [e for e in side.disk.events if e.kind == "channel.frozen"]
    assert (event.data["code"], event.data["alarm"]) == (code, True)
    assert side.disk.phase.value == "closing"  # and the money comes out: alone, in time
    error = scene.sent(name, ErrorMessage)[-1]
    assert isinstance(error, ErrorMessage)
    assert (error.code, error.channel) == (code, side.channel.id)
    assert len(error.text.encode()) <= 256

    signed = dict(side.disk.signed)
    with pytest.raises(CallerMistake) as caught:
        scene.pay(name, 1)
    assert caught.value.code == "channel_frozen"
    scene.restart(name)  # it stays so
    scene.look()
    scene.connect()
    scene.mute()
    assert scene.frozen(name) == code
    peer = "bob" if name == "alice" else "alice"
    for from_peer in (
        resume(scene, peer),
        scene.signed_update(batch(C)),
        CloseRequest(side.channel.id),
        Offer(side.channel.id, batch(C)),
    ):
        scene.receive(name, from_peer)
    assert side.disk.signed == signed
    scene.leave(name)  # and it can be left
    assert side.disk.phase.value == "leaving"


@pytest.mark.parametrize("name", ["alice", "bob"])
@pytest.mark.parametrize("kind", [ChannelReady, Offer, Update, Ack])
def test_anything_before_resume(name: str, kind: type[ChannelMessage]) -> None:
    scene = Scene()
    scene.look()
    channel = scene.alice.channel.id
    scene.up, scene.session = True, 1
    message: ChannelMessage
    match kind.__name__:
        case "ChannelReady":
            message = ChannelReady(channel)
        case "Offer":
            message = Offer(channel, batch(A))
        case "Update":
            message = scene.signed_update(batch(A))
        case _:
            message = Ack(channel, 0, b"\1" * 64)
    scene.receive(name, message)
    assert scene.frozen(name) == "not_resumed"


def test_the_first_violation_is_the_one_that_is_remembered() -> None:
    scene = Scene().ready()
    scene.receive("bob", scene.signed_update())
    scene.receive("bob", Confirm(scene.bob.channel.id, 9))
    assert scene.frozen("bob") == "empty_update"
    assert [e.kind for e in scene.bob.disk.events] == ["channel.frozen", "channel.closing"]


def test_an_acknowledgement_that_comes_after_freezing_still_counts() -> None:
    """Our signature is out: with the peer's the state is enforceable, and the newest one is the one to have."""
    scene = Scene().ready()
    (paid,) = scene.pay("alice", 10)
    scene.receive("alice", Confirm(scene.alice.channel.id, 0))
    assert scene.frozen("alice") == "wrong_role"
    scene.run()
    assert scene.allocation == (990, 1010)
    assert scene.status("alice", paid) == "delivered"


def test_a_request_to_close_a_frozen_channel_is_no_crash() -> None:
    """Regression: it raised `CallerMistake` out of `receive`, which ended the session."""
    scene = Scene().ready()
    scene.receive("alice", Confirm(scene.alice.channel.id, 0))
    scene.close("bob")
    scene.run()
    assert not scene.alice.disk.newest.state.finalized


def test_bob_signs_no_version_above_2_63() -> None:
    scene = Scene().ready()
    last = sign_both(State(scene.bob.channel.id, 2**63, (1000, 1000), finalized=False))
    scene.bob.channel.newest = last
    scene.receive("bob", scene.signed_update(batch(A)))
    assert scene.frozen("bob") == "wrong_version"
