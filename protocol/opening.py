"""Opening a channel: from the proposal to a state 0 that both signed.

Nothing is paid before. Each phase is a value of its own; what is said in a phase is said again on reconnect,
and the same proposal again gets the same answer. Source: DESIGN, section 5; docs/protocol.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

from protocol.effects import SignatureRecord
from protocol.errors import PeerViolation, Undecodable
from protocol.messages import (
    ChannelAccept,
    ChannelProposal,
    ChannelReject,
    OpeningMessage,
    StateSignature,
)
from protocol.signer import StateSigner
from protocol.signing import is_usable_key, verify
from protocol.terms import Terms
from protocol.types import MAX_E8S, Nanos, Params, ParticipantKey, SignedState, channel_nonce

__all__ = [
    "MAX_FUNDING_DEADLINE_NS",
    "Accepted",
    "Dead",
    "Opened",
    "OpeningPhase",
    "OpeningStep",
    "Proposed",
    "Signing",
    "accept",
    "check_proposal",
    "expire",
    "has_deadline_in_time",
    "receive",
    "repeat",
]

MAX_FUNDING_DEADLINE_NS: Final = Nanos(12 * 3600 * 1_000_000_000)
"""A funding deadline lies at most this far ahead of chain time."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """We proposed; the peer has not answered."""

    peer: bytes
    proposal: ChannelProposal


@dataclass(frozen=True, slots=True)
class Accepted:
    """We accepted; the proposer's signature on state 0 is to come."""

    peer: bytes
    proposal: ChannelProposal
    accept: ChannelAccept


@dataclass(frozen=True, slots=True)
class Signing:
    """We proposed and signed state 0; the acceptor's signature is to come."""

    peer: bytes
    proposal: ChannelProposal
    accept: ChannelAccept
    signature: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """State 0 is fully signed: the channel lives, and is watched before it is funded (rule 3)."""

    terms: Terms
    signed: SignedState
    reply: StateSignature | None
    """The acceptor's signature, still to be sent."""


@dataclass(frozen=True, slots=True)
class Dead:
    """Nothing will come of it, even if a signature arrives later: it is never funded."""

    peer: bytes
    proposal: ChannelProposal
    code: str
    text: str


OpeningPhase = Proposed | Accepted | Signing | Opened | Dead


@dataclass(frozen=True, slots=True)
class OpeningStep:
    """The next phase, durable (with the signature, if one was made) before `send` leaves."""

    phase: OpeningPhase
    signed: SignatureRecord | None = None
    send: tuple[OpeningMessage, ...] = ()


def check_proposal(proposal: ChannelProposal, chain_ns: Nanos) -> None:
    """Refuse what no policy may accept. Raises `PeerViolation`."""
    if not is_usable_key(proposal.participant):
        raise PeerViolation("bad_key", "the participant key is not usable: the canister would refuse its signatures")
    if sum(proposal.allocation) > MAX_E8S:
        raise PeerViolation("bad_amount", f"a total of {sum(proposal.allocation)} e8s is above 2^64-1")
    if sum(proposal.allocation) == 0:
        raise PeerViolation("bad_amount", "a channel without money cannot be settled")
    if not has_deadline_in_time(proposal, chain_ns):
        raise PeerViolation(
            "bad_deadline",
            f"the funding deadline {proposal.funding_deadline_ns} is not within 12 hours after chain time {chain_ns}",
        )


def has_deadline_in_time(proposal: ChannelProposal, chain_ns: Nanos) -> bool:
    """Whether the funding deadline is ahead, and not too far."""
    return chain_ns < proposal.funding_deadline_ns <= chain_ns + MAX_FUNDING_DEADLINE_NS


def accept(
    peer: bytes, proposal: ChannelProposal, share: bytes, participant: ParticipantKey, chain_ns: Nanos
) -> OpeningStep:
    """Accept a proposal that the policy allows, with our fresh share (32 bytes) and the key derived from it."""
    check_proposal(proposal, chain_ns)
    if participant == proposal.participant:
        raise PeerViolation("bad_key", "the proposer's participant key equals ours")
    answer = ChannelAccept(proposal.proposal_id, share, participant)
    phase = Accepted(peer, proposal, answer)
    _params(proposal, answer)  # what the canister would refuse is refused before it is answered
    return OpeningStep(phase, send=(answer,))


def receive(phase: OpeningPhase, message: OpeningMessage, signer: StateSigner, chain_ns: Nanos) -> OpeningStep:
    """Take the peer's next message of this opening.

    `signer` holds our participant key of this opening. Raises `PeerViolation` for what is impossible now.
    """
    match phase:
        case Proposed():
            return _proposed(phase, message, signer, chain_ns)
        case Accepted():
            return _accepted(phase, message, signer, chain_ns)
        case Signing():
            return _signing(phase, message, chain_ns)
        case Opened() | Dead():
            return _over(phase, message)
        case _:
            assert_never(phase)


def expire(phase: OpeningPhase, chain_ns: Nanos) -> OpeningStep | None:
    """Return the death of an opening whose deadline passed without both signatures, else None."""
    if isinstance(phase, Opened | Dead) or chain_ns < phase.proposal.funding_deadline_ns:
        return None
    return OpeningStep(Dead(phase.peer, phase.proposal, "expired", "the funding deadline passed before both signed"))


