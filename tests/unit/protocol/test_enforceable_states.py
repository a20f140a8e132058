"""Rule 4: a state that the canister would refuse can never have been accepted as a payment.

The dangerous signatures are those that a lax verifier accepts and the canister does not: a peer who pays with one
has paid nothing. Each is shown to be real by OpenSSL, which takes it, and then refused on every path by which a
state becomes ours.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from nacl.signing import SigningKey

from devnet.perun import examination
from devnet.perun.interface import FullySignedState
from devnet.perun.interface import State as CanisterState
from protocol import following, opening, ordering
from protocol.effects import Received
from protocol.errors import PeerViolation, Undecodable
from protocol.messages import Ack, ChannelAccept, StateSignature, Update
from protocol.opening import Accepted, Proposed, Signing, accept, receive
from protocol.payments import Batch, Payment
from protocol.signer import StateSigner
from protocol.signing import is_usable_key, verify
from protocol.types import MAX_E8S, ParticipantKey, SignedState, State
from tests.unit.devnet.scene import Channel as CanisterChannel
from tests.unit.devnet.scene import Person
from tests.unit.devnet.scene import Scene as CanisterScene
from tests.unit.protocol.scene import KEYS, Scene
from tests.unit.protocol.test_opening import ANSWER, NOW, PEERS, Openers, accepted, proposal

FILE: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "ed25519-strict.json").read_text())
VECTORS = [
    (v["name"], bytes.fromhex(v["public_key_hex"]), bytes.fromhex(v["message_hex"]), bytes.fromhex(v["signature_hex"]),
     v["strict_valid"])
    for v in FILE["vectors"]
]  # fmt: skip
SEEDS = (b"\x01" * 32, b"\x02" * 32)
ORDER = 2**252 + 27742317777372353535851937790883648493
NEUTRAL = b"\x01" + bytes(31)


def scalar(seed: bytes) -> int:
    number = bytearray(hashlib.sha512(seed).digest()[:32])
    number[0] &= 248
    number[31] = number[31] & 127 | 64
    return int.from_bytes(number, "little")


def with_small_order_r(who: int, message: bytes) -> bytes:
    """A signature by the owner of the key whose R is the neutral point: S·B = R + k·A holds for S = k·a."""
    k = int.from_bytes(hashlib.sha512(NEUTRAL + KEYS[who].public + message).digest(), "little")
    return NEUTRAL + (k * scalar(SEEDS[who]) % ORDER).to_bytes(32, "little")


def with_large_s(who: int, message: bytes) -> bytes:
    """An honest signature whose S is written as S + L."""
    honest = SigningKey(SEEDS[who]).sign(message).signature
    return honest[:32] + (int.from_bytes(honest[32:], "little") + ORDER).to_bytes(32, "little")


def for_another_version(who: int, message: bytes) -> bytes:
    return SigningKey(SEEDS[who]).sign(message[:-1] + bytes([message[-1] ^ 1])).signature


FORGERIES = (with_small_order_r, with_large_s, for_another_version)
forgeries = pytest.mark.parametrize("forge", FORGERIES, ids=lambda f: f.__name__)


def openssl_accepts(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def test_the_forgery_is_real() -> None:
    """The owner of a key can sign a payment so that OpenSSL accepts it, and the canister never will."""
    state = Scene().ready().signed_update().signature  # any bytes will do
    for who in (0, 1):
        forged = with_small_order_r(who, state)
        assert openssl_accepts(KEYS[who].public, state, forged)
        assert not verify(KEYS[who].public, state, forged)


def test_whoever_accepts_a_signature_asks_the_function_that_the_canister_asks() -> None:
    for module in (opening, following, ordering, examination):
        assert vars(module)["verify"] is verify, module.__name__
    for name, key, message, signature, strict in VECTORS:
        assert verify(key, message, signature) is strict, name


def test_no_key_that_the_canister_refuses_opens_a_channel() -> None:
    keys = {key for _, key, *_ in VECTORS} | {bytes.fromhex(k["public_key_hex"]) for k in FILE["public_key_decoding"]}
    keys |= {bytes.fromhex(e["encoding_hex"]) for e in FILE["small_order_encodings"]}
    bad = [ParticipantKey(key) for key in keys if not is_usable_key(key)]
    signer = StateSigner(KEYS[0], None)
    for key in bad:
        with pytest.raises(PeerViolation) as refused:
            accept(PEERS[0], proposal(participant=key), b"\x0b" * 32, KEYS[1].public, NOW)
        assert refused.value.code == "bad_key"
        with pytest.raises(PeerViolation) as refused:
            receive(Proposed(PEERS[1], proposal()), replace(ANSWER, participant=key), signer, NOW)
        assert refused.value.code == "bad_key"
    assert len(bad) > 50


def test_no_signature_of_the_vectors_opens_a_channel() -> None:
    tried = 0
    for name, key, _, signature, _ in VECTORS:
        if not is_usable_key(key) or key in {KEYS[0].public, KEYS[1].public}:
            continue
        tried += 1
        participant = ParticipantKey(key)
        theirs = accept(PEERS[0], proposal(participant=participant), b"\x0b" * 32, KEYS[1].public, NOW).phase
        answer = ChannelAccept(ANSWER.proposal_id, ANSWER.nonce_share, participant)
        ours = receive(Proposed(PEERS[1], proposal()), answer, StateSigner(KEYS[0], None), NOW).phase
        assert isinstance(theirs, Accepted)
        assert isinstance(ours, Signing)
        for phase, signer in ((theirs, StateSigner(KEYS[1], None)), (ours, StateSigner(KEYS[0], None))):
            with pytest.raises(PeerViolation) as refused:
                receive(phase, StateSignature(proposal().proposal_id, signature), signer, NOW)
            assert refused.value.code == "bad_signature", name
    assert tried > 100


@forgeries
def test_a_forged_signature_on_state_0_opens_nothing(forge: Any) -> None:
    bob = accepted()
    assert isinstance(bob, Accepted)
    step = Openers().to_alice(ANSWER)
    alice = step.phase
    assert isinstance(alice, Signing)
    channel = opening._terms(PEERS[1], alice.proposal, alice.accept, we_proposed=True)
    state = channel.state_0()
    for phase, peer, us in ((bob, 0, 1), (alice, 1, 0)):
        forged = StateSignature(proposal().proposal_id, forge(peer, state.encoded))
        with pytest.raises(PeerViolation) as refused:
            receive(phase, forged, StateSigner(KEYS[us], None), NOW)
        assert refused.value.code == "bad_signature"


@forgeries
def test_a_payment_with_a_forged_signature_was_never_received(forge: Any) -> None:
    scene = Scene().ready()
    before = scene.bob.disk.newest
    honest = scene.signed_update(Batch.of([Payment(b"p" * 16, 700)]))
    state = State(honest.channel, honest.version, honest.allocation, honest.finalized)
    scene.receive("bob", replace(honest, signature=forge(0, state.encoded)))
    assert scene.frozen("bob") == "bad_signature"
    assert scene.bob.disk.newest == before
    assert not [effect for effect in scene.bob.told if isinstance(effect, Received)]
    assert scene.sent("bob", Ack) == []


@forgeries
def test_an_acknowledgement_with_a_forged_signature_delivers_nothing(forge: Any) -> None:
    scene = Scene().ready()
    before = scene.alice.disk.newest
    (paid,) = scene.pay("alice", 70)
    (update,) = scene.sent("alice", Update)
    assert isinstance(update, Update)
    state = State(update.channel, update.version, update.allocation, update.finalized)
    scene.mute()
    scene.receive("alice", Ack(update.channel, update.version, forge(1, state.encoded)))
    assert scene.frozen("alice") == "bad_signature"
    assert scene.alice.disk.newest == before
    assert scene.status("alice", paid) == "signed"


def test_no_signature_of_the_vectors_pays_or_acknowledges() -> None:
    for name, _, _, signature, _ in VECTORS:
        scene = Scene().ready()
        scene.receive("bob", replace(scene.signed_update(Batch.of([Payment(b"p" * 16, 1)])), signature=signature))
        assert scene.frozen("bob") == "bad_signature", name
        assert scene.bob.disk.newest.state.version == 0
        scene.pay("alice", 1)
        scene.mute()
        scene.receive("alice", Ack(scene.alice.terms.channel, 1, signature))
        assert scene.frozen("alice") == "bad_signature", name
        assert scene.alice.disk.newest.state.version == 0


# --- totals at the edge of nat64 -----------------------------------------------------------------------------


async def canister_with(scene: Scene) -> tuple[CanisterScene, CanisterChannel]:
    """The canister with the money of a scene's channel in it."""
    params = scene.alice.terms.params
    people = tuple(Person(SigningKey(seed), bytes([n]) * 28 + b"\x02") for n, seed in enumerate(SEEDS, start=1))
    nonce = int.from_bytes(params.nonce, "big")
    channel = CanisterChannel(people, nonce=nonce, duration_ns=params.challenge_duration_ns)
    assert channel.id == params.channel_id
    canister = CanisterScene()
    for person, e8s in zip(people, scene.alice.terms.allocation, strict=True):
        if e8s:
            await canister.fund(channel, person, e8s)
    return canister, channel


