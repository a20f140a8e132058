"""A channel from its signed state 0 on, as far as both participants do the same.

`protocol.ordering` (participant 0) and `protocol.following` (participant 1) hold what differs. Inputs are
methods, each returning the `Step` that it asks for; the driver commits and performs it. Source: DESIGN,
sections 5 to 8; docs/protocol.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Final

from protocol.counting import Agreed
from protocol.effects import (
    NOTHING,
    CountedRecord,
    Delivered,
    EventRecord,
    IncludedRecord,
    Look,
    LookNow,
    LossEndRecord,
    Moment,
    PaymentsEnded,
    PaymentsEndedRecord,
    PeerHoldsRecord,
    Phase,
    PhaseRecord,
    Received,
    Send,
    StateRecord,
    Step,
)
from protocol.errors import CallerMistake, PeerViolation, Undecodable
from protocol.horizon import Horizon
from protocol.memory import Books, ChannelMemory
from protocol.messages import (
    Ack,
    ChannelMessage,
    ChannelReady,
    ErrorMessage,
    Resume,
    ResumePhase,
    SignedStateMessage,
    TowerHeld,
    Update,
)
from protocol.payments import EMPTY, Batch
from protocol.queue import PaymentQueue
from protocol.signer import StateSigner
from protocol.signing import verify_signed_state
from protocol.terms import Terms
from protocol.types import ChannelId, Nanos, ParticipantIndex, SignedState, State

__all__ = ["DATA_LOSS", "SETTLED_WITHOUT_IT", "Channel"]

RECOVERY_STEP: Final = 2**32
"""A recovering channel's final state has the next multiple of it as its version, where no lost state can be."""
DATA_LOSS: Final = "data_loss"
"""The code with which a channel is frozen whose data may be old."""
RISK_ACCEPTED: Final = "risk_accepted"
"""The same, after the operator accepted the risk."""
SETTLED_WITHOUT_IT: Final = "settled_without_it"
"""The code of a payment that the state on which the canister settled leaves out."""
SUPERSEDED: Final = "superseded"
"""Why nobody knows of a payment of an update that was given up: a later state without it is fully signed."""
UPDATE_ROOM: Final = 65_535 - 512
"""Bytes for payments in an update: what a frame holds less the fixed fields."""


