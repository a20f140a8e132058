"""Openings: proposes, answers proposals by the policy, and hands over channels whose state 0 is signed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from perund.amounts import format_icp
from perund.config import Config
from perund.keys import Keys
from perund.node.driver import PeerSession
from perund.node.places import Places
from perund.recovery.saved import half_open_part
from perund.store.jobs import forget_opening, record_opening
from perund.store.store import Store
from perund.store.writer import Statement
from protocol.effects import EventRecord, Record
from protocol.errors import PeerViolation
from protocol.messages import (
    ChannelProposal,
    ChannelReject,
    ErrorMessage,
    OpeningMessage,
    StateSignature,
)
from protocol.opening import (
    Accepted,
    Dead,
    Opened,
    OpeningPhase,
    OpeningStep,
    Proposed,
    Signing,
    accept,
    expire,
    receive,
    repeat,
)
from protocol.signer import StateSigner
from protocol.signing import ChannelKey
from protocol.types import MAX_INT64, Nanos

__all__ = ["Openings", "Refusal"]

log = structlog.get_logger()

SHARE_BYTES = 32


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an opening of ours came to nothing."""

    code: str
    text: str


class Surroundings(Protocol):
    """What openings need of the node."""

    def local_s(self) -> float:
        """Return seconds of a local clock that does not step."""
        ...

    def is_known(self, peer: bytes) -> bool:
        """Whether a peer has money in a channel with us."""
        ...

    def chain_ns(self) -> Nanos:
        """Return the chain time."""
        ...

    def channels_with(self, peer: bytes | None) -> int:
        """Return how many channels have money and are not closed, with a peer or in all."""
        ...

    def spendable_e8s(self) -> int | None:
        """Return what the wallet can put into new channels, or None while that is not known."""
        ...

    def open_channel(
        self, opened: Opened, records: tuple[Record | Statement, ...], session: PeerSession | None
    ) -> None:
        """Take over a channel, durable together with these records; then send what is to be sent."""
        ...

    def signed_again(self, proposal_id: bytes, session: PeerSession) -> None:
        """The proposer asked for our signature on state 0 again: it had not got it."""
        ...

    def refused(self, proposal_id: bytes, refusal: Refusal) -> None:
        """An opening of ours came to nothing."""
        ...


