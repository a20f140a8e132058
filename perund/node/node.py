"""The node: its channels, their peers, their jobs, and what the watcher reports.

Everything runs on one event loop. Drivers hold the channels; jobs fund and settle them; nothing here decides
about money, it only brings facts to the machines of `protocol` and performs what they ask for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from perund.node.driver import ChannelDriver
from perund.node.funding_job import FundingJob
from perund.node.job import ChannelJob
from perund.node.lives import Lives
from perund.node.openings import Openings, Refusal
from perund.node.settlement_job import SettlementJob
from perund.store.damage import require_sound_channel
from perund.store.errors import StorageFailed
from perund.store.jobs import insert_channel, record_peer
from perund.tower.towers import Towers
from protocol.channel import Channel
from protocol.effects import EventRecord, Phase, Record, SignatureRecord, Step
from protocol.errors import InvariantBroken, PerundError
from protocol.following import Follower
from protocol.funding import IntentStatus
from protocol.memory import ChannelMemory
from protocol.messages import (
    ChannelMessage,
    ChannelProposal,
    ErrorMessage,
    LifeMessage,
    OpeningMessage,
    PeerMessage,
    StandingMessage,
    TowerMessage,
)
from protocol.opening import Opened
from protocol.ordering import Orderer
from protocol.signer import StateSigner
from protocol.signing import ChannelKey
from protocol.terms import Terms
from protocol.types import ChannelId, Nanos, Params, SignedState
from watcher.ports import CertifiedLook

if TYPE_CHECKING:
    from perund.node.driver import PeerSession
    from perund.node.services import Services
    from perund.store.writer import Statement
    from wire.session import Session

__all__ = ["Node"]

log = structlog.get_logger()

RESTART_JOB_S: Final = 5.0
TICK_S: Final = 1.0
WATCHER: Final = "watcher"
LONGEST_PAUSE_S: Final = 60.0


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
        self.refusals: dict[bytes, Refusal] = {}
        self.balance_e8s: int | None = None
        self.towers = Towers(services, self.drivers)
        self.lives = Lives(services, self.drivers, lambda peer: peer in self.by_peer)
        self.openings = Openings(services.config, services.keys, services.store, self, self.reason_not_to_open)
        self.lives.on_stop = self.openings.stop
        self._opening_waiters: dict[bytes, asyncio.Future[ChannelDriver | Refusal]] = {}
        self._next_channel = services.store.read.highest("channel") + 1
        self._next_withdrawal = services.store.read.highest("withdrawal") + 1
        self._tasks: set[asyncio.Task[None]] = set()
        self._balance_read: asyncio.Task[None] | None = None

    # --- starting and stopping ---------------------------------------------------------------------------

    def load(self) -> None:
        """Take up every channel where it was left: first it is watched, then its jobs go on.

        Raises `StoreDamaged`, before anything is signed or written: the backup file knows what the store lost.
        """
        read = self.services.store.read
        for row in read.live_channels():
            require_sound_channel(row, read, self._key(row.terms).public)
            self.services.store.name(row.terms.channel, row.number)
            driver = self._take_up(row.terms, row.memory, row.number)
            driver.registered = row.registered
            self.lives.freeze(driver)
        # A crash may have come between a channel and the file: our signature is said again to who lost it.
        self.save_backup()
        for driver in self.drivers.values():
            self._changed(driver)

    def background(self) -> None:
        """Start what runs beside the channels."""
        self.spawn(self._tick(), "tick")
        for intent in self.services.store.read.open_sends():
            self.spawn(self._finish_send(intent.number), "send")
        if self.lives.stopped is not None:
            log.error("node.stopped_signing", reason=self.lives.reason_not_to_sign(), alarm=True)
            return  # the sessions of the other copy are not taken from it
        self.towers.start(self.spawn)
        # An opening goes on in a session, too: with a peer that has no channel yet, nobody else would begin one.
        wanted = self.by_peer.keys() | self.openings.peers()
        for peer, (host, port) in self.services.store.read.peers().items():
            if peer in wanted:
                self.services.network.keep_connected(peer, host, port)

    async def close(self) -> None:
        """Stop the jobs."""
        self.towers.close()
        tasks = [*self._tasks, *(task for jobs in self.jobs.values() for task in jobs.tasks.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.jobs.clear()  # a write that ends now starts no job any more

    def end_waiting(self, error: Exception) -> None:
        """Answer, with this error, the calls that wait for a channel: what they asked for goes on without them."""
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
            await asyncio.sleep(TICK_S)

    def follow_send(self, number: int) -> None:
        """Go on with a transfer whose end is not known."""
        self.spawn(self._finish_send(number), "send")

    async def _finish_send(self, number: int) -> None:
        pause = TICK_S
        while True:
            try:
                if (await self.services.transfers.drive(number)).status is not IntentStatus.OPEN:
                    return
            except StorageFailed:
                raise
            except PerundError as error:  # the blocks could not be read: nothing is known yet
                log.warning("send.not_followed", transfer=number, error=str(error))
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

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
        )
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
        self.jobs.pop(terms.channel, None)
        self.towers.closed(driver)
        self.save_backup()
        left = self.by_peer.get(terms.peer, {})
        left.pop(terms.channel, None)
        if not left:
            self.by_peer.pop(terms.peer, None)
            self.lives.has_none(terms.peer)
            self.services.network.forget(terms.peer)

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
        for channel in list(self.by_peer.get(session.peer, ())):
            self.drivers[channel].session_began(session, session.hello.minimum_payment_e8s)
        self.openings.session_began(session.peer, session)
        self.towers.connected(session)

    def disconnected(self, session: Session, reason: str) -> None:
        """A session ended."""
        self.lives.session_ended(session.peer)
        self.towers.disconnected(session, reason)
        for channel in list(self.by_peer.get(session.peer, ())):
            self.drivers[channel].session_ended(session)

    def received(self, session: Session, message: PeerMessage) -> None:
        """Bring a message to its channel, to the openings, or to the towers."""
        if isinstance(message, LifeMessage):
            self.lives.received(session, message)
            return
        if isinstance(message, TowerMessage | StandingMessage):
            self.towers.received(session, message)
            return
        if self.lives.outlived(session.peer):
            return  # it signs for a copy of the peer that is not to sign
        if not isinstance(message, ChannelMessage):
            self.openings_message(session, message)
            return
        driver = self.drivers.get(message.channel)
        if driver is None or driver.channel.terms.peer != session.peer:
            # A channel belongs to the node id that opened it: from any other session it is unknown.
            session.send(ErrorMessage("unknown_channel", "this node has no such channel with you", message.channel))
            return
        driver.receive(session, message)

    def openings_message(self, session: Session, message: OpeningMessage) -> None:
        """Bring a message to the openings: a proposal that wants our money only after a look at the wallet."""
        if self.lives.stopped is not None and not isinstance(message, ChannelProposal):
            return
        ours = message.allocation[1] if isinstance(message, ChannelProposal) else 0
        if 0 < ours <= self.services.config.policy.contribute_max_e8s:
            self.spawn(self._answer_with_balance(session, message), "proposal")
        else:
            self.openings.received(session.peer, session, message)

    async def _answer_with_balance(self, session: Session, message: OpeningMessage) -> None:
        if self._balance_read is None or self._balance_read.done():
            self._balance_read = self.spawn(self._read_balance(), "balance")
        await asyncio.shield(self._balance_read)
        self.openings.received(session.peer, session, message)

    async def _read_balance(self) -> None:
        try:
            await self.refresh_balance()
        except PerundError as error:  # the last known balance decides, or none: then we put nothing in
            log.warning("wallet.balance_unknown", error=str(error))

    def peer_error(self, session: Session, message: ErrorMessage) -> None:
        """A peer complains. What it says is not trusted; it is shown."""
        log.warning("peer.complained", peer=session.peer.hex(), code=message.code, text=message.text)
        if self.lives.outlived(session.peer):
            return  # a copy of the peer that is not to sign: what it thinks of our channels is old
        self.towers.complained(session, message)
        driver = self.drivers.get(ChannelId(message.channel))
        if driver is not None and driver.channel.terms.peer == session.peer:
            facts: dict[str, str | int | bool] = {"code": message.code, "text": message.text}
            driver.perform(Step((EventRecord("peer.complained", driver.channel.id, facts),)))

    def is_known(self, peer: bytes) -> bool:
        """Whether a peer has a channel with us."""
        return peer in self.by_peer

    def reached(self, peer: bytes, host: str, port: int) -> None:
        """Remember where a peer is, and keep a connection with it: from now on, and after a restart while there
        are channels or openings.
        """
        self.services.store.commit([record_peer(peer, host, port)])
        self.services.network.keep_connected(peer, host, port)

    def reason_not_to_open(self) -> str | None:
        """Return why no channel may be opened now, for people, or None."""
        return self.lives.reason_not_to_sign() or self.services.reason_not_to_open()

    # --- openings.Surroundings ---------------------------------------------------------------------------

    def chain_ns(self) -> Nanos:
        """Return the chain time."""
        return self.services.time.chain_ns()

    def channels_with(self, peer: bytes | None) -> int:
        """Return how many channels are not closed."""
        return len(self.drivers) if peer is None else len(self.by_peer.get(peer, ()))

    def reserved_e8s(self) -> int:
        """Return what channels that are being opened or funded may still take from the wallet."""
        waiting = self.openings.ours_waiting_e8s()
        for driver in self.drivers.values():
            funding = driver.channel.phase is Phase.FUNDING and not driver.channel.we_are_ready
            if funding and not driver.channel.recovering:
                terms = driver.channel.terms
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
        self.balance_e8s = balance
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
        rows = insert_channel(
            opened,
            number,
            services.network_hash,
            self.chain_ns(),
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
            if not self.save_backup():
                return
            if session is not None and reply is not None and self.lives.stopped is None:
                session.send(reply)
            waiter = self._opening_waiters.pop(terms.proposal_id, None)
            if waiter is not None and not waiter.done():
                waiter.set_result(driver)

        # The driver's effects leave in order: our signature first, then `Resume`, and nothing before the channel
        # is on the disk. Its job starts with the same commit.
        driver.perform(Step((event,)), durable, (*records, *rows))
        live = services.network.session(terms.peer)
        if live is not None and live is session:
            driver.session_began(live, live.hello.minimum_payment_e8s)

    def signed_again(self, proposal_id: bytes, session: PeerSession) -> None:
        """Resume anew: without our signature the proposer had no channel that our first `Resume` could mean."""
        number = self.services.store.read.channel_of_proposal(proposal_id)
        driver = next((d for d in self.drivers.values() if d.number == number), None)
        if driver is None:
            return
        live = self.services.network.session(driver.channel.terms.peer)
        if live is not None and live is session and not driver.channel.connected:
            driver.session_began(live, live.hello.minimum_payment_e8s)

    def save_backup(self) -> bool:
        """Make the backup file durable as it is now: before our signature on a state 0 leaves, and when one closes."""
        try:
            self.services.backup.write(time.time_ns() // 1_000_000)
        except OSError as error:
            self.failed(StorageFailed(f"the backup file cannot be written: {error}"))
            return False
        return True

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
