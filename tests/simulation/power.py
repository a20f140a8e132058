"""Lives of a node, and their ends: the power can go at every effect.

An effect is what the world outside the process can notice, or what the process learns from it: a transaction, a
callback after it, a message, a call of the chain and its answer. Code between two effects is alone with its memory,
so a crash at each of them is a crash everywhere.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.house import House

__all__ = ["LIFE", "Fuse", "Life", "PowerCut", "Statistics"]


class PowerCut(BaseException):
    """The power of this node went: nothing of it runs any more. No handler of the node may stop it."""


@dataclass
class Statistics:
    """What happened how often. `effects`, `crashes`: by kind of effect."""

    effects: Counter[str] = field(default_factory=Counter)
    crashes: Counter[str] = field(default_factory=Counter)
    facts: Counter[str] = field(default_factory=Counter)

    def add(self, other: Statistics) -> None:
        self.effects += other.effects
        self.crashes += other.crashes
        self.facts += other.facts


@dataclass
class Fuse:
    """When the power goes: at the `count`th effect from now on, of this kind (of any when it is empty)."""

    count: int
    kind: str = ""


class Life:
    """One run of a node's process. What it starts belongs to it, and ends with it."""

    def __init__(self, house: House, number: int, fuse: Fuse | None, statistics: Statistics) -> None:
        self.house = house
        self.number = number
        self.fuse = fuse
        self.alive = True
        self.tasks: dict[asyncio.Task[object], None] = {}
        self._statistics = statistics
        self.context = contextvars.copy_context()
        self.context.run(LIFE.set, self)

    def effect(self, kind: str) -> None:
        """Note an effect. Raises `PowerCut` when the power goes here, or is gone."""
        if not self.alive:
            raise PowerCut
        self._statistics.effects[kind] += 1
        if self.house.tell is not None:
            self.house.tell(f"{self.house.name} {kind}")
        fuse = self.fuse
        if fuse is not None and (not fuse.kind or fuse.kind == kind):
            fuse.count -= 1
            if fuse.count <= 0:
                self._statistics.crashes[kind] += 1
                self.end()
                raise PowerCut

    def end(self) -> None:
        """The power goes."""
        if not self.alive:
            return
        self.alive = False
        try:
            current = asyncio.current_task()
        except RuntimeError:
            current = None
        for task in list(self.tasks):
            if task is not current:
                task.cancel()
        self.house.life_ended(self)

    def adopt(self, task: asyncio.Task[object]) -> None:
        """Take a task that was started in this life."""
        self.tasks[task] = None
        task.add_done_callback(lambda done: self.tasks.pop(done, None))
        if not self.alive:
            task.cancel()


LIFE: ContextVar[Life | None] = ContextVar("LIFE", default=None)
"""The life in which the current code runs; None for the world around."""