class Openings:
    """Every opening that is neither dead nor done, by proposal id.

    One that has ended stays until its end is on the disk: before that the store still tells of the phase before,
    and the same message once more would be taken for the first one.
    """

    def __init__(
        self,
        config: Config,
        keys: Keys,
        store: Store,
        surroundings: Surroundings,
        reason_not_to: Callable[[], str | None],
        places: Places,
    ) -> None:
        """`reason_not_to`: why no channel may be opened now (a network that cannot be trusted), or None."""
        self._policy = config.policy
        self._keys = keys
        self._store = store
        self._node = surroundings
        self._reason_not_to = reason_not_to
        self._places = places
        self._stopped = False
        self._live: dict[bytes, OpeningPhase] = {
            phase.proposal.proposal_id: phase for phase in store.read.live_openings() if not isinstance(phase, Opened)
        }
        for proposal_id, phase in self._live.items():
            if isinstance(phase, Accepted):  # where it came from is forgotten: it counts for its key alone
                places.add(proposal_id, phase.peer, phase.peer.hex(), surroundings.local_s(), known=False)

    def stop(self) -> None:
        """Say nothing more: another copy of this node runs, and what was signed for an opening does not leave."""
        self._stopped = True

    def peer_of(self, proposal_id: bytes) -> bytes | None:
        """Return with whom an opening is that is under way."""
        phase = self._live.get(proposal_id)
        return phase.peer if phase is not None and not isinstance(phase, Opened) else None

    def peers(self, *, ours: bool = False) -> set[bytes]:
        """Return with whom openings are under way. `ours`: those that we proposed."""
        return {
            phase.peer
            for phase in self._live.values()
            if not isinstance(phase, Opened | Dead) and not (ours and isinstance(phase, Accepted))
        }

    # --- ours --------------------------------------------------------------------------------------------

    def propose(
        self,
        peer: bytes,
        session: PeerSession,
        allocation: tuple[int, int],
        challenge_ns: Nanos,
        deadline_ns: Nanos,
        records: tuple[Statement, ...],
        proposal_id: bytes,
    ) -> None:
        """Propose a channel to a connected peer. `records` become durable with the proposal."""
        share = os.urandom(SHARE_BYTES)  # drawn afresh for every proposal: the channel id hangs on it
        key = self._key(share)
        proposal = ChannelProposal(proposal_id, share, key.public, allocation, challenge_ns, deadline_ns)
        phase = Proposed(peer, proposal)
        self._live[proposal_id] = phase
        self._commit(OpeningStep(phase, send=(proposal,)), session, records, we_proposed=True)

    def _key(self, share: bytes) -> ChannelKey:
        return ChannelKey(self._keys.participant_seed(share))

    def _say(self, session: PeerSession, messages: tuple[OpeningMessage, ...], of: OpeningPhase | None = None) -> None:
        """Send after everything that was asked to be durable before is (rule 2). `of`: while this is its phase."""

        def then() -> None:
            if (of is None or self._is_now(of)) and not self._stopped:
                for message in messages:
                    session.send(message)

        self._store.commit((), then)

    def ours_waiting_e8s(self) -> int:
        """Return what our share in the live openings adds up to: promised, not yet paid."""
        return sum(
            phase.proposal.allocation[1 if isinstance(phase, Accepted) else 0]
            for phase in self._live.values()
            if not isinstance(phase, Opened | Dead)
        )

    # --- the peer's --------------------------------------------------------------------------------------

    def session_began(self, peer: bytes, session: PeerSession) -> None:
        """Say again what the peer may have lost."""
        for phase in self._live.values():
            if not isinstance(phase, Opened) and phase.peer == peer:
                self._say(session, repeat(phase), phase)  # of one that became a channel, the channel speaks

    def received(self, peer: bytes, session: PeerSession, message: OpeningMessage, origin: str = "") -> None:
        """Take a message about an opening. What is impossible is answered with an error that names it.

        `origin`: the address that it came from, as places are counted by it.
        """
        try:
            self._received(peer, session, message, origin)
        except PeerViolation as violation:
            log.warning("opening.violated", peer=peer.hex(), code=violation.code, text=str(violation))
            if isinstance(message, ChannelProposal):
                session.send(ChannelReject(message.proposal_id, violation.code, str(violation)[:256]))
            else:
                session.send(ErrorMessage(violation.code, str(violation)[:256], b""))

    def _received(self, peer: bytes, session: PeerSession, message: OpeningMessage, origin: str) -> None:
        phase = self._live.get(message.proposal_id) or self._store.read.opening(message.proposal_id)
        if phase is None:
            done = self._done(message.proposal_id)
            if done is None and isinstance(message, ChannelProposal):
                self._proposed(peer, session, message, origin)
                return
            owner, repeated = done if done is not None else (None, ())
        elif isinstance(phase, Opened):
            owner, repeated = phase.terms.peer, repeat(phase)
        else:
            owner, repeated = phase.peer, ()
        if owner != peer:
            # An id belongs to the peer that used it first, also when its opening is over long ago.
            if isinstance(message, ChannelReject):
                return
            raise PeerViolation("unknown_proposal", f"proposal {message.proposal_id.hex()[:16]} is not known here")
        if phase is None or isinstance(phase, Opened):
            if isinstance(message, StateSignature):
                self._say(session, repeated)  # the same message again gets the same answer
                if repeated:
                    self._store.commit((), lambda: self._node.signed_again(message.proposal_id, session))
            return
        we_proposed = not isinstance(phase, Accepted)
        share = phase.accept.nonce_share if isinstance(phase, Accepted) else phase.proposal.nonce_share
        signer = StateSigner(self._key(share), None)
        step = receive(phase, message, signer, self._node.chain_ns())
        if step.phase is phase:
            self._say(session, step.send, phase)
            return
        self._commit(step, session, (), we_proposed=we_proposed)

    def _done(self, proposal_id: bytes) -> tuple[bytes, tuple[OpeningMessage, ...]] | None:
        """Return whose opening became a channel under this id, and what we said last in it; None for no such."""
        number = self._store.read.channel_of_proposal(proposal_id)
        row = self._store.read.channel(number) if number is not None else None
        if row is None:
            return None
        if row.terms.our_index == 0:
            return row.terms.peer, ()
        return row.terms.peer, (StateSignature(proposal_id, self._store.read.our_signature_0(row.number)),)

    def _proposed(self, peer: bytes, session: PeerSession, proposal: ChannelProposal, origin: str) -> None:
        refusal = self._judge(peer, proposal)
        now_s, known = self._node.local_s(), self._node.is_known(peer)
        if refusal is None and not self._places.ask(peer, origin, now_s, known=known):
            refusal = Refusal("too_many_openings", "too many openings are under way; try again later")
        if refusal is not None:
            log.info("opening.refused", peer=peer.hex(), code=refusal.code, text=refusal.text)
            session.send(ChannelReject(proposal.proposal_id, refusal.code, refusal.text[:256]))
            return
        share = os.urandom(SHARE_BYTES)
        step = accept(peer, proposal, share, self._key(share).public, self._node.chain_ns())
        self._live[proposal.proposal_id] = step.phase
        self._places.add(proposal.proposal_id, peer, origin, now_s, known=known)
        self._commit(step, session, (), we_proposed=False)

    def _judge(self, peer: bytes, proposal: ChannelProposal) -> Refusal | None:
        """Return why our policy refuses a proposal, or None when it does not."""
        policy, node = self._policy, self._node
        total, ours = sum(proposal.allocation), proposal.allocation[1]
        challenge_s = proposal.challenge_duration_ns / 1e9
        not_now = self._reason_not_to()
        spendable = node.spendable_e8s() if ours else None
        checks: list[tuple[bool, str, str]] = [
            (not policy.accept, "not_accepting", "this node accepts no channels"),
            (
                bool(policy.peers_allowed) and peer.hex() not in policy.peers_allowed,
                "peer_not_allowed",
                "this node accepts channels of named peers only",
            ),
            (not_now is not None, "not_now", not_now or ""),
            (
                node.channels_with(None) >= policy.max_channels
                or node.channels_with(peer) + self._places.of(peer) >= policy.max_channels_per_peer,
                "too_many_channels",
                "this node has as many channels as it wants",
            ),
            (
                not policy.min_total_e8s <= total <= min(policy.max_total_e8s, MAX_INT64),
                "bad_amount",
                (
                    f"a channel here holds {format_icp(policy.min_total_e8s)} to {format_icp(policy.max_total_e8s)}, "
                    f"not {format_icp(total)}"
                ),
            ),
            (
                ours > policy.contribute_max_e8s,
                "contribution_too_large",
                f"this node puts in at most {format_icp(policy.contribute_max_e8s)} itself, not {format_icp(ours)}",
            ),
            (
                ours > 0 and (spendable is None or ours > spendable),
                "contribution_not_available",
                f"this node cannot put in {format_icp(ours)} now",
            ),
            (
                not policy.min_challenge_s <= challenge_s <= policy.max_challenge_s,
                "bad_challenge_duration",
                f"a challenge period is {policy.min_challenge_s} to {policy.max_challenge_s} s, not {challenge_s:g}",
            ),
        ]
        return next((Refusal(code, text) for failed, code, text in checks if failed), None)

    # --- both --------------------------------------------------------------------------------------------

    def expire(self) -> None:
        """End the openings whose deadline passed without both signatures."""
        now = self._node.chain_ns()
        for phase in list(self._live.values()):
            step = expire(phase, now)
            if step is None:
                continue
            self._commit(step, None, (), we_proposed=not isinstance(phase, Accepted))

    def give_up(self, proposal_id: bytes) -> None:
        """End an opening that we accepted and its proposer has not signed. We signed nothing in it."""
        phase = self._live.get(proposal_id)
        if isinstance(phase, Accepted):
            text = "it was not signed, and too many wait"
            self._commit(OpeningStep(Dead(phase.peer, phase.proposal, "expired", text)), None, (), we_proposed=False)

    def _commit(
        self, step: OpeningStep, session: PeerSession | None, records: tuple[Statement, ...], *, we_proposed: bool
    ) -> None:
        phase = step.phase
        durable: tuple[Record | Statement, ...] = (*records, record_opening(phase, we_proposed=we_proposed))
        if isinstance(phase, Opened):
            self._live[phase.terms.proposal_id] = phase
            self._node.open_channel(phase, durable, session)
            self._store.commit((), lambda: self._forget(phase))
            return
        proposal_id = phase.proposal.proposal_id
        self._live[proposal_id] = phase
        if isinstance(phase, Dead) and not we_proposed:
            # We signed nothing, and a peer could make any number of these: nothing of it is kept.
            log.info("opening.ended", peer=phase.peer.hex(), code=phase.code, text=phase.text)
            durable = (forget_opening(proposal_id),)
        elif isinstance(phase, Dead):
            durable = (*durable, EventRecord("opening.ended", None, {"code": phase.code, "text": phase.text}))

        def then() -> None:
            if isinstance(phase, Dead):
                self._forget(phase)
            # What ended meanwhile, and is forgotten with the same write, is not said any more.
            if session is not None and not self._stopped and (isinstance(phase, Dead) or self._is_now(phase)):
                for message in step.send:
                    session.send(message)
            if isinstance(phase, Dead) and we_proposed:
                self._node.refused(proposal_id, Refusal(phase.code, phase.text))

        # Our signature on a state 0 leaves only when the channel could be found again.
        backed_up = (half_open_part(phase.peer, phase.proposal.nonce_share),) if isinstance(phase, Signing) else ()
        self._store.commit(durable, then, backed_up)

    def _is_now(self, phase: OpeningPhase) -> bool:
        proposal_id = phase.terms.proposal_id if isinstance(phase, Opened) else phase.proposal.proposal_id
        return self._live.get(proposal_id) is phase

    def _forget(self, phase: Opened | Dead) -> None:
        """Let go of an opening whose end is on the disk."""
        proposal_id = phase.terms.proposal_id if isinstance(phase, Opened) else phase.proposal.proposal_id
        self._live.pop(proposal_id, None)
        if isinstance(phase, Dead):
            self._places.end(proposal_id)
