"""Opening a channel: from the proposal to a state 0 that both signed (DESIGN, section 5)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product
from typing import get_args

import pytest

from protocol.errors import PeerViolation
from protocol.messages import ChannelAccept, ChannelProposal, ChannelReject, OpeningMessage, StateSignature
from protocol.opening import (
    MAX_FUNDING_DEADLINE_NS,
    Accepted,
    Dead,
    Opened,
    OpeningPhase,
    OpeningStep,
    Proposed,
    Signing,
    accept,
    check_proposal,
    expire,
    receive,
    repeat,
)
from protocol.signer import StateSigner
from protocol.signing import ChannelKey, verify_signed_state
from protocol.types import MAX_CHALLENGE_NS, MAX_E8S, MIN_CHALLENGE_NS, Nanos, ParticipantKey, channel_nonce

NOW = Nanos(1_800_000_000 * 10**9)
DEADLINE = Nanos(NOW + 3600 * 10**9)
KEYS = (ChannelKey(b"\x01" * 32), ChannelKey(b"\x02" * 32))
PEERS = (b"\x02" * 33, b"\x03" * 33)
SMALL_ORDER = ParticipantKey(b"\x01" + b"\0" * 31)


def proposal(**changes: object) -> ChannelProposal:
    fields: dict[str, object] = {
        "proposal_id": b"\x0c" * 32, "nonce_share": b"\x0a" * 32, "participant": KEYS[0].public,
        "allocation": (700, 300), "challenge_duration_ns": Nanos(3600 * 10**9), "funding_deadline_ns": DEADLINE,
    }  # fmt: skip
    return ChannelProposal(**(fields | changes))  # type: ignore[arg-type]


ANSWER = ChannelAccept(b"\x0c" * 32, b"\x0b" * 32, KEYS[1].public)
REJECT = ChannelReject(b"\x0c" * 32, "no", "not today")


def accepted() -> OpeningPhase:
    return accept(PEERS[0], proposal(), b"\x0b" * 32, KEYS[1].public, NOW).phase


@dataclass
class Openers:
    """Two sides of an opening, with what is durable of each."""

    alice: OpeningPhase = field(default_factory=lambda: Proposed(PEERS[1], proposal()))
    bob: OpeningPhase = field(default_factory=accepted)
    signers: tuple[StateSigner, StateSigner] = field(
        default_factory=lambda: (StateSigner(KEYS[0], None), StateSigner(KEYS[1], None))
    )

    def to_alice(self, message: OpeningMessage, now: Nanos = NOW) -> OpeningStep:
        step = receive(self.alice, message, self.signers[0], now)
        self.alice = step.phase
        return step

    def to_bob(self, message: OpeningMessage, now: Nanos = NOW) -> OpeningStep:
        step = receive(self.bob, message, self.signers[1], now)
        self.bob = step.phase
        return step

    def phases(self) -> dict[str, tuple[OpeningPhase, StateSigner]]:
        """Every phase, with the signer of the side that is in it, as an opening passes through them."""
        found = {"Proposed": (self.alice, self.signers[0]), "Accepted": (self.bob, self.signers[1])}
        step = self.to_alice(ANSWER)
        found["Signing"] = (self.alice, self.signers[0])
        self.to_alice(self.to_bob(step.send[0]).send[0])
        found["Opened by the proposer"] = (self.alice, self.signers[0])
        found["Opened by the acceptor"] = (self.bob, self.signers[1])
        dead = Dead(PEERS[1], proposal(), "expired", "too late")
        return found | {"Dead": (dead, StateSigner(KEYS[0], None))}


def test_proposal_to_state_0() -> None:
    both = Openers()
    step = both.to_alice(ANSWER)
    (signature,) = step.send
    assert isinstance(step.phase, Signing)
    assert isinstance(signature, StateSignature)
    assert step.signed is not None
    assert step.signed.version == 0
    step = both.to_bob(signature)
    bob = step.phase
    assert isinstance(bob, Opened)
    assert step.signed is not None
    assert step.send == (bob.reply,)
    step = both.to_alice(step.send[0])
    alice = step.phase
    assert isinstance(alice, Opened)
    assert step.send == ()

    assert alice.signed == bob.signed
    assert alice.signed.state == alice.terms.state_0()
    assert alice.signed.state.version == 0 and not alice.signed.state.finalized
    assert alice.signed.state.allocation == (700, 300)
    assert verify_signed_state(alice.terms.params, alice.signed)
    assert alice.terms.params == bob.terms.params
    assert alice.terms.params.nonce == channel_nonce(b"\x0a" * 32, b"\x0b" * 32)
    assert alice.terms.params.participants == (KEYS[0].public, KEYS[1].public)
    assert (alice.terms.our_index, bob.terms.our_index) == (0, 1)
    assert (alice.terms.our_share, alice.terms.peer_share) == (bob.terms.peer_share, bob.terms.our_share)
    assert (alice.terms.peer, bob.terms.peer) == (PEERS[1], PEERS[0])


VIOLATIONS = ("unexpected", "changed_proposal", "changed_answer", "bad_key", "bad_signature", "expired")
TABLE: dict[tuple[str, str], str] = {
    ("Proposed", "ChannelProposal"): "unexpected",
    ("Proposed", "ChannelAccept"): "Signing, sends StateSignature",
    ("Proposed", "ChannelReject"): "Dead",
    ("Proposed", "StateSignature"): "unexpected",
    ("Accepted", "ChannelProposal"): "Accepted, sends ChannelAccept",
    ("Accepted", "ChannelAccept"): "unexpected",
    ("Accepted", "ChannelReject"): "Dead",
    ("Accepted", "StateSignature"): "Opened, sends StateSignature",
    ("Signing", "ChannelProposal"): "unexpected",
    ("Signing", "ChannelAccept"): "Signing, sends StateSignature",
    ("Signing", "ChannelReject"): "unexpected",
    ("Signing", "StateSignature"): "Opened",
    ("Opened by the proposer", "ChannelProposal"): "Opened",
    ("Opened by the proposer", "ChannelAccept"): "Opened",
    ("Opened by the proposer", "ChannelReject"): "Opened",
    ("Opened by the proposer", "StateSignature"): "Opened",
    ("Opened by the acceptor", "ChannelProposal"): "Opened, sends StateSignature",
    ("Opened by the acceptor", "ChannelAccept"): "Opened, sends StateSignature",
    ("Opened by the acceptor", "ChannelReject"): "Opened, sends StateSignature",
    ("Opened by the acceptor", "StateSignature"): "Opened, sends StateSignature",
    ("Dead", "ChannelProposal"): "Dead, sends ChannelReject",
    ("Dead", "ChannelAccept"): "Dead",
    ("Dead", "ChannelReject"): "Dead",
    ("Dead", "StateSignature"): "Dead",
}
"""What every message does in every phase, when it is well made: the next phase and what is sent, or the violation."""


def well_made(kind: str, phase: str) -> OpeningMessage:
    state = _opened().signed
    match kind:
        case "ChannelProposal":
            return proposal()
        case "ChannelAccept":
            return ANSWER
        case "ChannelReject":
            return REJECT
        case _:
            from_alice = phase in ("Accepted", "Opened by the acceptor", "Dead")
            return StateSignature(b"\x0c" * 32, state.signatures[0 if from_alice else 1])


def _opened() -> Opened:
    both = Openers()
    both.to_alice(both.to_bob(both.to_alice(ANSWER).send[0]).send[0])
    assert isinstance(both.alice, Opened)
    return both.alice


def outcome(phase: OpeningPhase, message: OpeningMessage, signer: StateSigner) -> str:
    try:
        step = receive(phase, message, signer, NOW)
    except PeerViolation as violation:
        return violation.code
    sends = ", ".join(type(m).__name__ for m in step.send)
    return type(step.phase).__name__ + (f", sends {sends}" if sends else "")


def test_the_table_is_complete() -> None:
    kinds = {t.__name__ for t in get_args(OpeningMessage)}
    phases = {t.__name__ for t in get_args(OpeningPhase)}
    assert {name.split(" ", maxsplit=1)[0] for name, _ in TABLE} == phases
    assert set(TABLE) == set(product({name for name, _ in TABLE}, kinds))
    assert set(Openers().phases()) == {name for name, _ in TABLE}


@pytest.mark.parametrize(("phase", "message"), TABLE, ids=lambda v: v.replace(" ", "-"))
def test_every_message_in_every_phase(phase: str, message: str) -> None:
    at, signer = Openers().phases()[phase]
    assert outcome(at, well_made(message, phase), signer) == TABLE[(phase, message)]


def test_the_same_message_again_gets_the_same_answer_byte_for_byte() -> None:
    both = Openers()
    first = both.to_alice(ANSWER)
    again = both.to_alice(ANSWER)
    assert first.send == again.send
    assert again.signed is None
    one = both.to_bob(first.send[0])
    two = both.to_bob(first.send[0])
    assert one.send == two.send


def test_another_message_under_the_same_proposal_is_a_violation() -> None:
    both = Openers()
    with pytest.raises(PeerViolation) as caught:
        both.to_bob(proposal(allocation=(701, 300)))
    assert caught.value.code == "changed_proposal"
    both.to_alice(ANSWER)
    with pytest.raises(PeerViolation) as caught:
        both.to_alice(replace(ANSWER, nonce_share=b"\x0d" * 32))
    assert caught.value.code == "changed_answer"


@pytest.mark.parametrize("key", [SMALL_ORDER, KEYS[0].public, ParticipantKey(b"\xff" * 32)])
def test_equal_and_unusable_keys_are_refused(key: ParticipantKey) -> None:
    both = Openers()
    with pytest.raises(PeerViolation) as caught:
        both.to_alice(replace(ANSWER, participant=key))
    assert caught.value.code == "bad_key"
    assert isinstance(both.alice, Proposed)
    with pytest.raises(PeerViolation) as caught:
        accept(PEERS[0], proposal(participant=key), b"\x0b" * 32, KEYS[0].public, NOW)
    assert caught.value.code == "bad_key"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"allocation": (0, 0)}, "bad_amount"),
        ({"allocation": (MAX_E8S, 1)}, "bad_amount"),
        ({"funding_deadline_ns": NOW}, "bad_deadline"),
        ({"funding_deadline_ns": NOW - 1}, "bad_deadline"),
        ({"funding_deadline_ns": NOW + MAX_FUNDING_DEADLINE_NS + 1}, "bad_deadline"),
        ({"challenge_duration_ns": MIN_CHALLENGE_NS - 1}, "bad_params"),
        ({"challenge_duration_ns": MAX_CHALLENGE_NS + 1}, "bad_params"),
        ({"participant": SMALL_ORDER}, "bad_key"),
    ],
)
def test_what_no_policy_may_accept(changes: dict[str, object], code: str) -> None:
    with pytest.raises(PeerViolation) as caught:
        accept(PEERS[0], proposal(**changes), b"\x0b" * 32, KEYS[1].public, NOW)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "changes",
    [
        {"allocation": (MAX_E8S, 0)},
        {"allocation": (0, 1)},
        {"funding_deadline_ns": NOW + 1},
        {"funding_deadline_ns": NOW + MAX_FUNDING_DEADLINE_NS},
    ],
)
def test_the_edges_of_what_can_be_accepted(changes: dict[str, object]) -> None:
    check_proposal(proposal(**changes), NOW)


def test_a_signature_on_anything_else_is_refused_and_changes_nothing() -> None:
    both = Openers()
    signed = both.to_alice(ANSWER).send[0]
    for bad in (b"\1" * 64, KEYS[1].sign_state(_opened().signed.state)):
        with pytest.raises(PeerViolation) as caught:
            both.to_bob(StateSignature(b"\x0c" * 32, bad))
        assert caught.value.code == "bad_signature"
    assert isinstance(both.bob, Accepted)
    both.to_bob(signed)
    for bad in (b"\1" * 64, _opened().signed.signatures[0]):
        with pytest.raises(PeerViolation) as caught:
            both.to_alice(StateSignature(b"\x0c" * 32, bad))
        assert caught.value.code == "bad_signature"
    assert isinstance(both.alice, Signing)


def test_after_the_deadline_no_signature_opens_anything() -> None:
    both = Openers()
    signature = both.to_alice(ANSWER).send[0]
    with pytest.raises(PeerViolation) as caught:
        both.to_bob(signature, DEADLINE)
    assert caught.value.code == "expired"
    reply = both.to_bob(signature, Nanos(DEADLINE - 1)).send[0]
    with pytest.raises(PeerViolation):
        both.to_alice(reply, DEADLINE)
    late = Openers()
    with pytest.raises(PeerViolation):
        late.to_alice(ANSWER, DEADLINE)
    assert isinstance(late.alice, Proposed)


def test_an_opening_dies_with_its_deadline_and_stays_dead() -> None:
    for name, (phase, signer) in Openers().phases().items():
        assert expire(phase, Nanos(DEADLINE - 1)) is None
        death = expire(phase, DEADLINE)
        if name.startswith(("Opened", "Dead")):
            assert death is None
            continue
        assert death is not None and isinstance(death.phase, Dead) and death.send == ()
        for kind in get_args(OpeningMessage):
            step = receive(death.phase, well_made(kind.__name__, "Dead"), signer, NOW)
            assert step.phase == death.phase and step.signed is None


def test_everything_is_said_again_in_a_new_session() -> None:
    said = {name: [type(m).__name__ for m in repeat(phase)] for name, (phase, _) in Openers().phases().items()}
    assert said == {
        "Proposed": ["ChannelProposal"],
        "Accepted": ["ChannelAccept"],
        "Signing": ["StateSignature"],
        "Opened by the proposer": [],
        "Opened by the acceptor": ["StateSignature"],
        "Dead": [],
    }


@pytest.mark.parametrize("lost", range(4))
def test_whatever_is_lost_the_opening_ends_opened(lost: int) -> None:
    both = Openers()
    count = 0

    def arrives() -> bool:
        nonlocal count
        count += 1
        return count - 1 != lost

    for _ in range(3):  # sessions: both say what they said
        to_bob, to_alice = list(repeat(both.alice)), list(repeat(both.bob))
        while to_bob or to_alice:
            if to_bob and arrives():
                to_alice += both.to_bob(to_bob.pop(0)).send
            elif to_alice and arrives():
                to_bob += both.to_alice(to_alice.pop(0)).send
            else:
                to_bob, to_alice = [], []
    assert isinstance(both.alice, Opened) and isinstance(both.bob, Opened)
    assert both.alice.signed == both.bob.signed
