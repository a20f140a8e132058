"""One side of one channel with its real store, agent, transfers, watcher and jobs, taken step by step.

The other side's keys are in the test's hand. `restart` forgets everything that is not on the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import apsw

from chain.clock import SystemClock
from chain.errors import ChainError
from chain.identity import Ed25519Identity
from chain.ledger import IcpLedger
from chain.perun import PerunCanister
from chain.principal import account_identifier
from devnet.network import ICP_LEDGER_ID, PERUN_CANISTER_ID
from perund.node.canister import WatchedCanister
from perund.node.chain_time import ChainTime
from perund.node.driver import ChannelDriver
from perund.node.funding_job import FundingJob
from perund.node.job import ChannelJob
from perund.node.noise import Noise
from perund.node.published import PublishedGuard
from perund.node.settlement_job import SettlementJob
from perund.node.transfers import Transfers
from perund.recovery.copying import mark_as_copy
from perund.store.errors import StorageFailed
from perund.store.jobs import insert_channel
from perund.store.store import Store
from protocol.effects import Phase, StateRecord
from protocol.errors import PerundError
from protocol.following import Follower
from protocol.opening import Opened
from protocol.ordering import Orderer
from protocol.payments import EMPTY
from protocol.signer import StateSigner
from protocol.signing import ChannelKey
from protocol.terms import Terms
from protocol.types import ChannelId, Nanos, Params, ParticipantIndex, SignedState, State
from tests.unit.node.net import CANISTER_ACCOUNT, Fault, Net
from watcher.ports import CertifiedLook
from watcher.watch import Watcher

NETWORK: Final = b"\x11" * 32
KEYS: Final = (ChannelKey(b"\x01" * 32), ChannelKey(b"\x02" * 32))
SECOND: Final = 10**9
MOST_STEPS: Final = 60


class Desk:
    """`step` takes a job's next step; `work` goes on until a condition holds."""

    store: Store
    driver: ChannelDriver
    funding: FundingJob
    settlement: SettlementJob

    def __init__(self, net: Net, directory: Path, ours: ParticipantIndex = 0) -> None:
        self.net = net
        self.path = directory / "perund.db"
        self.ours = ours
        self.identity = Ed25519Identity(bytes([0x50 + ours]) * 32)
        self.account = account_identifier(self.identity.sender)
        self.failures: list[StorageFailed] = []
        self.waiting_for = ""
        self.open()

    def open(self) -> None:
        clock = SystemClock()
        self.store = Store(self.path, NETWORK, self.failures.append)
        self.agent = self.net.agent(self.identity)
        self.perun = PerunCanister(self.agent, PERUN_CANISTER_ID)
        self.ledger = IcpLedger(self.agent, ICP_LEDGER_ID)
        self.time = ChainTime(self.agent, clock, ICP_LEDGER_ID)
        self.transfers = Transfers(self.store, self.ledger, self.account, self.time, 100_000)
        self.watcher = Watcher(self, WatchedCanister(self.perun), self, clock)
        self._withdrawals = self.store.read.highest("withdrawal")
        row = next(self.store.read.live_channels(), None) or self.store.read.channel(1)
        if row is not None:
            self.store.name(row.terms.channel, row.number)
            self._take_up(row.terms)

    async def close(self) -> None:
        await self.agent.close()
        self.store.close()

    async def restart(self) -> None:
        """Lose everything but the disk."""
        await self.close()
        self.open()

    async def restore(self, *, copy: bool = False) -> None:
        """Start on a new disk, with what a backup has: the channel, and nothing of what happened in it.

        `copy`: with a copy of the store instead, which was made a moment ago.
        """
        await self.close()
        database = apsw.Connection(str(self.path))
        if not copy:
            database.execute("DELETE FROM transfer")
            database.execute("DELETE FROM cost")
        mark_as_copy(database, "this node was restored from a backup")
        database.close()
        self.open()

    # --- the channel ----------------------------------------------------------------------------------------

    async def channel(
        self, shares: tuple[int, int], *, challenge_s: int = 60, deadline_s: int = 3600, nonce: int = 1
    ) -> Terms:
        """A channel whose state 0 both have signed."""
        await self.agent.synchronise(ICP_LEDGER_ID)
        params = Params(nonce.to_bytes(64, "big"), (KEYS[0].public, KEYS[1].public), Nanos(challenge_s * SECOND))
        deadline = Nanos(self.time.chain_ns() + deadline_s * SECOND)
        terms = Terms(b"\x66" * 32, b"\x02" * 33, self.ours, params, shares, deadline, b"\x33" * 32, b"\x44" * 32)
        opened = Opened(terms, self.sign(terms.state_0()), None)
        self.store.name(terms.channel, 1)
        await self.store.write(insert_channel(opened, 1, NETWORK, self.time.chain_ns(), 600 * SECOND))
        self._take_up(terms)
        return terms

    def _take_up(self, terms: Terms) -> None:
        row = self.store.read.channel(1)
        assert row is not None
        role = Orderer if self.ours == 0 else Follower
        signer = StateSigner(KEYS[self.ours], row.memory.last_signature)
        machine = role(terms, signer, self.store, row.memory)
        self.driver = ChannelDriver(machine, 1, self.store, self.time.now, lambda: None, lambda _: None, Noise())
        self.driver.registered = row.registered
        self.driver.peer_resumed = True
        guard = PublishedGuard(self.perun, self.ledger, self.store, self.time)
        self.funding = FundingJob(
            self.driver,
            self.store,
            self.transfers,
            self.perun,
            self.ledger,
            self.watcher,
            self.time,
            CANISTER_ACCOUNT,
            guard,
        )
        self.settlement = SettlementJob(
            self.driver,
            KEYS[self.ours],
            self.store,
            self.perun,
            self.ledger,
            self.watcher,
            self.time,
            (CANISTER_ACCOUNT, self.account),
            self.identity.sender,
            lambda: not self.funding.in_flight,
            self._next_withdrawal,
            self.transfers,
            guard,
        )
        self.watcher.watch(terms.channel, terms.params.challenge_duration_ns)

    def _next_withdrawal(self) -> int:
        self._withdrawals += 1
        return self._withdrawals

    def sign(self, state: State) -> SignedState:
        return SignedState(state, (KEYS[0].sign_state(state), KEYS[1].sign_state(state)))

    def state(self, version: int, allocation: tuple[int, int], *, finalized: bool = False) -> SignedState:
        return self.sign(State(self.terms.channel, version, allocation, finalized))

    async def agree(self, version: int, allocation: tuple[int, int], *, finalized: bool = False) -> SignedState:
        """Both have signed another state; this side starts again with it on its disk."""
        signed = self.state(version, allocation, finalized=finalized)
        await self.store.write([StateRecord(signed, EMPTY, EMPTY)])
        await self.restart()
        return signed

    @property
    def terms(self) -> Terms:
        return self.driver.channel.terms

    @property
    def phase(self) -> Phase:
        return self.driver.channel.phase

    def mine(self) -> int:
        """What this side's funding holds in the canister."""
        return self.net.held(self.terms.funding(self.ours))

    async def leave(self, reason: str = "asked for") -> None:
        self.driver.perform(self.driver.channel.leave(self.time.now(), reason))
        await self.driver.settle_writes()

    # --- watcher.ports ----------------------------------------------------------------------------------------

    def newest(self, channel: ChannelId) -> tuple[Params, SignedState] | None:
        return self.terms.params, self.driver.durable_newest

    def looked(self, channel: ChannelId, look: CertifiedLook) -> None:
        self.driver.looked(look.brief(), look.registered)

    def look_failed(self, channel: ChannelId, error: str) -> None:
        pass

    def refuting(self, channel: ChannelId, registered: int, ours: int) -> None:
        pass

    def refuted(self, channel: ChannelId, ours: int) -> None:
        pass

    # --- work -------------------------------------------------------------------------------------------------

    async def step(self, job: ChannelJob) -> str:
        """Take one step; return what the job waits for, empty when it can go on."""
        progress = await job.step()
        await self.driver.settle_writes()
        self.waiting_for = progress.waiting_for
        return self.waiting_for

    async def work(self, job: Callable[[], ChannelJob], until: Callable[[], bool], most: int = MOST_STEPS) -> None:
        """Take steps, as `ChannelJob.run` does but without its pauses, until a condition holds."""
        for _ in range(most):
            if until():
                self.waiting_for = ""
                return
            try:
                await self.step(job())
            except ChainError as error:
                self.waiting_for = str(error)
            except PerundError as error:
                raise AssertionError(f"the job cannot go on: {error}") from error
        raise AssertionError(f"after {most} steps the job still waits for {self.waiting_for!r}")

    async def fund(self, until: Callable[[], bool]) -> None:
        await self.work(lambda: self.funding, until)

    async def crash_funding(self, method: str, fault: Fault) -> None:
        """Fund until a call meets its fault, and end there. The network is well again afterwards."""
        met = self.net.disturb(method, fault)
        await crash_in(asyncio.ensure_future(self.fund(lambda: False)), met)
        self.net.calm()

    async def settle(self, until: Callable[[], bool] | None = None) -> None:
        """Get the money out; time passes whenever the job waits for it."""

        def done() -> bool:
            if until() if until is not None else self.phase is Phase.CLOSED:
                return True
            if self.waiting_for == "the challenge period to end":
                self.net.advance(61)
            return False

        await self.work(lambda: self.settlement, done)


async def crash_in(work: asyncio.Future[Any], met: asyncio.Event) -> None:
    """End a piece of work at the moment at which its request has met its fate."""
    await asyncio.wait_for(met.wait(), 5)
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
