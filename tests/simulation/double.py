"""An old copy of a house's data directory that somebody starts beside it."""

from __future__ import annotations

import random
from collections.abc import Callable

import apsw

from tests.simulation.house import House
from tests.simulation.power import Statistics
from tests.simulation.rules import Rules
from tests.simulation.sim_chain import SimChain
from tests.simulation.sim_clients import Memory
from tests.simulation.sim_net import Road
from tests.simulation.user import User
from tests.simulation.virtual_loop import VirtualLoop

__all__ = ["Double"]


class Double(House):
    """It has the keys, the name and the account of the house; the disk is that of the moment of the copy.

    It is started when the house has begun newer lives. Nothing that it is asked for may leave it.
    """

    is_double = True

    def __init__(
        self,
        original: House,
        rng: random.Random,
        loop: VirtualLoop,
        chain: SimChain,
        memory: Memory,
        road: Road,
        rules: Rules,
        statistics: Statistics,
        force_after_s: int,
        tell: Callable[[str], None] | None,
    ) -> None:
        super().__init__(
            original.name, rng, loop, chain, memory, road, rules, statistics, force_after_s, lambda _: None, tell
        )
        self.original = original
        self.road_name = f"{original.name}, a copy"
        self.neighbours = original.neighbours
        self.lives = 1_000  # what it is told is not what the other was told
        self.backup = original.backup
        self.over = False
        self.faults.healed = True
        database = apsw.Connection(":memory:")
        database.deserialize("main", original.disk.database.serialize("main"))
        self.disk._use(database)
        self.user = User(self, rng)
        self.statistics.facts["houses copied"] += 1

    @property
    def is_older(self) -> bool:
        """Whether the life that it would begin is below the one of the house, which runs and was heard by now."""
        theirs = self.original.disk.one("SELECT number FROM own_life")
        ours = self.disk.one("SELECT number FROM own_life")
        peers = self.original.disk.all("SELECT DISTINCT peer FROM channel")
        heard = [
            house.services.store.read.heard_life(self.node_id)
            for house in self.neighbours
            if house.is_up and (house.node_id,) in peers
        ]
        return (
            theirs is not None
            and ours is not None
            and theirs[0] > ours[0] + 1
            and not self.original.lost
            and len(heard) == len(peers)
            and all(each is not None and each.newest.number > ours[0] + 1 for each in heard)
        )

    def end(self) -> None:
        """Somebody switches it off."""
        self.over = True
        if self.life is not None and self.life.alive:
            facts = "copies that stopped" if self.node.lives.stopped is not None else "copies that were not told"
            self.statistics.facts[facts] += 1
            self.life.end()
