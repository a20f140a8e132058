"""The node: its channels, their peers, their jobs, and what the watcher reports.

Everything runs on one event loop. Drivers hold the channels; jobs fund and settle them; nothing here decides
about money, it only brings facts to the machines of `protocol` and performs what they ask for.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from perund.log_budget import log_budget
from perund.node.addresses import AddressBook
from perund.node.backlog import Backlog
from perund.node.driver import ChannelDriver
from perund.node.effort import NO_CHANNEL_S, OPENING_S, SHOWN_STATE_S
from perund.node.funding_job import FundingJob
from perund.node.health import watch_health
from perund.node.job import ChannelJob
from perund.node.lives import Lives
from perund.node.noise import Noise
from perund.node.openings import Openings, Refusal
from perund.node.places import LookBudget, Places
from perund.node.problems import Problems
from perund.node.proposals import Proposals
from perund.node.published import PublishedGuard
from perund.node.sends import Sends
from perund.node.settlement_job import SettlementJob
from perund.node.stakes import Stakes
from perund.recovery.backup import BackupError
from perund.recovery.saved import channel_part, closed_part
from perund.store.damage import require_sound_channel
from perund.store.errors import StorageFailed
from perund.store.jobs import insert_channel, record_seen_at
from perund.tower.towers import Towers
from protocol.channel import Channel
from protocol.effects import EventRecord, Phase, Record, SignatureRecord, Step
from protocol.errors import InvariantBroken
from protocol.following import Follower
from protocol.memory import ChannelMemory
from protocol.messages import (
    FEATURE_LIVES,
    Addresses,
    ChannelMessage,
    ChannelProposal,
    ChannelReady,
    ErrorMessage,
    LifeMessage,
    OpeningMessage,
    PeerMessage,
    StandingMessage,
    TowerMessage,
)
from protocol.opening import Opened, has_deadline_in_time
from protocol.ordering import Orderer
from protocol.signer import StateSigner
from protocol.signing import ChannelKey
from protocol.terms import Terms
from protocol.types import ChannelId, Nanos, Params, SignedState
from watcher.ports import CertifiedLook

if TYPE_CHECKING:
    from perund.node.driver import PeerSession
    from perund.node.promises import WaitEnded
    from perund.node.services import Services
    from perund.store.writer import Statement
    from wire.session import Session

__all__ = ["Node"]

log = structlog.get_logger()

RESTART_JOB_S: Final = 5.0
TICK_S: Final = 1.0
WATCHER: Final = "watcher"


@dataclass(slots=True)
class _Jobs:
    """The jobs of one channel and the tasks that run them."""

    funding: FundingJob
    settlement: SettlementJob
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def of(self) -> tuple[ChannelJob, ChannelJob]:
        return self.funding, self.settlement


class Node:
    """All channels that are not closed, and who talks about them."""

    def __init__(self, services: Services, failed: Callable[[Exception], None]) -> None:
        """`failed`: called when the node must end (rule 8)."""
        self.services = services
        self.failed = failed
        self.drivers: dict[ChannelId, ChannelDriver] = {}
        self.jobs: dict[ChannelId, _Jobs] = {}
        self.by_peer: dict[bytes, dict[ChannelId, None]] = {}
        """The channels with each peer, in the order in which they were taken up."""
        self.started_ns = time.time_ns()
        """When this life of the node began, in ns of the machine's clock."""
        self.problems = Problems(services.store, services.time.elapsed_ns)
        self._away: dict[bytes, int] = {}
        """Peers with channels and without a session: since when, in ns of the machine's clock."""
        self.balance_e8s: int | None = None
        self.balance_at_ns = 0
        """When that was read, in ns of the machine's clock."""
        self._noise = Noise()
        self.towers = Towers(services, self.drivers, self._noise)
        policy = services.config.policy
        self.stakes = Stakes(services.store, policy.min_total_e8s, self._stake_changed)
        self.places = Places(policy)
        self._look_budget = LookBudget()
        self._seen_at: dict[bytes, str] = {}
        self.lives = Lives(services, self.drivers, lambda peer: peer in self.by_peer)
        self.openings = Openings(
            services.config, services.keys, services.store, self, self.reason_not_to_open, self.places
        )
        self.lives.on_stop = self.openings.stop
        self.addresses = AddressBook(
            services,
            has_channel=self.by_peer.__contains__,
            is_wanted=lambda peer: peer in self.by_peer or peer in self.openings.peers(),
            has_money=self.is_known,
            may_dial=lambda: self.lives.stopped is None,
        )
        self._guard = PublishedGuard(services.perun, services.ledger, services.store, services.time)
        self._opening_waiters: dict[bytes, asyncio.Future[ChannelDriver | Refusal]] = {}
        self._next_channel = services.store.read.highest("channel") + 1
        self._next_withdrawal = services.store.read.highest("withdrawal") + 1
        self._tasks: set[asyncio.Task[None]] = set()
        self.sends = Sends(services.transfers, self.spawn)
        self._proposals = Proposals(self._look_to_judge, self._judge, self.spawn)
        self._backlogs: dict[Session, Backlog] = {}

    # --- starting and stopping ---------------------------------------------------------------------------

    def load(self) -> None:
        """Take up every channel where it was left: first it is watched, then its jobs go on.

        Raises `StoreDamaged`, before anything is signed or written: the backup file knows what the store lost.
        """
        self.addresses.load()
        read, held = self.services.store.read, self.services.store.read.held()
        for row in read.live_channels():
            require_sound_channel(row, read, self._key(row.terms).public)
            self.services.store.name(row.terms.channel, row.number)
            driver = self._take_up(row.terms, row.memory, row.number)
            driver.registered = row.registered
            self.lives.freeze(driver)
            if row.registered is not None:
                # It was certified once: enough to refute by, should nothing be certified now.
                self.services.watcher.suspect(row.terms.channel, row.registered)
            self.stakes.take_up(row.terms, held.get(row.number, (0, 0)))
            if self._waits_for_peer(driver):
                self._promise(row.terms)
        for peer in self.by_peer:
            self._away[peer] = self.problems.since("peer_away", peer.hex()) or self.started_ns
        # A crash may have come between a channel and the file: our signature is said again to who lost it.
        self._write_backup()
        for driver in self.drivers.values():
            self._changed(driver)

    def background(self) -> None:
        """Start what runs beside the channels."""
        self.spawn(self.keep(self._tick, "tick"), "tick")
        self.spawn(self.keep(lambda: watch_health(self), "health"), "health")
        self.spawn(self.services.backup.tend(self._backup_event), "backup")
        for intent in self.services.store.read.open_sends():
            self.sends.follow(intent.number)
        if self.lives.stopped is not None:
            log.error("node.stopped_signing", reason=self.lives.reason_not_to_sign(), alarm=True)
            return  # the sessions of the other copy are not taken from it
        self.towers.start(self.spawn)
        self._seen_at = self.services.store.read.seen_at()
        for peer, origin in self._seen_at.items():
            self.services.network.seen_at(peer, origin)
        for peer in self.openings.peers(ours=True):
            self.services.network.choose(peer)
        # An opening goes on in a session, too: with a peer that has no channel yet, nobody else would begin one.
        self.addresses.start()

    async def close(self) -> None:
        """Stop the jobs."""
        self.towers.close()
        tasks = [*self._tasks, *(task for jobs in self.jobs.values() for task in jobs.tasks.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.jobs.clear()  # a write that ends now starts no job any more

    def end_waiting(self, error: WaitEnded) -> None:
        """Let go, with this error, the calls that wait for a channel or an opening."""
        for driver in self.drivers.values():
            driver.end_waiting(error)
        waiters, self._opening_waiters = self._opening_waiters, {}
        for waiter in waiters.values():
            if not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # nobody may be waiting any more: that is no fault to report

    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Run something beside the channels until the node stops; a fault of it is logged, never lost."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def keep(self, part: Callable[[], Coroutine[None, None, None]], name: str) -> None:
        """Run a part for as long as the node runs: after a defect in it, which is loud, it starts again."""
        while True:
            try:
                await part()
            except (StorageFailed, InvariantBroken):
                raise
            except Exception as error:
                log.exception("node.part_failed", part=name)
                self.services.alarms.ring("node.part_failed", None, {"part": name, "error": type(error).__name__})
                await asyncio.sleep(RESTART_JOB_S)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, StorageFailed | InvariantBroken):
            self.failed(error)
        elif error is not None:
            log.error("node.task_failed", task=task.get_name(), exc_info=error)
            if task.get_name() == WATCHER and isinstance(error, Exception):
                self.failed(error)  # a node that watches nothing any more is no node; a restart watches again

    async def _tick(self) -> None:
        while True:
            if self.services.time.certified:
                self.openings.expire()
            self.services.store.require_own_files()
            self._give_promises_up()
            overdue = self._noise.overdue(self.services.time.elapsed_ns())
            if overdue:
                self.services.store.commit(overdue)
            budget = log_budget()
            if budget is not None:
                budget.tick()
            await asyncio.sleep(TICK_S)

    # --- channels ----------------------------------------------------------------------------------------

    def _key(self, terms: Terms) -> ChannelKey:
        return ChannelKey(self.services.keys.participant_seed(terms.our_share))

    def _take_up(self, terms: Terms, memory: ChannelMemory, number: int) -> ChannelDriver:
        services, key = self.services, self._key(terms)
        role: type[Channel] = Orderer if terms.our_index == 0 else Follower
        channel = role(
            terms,
            StateSigner(key, memory.last_signature),
            services.store,
            memory,
            services.config.policy.minimum_payment_e8s,
            services.watcher.horizon,
        )
        channel.awaits_towers = bool(self.towers.links)
        driver = ChannelDriver(
            channel,
            number,
            services.store,
            services.time.now,
            lambda: services.watcher.hurry(terms.channel),
            self._changed,
            self._noise,
        )
        driver.holdings_seen = lambda held: self.stakes.seen(terms, number, held)
        driver.looks_often = lambda: self.places.has_place(terms.channel)
        driver.may_look = lambda: self._look_budget.take(self.local_s())
        self.drivers[terms.channel] = driver
        self.by_peer.setdefault(terms.peer, {})[terms.channel] = None
        funding = FundingJob(
            driver,
            services.store,
            services.transfers,
            services.perun,
            services.ledger,
            services.watcher,
            services.time,
            services.canister_account,
            self._guard,
        )
        settlement = SettlementJob(
            driver,
            key,
            services.store,
            services.perun,
            services.ledger,
            services.watcher,
            services.time,
            (services.canister_account, services.wallet_account),
            services.wallet_principal,
            lambda: not funding.in_flight,
            self._withdrawal_number,
            services.transfers,
            self._guard,
        )
        self.jobs[terms.channel] = _Jobs(funding, settlement)
        services.watcher.watch(terms.channel, terms.params.challenge_duration_ns)
        return driver

    def _withdrawal_number(self) -> int:
        self._next_withdrawal += 1
        return self._next_withdrawal - 1

    def _changed(self, driver: ChannelDriver) -> None:
        """Start the jobs that a channel needs now; forget it when its money is out."""
        self.towers.changed(driver)
        phase = driver.channel.phase
        if phase is Phase.OPEN:
            return
        jobs = self.jobs.get(driver.channel.id)
        if jobs is None:
            return
        if phase is Phase.CLOSED:
            self._forget(driver)
            return
        for job in jobs.of():
            task = jobs.tasks.get(job.name)
            if task is not None and not task.done():
                job.hurry()
            elif job.needed:
                jobs.tasks[job.name] = self.spawn(self._run_job(job), f"{job.name} {driver.short}")

    async def _run_job(self, job: ChannelJob) -> None:
        while True:
            try:
                await job.run()
            except (StorageFailed, InvariantBroken, asyncio.CancelledError):
                raise
            except Exception as error:  # a defect must not leave the money where it is: be loud, and go on
                log.exception("job.crashed", job=job.name, channel=job.driver.short)
                job.problem = f"internal error: {type(error).__name__}"
                await asyncio.sleep(RESTART_JOB_S)
            else:
                return

    def _forget(self, driver: ChannelDriver) -> None:
        terms = driver.channel.terms
        self.services.watcher.unwatch(terms.channel)
        self.drivers.pop(terms.channel, None)
        self.stakes.forget(terms)
        self.places.end(terms.proposal_id)
        self.jobs.pop(terms.channel, None)
        self.towers.closed(driver)
        left = self.by_peer.get(terms.peer, {})
        left.pop(terms.channel, None)
        # The store may be closed, or have failed and said so: the next start writes all.
        with contextlib.suppress(StorageFailed):
            self.services.store.commit((), backed_up=[closed_part(terms.proposal_id)])
            self.lives.closed(terms.peer, driver.number, last=not left)
            if not left:
                self.addresses.last_channel_closed(terms.peer)
        if not left:
            self.by_peer.pop(terms.peer, None)
            self._away.pop(terms.peer, None)
            self.services.network.forget(terms.peer)

    # --- who has money ------------------------------------------------------------------------------------

    def local_s(self) -> float:
        """Return seconds of a local clock that does not step."""
        return asyncio.get_running_loop().time()

    def _waits_for_peer(self, driver: ChannelDriver) -> bool:
        """Whether a channel is one that the peer proposed and nobody has paid into."""
        terms = driver.channel.terms
        return terms.our_index == 1 and driver.channel.phase is Phase.FUNDING and not self.stakes.has_money(terms)

    def _promise(self, terms: Terms) -> None:
        """Count a channel of before the start among those that wait for their peer's money: for its key alone."""
        now_s, known = self.local_s(), self.is_known(terms.peer)
        self.places.add(terms.proposal_id, terms.peer, terms.peer.hex(), now_s, known=known)
        self.places.signed(terms.proposal_id, terms.channel, now_s)

    def _stake_changed(self, terms: Terms) -> None:
        """Money appeared in a channel, or is gone."""
        if self.stakes.has_money(terms):
            self.places.end(terms.proposal_id)
            self.addresses.money_came(terms.peer)
            session = self.services.network.session(terms.peer)
            if session is not None:
                self._remember_where(session)

    def _remember_where(self, session: Session) -> None:
        """Remember where a peer with money proved its key: handshakes from there have a room of their own."""
        if self._seen_at.get(session.peer) != session.origin:
            self._seen_at[session.peer] = session.origin
            self.services.store.commit((record_seen_at(session.peer, session.origin),))
        self.services.network.seen_at(session.peer, session.origin)

    def _give_promises_up(self) -> None:
        """Let go of what peers without money have asked for in too large numbers, and never paid into."""
        for proposal_id, channel in self.places.overdue(self.local_s()):
            driver = self.drivers.get(channel) if channel is not None else None
            if driver is None:
                self.openings.give_up(proposal_id)
            elif driver.channel.phase is Phase.FUNDING and not driver.channel.recovering:
                # It leaves by the road of every failed opening: if money is in after all, it comes out again.
                driver.perform(driver.channel.leave(self.services.time.now(), "never paid into, and too many wait"))

    # --- watcher.ports.States, Reports and Notices -------------------------------------------------------

    def newest(self, channel: ChannelId) -> tuple[Params, SignedState] | None:
        """Return what the watcher refutes with: the newest fully signed state on the disk."""
        driver = self.drivers.get(channel)
        return (driver.channel.terms.params, driver.durable_newest) if driver is not None else None

    def looked(self, channel: ChannelId, look: CertifiedLook) -> None:
        """Bring a look to its channel."""
        driver = self.drivers.get(channel)
        if driver is not None:
            driver.looked(look.brief(), look.registered)

    def look_failed(self, channel: ChannelId, error: str) -> None:
        """No answer is no news; health counts how long it lasts."""
        log.warning("watcher.look_failed", channel=channel.hex()[:16], error=error)

    def refuting(self, channel: ChannelId, registered: int, ours: int) -> None:
        """A version below ours is registered."""
        log.warning("watcher.refuting", channel=channel.hex()[:16], registered=registered, ours=ours)
        self._event("channel.refuting", channel, {"registered": registered, "ours": ours, "alarm": True})

    def refuted(self, channel: ChannelId, ours: int) -> None:
        """A look shows our version."""
        log.warning("watcher.refuted", channel=channel.hex()[:16], version=ours)
        self._event("channel.refuted", channel, {"version": ours})

    def noticed(self, kind: str, channel: ChannelId | None, facts: Mapping[str, str | int | bool]) -> None:
        """Something about the watching itself."""
        log.warning(kind, channel=channel.hex()[:16] if channel is not None else None, **facts)
        if channel is None:
            self.services.store.commit((EventRecord(kind, None, dict(facts)),))
        else:
            self._event(kind, channel, dict(facts))

    def _event(self, kind: str, channel: ChannelId, data: dict[str, str | int | bool]) -> None:
        driver = self.drivers.get(channel)
        if driver is not None:
            driver.perform(Step((EventRecord(kind, channel, data),)))

    # --- wire.handler.PeerHandler ------------------------------------------------------------------------

    def connected(self, session: Session) -> None:
        """A peer is there: every channel with it says where it stands."""
        if not self.lives.session_began(session):
            self.services.network.forget(session.peer)
            return
        self._away.pop(session.peer, None)
        self._backlogs[session] = Backlog(session, self.services.store)
        if self.is_known(session.peer):
            self._remember_where(session)
        self.addresses.session_began(session)
        self.towers.connected(session)
        # Who does not know yet which life of the peer this is says nothing by which an older one could sign.
        if not session.hello.features & FEATURE_LIVES:
            self._resume(session)

    def _resume(self, session: Session) -> None:
        self.addresses.peer_goes_on(session)
        for channel in list(self.by_peer.get(session.peer, ())):
            self.drivers[channel].session_began(session, session.hello.minimum_payment_e8s)
        self.openings.session_began(session.peer, session)

    def disconnected(self, session: Session, reason: str) -> None:
        """A session ended."""
        self.lives.session_ended(session.peer)
        self.addresses.session_ended(session.peer)
        self._backlogs.pop(session, None)
        self.towers.disconnected(session, reason)
        self.away_since(session.peer)
        for channel in list(self.by_peer.get(session.peer, ())):
            self.drivers[channel].session_ended(session)

    def received(self, session: Session, message: PeerMessage) -> None:
        """Bring a message to its channel, to the openings, or to the towers; slow down who costs much."""
        store = self.services.store
        asked = store.asked
        effort = self._take(session, message)
        if effort:
            session.charge(effort)
        if store.asked != asked:
            backlog = self._backlogs.get(session)
            if backlog is not None:
                backlog.grew(effort)

    def _take(self, session: Session, message: PeerMessage) -> float:
        """Take a message, and return what it counts for besides itself."""
        if isinstance(message, LifeMessage):
            if self.lives.received(session, message) and session.is_open:
                self._resume(session)
            return SHOWN_STATE_S
        if isinstance(message, TowerMessage | StandingMessage):
            self.towers.received(session, message)
            return 0.0 if self.towers.has(session.peer) else NO_CHANNEL_S
        if self.lives.outlived(session.peer):
            return NO_CHANNEL_S  # it signs for a copy of the peer that is not to sign
        if isinstance(message, Addresses):
            return self.addresses.announced(session, message) if self.lives.has_said(session) else NO_CHANNEL_S
        if not isinstance(message, ChannelMessage):
            self.openings_message(session, message)
            return OPENING_S
        driver = self.drivers.get(message.channel)
        if driver is None or driver.channel.terms.peer != session.peer:
            # A channel belongs to the node id that opened it: from any other session it is unknown.
            session.send(ErrorMessage("unknown_channel", "this node has no such channel with you", message.channel))
            return NO_CHANNEL_S
        waited_for = not driver.peer_resumed
        effort = driver.receive(session, message)
        first = waited_for and driver.peer_resumed  # once in a life
        if (first or isinstance(message, ChannelReady)) and (jobs := self.jobs.get(message.channel)) is not None:
            jobs.funding.hurry()  # the peer is there, or says that the money is in: a job that looks rarely looks now
        return effort

    def openings_message(self, session: Session, message: OpeningMessage) -> None:
        """Bring a message to the openings: a proposal that wants our money only after a look at the wallet, and one
        that would be judged by an old idea of the time, or be refused for its deadline, after one for the time.
        """
        if self.lives.stopped is not None and not isinstance(message, ChannelProposal):
            return
        if isinstance(message, ChannelProposal) and self._needs_look(message):
            self._proposals.received(session, message)
        else:
            self.openings.received(session.peer, session, message, session.origin)

    def _needs_look(self, proposal: ChannelProposal) -> bool:
        policy, time = self.services.config.policy, self.services.time
        wants_ours = 0 < proposal.allocation[1] <= policy.contribute_max_e8s
        in_doubt = not (time.young and has_deadline_in_time(proposal, time.chain_ns()))
        return wants_ours or (policy.accept and in_doubt)

    async def _look_to_judge(self) -> None:
        """Learn the time anew, and what the wallet has. Raises `ChainError`."""
        await self.services.time.renew()
        if self.services.config.policy.contribute_max_e8s:
            await self.refresh_balance()

    def _judge(self, session: Session, proposal: ChannelProposal) -> None:
        self.openings.received(session.peer, session, proposal, session.origin)

    def peer_error(self, session: Session, message: ErrorMessage) -> None:
        """A peer complains. What it says is not trusted; it is shown."""
        log.warning("peer.complained", peer=session.peer.hex(), code=message.code, text=message.text)
        if self.lives.outlived(session.peer):
            return  # a copy of the peer that is not to sign: what it thinks of our channels is old
        self.towers.complained(session, message)
        driver = self.drivers.get(ChannelId(message.channel))
        if driver is not None and driver.channel.terms.peer == session.peer:
            facts: dict[str, str | int | bool] = {"code": message.code, "text": message.text}
            event = EventRecord("peer.complained", driver.channel.id, facts)
            driver.perform(self._noise.quiet(Step((event,)), self.services.time.elapsed_ns()))

    def is_known(self, peer: bytes) -> bool:
        """Whether a certified look showed money in a channel with this peer."""
        return self.stakes.of(peer) > 0

    def reason_not_to_open(self) -> str | None:
        """Return why no channel may be opened now, for people, or None."""
        return self.lives.reason_not_to_sign() or self.services.reason_not_to_open()

    def away_since(self, peer: bytes) -> int | None:
        """Return since when a peer with channels has no session, in ns of the machine's clock; None while it has one.

        It is as long as this node knows: at most since its start, or since `perun health` first told of it.
        """
        if peer not in self.by_peer or self.services.network.session(peer) is not None:
            self._away.pop(peer, None)
            return None
        return self._away.setdefault(peer, time.time_ns())

    # --- openings.Surroundings ---------------------------------------------------------------------------

    def chain_ns(self) -> Nanos:
        """Return the chain time."""
        return self.services.time.chain_ns()

    def channels_with(self, peer: bytes | None) -> int:
        """Return how many channels have money and are not closed."""
        return self.stakes.channels if peer is None else self.stakes.channels_with(peer)

    def reserved_e8s(self) -> int:
        """Return what channels that are being opened or funded may still take from the wallet."""
        waiting = self.openings.ours_waiting_e8s()
        for driver in self.drivers.values():
            funding = driver.channel.phase is Phase.FUNDING and not driver.channel.we_are_ready
            if funding and not driver.channel.recovering:
                terms = driver.channel.terms
                if not terms.allocation[terms.our_index]:
                    continue  # any number of those may wait for their peers
                paid = sum(
                    i.amount_e8s
                    for i in self.services.store.read.deposits(driver.number)
                    if i.status.value in ("paid", "credited")
                )
                waiting += max(0, terms.allocation[terms.our_index] - paid)
        return waiting

    def spendable_e8s(self) -> int | None:
        """Return what the wallet can put into new channels, as last certified."""
        if self.balance_e8s is None:
            return None
        return max(0, self.balance_e8s - self.reserved_e8s() - self.services.config.fees.max_fee_e8s)

    async def refresh_balance(self) -> int:
        """Read the wallet's balance, certified."""
        balance = (await self.services.ledger.balance(self.services.wallet_account)).value
        self.balance_e8s, self.balance_at_ns = balance, time.time_ns()
        return balance

    def open_channel(
        self, opened: Opened, records: tuple[Record | Statement, ...], session: PeerSession | None
    ) -> None:
        """Take over a channel whose state 0 is fully signed: durable, watched, and then funded (rule 3)."""
        services, terms = self.services, opened.terms
        number, self._next_channel = self._next_channel, self._next_channel + 1
        services.store.name(terms.channel, number)
        state = opened.signed.state
        memory = ChannelMemory(
            Phase.FUNDING, opened.signed, SignatureRecord(terms.channel, 0, state.digest, finalized=False)
        )
        driver = self._take_up(terms, memory, number)
        self.lives.has_channel(terms.peer)
        self.addresses.channel_opened(terms.peer)
        self.places.signed(terms.proposal_id, terms.channel, self.local_s())
        opened_ns = self.chain_ns()
        rows = insert_channel(
            opened,
            number,
            services.network_hash,
            opened_ns,
            services.config.close.force_after_s * 1_000_000_000,
        )
        facts: dict[str, str | int | bool] = {
            "mine_e8s": str(terms.allocation[terms.our_index]),
            "theirs_e8s": str(terms.allocation[terms.peer_index]),
        }
        event = EventRecord("channel.signed", terms.channel, facts)
        reply = opened.reply

        def durable() -> None:
            log.info("channel.signed", channel=driver.short, peer=terms.peer.hex())
            if session is not None and reply is not None and self.lives.stopped is None:
                session.send(reply)
            waiter = self._opening_waiters.pop(terms.proposal_id, None)
            if waiter is not None and not waiter.done():
                waiter.set_result(driver)

        # The driver's effects leave in order: our signature first, then `Resume`, and nothing before the channel
        # is on the disk, and in the backup file. Its job starts with the same commit.
        saved = channel_part(terms, opened.signed.signatures, opened_ns)
        driver.perform(Step((event,)), durable, (*records, *rows), (saved,))
        live = services.network.session(terms.peer)
        if live is not None and live is session:
            driver.session_began(live, live.hello.minimum_payment_e8s)

    def signed_again(self, proposal_id: bytes, session: PeerSession) -> None:
        """Resume anew: without our signature the proposer had no channel that our first `Resume` could mean."""
        number = self.services.store.read.channel_of_proposal(proposal_id)
        row = self.services.store.read.channel(number) if number is not None else None
        driver = self.drivers.get(row.terms.channel) if row is not None else None
        if driver is None:
            return
        live = self.services.network.session(driver.channel.terms.peer)
        if live is not None and live is session and not driver.channel.connected:
            driver.session_began(live, live.hello.minimum_payment_e8s)

    def _write_backup(self) -> None:
        """Write the backup file anew from the store; from now on what opens and closes is appended to it."""
        backup = self.services.backup
        try:
            backup.write(time.time_ns() // 1_000_000)
        except (OSError, BackupError) as error:
            self.failed(StorageFailed(f"the backup file cannot be written: {error}"))
        self.services.store.back_up_with(backup.append)
        for peer, why in self.services.store.read.unusable_addresses().items():
            log.warning("peer.address_unusable", peer=peer.hex(), why=why)

    def _backup_event(self, kind: str, facts: dict[str, str | int | bool]) -> None:
        self.services.store.commit((EventRecord(kind, None, facts),))

    def refused(self, proposal_id: bytes, refusal: Refusal) -> None:
        """An opening of ours came to nothing."""
        waiter = self._opening_waiters.pop(proposal_id, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(refusal)

    async def opening_end(self, proposal_id: bytes) -> ChannelDriver | Refusal:
        """Return what became of an opening of ours."""
        waiter = self._opening_waiters.get(proposal_id)
        if waiter is None:
            waiter = self._opening_waiters[proposal_id] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(waiter)
