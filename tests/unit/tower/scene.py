"""A watchtower on its own disk, the Perun canister itself, a watcher, and clients that bring states.

Only time is made up: it goes on as it does, and jumps when a test says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from coincurve import PrivateKey

from devnet.perun import interface as devnet
from perund.store.errors import StorageFailed
from perund.tower.books import TowerBooks
from protocol.errors import PerundError
from protocol.messages import TowerReceipt, TowerRefusal, TowerState
from protocol.types import ChannelId, Nanos, Params, ParticipantKey, RegisteredState, SignedState, State
from tests.unit.devnet.scene import ALICE, BOB, START_NS, Channel, Scene
from watcher.ports import CertifiedLook
from watcher.tower.policy import TowerPolicy
from watcher.tower.proving import Proving
from watcher.tower.receipts import Notary, verify_receipt
from watcher.tower.tower import Tower
from watcher.tower.vouching import Vouching
from watcher.watch import Watcher

NETWORK: Final = b"\x33" * 32
TOWER_KEY: Final = PrivateKey(b"\x77" * 32)
TOWER_ID: Final = TOWER_KEY.public_key.format()
SECOND: Final = 10**9
HOUR: Final = 3600 * SECOND


def hours(number: int) -> Nanos:
    """So many hours in nanoseconds."""
    return Nanos(number * HOUR)


TOTAL: Final = 1000
PATIENCE_S: Final = 20.0


def client(number: int) -> bytes:
    """The node key of a client."""
    return b"\x02" + number.to_bytes(32, "big")


def message(channel: Channel, version: int, paid: int | None = None, *, final: bool = False) -> TowerState:
    """A state that both signed: Alice has paid an e8 in each version, unless `paid` says otherwise."""
    paid = version % TOTAL if paid is None else paid
    signed = channel.signed(version, TOTAL - paid, paid, final=final)
    params = channel.params
    keys = (ParticipantKey(params.participants[0]), ParticipantKey(params.participants[1]))
    return TowerState(
        params.nonce, *keys, Nanos(params.challenge_duration), version, (TOTAL - paid, paid), final, *signed.sigs
    )


class NoAnswer(PerundError):
    """The line to the canister is cut."""


@dataclass
class Coast:
    """Implements what the tower and its watcher need of the Internet Computer."""

    scene: Scene = field(default_factory=Scene)
    ahead_ns: int = 0
    certified: bool = True
    cut: bool = False
    asked: list[ChannelId] = field(default_factory=list)
    """Channels whose holdings were looked at."""
    refutations: list[int] = field(default_factory=list)

    # --- time ---------------------------------------------------------------------------------------------

    def elapsed_ns(self) -> int:
        return time.monotonic_ns() + self.ahead_ns

    def monotonic_ns(self) -> int:
        return self.elapsed_ns()

    def chain_ns(self) -> Nanos:
        self.scene.now_ns = START_NS + self.elapsed_ns()
        return Nanos(self.scene.now_ns)

    # --- the canister -------------------------------------------------------------------------------------

    def _line(self) -> None:
        if self.cut:
            raise NoAnswer("the line is cut")

    async def look(self, channel: ChannelId) -> CertifiedLook:
        asked_ns, now_ns = self.elapsed_ns(), self.chain_ns()
        self._line()
        found = self.scene.canister.query_state(channel)
        registered = None
        if found is not None:
            s = found.state
            state = State(channel, s.version, (s.allocation[0], s.allocation[1]), s.finalized)
            registered = RegisteredState(state, Nanos(found.timeout))
        return CertifiedLook(registered, asked_ns, now_ns)

    async def refute(self, params: Params, signed: SignedState) -> str:
        self._line()
        state = signed.state
        self.refutations.append(state.version)
        theirs = devnet.State(state.channel, state.version, state.allocation, state.finalized)
        call = self.scene.canister.conclude if state.finalized else self.scene.canister.dispute
        answer = call(
            devnet.Params(params.nonce, params.participants, params.challenge_duration_ns),
            devnet.FullySignedState(theirs, signed.signatures),
            self.chain_ns(),
        )
        return "done" if answer is None else answer.name

    async def funded(self, params: Params) -> bool:
        self.asked.append(params.channel_id)
        self._line()
        canister = self.scene.canister
        holdings = [
            canister.query_holdings(devnet.Funding(params.channel_id, key), self.chain_ns())
            for key in params.participants
        ]
        return any(holdings) or canister.query_state(params.channel_id) is not None

    # --- people -------------------------------------------------------------------------------------------

    async def channel(self, nonce: int, challenge_s: float = 3600, *, money: int = TOTAL) -> Channel:
        """A channel with Alice's money in it, or none."""
        made = Channel((ALICE, BOB), nonce=nonce, duration_ns=int(challenge_s * SECOND))
        if money:
            self.chain_ns()
            await self.scene.fund(made, ALICE, money)
        return made

    def register(self, channel: Channel, version: int) -> None:
        """Alice registers one of her states."""
        self.chain_ns()
        assert self.scene.dispute(channel, channel.signed(version, TOTAL - version, version)) is None

    def registered(self, channel: Channel) -> int | None:
        found = self.scene.canister.query_state(channel.id)
        return None if found is None else found.state.version