def repeat(phase: OpeningPhase) -> tuple[OpeningMessage, ...]:
    """Return what we say again in a new session: the peer may have lost it."""
    match phase:
        case Proposed():
            return (phase.proposal,)
        case Accepted():
            return (phase.accept,)
        case Signing():
            return (StateSignature(phase.proposal.proposal_id, phase.signature),)
        case Opened():
            return (phase.reply,) if phase.reply is not None else ()
        case Dead():
            return ()
        case _:
            assert_never(phase)


def _params(proposal: ChannelProposal, answer: ChannelAccept) -> Params:
    try:
        return Params(
            channel_nonce(proposal.nonce_share, answer.nonce_share),
            (proposal.participant, answer.participant),
            proposal.challenge_duration_ns,
        )
    except Undecodable as error:
        raise PeerViolation("bad_params", str(error)) from error


def _terms(peer: bytes, proposal: ChannelProposal, answer: ChannelAccept, *, we_proposed: bool) -> Terms:
    shares = (proposal.nonce_share, answer.nonce_share)
    return Terms(
        proposal_id=proposal.proposal_id,
        peer=peer,
        our_index=0 if we_proposed else 1,
        params=_params(proposal, answer),
        allocation=proposal.allocation,
        funding_deadline_ns=proposal.funding_deadline_ns,
        our_share=shares[0] if we_proposed else shares[1],
        peer_share=shares[1] if we_proposed else shares[0],
    )


def _in_time(proposal: ChannelProposal, chain_ns: Nanos) -> None:
    if chain_ns >= proposal.funding_deadline_ns:
        raise PeerViolation("expired", "the funding deadline passed before both signed; the opening is dead")


def _proposed(phase: Proposed, message: OpeningMessage, signer: StateSigner, chain_ns: Nanos) -> OpeningStep:
    proposal = phase.proposal
    match message:
        case ChannelReject():
            return OpeningStep(Dead(phase.peer, proposal, message.code, message.text))
        case ChannelAccept():
            _in_time(proposal, chain_ns)
            if not is_usable_key(message.participant) or message.participant == proposal.participant:
                raise PeerViolation("bad_key", "the acceptor's participant key is not usable")
            terms = _terms(phase.peer, proposal, message, we_proposed=True)
            signature, signed = signer.sign(terms.state_0())
            return OpeningStep(
                Signing(phase.peer, proposal, message, signature),
                signed,
                (StateSignature(proposal.proposal_id, signature),),
            )
        case StateSignature() | ChannelProposal():
            raise PeerViolation("unexpected", f"{type(message).__name__} came before channel_accept")


def _accepted(phase: Accepted, message: OpeningMessage, signer: StateSigner, chain_ns: Nanos) -> OpeningStep:
    match message:
        case ChannelProposal():
            _same(phase.proposal, message)
            return OpeningStep(phase, send=(phase.accept,))
        case ChannelReject():
            return OpeningStep(Dead(phase.peer, phase.proposal, message.code, message.text))
        case StateSignature():
            _in_time(phase.proposal, chain_ns)
            terms = _terms(phase.peer, phase.proposal, phase.accept, we_proposed=False)
            state = terms.state_0()
            if not verify(terms.params.participants[0], state.encoded, message.signature):
                raise PeerViolation("bad_signature", "the proposer's signature on state 0 is not valid")
            signature, signed = signer.sign(state)
            reply = StateSignature(phase.proposal.proposal_id, signature)
            return OpeningStep(
                Opened(terms, SignedState(state, (message.signature, signature)), reply), signed, (reply,)
            )
        case ChannelAccept():
            raise PeerViolation("unexpected", "channel_accept came from the proposer")


def _signing(phase: Signing, message: OpeningMessage, chain_ns: Nanos) -> OpeningStep:
    match message:
        case ChannelAccept():
            if message != phase.accept:
                raise PeerViolation("changed_answer", "another channel_accept came for the same proposal")
            return OpeningStep(phase, send=repeat(phase))
        case StateSignature():
            _in_time(phase.proposal, chain_ns)
            terms = _terms(phase.peer, phase.proposal, phase.accept, we_proposed=True)
            state = terms.state_0()
            if not verify(terms.params.participants[1], state.encoded, message.signature):
                raise PeerViolation("bad_signature", "the acceptor's signature on state 0 is not valid")
            return OpeningStep(Opened(terms, SignedState(state, (phase.signature, message.signature)), None))
        case ChannelReject() | ChannelProposal():
            # After both keys are known a rejection changes nothing: it is dead when its deadline passes.
            raise PeerViolation("unexpected", f"{type(message).__name__} came after channel_accept")


def _over(phase: Opened | Dead, message: OpeningMessage) -> OpeningStep:
    if isinstance(phase, Dead):
        return OpeningStep(
            phase,
            send=(ChannelReject(phase.proposal.proposal_id, phase.code, phase.text),)
            if isinstance(message, ChannelProposal)
            else (),
        )
    return OpeningStep(phase, send=repeat(phase))


def _same(known: ChannelProposal, message: ChannelProposal) -> None:
    if known != message:
        raise PeerViolation("changed_proposal", "another proposal came under the same proposal id")
