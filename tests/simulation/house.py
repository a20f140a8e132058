"""A node of the simulation: its keys, its disk, its surroundings, and the life that runs now."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from chain.agent import Agent
from chain.identity import Ed25519Identity
from chain.ledger import IcpLedger
from chain.perun import PerunCanister
from chain.principal import account_identifier, principal_to_text
from perund.config import Close, Config, Ic, Policy
from perund.keys import Keys
from perund.node.api import NodeService
from perund.node.canister import WatchedCanister
from perund.node.chain_time import ChainTime
from perund.node.node import Node
from perund.node.node_to_come import NodeToCome
from perund.node.payment_ids import PaymentIds
from perund.node.services import Services
from perund.node.transfers import Transfers
from perund.node.trust import CanisterTrust
from perund.recovery import taking_up
from perund.recovery.backup import Backup, BackupFile
from perund.recovery.saved import Gathering, parts_of
from perund.store.errors import StorageFailed
from perund.store.reading import Reader
from perund.store.schema import migrate
from perund.store.store import Store
from protocol.errors import Undecodable
from protocol.messages import FEATURE_LIVES, Hello, Message, SignedStateMessage
from protocol.signing import verify_signed_state
from protocol.types import ChannelId, Nanos, SignedState, State
from tests.simulation.faults import Faults
from tests.simulation.power import Fuse, Life, PowerCut, Statistics
from tests.simulation.rules import Rules
from tests.simulation.sim_chain import LEDGER, PERUN, SimChain
from tests.simulation.sim_clients import Memory, SimAgent, SimLedger, SimPerun
from tests.simulation.sim_disk import SimDisk
from tests.simulation.sim_net import Road, SimNetwork
from tests.simulation.virtual_loop import VirtualClock, VirtualLoop
from watcher.watch import Watcher
from wire.network import PeerNetwork

if TYPE_CHECKING:
    from perund.node.driver import ChannelDriver
    from protocol.terms import Terms

__all__ = ["House"]

NETWORK = b"\x5e" * 32


@cache
def _keys(name: str) -> Keys:
    return Keys(name.encode().ljust(32, b"."))


@cache
def _identity(name: str) -> tuple[bytes, bytes]:
    """Return wallet principal and node id."""
    keys = _keys(name)
    return Ed25519Identity(keys.wallet_seed).sender, keys.node_key.public_key.format()


@cache
def _config(force_after_s: int, minimum_e8s: int) -> Config:
    return Config(
        network="local",
        ic=Ic(
            urls=("http://simulated",),
            perun_canister=principal_to_text(PERUN),
            icp_ledger=principal_to_text(LEDGER),
            root_key="00" * 133,
        ),
        policy=Policy(min_total_e8s=1, contribute_max_e8s=10**9, min_challenge_s=1, minimum_payment_e8s=minimum_e8s),
        close=Close(force_after_s=force_after_s),
    )


class _BackupFile(BackupFile):
    """The real one, whose file is in the house: it survives a crash, and a lost disk."""

    def __init__(self, life: Life, config: Config, read: Reader) -> None:
        super().__init__(Path(), life.house.keys, NETWORK, config, read)
        self._life = life

    def write(self, made_ms: int) -> None:
        self._life.effect("backup.write")
        self._life.house.backup = self.collect(made_ms)
        self._life.effect("backup.written")

    def append(self, parts: Sequence[bytes]) -> None:
        self._life.effect("backup.write")
        before = self._life.house.backup
        gathering = Gathering()
        for part in (*(parts_of(before) if before is not None else ()), *parts):
            gathering.take(part)
        assert not gathering.faults, gathering.faults
        self._life.house.backup = gathering.backup()
        self._life.effect("backup.written")

    async def tend(self, tell: object) -> None:
        """Nobody else touches a simulated file."""


class _Ids(PaymentIds):
    """The real ones, remembered: a payment of ours with another id was never asked for."""

    def __init__(self, house: House) -> None:
        super().__init__(house.clock.wall_ns, house.rng.randbytes)
        self._house = house

    def make(self, count: int) -> bytes:
        ids = super().make(count)
        self._house.made_ids.update(ids[start : start + 16] for start in range(0, len(ids), 16))
        return ids


class _Watcher(Watcher):
    """The real watcher, which tells what it watches."""

    def watch(self, channel: ChannelId, challenge_ns: Nanos) -> None:
        self.__dict__.setdefault("watched", set()).add(channel)
        super().watch(channel, challenge_ns)

    def unwatch(self, channel: ChannelId) -> None:
        self.__dict__.setdefault("watched", set()).discard(channel)
        super().unwatch(channel)


class House:
    """One node through all its lives."""

    honest = True
    is_double = False
    """Whether it is an old copy of another house, which runs beside it."""

    def __init__(
        self,
        name: str,
        rng: random.Random,
        loop: VirtualLoop,
        chain: SimChain,
        memory: Memory,
        road: Road,
        rules: Rules,
        statistics: Statistics,
        force_after_s: int,
        went: Callable[[House], None],
        tell: Callable[[str], None] | None,
    ) -> None:
        """`went`: called when a life ended; `tell`: gets a line for everything that happens."""
        self.name = name
        self.rng = rng
        self.loop = loop
        self.chain = chain
        self.rules = rules
        self.statistics = statistics
        self.faults = Faults(rng)
        self.disk = SimDisk(rng, self.faults)
        self.keys = _keys(name)
        self.principal, self.node_id = _identity(name)
        self.account = account_identifier(self.principal)
        self.road_name = name
        self.life: Life | None = None
        self.lives = 0
        self.backup: Backup | None = None
        """What is in the backup file."""
        self.lost: dict[ChannelId, Terms] = {}
        """The channels that it had when it lost its disk: in them it may lack what happened (rule 7)."""
        self.disks_lost = 0
        self.shown: dict[ChannelId, set[tuple[int, int]]] = {}
        """Since it lost its disk: the shares of the states that came to it with both signatures (rule 7)."""
        self.declared: dict[ChannelId, set[tuple[int, int]]] = {}
        """The same of those that its user declared the newest."""
        self.feigned: set[ChannelId] = set()
        """The channels of which it says falsely that it lost data."""
        self.risked: set[ChannelId] = set()
        """Those of them that its user settles with what there is."""
        self.made_ids: set[bytes] = set()
        self.neighbours: list[House] = []
        """Everybody in the town."""
        self._memory = memory
        self._road = road
        self._went = went
        self.tell = tell
        self._force_after_s = force_after_s
        self.services: Services
        self.node: Node
        self.api: NodeService
        self.clock: VirtualClock

    @property
    def saved_shares(self) -> set[bytes]:
        """The nonce shares in the backup file: with the phrase they give the channel keys."""
        if self.backup is None:
            return set()
        return {c.our_share for c in self.backup.channels} | {share for _, share in self.backup.half_open}

    # --- lives -------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        return self.life is not None and self.life.alive

    def boot(self, fuse: Fuse | None) -> None:
        """Start the node, from what is on the disk."""
        assert not self.is_up
        self.lives += 1
        if self.tell is not None:
            self.tell(f"{self.name} starts, life {self.lives}, fuse {fuse}")
        life = self.life = Life(self, self.lives, fuse, self.statistics)
        try:
            life.context.run(self._start, life)
        except PowerCut:
            return
        except Exception as error:
            self.rules.fail(f"{self.name} does not start: {type(error).__name__}: {error}")
            return
        self._road.add(self.road_name, self._network)

    def _start(self, life: Life) -> None:
        # As `perund.node.daemon` does, with the simulated parts in the places of the real ones.
        minimum_e8s = self.rng.choice((1, 1, 5))  # its user may change his mind between two lives
        config = _config(self._force_after_s, minimum_e8s)
        clock = self.clock = VirtualClock(self.loop, self.rng.choice((0, 0, self.rng.randint(-(10**10), 10**10))))
        if self.backup is not None:
            migrate(self.disk.database)
            taken_up = taking_up.take_up_missing(self.disk.database, self.backup, "channels came from the backup file")
            self.statistics.facts["channels taken up from a backup"] += len(taken_up)
        # Whose life was stopped is started again by its operator, as the one to keep: no other copy is in use.
        store = Store(cast("Path", self.disk), NETWORK, self._failed, take_over=not self.is_double)
        sim_agent = SimAgent(life, self.chain, self._memory, self.principal, clock)
        agent = cast("Agent", sim_agent)
        perun, ledger = cast("PerunCanister", SimPerun(sim_agent)), cast("IcpLedger", SimLedger(sim_agent))
        time = ChainTime(agent, clock, LEDGER)
        trust = CanisterTrust(perun, config, store)
        later, canister = NodeToCome(), WatchedCanister(perun)
        hello = Hello(1, NETWORK, FEATURE_LIVES, f"perund/{self.name}", config.policy.minimum_payment_e8s)
        self._network = SimNetwork(life, self.node_id, hello, later, self._road)
        self.services = Services(
            data_dir=cast("Path", self.disk),
            config=config,
            keys=self.keys,
            store=store,
            agent=agent,
            perun=perun,
            ledger=ledger,
            time=time,
            transfers=Transfers(store, ledger, self.account, time, config.fees.max_fee_e8s),
            payment_ids=_Ids(self),
            root_key=bytes(133),
            network_hash=NETWORK,
            perun_principal=PERUN,
            ledger_principal=LEDGER,
            wallet_principal=self.principal,
            wallet_principal_text=principal_to_text(self.principal),
            wallet_account=self.account,
            canister_account=self.chain.account,
            reason_not_to_open=trust.reason_not_to_open,
            watcher=_Watcher(
                later,
                canister,
                later,
                clock,
                config.watch.looks_per_challenge,
                disputes=canister,
                hints=canister,
                hint_every_s=30.0,
                notices=later,
            ),
            backup=_BackupFile(life, config, store.read),
            network=cast("PeerNetwork", self._network),
        )
        self.node = later.node = Node(self.services, self._failed)
        self.node.load()
        self.node.lives.on_stop = partial(self._life_stops, life, self.node.lives.on_stop)
        self.node.spawn(self.services.watcher.run(), "watcher")
        self.node.spawn(trust.watch(), "canister trust")
        self.api = NodeService(self.node, lambda: None, "simulated")
        self.node.background()

    def _life_stops(self, life: Life, stops: Callable[[], None]) -> None:
        """Somebody showed this life a newer one: of a restored node whose clock is behind, its own of before."""
        stops()
        if self.is_double:
            return
        self.statistics.facts["lives taken over"] += 1
        self.loop.call_later(self.rng.uniform(1.0, 40.0), self._restart, life)

    def _restart(self, life: Life) -> None:
        if self.life is life and life.alive:
            life.end()

    def _failed(self, error: Exception) -> None:
        """The node ends itself: a write failed (rule 8), or a rule would have been broken."""
        if not isinstance(error, StorageFailed) and self.honest:
            self.rules.fail(f"{self.name}: {type(error).__name__}: {error}")
        life = self.life
        assert life is not None
        self.statistics.facts["stopped by a failed write"] += 1
        self.loop.call_later(self.rng.uniform(0, 0.2), life.end)

    def calm_down(self) -> None:
        """Nothing goes wrong until `storm`: it is up, and its chain answers."""
        self.faults.calm = True
        self.faults.chain_down_until_s = 0.0
        if self.life is not None:
            self.life.fuse = None

    def storm(self) -> None:
        """Things go wrong again."""
        self.faults.calm = False

    def crash(self) -> None:
        """The power goes now."""
        if self.faults.calm:
            return
        if self.life is not None and self.life.alive:
            self.statistics.facts["crashes between effects"] += 1
            self.life.end()

    def lose_disk(self) -> None:
        """The machine is gone. On another one are the phrase, the backup file and perhaps a copy of the store."""
        if self.faults.calm:
            return
        if self.life is not None:
            self.life.end()
        self.lost |= {row.terms.channel: row.terms for row in self.disk.read.channels_page(None, 0, 1_000)}
        self.disks_lost += 1
        self.shown, self.declared = {}, {}
        copies = self.disk.copies
        copy = self.rng.choice(copies) if copies and self.rng.random() < 0.75 else None
        self.statistics.facts["disks lost" if copy is None else "disks lost, an old copy restored"] += 1
        if self.tell is not None:
            self.tell(f"{self.name} loses its disk")
        self.disk.lose(copy, restores=self.backup is not None)

    def life_ended(self, life: Life) -> None:
        assert life is self.life
        if self.tell is not None:
            self.tell(f"{self.name} loses its power")
        self._road.remove(self.road_name)
        self._went(self)

    def run(self, work: Callable[[], object]) -> None:
        """Do something in the node, as its control socket would."""
        if self.life is None or not self.life.alive:
            return
        try:
            self.life.context.run(work)
        except (PowerCut, StorageFailed):
            return  # the process ends, and says nothing more

    # --- what rules ask ----------------------------------------------------------------------------------

    def driver(self, channel: ChannelId) -> ChannelDriver:
        return self.node.drivers[channel]

    def challenge_ns(self, channel: ChannelId) -> int:
        return self.node.drivers[channel].channel.terms.params.challenge_duration_ns

    def participant(self, channel: ChannelId, signature: bytes) -> bytes:
        """Return who signed: a node has one key in a channel."""
        del channel, signature
        return self.name.encode()

    def knows(self, channel: ChannelId) -> bool:
        """Whether it ever had this channel, as far as its disks tell."""
        return channel in self.lost or bool(self.disk.one("SELECT 1 FROM channel WHERE channel = ?", channel))

    def watched(self) -> set[ChannelId]:
        watched: set[ChannelId] = self.services.watcher.__dict__.get("watched", set())
        return watched

    # --- what a Byzantine node does otherwise ------------------------------------------------------------

    def outgoing(self, message: Message) -> tuple[Message, ...]:
        """Return what is really sent."""
        return (message,)

    def note_received(self, message: Message) -> None:
        """Hear what arrives: what is signed by both may end a loss."""
        if isinstance(message, SignedStateMessage) and message.channel in self.lost:
            signatures = (message.signature_0, message.signature_1)
            try:
                state = State(message.channel, message.version, message.allocation, message.finalized)
                genuine = verify_signed_state(self.lost[message.channel].params, SignedState(state, signatures))
            except Undecodable:
                return
            if genuine:
                self.shown.setdefault(message.channel, set()).add(message.allocation)

    def may_end_loss(self, state: State) -> bool:
        """Whether somebody other than the one who gains stands behind these shares: both did, or the user does."""
        return state.allocation in self.shown.get(state.channel, set()) | self.declared.get(state.channel, set())
