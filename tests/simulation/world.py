"""One seed: a town of nodes, everything that goes wrong in it, and how it heals."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any, Final

from perund.store.errors import StorageFailed
from protocol.effects import Phase
from protocol.errors import InvariantBroken
from protocol.types import ChannelId, State
from tests.simulation import books
from tests.simulation.books import WALLET_E8S
from tests.simulation.byzantine import ByzantineHouse
from tests.simulation.double import Double
from tests.simulation.house import House
from tests.simulation.plan import FUSED_KINDS, LATE_KINDS, plan
from tests.simulation.power import LIFE, Fuse, PowerCut, Statistics
from tests.simulation.rules import Rules
from tests.simulation.seams import installed
from tests.simulation.sim_chain import SimChain
from tests.simulation.sim_clients import Memory
from tests.simulation.sim_net import Road
from tests.simulation.user import User
from tests.simulation.virtual_loop import VirtualLoop

__all__ = ["SeedFailed", "World", "run_seed"]

NAMES: Final = ("alice", "bob", "carol")
CHANCE_S: Final = 90.0
"""What a watcher needs to see and refute: longer than an answer can be held back, and a look can take after it."""
CONVERGES_WITHIN_S: Final = 1_500.0
MOST_EFFECTS: Final = 25_000
"""Of a town. Three thousand seeds stay below half of it."""
PATIENT_TURNS: Final = 5
"""So many minutes a user waits for the peer of a channel that recovers, before he settles with what there is."""
ENOUGH_FOR_ALL_E8S: Final = 10_000_000
CLOSES_WITHIN_S: Final = 8_000.0


class SeedFailed(AssertionError):
    """A rule was broken in this seed, or the town did not heal."""


class World:
    """The town of one seed."""

    def __init__(self, seed: int, *, verbose: bool = False, power_goes_at: str = "") -> None:
        """`power_goes_at`: a kind of effect; each life ends at its first one, until one did."""
        self.seed = seed
        self._power_goes_at = power_goes_at
        self.verbose = verbose
        self.rng = random.Random(seed)
        self.plan = plan(self.rng)
        self.statistics = Statistics()
        self.loop = VirtualLoop(self._after_turn)
        self.loop.set_exception_handler(self._unhandled)
        self.loop.set_task_factory(_adopting)
        self.chain = SimChain(self.loop)
        if not self.plan.log:
            self.chain.be_published()
        self.rules = Rules(self.chain)
        self.road = Road(self.loop, self.rng, self.rules)
        self.memory = Memory()
        self.healing = False
        self.over = False
        self._calm_until_s = 0.0
        self.houses = [self._house(place) for place in range(self.plan.houses)]
        for house in self.houses:
            house.neighbours = self.houses
        self.users = [User(house, self.rng) for house in self.houses]
        self.chain.on_registered = self._registered
        self.double: Double | None = None

    def _copy_a_house(self) -> None:
        """Take a copy of a house's data directory; start it when the house has been started twice since, and pay from
        it as its user would. Peers have heard a newer life by then.
        """
        rng = self.rng
        if self.double is None:
            house = rng.choice(self.houses)
            if house.is_up and house.disk.one("SELECT 1 FROM channel_state WHERE phase = 'open'") and not house.lost:
                self.double = Double(
                    house, self.rng, self.loop, self.chain, self.memory, self.road, self.rules, self.statistics,
                    self.plan.force_after_s, self._tell if self.verbose else None,
                )  # fmt: skip
        elif self.double.is_up:
            if rng.random() < 0.1:
                self.double.end()
            else:
                for channel in list(self.double.node.drivers):
                    self.double.user.pay(channel)
        elif not self.double.over:
            if self.double.is_older:
                self.double.boot(None)
            elif not self.double.original.lost and rng.random() < 0.5:
                self.double.original.crash()  # its next life is above the copy's

    def _house(self, place: int) -> House:
        kind = ByzantineHouse if place == self.plan.byzantine else House
        house = kind(
            NAMES[place], self.rng, self.loop, self.chain, self.memory, self.road, self.rules, self.statistics,
            self.plan.force_after_s, self._went, self._tell if self.verbose else None,
        )  # fmt: skip
        self.chain.mint(house.account, WALLET_E8S)
        if isinstance(house, ByzantineHouse):
            house.prepare()
        return house

    # --- running -----------------------------------------------------------------------------------------

    def run(self) -> Statistics:
        """Run the seed. Raises `SeedFailed`."""
        with installed(self.rng):
            try:
                self.loop.run_until_complete(self._live())
            finally:
                self.over = True
                self._shut_down()
        return self.statistics

    def _shut_down(self) -> None:
        ending = self.loop.create_task(self._end())
        while not ending.done():  # what failed may have left its own stop behind
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        self.loop.close()

    async def _end(self) -> None:
        for house in [*self.houses, *([self.double] if self.double is not None else [])]:
            if house.life is not None:
                house.life.end()
        tasks = asyncio.all_tasks(self.loop) - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _after_turn(self) -> None:
        if self.over:
            return
        self.rules.money()
        if self.rules.broken:
            raise SeedFailed(f"seed {self.seed} at {self.loop.time():.3f} s: {self.rules.broken[0]}")

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, PowerCut | StorageFailed) or self._is_of_a_liar(context):
            return
        text = f"{context.get('message')}: {type(error).__name__}: {error}"
        if isinstance(error, SeedFailed):
            text = str(error)
        if isinstance(error, InvariantBroken):
            text = f"a node would have broken a rule: {text}"
        self.rules.fail(text)

    def _tell(self, line: str) -> None:
        print(f"{self.loop.time():12.4f} {line}")

    def _is_of_a_liar(self, context: dict[str, Any]) -> bool:
        """Whether something went wrong inside a node that lies: its own lies come back to it."""
        handle, task = context.get("handle"), context.get("task") or context.get("future")
        life = handle._context.get(LIFE) if handle is not None else None
        if life is None and task is not None:
            life = next((h.life for h in self.houses if h.life is not None and task in h.life.tasks), None)
        return life is not None and not life.house.honest

    async def _live(self) -> None:
        for house in self.houses:
            house.boot(self._fuse(house))
        await self._storm()
        await self._heal()
        books.check(self)
        if self.statistics.effects.total() > MOST_EFFECTS:
            self.rules.fail(f"{self.statistics.effects.total()} effects: somebody asks in circles")

    # --- what goes wrong ---------------------------------------------------------------------------------

    def _fuse(self, house: House) -> Fuse | None:
        rng = self.rng
        if self._power_goes_at and not self.statistics.crashes[self._power_goes_at]:
            return Fuse(1, self._power_goes_at)
        if self.healing or house.faults.calm or rng.random() >= self.plan.crashing:
            return None
        if rng.random() < 0.4:
            return Fuse(rng.randint(1, rng.choice((20, 150, 600))))
        return Fuse(rng.randint(1, 2), rng.choice(rng.choice((FUSED_KINDS, LATE_KINDS))))

    def _went(self, house: House) -> None:
        pause_s = (
            0.01
            if self.healing or house.faults.calm
            else self.rng.choice((0.001, self.rng.uniform(0, 5), self.rng.uniform(0, 40)))
        )
        self.loop.call_later(pause_s, self._boot, house, context=self.road.context)

    def _boot(self, house: House) -> None:
        if not house.is_up and not self.over and (house.honest or not self.healing):
            house.boot(self._fuse(house))

    def _registered(self, state: State, timeout_ns: int) -> None:
        """Somebody registered a state. What promises a refutation is one chance within the challenge period: a
        while, somewhere in it, in which everybody honest is up and reaches the chain. All the rest is storm.
        """
        if state.finalized:
            return
        left_s = (timeout_ns - self.loop.chain_ns()) / 1e9
        begins_s = self.rng.uniform(0.0, max(0.0, left_s - CHANCE_S))
        self.loop.call_later(begins_s, self._chance, self.loop.time() + begins_s + CHANCE_S, context=self.road.context)

    def _chance(self, until_s: float) -> None:
        if self.over or self.healing:
            return
        self._calm_until_s = max(self._calm_until_s, until_s)
        for house in self.houses:
            if house.honest:
                house.calm_down()
                self._boot(house)
        self.loop.call_at(until_s, self._end_calm, context=self.road.context)

    def _end_calm(self) -> None:
        if self.loop.time() >= self._calm_until_s and not self.healing:
            for house in self.houses:
                house.storm()
                if house.life is not None and house.life.fuse is None:
                    house.life.fuse = self._fuse(house)

    async def _storm(self) -> None:
        await self._open_a_channel(0, 1)
        if self.plan.houses > 2:
            await self._open_a_channel(2, 1)
        if self.rng.random() < 0.2:
            # Second thoughts while the deposits are on their way.
            await self._depositing(self.loop.time() + 60)
            await asyncio.sleep(self.rng.uniform(0, 3))
            for house, user in zip(self.houses, self.users, strict=True):
                for doubted in list(house.node.drivers) if house.is_up else ():
                    user.dispute(doubted)
        if self.rng.random() < 0.8:
            await self._opened(self.loop.time() + 200)
        await self._steps(self.plan.steps)
        if self.rng.random() < 0.6:
            for house, user in zip(self.houses, self.users, strict=True):
                for channel in self._open_channels(house):
                    self.rng.choice((user.close, user.close, user.dispute))(channel)
            for _ in range(self.rng.randint(5, 25)):
                await self._steps(1)
                if self.rng.random() < 5 * self.plan.losing:
                    self._lose_a_disk(self.rng.choice(self.houses))
                await asyncio.sleep(self.rng.expovariate(1 / 8))

    async def _steps(self, count: int) -> None:
        for _ in range(count):
            self._step()
            await asyncio.sleep(self.rng.expovariate(1.0) * self.plan.pace_s)

    def _lull(self, *, calm: bool) -> None:
        """Let nothing go wrong for a while, or let things go wrong again."""
        for house in self.houses:
            if isinstance(house, ByzantineHouse):
                house.quiet = calm
            if calm:
                house.calm_down()
                self._boot(house)
            else:
                house.storm()

    async def _open_a_channel(self, place: int, peer: int) -> None:
        """A user tries until there is a channel, or until he has had enough of it."""
        user = self.users[place]
        for _ in range(15):
            await asyncio.sleep(self.rng.choice((0.2, 1.0, 6.0)))
            if not any(wish.kind == "open" for wish in user.wishes) or self.rng.random() < 0.2:
                user.open(self.houses[peer], self.plan.challenge_s, self.plan.funding_s)
            elif self.houses[place].disk.one("SELECT 1 FROM channel"):
                return
            else:
                user.ask_again()
        self._lull(calm=True)
        while not self.houses[place].disk.one("SELECT 1 FROM channel"):
            user.open(self.houses[peer], self.plan.challenge_s, self.plan.funding_s)
            await asyncio.sleep(15.0)
        await asyncio.sleep(5.0)
        self._lull(calm=False)

    async def _depositing(self, until_s: float) -> None:
        while self.loop.time() < until_s:
            if any(house.disk.one("SELECT 1 FROM transfer WHERE status = 'paid'") for house in self.houses):
                return
            await asyncio.sleep(0.2)

    async def _opened(self, until_s: float) -> None:
        while self.loop.time() < until_s:
            if any(house.disk.one("SELECT 1 FROM channel_state WHERE phase = 'open'") for house in self.houses):
                return
            if self.rng.random() < 0.1:
                self._trouble(*self.rng.sample(self.houses, 2))
            await asyncio.sleep(1.0)

    def _step(self) -> None:
        rng = self.rng
        if self.plan.copying and rng.random() < 0.3:
            self._copy_a_house()
        for liar in self.houses:
            if isinstance(liar, ByzantineHouse):
                liar.remember_states()
                if rng.random() < liar.greed:
                    liar.register_an_old_state()
        place = rng.randrange(len(self.houses))
        house, user = self.houses[place], self.users[place]
        peer = self.houses[(place + rng.randint(1, len(self.houses) - 1)) % len(self.houses)]
        what = rng.random()
        if what < 0.55:
            self._pay(house, user)
        elif what < 0.62:
            user.ask_again()
        elif what < 0.66:
            self._cancel(house, user)
        elif what < 0.78:
            self._trouble(house, peer)
        elif what < 0.80:
            user.open(peer, self.plan.challenge_s, self.plan.funding_s)
        elif what < 0.81:
            channel = self._channel(house)
            if channel is not None:
                rng.choice((user.close, user.close, user.dispute))(channel)
        elif what < 0.81 + self.plan.losing:
            self._lose_a_disk(house)
        elif what < 0.86 or (self._has_offered(house) and rng.random() < 0.3):
            house.disk.copy()
        elif what < 0.90:
            self.loop.pass_time(rng.choice((0.0, 0.0, 0.001, 0.1)))  # a busy machine: timers come late
        else:
            return

    def _trouble(self, house: House, peer: House) -> None:
        """Something that happens to a house from outside."""
        rng = self.rng
        what = rng.random()
        if what < 0.35:
            self.road.cut(house.name, peer.name, rng.choice((0.0, 1.0, rng.uniform(0, 60))))
        elif what < 0.6:
            if rng.random() < self.plan.crashing:
                house.crash()
                if rng.random() < 0.2:
                    peer.crash()
        elif what < 0.8:
            if not house.faults.calm:
                house.faults.chain_down_until_s = self.loop.time() + rng.uniform(0, 90)
        else:
            self.chain.fee_in_doubt_until_s = self.loop.time() + rng.uniform(0, 20)

    def _lose_a_disk(self, house: House) -> None:
        if house.honest:
            house.lose_disk()

    def _has_offered(self, house: House) -> bool:
        return bool(house.disk.one("SELECT 1 FROM payment WHERE status = 'offered' LIMIT 1"))

    def _channel(self, house: House) -> bytes | None:
        if not house.is_up or not house.node.drivers:
            return None
        return self.rng.choice(list(house.node.drivers))

    def _pay(self, house: House, user: User) -> None:
        channel = self._channel(house)
        if channel is not None:
            for _ in range(self.rng.choice((1, 1, 1, 3))):
                user.pay(channel)

    def _cancel(self, house: House, user: User) -> None:
        rows = house.disk.all(
            "SELECT c.channel, p.id FROM payment p JOIN channel c USING (number) "
            "WHERE p.sender = c.our_index AND p.status = 'queued'"
        )
        if rows:
            channel, payment_id = self.rng.choice(rows)
            assert isinstance(channel, bytes)
            assert isinstance(payment_id, bytes)
            user.cancel(channel, payment_id)

    # --- healing -----------------------------------------------------------------------------------------

    async def _heal(self) -> None:
        self.healing = self.road.healed = True
        self.chain.fee_in_doubt_until_s = 0.0
        if not self.chain.keeps_log:
            self.chain.mint(self.chain.account, ENOUGH_FOR_ALL_E8S)  # somebody fills up what its payouts have cost
        if self.double is not None:
            self.double.end()
        gone = self.plan.byzantine is not None and self.rng.random() < 0.5
        for house in self.houses:
            house.faults.healed = True
            if isinstance(house, ByzantineHouse):
                house.quiet = not gone
                if gone:
                    house.storm()
                    house.crash()
                    continue
            if house.life is not None:
                house.life.fuse = None
            if not house.is_up:
                house.boot(None)
        converges_s = self.plan.funding_s + CONVERGES_WITHIN_S
        if self.plan.byzantine is None:
            await self._until(lambda: not self._open_business(), converges_s, self._open_business)
        closing = self.loop.create_task(self._close_everything())
        await self._until(self._all_closed, CLOSES_WITHIN_S, self._unclosed)
        closing.cancel()

    async def _close_everything(self) -> None:
        for turn in itertools.count():
            for house, user in zip(self.houses, self.users, strict=True):
                for channel in self._unsettled(house):
                    self._end_channel(house, user, channel, patient=turn < PATIENT_TURNS)
                await asyncio.sleep(self.rng.choice((0.0, 0.5)))
            await asyncio.sleep(60.0)

    def _end_channel(self, house: House, user: User, channel: ChannelId, *, patient: bool) -> None:
        machine = house.node.drivers[channel].channel
        if machine.recovering and not machine.loss_is_proven and patient:
            if self.rng.random() < 0.4:
                user.recover(channel)
        elif machine.recovering and not patient:
            house.risked.add(channel)
            user.dispute(channel, accept_risk=True)
        elif machine.phase is Phase.OPEN and not machine.frozen:
            user.close(channel)  # what a violation froze the node leaves by itself

    async def _until(self, condition: Any, seconds: float, why: Any) -> None:
        deadline, pause = self.loop.time() + seconds, 0.25
        while not condition():
            if self.loop.time() > deadline:
                self.rules.fail(f"not healed within {seconds:.0f} s: {why()}")
            await asyncio.sleep(pause)
            pause = min(pause * 1.3, 10.0)

    def _open_business(self) -> list[str]:
        """Return what should end by itself while everything works."""
        found = []
        for house in self.houses:
            for row in house.disk.all(
                "SELECT c.number, s.phase, s.frozen, c.channel FROM channel c JOIN channel_state s USING (number) "
                "WHERE s.phase != 'closed'"
            ):
                number, phase, frozen, channel = row
                if any(channel in each.lost for each in self.houses):
                    continue  # it ends when it is closed
                if phase != Phase.OPEN:
                    found.append(f"{house.name}: channel {number} is {phase}")
                elif not frozen:
                    found += [
                        f"{house.name}: a payment in channel {number} is {status}"
                        for status in self._statuses(house, number)
                        if status in ("queued", "offered", "signed")
                    ]
            if house.disk.one("SELECT 1 FROM opening WHERE phase NOT IN ('opened', 'dead')"):
                found.append(f"{house.name}: an opening is under way")
        return found

    def _statuses(self, house: House, number: object) -> set[str]:
        assert isinstance(number, int)
        return {row.status for _, row in house.disk.read.payments(number, (0, -1, b""), 100_000)}

    def _unsettled(self, house: House) -> list[ChannelId]:
        return list(house.node.drivers) if house.is_up else []

    def _open_channels(self, house: House) -> list[ChannelId]:
        drivers = house.node.drivers if house.is_up else {}
        return [channel for channel, driver in drivers.items() if driver.channel.phase is Phase.OPEN]

    def _unclosed(self) -> list[str]:
        return [
            f"{house.name}: channel {row[0]} is {row[1]}, waiting for "
            + "; ".join(
                f"{job.name}: {job.waiting_for} {job.problem}" for jobs in house.node.jobs.values() for job in jobs.of()
            )
            for house in self.houses
            if house.honest
            for row in house.disk.all("SELECT number, phase FROM channel_state WHERE phase != 'closed'")
        ]

    def _all_closed(self) -> bool:
        return not self._unclosed()


def _adopting(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    life = LIFE.get()
    if life is not None:
        life.adopt(task)
    return task


def run_seed(seed: int, *, verbose: bool = False) -> Statistics:
    """Run one seed and return what happened. Raises `SeedFailed`."""
    return World(seed, verbose=verbose).run()