@dataclass
class Channel(ABC):
    """One side's view of a channel, once state 0 is fully signed and durable (rule 3)."""

    terms: Terms
    signer: StateSigner
    books: Books
    memory: ChannelMemory
    minimum_e8s: int = 1
    """The smallest payment that we take."""
    horizon: Horizon = field(default_factory=Horizon)
    """The newest certified look at all quiet channels at once: shared with whoever makes it."""

    phase: Phase = field(init=False)
    newest: SignedState = field(init=False)
    """The newest fully signed state: what a dispute settles on."""
    peer_holds: int = field(init=False)
    """Highest version that the peer has shown to hold fully signed, while nothing lower was registered."""
    counted: int = field(init=False)
    """Up to this version what the peer paid counts as received (`protocol.counting`)."""
    frozen: str = field(init=False)
    """Why the channel no longer updates, or empty."""
    queue: PaymentQueue = field(init=False)
    """Our payments that are in no update and no offer."""
    look: Look | None = field(init=False, default=None)
    connected: bool = field(init=False, default=False)
    """Whether both `Resume`s of this session are exchanged."""
    peer_minimum_e8s: int = field(init=False, default=1)
    we_are_ready: bool = field(init=False)
    peer_is_ready: bool = field(init=False)
    peer_stopped: bool = field(init=False, default=False)
    """The peer said in this session that it updates no more: it closes, leaves, or is frozen."""
    peer_recovering: bool = field(init=False, default=False)
    """The peer said in this session that it may have lost data of the channel (rule 7)."""
    awaits_towers: bool = field(init=False, default=False)
    """Whether there are towers that may hold a newer state and were not asked: a loss is not ended before (rule 7)."""
    outlived: bool = field(init=False, default=False)
    """Whether another copy of this node runs: this one signs nothing any more, not even what ends a loss."""
    loss_end_version: int | None = field(init=False)
    """The version on whose shares a loss of data may be ended: an adopted state, or one that the operator declared the
    newest. What the peer says, or does not show, never sets it (rule 7).
    """
    peer_version: int | None = field(init=False, default=None)
    """What the peer last called its newest fully signed version: a claim."""
    highest_peer_id: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.phase = self.memory.phase
        self.newest = self.memory.newest
        self.peer_holds = self.memory.peer_holds
        self.frozen = self.memory.frozen
        self.loss_end_version = self.memory.loss_end_version
        self.highest_peer_id = self.memory.highest_peer_id
        self.queue = PaymentQueue()
        self.queue.append(self.memory.queued)
        self.we_are_ready = self.peer_is_ready = self.phase is not Phase.FUNDING
        self._resume_sent = False
        self._claim_open = False
        self._settled = self.memory.settled_version is not None
        self._given_up = {u.version: u for u in self.memory.given_up}
        """What we gave up unacknowledged, by version. Also that of the newest state, which is undone if the final state
        that was signed since is completed, and that below it, which is settled if nobody refutes it: what it pays
        counts when the canister settled on it, and not before.
        """
        self.counted = self.memory.counted
        self._uncounted: list[Agreed] = []
        self._undecided: list[tuple[Batch, int]] = []
        """Ours, in states that the peer holds: the canister decides about them, because it settles already."""
        sent, received = self.memory.uncounted_sent, self.memory.uncounted_received
        if (sent or received) and self.version not in self._given_up:
            # The states between are one step for who is told of it now.
            change_e8s = received.total_e8s - sent.total_e8s
            self._uncounted.append(Agreed(self.newest.state, sent, received, change_e8s))
        self._proposed: tuple[Update, State] | None = None
        self._alarms: dict[str, str | int | bool] = {}

    # --- what can be asked -------------------------------------------------------------------------------

    @property
    def id(self) -> ChannelId:
        """The channel id."""
        return self.terms.channel

    @property
    def ours(self) -> ParticipantIndex:
        """Our place in the params."""
        return self.terms.our_index

    @property
    def version(self) -> int:
        """Version of the newest fully signed state."""
        return self.newest.state.version

    @property
    def balance_e8s(self) -> int:
        """Our share in the newest fully signed state."""
        return self.newest.state.allocation[self.ours]

    @property
    @abstractmethod
    def committed_e8s(self) -> int:
        """What of our balance is queued, offered or in the outstanding update."""

    @property
    def sendable_e8s(self) -> int:
        """What can still be queued: our balance less what is queued (DESIGN, section 6)."""
        return self.balance_e8s - self.committed_e8s if self.phase is Phase.OPEN and not self.frozen else 0

    @property
    @abstractmethod
    def pending(self) -> Update | None:
        """The update that we signed and the peer did not acknowledge (participant 0 only)."""

    @property
    def recovering(self) -> bool:
        """Whether this node may have lost data of the channel: it only refutes, adopts and closes (rule 7)."""
        return self.frozen.startswith(DATA_LOSS)

    @property
    def loss_is_proven(self) -> bool:
        """Whether the newest state was adopted, or declared the newest by the operator: its shares may end the loss."""
        return self.recovering and self.loss_end_version == self.version

    @property
    def proposed_end(self) -> State | None:
        """The final state that the peer proposes to a node that recovers, and that waits (participant 1 only)."""
        return None

    @property
    def may_lack_records(self) -> bool:
        """Whether the store may lack what happened: the channel recovers, or its operator took the risk of it."""
        return self.recovering or self.frozen.startswith(RISK_ACCEPTED)

    @property
    def _stopped(self) -> bool:
        """Whether it makes no update, not even the final one that ends a loss.

        Rule 7: the peer alone might hide the newest state. So that one waits until the towers were asked, and is signed
        only on the shares of a state that was adopted, or that the operator declared the newest.
        """
        return self.outlived or (bool(self.frozen) and (self.awaits_towers or not self.loss_is_proven))

    @property
    def final(self) -> SignedState | None:
        """The fully signed final state, if there is one."""
        return self.newest if self.newest.state.finalized else None

    @property
    def looked_at_ns(self) -> int | None:
        """When the newest look at this channel was asked for, in local elapsed time; None before the first.

        While its own looks show nothing registered, that is its own or the `horizon`'s, whichever is newer.
        """
        if self.look is None:
            return None
        swept_ns = self.horizon.asked_ns if self.look.version is None else None
        return self.look.asked_ns if swept_ns is None else max(self.look.asked_ns, swept_ns)

    def may_update(self, now: Moment) -> bool:
        """Rule 4: only while the newest look shows no registered state and is younger than a third of the
        challenge period. Only enforceable states count.

        Both clocks must say that it is young: a machine that was paused as a whole has aged no nanosecond by its own.
        """
        look, swept = self.look, self.horizon
        if look is None or look.version is not None:
            return False
        if self._is_young(look.asked_ns, look.chain_ns, now):
            return True
        return swept.asked_ns is not None and self._is_young(swept.asked_ns, swept.chain_ns, now)

    def _is_young(self, asked_ns: int, chain_ns: Nanos, now: Moment) -> bool:
        age_ns = max(now.elapsed_ns - asked_ns, now.chain_ns - chain_ns)
        return 3 * age_ns < self.terms.params.challenge_duration_ns

    def check_payable(self, amount_e8s: int, smallest_e8s: int | None = None) -> None:
        """Raise `CallerMistake` unless payments of that sum, the smallest as given, can be queued now."""
        smallest_e8s = amount_e8s if smallest_e8s is None else smallest_e8s
        if self.frozen:
            raise CallerMistake("channel_frozen", f"the channel no longer updates: {self.frozen}")
        if self.phase is Phase.FUNDING:
            raise CallerMistake("channel_not_open", "the channel is still being funded; pay when it is open")
        if self.phase is not Phase.OPEN:
            raise CallerMistake("channel_not_open", f"the channel is {self.phase.value}; it takes no payments")
        if smallest_e8s < max(1, self.peer_minimum_e8s):
            raise CallerMistake(
                "amount_too_small",
                f"{smallest_e8s} e8s is below the smallest payment the peer takes, {max(1, self.peer_minimum_e8s)} e8s",
            )
        if amount_e8s > self.sendable_e8s:
            raise CallerMistake(
                "insufficient_balance",
                f"{amount_e8s} e8s is more than the {self.sendable_e8s} e8s that can be sent "
                f"(balance {self.balance_e8s} e8s, {self.committed_e8s} e8s on their way)",
            )

    # --- inputs: our user --------------------------------------------------------------------------------

    @abstractmethod
    def pay(self, payments: Batch, now: Moment) -> Step:
        """Queue payments of ours. The caller has asked `check_payable` with their sum."""

    @abstractmethod
    def cancel(self, payment_id: bytes) -> Step:
        """Cancel a payment of ours that is neither offered nor signed. Raises `CallerMistake` otherwise."""

    def _cancel_queued(self, payment_id: bytes) -> Step:
        if self.queue.remove(payment_id) is None:
            raise CallerMistake(
                "payment_not_queued",
                f"payment {payment_id.hex()} is not waiting: it is unknown, ended, or the peer may hold it already",
            )
        return self._end(payment_id, "cancelled", "cancelled_by_user")

    def close(self, now: Moment, reason: str) -> Step:
        """Close together: the last update is final and carries no payments."""
        if self.recovering and not self.loss_is_proven and self.phase in (Phase.OPEN, Phase.CLOSING):
            raise CallerMistake(
                "channel_recovering",
                "this node may have lost data of the channel, and a final state that it signs now may give away what "
                "it received since: `perun recover` shows what is known, and how to go on",
            )
        if self.phase is Phase.CLOSING:
            return NOTHING
        if self.phase is not Phase.OPEN:
            raise CallerMistake("channel_not_open", f"the channel is {self.phase.value}; it cannot be closed together")
        if self.frozen and not self.recovering:
            raise CallerMistake(
                "channel_frozen",
                f"the channel no longer updates ({self.frozen}); leave it alone with a dispute",
            )
        return self._enter(Phase.CLOSING, now, reason) + self.advance(now)

    def leave(self, now: Moment, reason: str) -> Step:
        """Settle alone with the newest fully signed state."""
        if self.phase is Phase.LEAVING:
            return NOTHING
        if self.phase is Phase.CLOSED:
            raise CallerMistake("channel_closed", "the channel is closed already")
        return self._enter(Phase.LEAVING, now, reason)

    # --- inputs: the canister ----------------------------------------------------------------------------

    def fund_complete(self, now: Moment) -> Step:
        """Holdings are complete in a look, and a look asked for after that shows nothing registered."""
        if self.phase is not Phase.FUNDING or self.we_are_ready:
            return NOTHING
        self.we_are_ready = True
        step = Step(outgoing=(Send(ChannelReady(self.id)),)) if self._resume_sent else NOTHING
        return step + self._open_if_ready(now)

    def looked(self, look: Look, now: Moment) -> Step:
        """Take a certified look at what is registered. Older looks than the newest are ignored, unless they show more:
        answers overtake each other, and what is registered stays registered.
        """
        if self.look is not None and look.asked_ns < self.look.asked_ns:
            if not look.shows_more_than(self.look):
                return NOTHING
            look = replace(look, asked_ns=self.look.asked_ns)
        self.look = look
        if look.version is None:
            return self._count_received(now) + self._end_frozen(now) + self._retry(now)
        step = NOTHING
        if self.phase in (Phase.FUNDING, Phase.OPEN) or (self.phase is Phase.CLOSING and self.final is None):
            step = self._enter(Phase.LEAVING, now, f"version {look.version} is registered on the canister")
        return step if self._settled else step + self._judge_registered(look, now)

    def settled(self, version: int, digest: bytes) -> Step:
        """The canister settled on a state: everything that is not in it ends. Once, also over restarts."""
        if self._settled:
            return NOTHING
        self._settled = True
        pending, step = self.pending, NOTHING
        ours_is_settled = pending is not None and digest == self._state_of(pending).digest
        # A settled state that this store never saw may contain anything: nobody knows then how these ended.
        lost = not self.signed_here(version, digest) and (version > self.version or self.recovering)
        status, code = ("unknown", "data_loss") if lost else ("failed", SETTLED_WITHOUT_IT)
        step += self._count(tuple(agreed for agreed in self._uncounted if agreed.state.version <= version))
        self._uncounted.clear()
        step += Step(outgoing=tuple(Delivered(batch, v) for batch, v in self._undecided if v <= version))
        step += self._end(b"".join(b.ids for b, v in self._undecided if v > version), "failed", SETTLED_WITHOUT_IT)
        self._undecided.clear()
        if pending is not None and ours_is_settled:
            # Our own pending state counts as delivered if it is the one settled (DESIGN, section 8).
            agreed = self._agreed_in(pending)
            told = (Delivered(agreed.sent, version),) if agreed.sent else ()
            step += Step((PeerHoldsRecord(self.id, version),), told) + self._told_of(agreed)
        elif pending is not None:
            step += self._end(self._ours_in(pending).ids, status, code)
        if not lost:
            step += self._settle_given_up(version, digest)
        return step + self._end_undelivered(code, status) + self._forget_pending()

    def closed(self, now: Moment, reason: str) -> Step:
        """Our money is out."""
        return self._enter(Phase.CLOSED, now, reason) if self.phase is not Phase.CLOSED else NOTHING

    # --- inputs: the peer --------------------------------------------------------------------------------

    def session_began(self, minimum_payment_e8s: int) -> Step:
        """A session with the peer began. Nothing about the channel is said before `Resume`."""
        self.connected = self.peer_stopped = self._claim_open = False
        self._resume_sent = True
        self.peer_minimum_e8s = minimum_payment_e8s
        return Step(outgoing=(Send(self._resume()),)) + self._say_again()

    def session_ended(self) -> None:
        """The session ended. What was sent may be lost."""
        self.connected = False
        self._resume_sent = False

    def receive(self, message: ChannelMessage, now: Moment) -> Step:
        """Take a message of the peer. A violation stops the updates; the last good state stands."""
        try:
            return self._receive(message, now)
        except PeerViolation as violation:
            return self.freeze(violation.code, str(violation), now)
        except Undecodable as error:
            return self.freeze("bad_state", str(error), now)  # well-formed on the wire, but no state of a channel

    def recalled(self, held: TowerHeld, now: Moment) -> Step:
        """Take what a tower of ours holds. Raises `PeerViolation` or `Undecodable` for what is no state of this
        channel that both signed; nothing has changed then.
        """
        return self._adopt(held, now, "a watchtower") if not self._settled else NOTHING

    def towers_answered(self, now: Moment) -> Step:
        """Every tower was asked, or is not there: what waited for them goes on."""
        self.awaits_towers = False
        return self._retry(now)

    def freeze(self, code: str, text: str, now: Moment) -> Step:
        """Stop updating for good, tell the peer why, and raise an alarm. What a violation froze is left."""
        if self.frozen:
            return NOTHING
        self.frozen = f"{code}: {text}"
        frozen = Step(
            (
                PhaseRecord(self.id, self.phase, self.frozen, "", now.chain_ns),
                EventRecord(
                    "channel.frozen", self.id, {"code": code, "text": text, "version": self.version, "alarm": True}
                ),
            ),
            (Send(ErrorMessage(code, text[:256], self.id)),),
        )
        return frozen + self._end_frozen(now)

    def _end_frozen(self, now: Moment) -> Step:
        """Begin to leave what froze without a loss: a freeze in which nobody acts would hold the money for ever.

        An acknowledgement that is on its way may still come: the node settles alone after the time that it waits for a
        peer that does not close. A channel that is not open yet is left at once.
        """
        if not self.frozen or self.recovering:
            return NOTHING
        why = f"it no longer updates ({self.frozen})"
        if self.phase is Phase.FUNDING:
            return self._enter(Phase.LEAVING, now, why)
        return self._enter(Phase.CLOSING, now, why) if self.phase is Phase.OPEN else NOTHING

    def declare_newest(self, version: int, now: Moment) -> Step:
        """The operator of a node that recovers declares its state of this version the newest: the loss may be ended on
        its shares (rule 7). Whoever knows of a later one can still not be made to show it.

        Raises `CallerMistake`: there is nothing to end like this, or another state is the newest by now.
        """
        if not self.recovering:
            raise CallerMistake("not_recovering", "this node has lost no data of the channel, as far as it knows")
        if self._settled or self.phase in (Phase.LEAVING, Phase.CLOSED) or self.final is not None:
            raise CallerMistake(
                "channel_closing", f"the channel is {self.phase.value}: no final state is signed any more"
            )
        if self.phase is Phase.FUNDING:
            raise CallerMistake(
                "channel_not_open",
                "the canister does not show both deposits: a final state could not be enforced; wait, or leave alone",
            )
        if version != self.version:
            raise CallerMistake(
                "version_changed", f"the newest state that is known here is version {self.version}, not {version}"
            )
        if self.outlived:
            raise CallerMistake("stopped_signing", "another copy of this node runs: this one signs nothing any more")
        if self.awaits_towers:
            raise CallerMistake("towers_not_asked", "watchtowers are still being asked for a newer state")
        self.loss_end_version = version
        facts: dict[str, str | int | bool] = {"version": version, "mine_e8s": str(self.balance_e8s)}
        step = Step((LossEndRecord(self.id, version), EventRecord("channel.declared_newest", self.id, facts)))
        if self.phase is Phase.OPEN:
            step += self._enter(Phase.CLOSING, now, "its operator ends the loss of data on the newest state known here")
        return step + self._retry(now)

    def _receive(self, message: ChannelMessage, now: Moment) -> Step:
        if self._settled:
            return NOTHING  # nothing that a peer says, or missed, changes what the canister settled on
        match message:
            case Resume():
                self.peer_stopped = message.phase is ResumePhase.CLOSING
                self.peer_recovering = message.recovering
                self.peer_version = max(message.version, message.pending_version)
                return self._resumed(message, now)
            case SignedStateMessage() if self._claim_open and self.recovering and message.version <= self.version:
                # It shows what it has, and a tower was faster: its claim holds nothing up any more.
                self._claim_open, self.connected = False, True
                return self._retry(now)
            case SignedStateMessage():
                return self._adopt(message, now, "the peer")
            case _ if not self.connected:
                raise PeerViolation("not_resumed", f"{type(message).__name__} came before resume")
            case ChannelReady():
                self.peer_is_ready = True
                return self._open_if_ready(now)
            case _:
                return self._receive_updating(message, now)

    @abstractmethod
    def _receive_updating(self, message: ChannelMessage, now: Moment) -> Step: ...

    @abstractmethod
    def advance(self, now: Moment) -> Step:
        """Send what can be sent now."""

    @abstractmethod
    def _retry(self, now: Moment) -> Step:
        """Do what waited for a fresh look."""

    @abstractmethod
    def _say_again(self) -> Step:
        """Send again, after our resume, what the peer may have lost and may take in any order."""

    @abstractmethod
    def _resumed(self, theirs: Resume, now: Moment) -> Step: ...

    @abstractmethod
    def _end_undelivered(self, code: str, status: str = "failed") -> Step: ...

    @abstractmethod
    def _forget_pending(self) -> Step: ...

    # --- shared pieces -----------------------------------------------------------------------------------

    def _enter(self, phase: Phase, now: Moment, reason: str) -> Step:
        self.phase = phase
        return Step(
            (
                PhaseRecord(self.id, phase, self.frozen, reason, now.chain_ns),
                EventRecord(f"channel.{phase.value}", self.id, {"reason": reason, "version": self.version}),
            )
        )

    def _open_if_ready(self, now: Moment) -> Step:
        if self.phase is not Phase.FUNDING or not (self.we_are_ready and self.peer_is_ready):
            return NOTHING
        return self._enter(Phase.OPEN, now, "both deposits are certified") + self._retry(now)

    def _resume(self) -> Resume:
        pending = self.pending
        if self.phase is Phase.FUNDING:
            phase = ResumePhase.FUNDING
        elif self.phase is Phase.OPEN and not self.frozen:
            phase = ResumePhase.OPEN
        else:
            phase = ResumePhase.CLOSING
        return Resume(
            self.id,
            phase,
            self.version,
            self.newest.state.digest,
            pending.version if pending else 0,
            self._state_of(pending).digest if pending else b"",
            recovering=self.recovering,
        )

    def _state_of(self, update: Update) -> State:
        """Return the state that an update proposes. It is asked for again at each step of that update."""
        if self._proposed is None or self._proposed[0] is not update:
            self._proposed = (update, State(self.id, update.version, update.allocation, update.finalized))
        return self._proposed[1]

    def _ours_in(self, update: Update) -> Batch:
        return update.from_0 if self.ours == 0 else update.from_1

    def _check_same(self, theirs: Resume) -> None:
        if theirs.version == self.version and theirs.state_hash != self.newest.state.digest:
            raise PeerViolation("state_conflict", f"another state of version {self.version} is fully signed")

    def _ready_again(self) -> tuple[Send, ...]:
        """`ready` said again: it may be lost, and opens the channel for the peer. Who leaves was perhaps never
        ready, and opens nothing any more.
        """
        leaves = self.phase in (Phase.LEAVING, Phase.CLOSED)
        return (Send(ChannelReady(self.id)),) if self.we_are_ready and self.version == 0 and not leaves else ()

    def _newest_message(self) -> Send:
        state, signatures = self.newest.state, self.newest.signatures
        return Send(
            SignedStateMessage(self.id, state.version, state.allocation, state.finalized, signatures[0], signatures[1])
        )

    def outlive(self, text: str, now: Moment) -> Step:
        """Another copy of this node runs, and may have signed what is not known here: nothing is signed any more.

        That outlasts the copy, and any other reason why the channel is frozen: it recovers (rule 7). What was proven
        before, or declared the newest, says nothing of what the other copy did.
        """
        self.outlived = True
        step = Step((LossEndRecord(self.id, None),)) if self.loss_end_version is not None else NOTHING
        self.loss_end_version = None
        if self.frozen.startswith((DATA_LOSS, RISK_ACCEPTED)):
            return step
        before, self.frozen = self.frozen, ""
        return step + self.freeze(DATA_LOSS, f"{text} (frozen before: {before})" if before else text, now)

    def accept_risk(self, now: Moment) -> Step:
        """The operator accepts that this node's state may be old: it may be registered, and updates stay frozen."""
        self.frozen = f"{RISK_ACCEPTED}{self.frozen.removeprefix(DATA_LOSS)}"
        return Step((PhaseRecord(self.id, self.phase, self.frozen, "", now.chain_ns),))

    # --- what our store shows that we signed ---------------------------------------------------------------

    def signed_here(self, version: int, digest: bytes) -> bool:
        """Whether our own store shows that we signed this content. It proves no loss: it is what we proposed, perhaps
        acknowledged late, and perhaps after we gave it up (rule 7).
        """
        if self.signer.has_signed(version, digest):
            return True
        proposed = (self.pending, self._given_up.get(version))
        return any(u is not None and u.version == version and self._state_of(u).digest == digest for u in proposed)

    def _acknowledged(self, signed: SignedState, now: Moment) -> Step:
        """Take a state that we signed and that comes back with both signatures."""
        pending, state = self.pending, signed.state
        if pending is not None and state == self._state_of(pending):
            return self._receive_updating(Ack(self.id, state.version, signed.signatures[1]), now)
        return self._acknowledged_late(signed)

    def _acknowledged_late(self, signed: SignedState) -> Step:
        """Take the acknowledgement of what we gave up: it is the newest fully signed state.

        We signed a final state without it since, which the peer can still complete: what is paid in it, either way,
        is paid when it is settled, and not before (rule 4).
        """
        version = signed.state.version
        given_up = self._given_up.get(version)
        from_0, from_1 = (given_up.from_0, given_up.from_1) if given_up is not None else (EMPTY, EMPTY)
        _, received = self._sides(from_0, from_1)
        self.newest = signed
        step = self._superseded(version) + Step((StateRecord(signed, from_0, from_1),))
        facts: dict[str, str | int | bool] = {"version": version, "received": len(received)}
        step += Step((EventRecord("channel.acknowledged_late", self.id, facts),))
        if self.look is not None and self.look.version is not None:
            step += self._ask_look()  # what is registered may be below it
        return step

    def _settle_given_up(self, version: int, digest: bytes) -> Step:
        """What we gave up is in the settled state, if it is that one; else its payments failed."""
        step, given_up, self._given_up = NOTHING, self._given_up, {}
        for update in given_up.values():
            if update.version == version and self._state_of(update).digest == digest:
                included = IncludedRecord(self.id, version, update.from_0, update.from_1)
                step += Step((included, PeerHoldsRecord(self.id, version)))
                step += self._told_of(self._agreed_in(update))
            else:
                step += self._given_up_ended(update, "failed", SETTLED_WITHOUT_IT)
        return step

    def _sides(self, from_0: Batch, from_1: Batch) -> tuple[Batch, Batch]:
        """Return what we pay and what the peer pays."""
        return (from_0, from_1) if self.ours == 0 else (from_1, from_0)

    def _agreed_in(self, update: Update) -> Agreed:
        sent, received = self._sides(update.from_0, update.from_1)
        return Agreed(self._state_of(update), sent, received, received.total_e8s - sent.total_e8s)

    def _superseded(self, version: int) -> Step:
        """What we gave up below this version is not paid by now. Nobody knows before the canister has settled: it may
        settle on that all the same, while nobody refutes.
        """
        over = [u for u in self._given_up.values() if u.version < version]
        return Step(tuple(r for update in over for r in self._given_up_ended(update, "unknown", SUPERSEDED).durable))

    def _given_up_ended(self, update: Update, status: str, code: str) -> Step:
        """Its payments are in no state. Their user was told that nobody knew."""
        both: tuple[tuple[ParticipantIndex, Batch], ...] = ((0, update.from_0), (1, update.from_1))
        return Step(tuple(PaymentsEndedRecord(self.id, i, b.ids, status, code) for i, b in both if b))

    def _claims_newer(self, theirs: Resume) -> Step:
        """The peer says that it holds more than we do. Only the state itself proves that we lost data (rule 7).

        Until it comes nothing is updated; a mere claim freezes nothing, or a peer could take our dispute from us.
        """
        self.connected, self._claim_open = False, True
        version = max(theirs.version, theirs.pending_version)
        facts: dict[str, str | int | bool] = {"claimed": version, "ours": self.version, "alarm": True}
        text = f"version {version} is not known here, version {self.version} is the newest: show the signed state"
        return Step(
            (EventRecord("channel.peer_claims_newer", self.id, facts),),
            (self._newest_message(), Send(ErrorMessage("unproven_claim", text, self.id))),
        )

    def _adopt(self, message: SignedStateMessage | TowerHeld, now: Moment, source: str) -> Step:
        """Take a newer fully signed state: it bears our own signature, so it proves that we lost data."""
        if message.version <= self.version:
            return NOTHING
        signed = SignedState(
            State(self.id, message.version, message.allocation, message.finalized),
            (message.signature_0, message.signature_1),
        )
        if signed.state.total != self.terms.total or not verify_signed_state(self.terms.params, signed):
            raise PeerViolation("bad_signature", f"the state of version {message.version} is not signed by both")
        if self.signed_here(signed.state.version, signed.state.digest):
            return self._acknowledged(signed, now)
        facts: dict[str, str | int | bool] = {"version": message.version, "had": self.version, "from": source}
        self.newest = signed
        # While another copy goes on it proves nothing of what comes after: `outlive`.
        self.loss_end_version = message.version if not self.outlived else None
        self._given_up = {v: u for v, u in self._given_up.items() if v > message.version}
        proof = LossEndRecord(self.id, self.loss_end_version)
        # What was under way here may or may not be in that state: nobody can tell any more.
        step = Step((*self.signer.adopted(signed.state), StateRecord(signed, EMPTY, EMPTY), proof))
        if self.pending is None or self.pending.version <= message.version:
            step += self._abandon_pending("unknown", DATA_LOSS)
        step += self._end_undelivered(DATA_LOSS, "unknown")
        step += Step((EventRecord("channel.adopted", self.id, facts),))
        step += self.freeze(DATA_LOSS, f"version {message.version} came from {source}: this node had lost it", now)
        if self.look is not None and self.look.version is not None:
            step += self._ask_look()  # what is registered may be below it: the watcher refutes at once
        if not self.recovering:
            return step  # frozen for another reason before
        # The peer has to know that we lost data before it closes; and it may have lost what a tower kept for us.
        if isinstance(message, SignedStateMessage):
            self.connected, self._claim_open = True, False
        else:
            step += Step(outgoing=(self._newest_message(),))
        step += Step(outgoing=(Send(self._resume()),))
        if self.phase not in (Phase.FUNDING, Phase.OPEN):
            return step + self.advance(now)
        # Loss is proven: the channel is only closed, with that allocation (rule 7).
        return step + self._enter(Phase.CLOSING, now, "this node lost data of the channel") + self.advance(now)

    @abstractmethod
    def _abandon_pending(self, status: str, code: str) -> Step:
        """Give up the outstanding update, whose payments end."""

    @property
    def _far_above(self) -> int:
        """The version of the final state that ends a loss: above everything that can have been signed before."""
        return (self.version // RECOVERY_STEP + 1) * RECOVERY_STEP

    def _final_version(self) -> int:
        """Return the version of the final state: far above what either side may have lost, if one did."""
        return self._far_above if self.recovering or self.peer_recovering else self.version + 1

    def _agree(self, signed: SignedState, from_0: Batch, from_1: Batch, now: Moment, *, recorded: bool = False) -> Step:
        """Make a fully signed state the newest, and count what the peer paid in it if that may be believed (rule 4).

        `recorded`: its payments are durable already. What does not count yet waits for a look, or the settlement.
        """
        before, self.newest = self.newest.state.allocation[self.ours], signed
        sent, received = self._sides(from_0, from_1)
        ended = self._superseded(signed.state.version) if self._given_up else NOTHING
        agreed = Agreed(signed.state, sent, received, signed.state.allocation[self.ours] - before)
        counts = not self._settling and (not received or self.may_update(now)) and not self._uncounted
        payments = (EMPTY, EMPTY) if recorded else (from_0, from_1)
        step = ended + Step((StateRecord(signed, *payments, counts=counts),))
        if counts:
            self.counted = signed.state.version
            return step + self._told_of(agreed)
        self._uncounted.append(agreed)
        if not self._settling:
            return step + self._ask_look()
        facts: dict[str, str | int | bool] = {"version": signed.state.version, "received": len(received)}
        return step + Step((EventRecord("channel.acknowledged_late", self.id, facts),))

    @property
    def _settling(self) -> bool:
        """Whether the newest look shows a registered state: what counts is then for the canister to say."""
        return self.look is not None and self.look.version is not None

    def _not_left_out(self, version: int) -> int:
        """Return up to which version the peer's holding of our payments means that they are paid."""
        registered = self.look.version if self.look is not None else None
        return version if registered is None else min(version, registered)

    def _count_received(self, now: Moment) -> Step:
        """Count what waited for a fresh look that shows nothing registered."""
        if self.counted >= self.version or self.version in self._given_up or not self.may_update(now):
            return NOTHING
        agreed, self._uncounted = tuple(self._uncounted), []
        return self._count(agreed, self.version)

    def _count(self, agreed: tuple[Agreed, ...], version: int = 0) -> Step:
        self.counted = max(self.counted, version, *(each.state.version for each in agreed))
        step = Step((CountedRecord(self.id, self.counted),)) if agreed or version else NOTHING
        for each in agreed:
            step += self._told_of(each)
        return step

    def _told_of(self, agreed: Agreed) -> Step:
        """Say what a state brought. Nobody hears of money before it counts."""
        state = agreed.state
        event = EventRecord(
            "channel.updated",
            self.id,
            {
                "version": state.version,
                "mine_e8s": str(state.allocation[self.ours]),
                "theirs_e8s": str(state.allocation[self.terms.peer_index]),
                "change_e8s": str(agreed.change_e8s),
                "sent": len(agreed.sent),
                "received": len(agreed.received),
                "finalized": state.finalized,
            },
        )
        return Step((event,), (Received(agreed.received, state.version),) if agreed.received else ())

    def _end(self, ids: bytes, status: str, code: str) -> Step:
        if not ids:
            return NOTHING
        return Step((PaymentsEndedRecord(self.id, self.ours, ids, status, code),), (PaymentsEnded(ids, status, code),))

    def _new_ids(self, payments: Batch) -> dict[bytes, str]:
        """Return those of the peer's payment ids that are not new. Ids above all earlier ones need no search."""
        if not payments:
            return {}
        ids = list(payments.each_id())
        known = self.books.known(self.id, self.terms.peer_index, payments) if min(ids) <= self.highest_peer_id else {}
        self.highest_peer_id = max(self.highest_peer_id, *ids)
        return known

    def _judge_registered(self, look: Look, now: Moment) -> Step:
        """Compare whole states: what the canister has with what we have (DESIGN, section 8)."""
        mine = self.newest.state
        facts: dict[str, str | int | bool] = {"registered": look.version or 0, "ours": mine.version}
        if look.version is None or look.digest == mine.digest:
            return NOTHING
        if look.version == mine.version:
            return self._alarm("channel.conflicting_state_registered", facts)
        if look.version > mine.version:
            if self.signed_here(look.version, look.digest):
                return NOTHING  # our own proposal: it settles, acknowledged late
            text = f"version {look.version} is registered, which this node does not have"
            return self._alarm("channel.newer_state_registered", facts) + self.freeze(DATA_LOSS, text, now)
        if look.settled:
            return self._alarm("channel.settled_below_ours", facts)
        return NOTHING

    def _alarm(self, kind: str, facts: dict[str, str | int | bool]) -> Step:
        if self._alarms.get(kind) == facts["registered"]:
            return NOTHING
        self._alarms[kind] = facts["registered"]  # what is registered only rises: one for each kind is enough
        return Step((EventRecord(kind, self.id, {**facts, "alarm": True}),))

    def _ask_look(self) -> Step:
        return Step(outgoing=(LookNow(),))