class Post:
    """A tower and everything of it that runs. `kill` leaves the disk."""

    tower: Tower
    books: TowerBooks
    watcher: Watcher
    proving: Proving

    def __init__(self, coast: Coast, path: Path, policy: TowerPolicy) -> None:
        self.coast = coast
        self.path = path
        self.policy = policy
        self.failures: list[StorageFailed] = []
        self._tasks: list[asyncio.Task[None]] = []

    def open(self, *, running: bool = True) -> None:
        self.books = TowerBooks(self.path, NETWORK, self.failures.append)
        self.tower = Tower(self.policy, self.books, Notary(TOWER_KEY, NETWORK), self.coast)
        self.watcher = Watcher(self.tower, self.coast, self.tower, self.coast)
        self.proving = Proving(self.tower, self.books, self.coast, self.coast)
        self.vouching = Vouching(self.coast, self.coast, random.Random(1))
        self.tower.vouch = self.vouching.vouch
        self.tower.start(self.watcher, self.proving.ask)
        if running:
            loop = asyncio.get_running_loop()
            works = (self.watcher.run(), self.proving.run(), self.vouching.run())
            self._tasks = [loop.create_task(work) for work in works]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.books.close()
        assert not self.failures

    async def restart(self) -> None:
        await self.close()
        self.open()

    async def bring(self, who: int, state: TowerState, origin: str = "") -> TowerReceipt | TowerRefusal:
        """Offer a state as a client, and return the answer; a receipt must be real."""
        answered: asyncio.Future[TowerReceipt | TowerRefusal] = asyncio.get_running_loop().create_future()
        self.tower.offer(client(who), state, answered.set_result, origin)
        answer = await asyncio.wait_for(answered, PATIENCE_S)
        if isinstance(answer, TowerReceipt):
            assert verify_receipt(TOWER_ID, NETWORK, client(who), answer)
        return answer

    async def keep(self, who: int, state: TowerState) -> TowerReceipt:
        """Offer a state that has to be accepted."""
        answer = await self.bring(who, state)
        assert isinstance(answer, TowerReceipt), answer
        return answer

    async def refuse(self, who: int, state: TowerState) -> str:
        """Offer a state that has to be refused; return the code."""
        answer = await self.bring(who, state)
        assert isinstance(answer, TowerRefusal), answer
        return answer.code

    async def written(self) -> None:
        """Return when what was asked for until now is on the disk."""
        done = asyncio.get_running_loop().create_future()
        self.books.change((), None, lambda: done.set_result(None))
        await done

    async def pass_time(self, ns: int) -> None:
        """Let time jump, and what waits for it go on."""
        self.coast.ahead_ns += ns
        self.proving._wake.set()
        await asyncio.sleep(0)

    def version(self, channel: Channel) -> int | None:
        """The newest version on the disk."""
        found = self.books.newest(ChannelId(channel.id))
        return None if found is None else found[1].state.version

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Return when something is so."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not condition():  # noqa: ASYNC110  (much of it happens on the disk's thread)
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise AssertionError(f"not in {PATIENCE_S:g} s: {what}") from None

    async def proven(self, channel: Channel) -> None:
        """Return when the channel's money was seen."""
        guarded = self.tower.slots.channels
        await self.until(lambda: (g := guarded.get(ChannelId(channel.id))) is not None and g.proven, "money seen")


@contextlib.asynccontextmanager
async def post(path: Path, policy: TowerPolicy | None = None, *, running: bool = True) -> AsyncIterator[Post]:
    """Run a tower."""
    made = Post(Coast(), path / "tower.db", policy or TowerPolicy())
    made.open(running=running)
    try:
        yield made
    finally:
        await made.close()
