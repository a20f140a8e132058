"""Drives one channel: commits what its machine wants durable, then performs what it wants done.

Effects leave in the order of the steps, each only when everything before it is on the disk (rule 2). A `Send`
belongs to the session in which its step was made: after a reconnect `Resume` speaks first, and what mattered
is sent again by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import structlog

from perund.node.effort import RESUME_AGAIN_S, effort_of
from perund.node.noise import Noise
from perund.node.waiting import Outcome, PaymentWaiters
from perund.store.store import Store
from perund.store.writer import Statement
from protocol.channel import Channel
from protocol.effects import (
    Delivered,
    Effect,
    Look,
    LookNow,
    Moment,
    PaymentsEnded,
    Phase,
    Received,
    Record,
    RegisteredRecord,
    Send,
    Step,
)
from protocol.messages import Ack, ChannelMessage, Message, Resume, SignedStateMessage, TowerHeld, Update
from protocol.payments import Batch
from protocol.types import RegisteredState, SignedState

__all__ = ["ChannelDriver", "PeerSession"]

log = structlog.get_logger()

FREE_RESUMES: Final = 3
"""Of a channel in one session."""


class PeerSession(Protocol):
    """A connection with the peer, as far as a channel needs it."""

    def send(self, message: Message) -> None:
        """Send a message, in order."""
        ...


class ChannelDriver:
    """One channel with its durable state, its session and those who wait for its payments."""

    def __init__(
        self,
        channel: Channel,
        number: int,
        store: Store,
        now: Callable[[], Moment],
        look_soon: Callable[[], None],
        changed: Callable[[ChannelDriver], None],
        noise: Noise,
    ) -> None:
        """`number`: its row in the store; `look_soon`: asks the watcher for a look;
        `changed`: called after a step that may need a job of the node; `noise`: bounds what the peer makes us tell.
        """
        self.channel = channel
        self.number = number
        self.waiters = PaymentWaiters()
        self.registered: RegisteredState | None = None
        self.durable_newest: SignedState = channel.newest
        """The newest fully signed state on the disk: what the watcher refutes with."""
        self.holdings_seen: Callable[[tuple[int, int]], None] = lambda _: None
        """Told what each certified look of a job shows the canister to hold, for participants 0 and 1."""
        self.looks_often: Callable[[], bool] = lambda: True
        """Whether the channel has a place while it waits for the peer's money: see `perund.node.places`."""
        self.may_look: Callable[[], bool] = lambda: True
        """Asked before each look while it waits for the peer's money."""
        self.peer_resumed = False
        """Whether the peer has resumed it in this life of the node: then it has heard of no newer life."""
        self._store = store
        self._now = now
        self._look_soon = look_soon
        self._changed = changed
        self._noise = noise
        self._resumes = 0
        self._session: PeerSession | None = None
        self._seen_settled = False
        self._unwritten = 0
        self._gathered: list[tuple[Batch, Outcome | None]] = []
        self._gathered_e8s = 0
        self._loop = asyncio.get_running_loop()
        self._curious: list[asyncio.Future[None]] = []

    # --- steps -------------------------------------------------------------------------------------------

    def perform(
        self,
        step: Step,
        then: Callable[[], None] | None = None,
        records: tuple[Record | Statement, ...] = (),
        backed_up: tuple[bytes, ...] = (),
    ) -> None:
        """Commit and perform a step of the channel's machine, with records of the node in the same transaction, and
        with parts of the backup file that are durable before anything of it is sent.
        """
        if step.durable or records or self._unwritten:
            self._unwritten += 1
            durable = partial(self._durable, step.outgoing, self._session, self.channel.newest, then)
            self._store.commit((*records, *step.durable), durable, backed_up)
        else:
            self._do(step.outgoing, self._session)
            if then is not None:
                then()

    def _durable(
        self,
        outgoing: tuple[Effect, ...],
        session: PeerSession | None,
        newest: SignedState,
        then: Callable[[], None] | None,
    ) -> None:
        self._unwritten -= 1
        self.durable_newest = newest
        self._do(outgoing, session)
        if then is not None:
            then()
        self._told()

    def _told(self) -> None:
        if self._curious:
            curious, self._curious = self._curious, []
            for future in curious:
                if not future.done():
                    future.set_result(None)
        self._changed(self)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds; it is asked after every durable step. Raises `WaitEnded`."""
        while not condition():
            future = self._loop.create_future()
            self._curious.append(future)
            try:
                await future
            finally:
                if future.cancelled() and future in self._curious:  # whose time is over leaves nothing behind
                    self._curious.remove(future)

    def end_waiting(self, error: Exception) -> None:
        """Let everybody who waits in `until` go, with this error: the node stops."""
        curious, self._curious = self._curious, []
        for future in curious:
            if not future.done():
                future.set_exception(error)

    def _do(self, outgoing: tuple[Effect, ...], session: PeerSession | None) -> None:
        for effect in outgoing:
            match effect:
                case Send(message=Update() | Ack() | SignedStateMessage()) if self.channel.outlived:
                    continue  # another copy of this node may have signed otherwise: this signature is not to leave
                case Send(message=Update() as update) if update is not self.channel.pending:
                    # Superseded before it left, because the peer lost data: what replaced it is what is durable.
                    continue
                case Send():
                    if session is not None and session is self._session:
                        session.send(effect.message)
                case Delivered():
                    self.waiters.delivered(effect.payments, effect.version)
                case PaymentsEnded():
                    self.waiters.ended(effect.ids, effect.status, effect.code)
                case LookNow():
                    self._look_soon()
                case Received():
                    pass  # nobody waits for it: `channel.updated` is durable with it

    @property
    def writing(self) -> bool:
        """Whether a step is on its way to the disk."""
        return self._unwritten > 0

    @property
    def short(self) -> str:
        """The beginning of the channel id, for logs."""
        return self.channel.id.hex()[:16]

    async def settle_writes(self) -> None:
        """Return when everything that was asked for until now is durable. Raises `StorageFailed`."""
        await self._store.write(())

    # --- inputs ------------------------------------------------------------------------------------------

    def session_began(self, session: PeerSession, minimum_payment_e8s: int) -> None:
        """A session with the peer began."""
        self._session = session
        self._resumes = 0
        self.perform(self.channel.session_began(minimum_payment_e8s))

    def session_ended(self, session: PeerSession) -> None:
        """A session ended."""
        if self._session is session:
            self._session = None
            self.channel.session_ended()

    @property
    def online(self) -> bool:
        """Whether a session with the peer is up."""
        return self._session is not None

    def receive(self, session: PeerSession, message: ChannelMessage) -> float:
        """Take a message of the peer; return what it counts for besides itself: see `effort`."""
        if session is not self._session:
            return 0.0
        now = self._now()
        step = self.channel.receive(message, now)
        effort = effort_of(message, step)
        if isinstance(message, Resume):
            # One for each session, and one more after a loss; each makes us say again what is offered.
            self._resumes += 1
            self.peer_resumed = True
            effort = RESUME_AGAIN_S if self._resumes > FREE_RESUMES else 0.0
        self.perform(self._noise.quiet(step, now.elapsed_ns))
        return effort

    def recalled(self, held: TowerHeld) -> None:
        """Take what a tower holds of the channel. Raises `PeerViolation` or `Undecodable` when that is nonsense."""
        self.perform(self.channel.recalled(held, self._now()))

    def towers_answered(self) -> None:
        """Every tower was asked, or is not there."""
        self.perform(self.channel.towers_answered(self._now()))

    def looked(self, look: Look, registered: RegisteredState | None) -> None:
        """Take a certified look of the watcher."""
        step = self.channel.looked(look, self._now())
        if registered is not None and registered != self.registered:
            self.registered = registered
            step = Step((RegisteredRecord(self.channel.id, registered.state, registered.timeout_ns),)) + step
            log.info(
                "channel.registered",
                channel=self.short,
                version=registered.state.version,
                finalized=registered.state.finalized,
                timeout_ns=registered.timeout_ns,
            )
        self.perform(step)
        if look.settled and not self._seen_settled:
            # Said once: a job looks at each of its steps, and would wake itself again and again.
            self._seen_settled = True
            self._told()

    def settled(self, registered: RegisteredState) -> None:
        """The canister settled on a state: close the books."""
        state = registered.state
        mark = Statement("UPDATE channel_state SET settled_version = ? WHERE number = ?", (state.version, self.number))
        self.perform(self.channel.settled(state.version, state.digest), records=(mark,))

    # --- payments ----------------------------------------------------------------------------------------

    def pay(self, payments: Batch, outcome: Outcome | None) -> None:
        """Queue payments of ours; those of one turn of the event loop go into one step.

        Raises `CallerMistake` when they cannot be queued; nothing is then.
        """
        total = payments.total_e8s
        self.channel.check_payable(total + self._gathered_e8s, min(payments.amounts_e8s))
        if outcome is not None:
            self.waiters.add(payments, outcome)
        self._gathered.append((payments, outcome))
        self._gathered_e8s += total
        if len(self._gathered) == 1:
            self._loop.call_soon(self._flush)

    def flush(self) -> None:
        """Bring the payments of this turn to the channel now."""
        if self._gathered:
            self._flush()

    def _flush(self) -> None:
        if not self._gathered:
            return
        gathered, self._gathered, self._gathered_e8s = self._gathered, [], 0
        if self.channel.phase is not Phase.OPEN or self.channel.frozen:
            # It closed in this very turn; nothing was promised to anybody yet.
            for batch, _ in gathered:
                self.waiters.ended(batch.ids, "failed", "channel_not_open")
            return
        self.perform(self.channel.pay(_joined([batch for batch, _ in gathered]), self._now()))
        unit = self._store.asked
        for _, outcome in gathered:
            if outcome is not None:
                outcome.unit = unit

    def pay_durably(
        self, payments: Batch, outcome: Outcome | None, records: tuple[Statement, ...], then: Callable[[], None]
    ) -> None:
        """Queue payments together with records of the caller, in one transaction; `then` when durable."""
        self.flush()
        self.channel.check_payable(payments.total_e8s, min(payments.amounts_e8s))
        self.perform(self.channel.pay(payments, self._now()), then, records)
        if outcome is not None:  # not before: who is told at once that the store has failed does not wait
            outcome.unit = self._store.asked
            self.waiters.add(payments, outcome)


def _joined(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    memos: dict[int, bytes] = {}
    position = 0
    for batch in batches:
        for offset, memo in batch.memos.items():
            memos[position + offset] = memo
        position += len(batch)
    return Batch(
        b"".join([batch.ids for batch in batches]),
        tuple([amount for batch in batches for amount in batch.amounts_e8s]),
        memos,
    )
