"""Kills nodes with SIGKILL at moments drawn from a seed, starts them again, and counts in which part it hit them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from random import Random
from typing import Final, TypeVar

from perund.demo.processes import NodeProcess, ProcessFailed

__all__ = ["Killer", "Part"]

T = TypeVar("T")

AT_ONCE: Final = 0.2
"""How often the next kill comes right after a node said that it is ready."""
BOTH: Final = 0.3
"""How often both nodes are killed at once."""
IN_START: Final = 0.2
"""How often a node that is starting is killed before it is ready; and again in the next start, as often."""


class Part(StrEnum):
    """What was under way when a node was killed."""

    STARTING = "starting"
    OPENING = "opening"
    PAYING = "paying"
    CLOSING = "closing"


MEAN_RUN_S: Final = {Part.OPENING: 0.12, Part.PAYING: 0.25, Part.CLOSING: 0.06}
"""Openings and closings are over in a moment; a stream goes on."""
MOST_RUN_S: Final = 1.5
"""Bounds what one unlucky draw can cost; by then a channel under load has seen a hundred updates."""


class Killer:
    """Kills until there were `wanted` kills, and at least one in every part. `part`: where the story is."""

    def __init__(
        self, nodes: tuple[NodeProcess, NodeProcess], seed: int, wanted: int, in_flight: Callable[[], int]
    ) -> None:
        """`in_flight`: how many payments have no answer yet; asked at each kill."""
        self.part = Part.OPENING
        self.kills: Counter[Part] = Counter()
        self.both = 0
        self.in_flight: list[int] = []
        self._nodes = nodes
        self._wanted = wanted
        self._asked = in_flight
        self._seed = seed
        self._random = Random(f"{seed}")
        self._start_s = 0.5

    @property
    def wants_more(self) -> bool:
        """Whether the run is not over."""
        return self.kills.total() < self._wanted or len(self.kills) < len(Part)

    async def during(self, scene: str, part: Part, work: asyncio.Future[T], most: int) -> None:
        """Strike while this part of a scene is under way, `most` times at most. Raises what `work` raises.

        The time between two kills is the fault that is injected: nothing is hoped to be done when it is over.
        """
        self.part = part
        # Afresh for each part: how many kills fitted into those before must not change what is drawn here.
        self._random = Random(f"{self._seed} {scene} {part}")
        for _ in range(most):
            enough = self.kills.total() >= self._wanted
            if enough and part in self.kills:
                break
            await asyncio.wait({work}, timeout=self._run_time())
            if work.done():
                break
            await self._strike()
        if work.done():
            work.result()

    def _run_time(self) -> float:
        if self._random.random() < AT_ONCE:
            return 0.0
        return min(self._random.expovariate(1 / MEAN_RUN_S[self.part]), MOST_RUN_S)

    async def _strike(self) -> None:
        draw = self._random
        victims = list(self._nodes) if draw.random() < BOTH else [draw.choice(self._nodes)]
        self.both += len(victims) == 2
        plans = [self._start_kills(first=node is victims[0]) for node in victims]
        pauses = [0.0, draw.choice((0.0, draw.uniform(0.0, self._start_s)))]
        await asyncio.gather(*(self._kill(node, self.part) for node in victims))
        await asyncio.gather(*map(self._revive, victims, plans, pauses[: len(victims)]))

    def _start_kills(self, *, first: bool) -> list[float]:
        """Draw how long, in parts of a start, the node may start each time before it is killed again."""
        moments = []
        if first and Part.STARTING not in self.kills:
            moments.append(self._random.uniform(0.1, 0.8))  # no run goes without one
        while self._random.random() < IN_START:
            moments.append(self._random.uniform(0.0, 1.0))
        return moments

    async def _revive(self, node: NodeProcess, start_kills: list[float], pause_s: float) -> None:
        await asyncio.sleep(pause_s)  # both were killed at once; they need not come back at once
        for moment in start_kills:
            starting = asyncio.create_task(node.start())
            await asyncio.wait({starting}, timeout=moment * self._start_s)
            while not starting.done() and node.returncode is not None:  # noqa: ASYNC110  (it is a matter of one fork)
                await asyncio.sleep(0)  # until there is a process to be killed
            ready = starting.done()
            if ready:
                starting.result()  # a node that cannot start again is a finding, not a kill
            await self._kill(node, self.part if ready else Part.STARTING)
            with contextlib.suppress(ProcessFailed):
                await starting
        began = asyncio.get_running_loop().time()
        await node.start()
        self._start_s = asyncio.get_running_loop().time() - began

    async def _kill(self, node: NodeProcess, part: Part) -> None:
        self.in_flight.append(self._asked())
        await node.kill()
        assert node.returncode == -signal.SIGKILL, (
            f"{node.name} had ended by itself with status {node.returncode}:\n{node.log.read_text()[-3_000:]}"
        )
        self.kills[part] += 1