def as_canister(signed: SignedState) -> FullySignedState:
    s = signed.state
    return FullySignedState(CanisterState(s.channel, s.version, s.allocation, s.finalized), signed.signatures)


@pytest.mark.parametrize("shares", [(2**63, 2**63 - 1 - 20_000), (MAX_E8S - 10_000, 0), (1, 2**63), (0, 1)])
async def test_what_is_accepted_at_the_edge_is_registered_by_the_canister(shares: tuple[int, int]) -> None:
    scene = Scene(*shares).ready()
    canister, channel = await canister_with(scene)
    for name, mine in (("alice", 0), ("bob", 1)):
        everything = scene.allocation[mine]
        if everything:
            scene.pay(name, everything)
            scene.run()
            assert canister.dispute(channel, as_canister(scene.bob.disk.newest)) is None
    assert scene.bob.disk.newest.state.total == sum(shares)


def test_no_state_above_the_edge_can_be_built_proposed_or_paid() -> None:
    channel = Scene().alice.terms.channel
    for allocation in ((MAX_E8S, 1), (2**63, 2**63), (-1, 5)):
        with pytest.raises(Undecodable):
            State(channel, 1, allocation, finalized=False)
    with pytest.raises(PeerViolation) as refused:
        accept(PEERS[0], proposal(allocation=(MAX_E8S, 1)), b"\x0b" * 32, KEYS[1].public, NOW)
    assert refused.value.code == "bad_amount"
    scene = Scene(MAX_E8S - 5, 5).ready()
    before = scene.bob.disk.newest
    too_much = Batch.of([Payment(b"a" * 16, MAX_E8S - 5), Payment(b"b" * 16, 1)])
    update = scene.signed_update(too_much, allocation=(0, MAX_E8S))  # all that can be, for payments of more
    scene.receive("bob", update)
    assert scene.frozen("bob") == "wrong_allocation"
    assert scene.bob.disk.newest == before
