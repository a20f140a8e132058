"""An event loop without threads, sockets or waiting: its clock jumps to the next timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

__all__ = ["Stuck", "VirtualClock", "VirtualLoop"]

START_S: Final = 1_000.0
CHAIN_START_NS: Final = 1_800_000_000 * 10**9


class Stuck(Exception):
    """Nothing is left that could ever happen."""


class _NeverBlocks:
    """Stands for the selector: instead of waiting, time passes."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[object]:
        if timeout is None:
            raise Stuck("no task is ready and no timer is set")
        if timeout > 0:
            self._loop.pass_time(timeout)
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """Deterministic: callbacks run in the order in which they were asked for, timers in the order of their time."""

    def __init__(self, after_turn: Callable[[], None]) -> None:
        """`after_turn`: called after each turn, to check what must always hold."""
        super().__init__()
        self._now_s = START_S
        self._selector = _NeverBlocks(self)
        self._after_turn = after_turn

    def time(self) -> float:
        return self._now_s

    def pass_time(self, seconds: float) -> None:
        """Let time pass. Timers that come due are late by as much."""
        self._now_s += seconds

    def elapsed_ns(self) -> int:
        return int(self._now_s * 1e9)

    def chain_ns(self) -> int:
        return CHAIN_START_NS + self.elapsed_ns()

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]  # private in asyncio, and the one place where every turn passes
        self._after_turn()

    def _process_events(self, event_list: list[object]) -> None:
        assert not event_list

    def _write_to_self(self) -> None:
        """There is no other thread that would have to wake this one."""


class VirtualClock:
    """The clocks of one machine since its start: the monotonic one counts from there."""

    def __init__(self, loop: VirtualLoop, wall_ahead_ns: int) -> None:
        """`wall_ahead_ns`: how wrong the wall clock of this machine is."""
        self._loop = loop
        self._booted_ns = loop.elapsed_ns() - 10**9
        self._wall_ahead_ns = wall_ahead_ns

    def monotonic_ns(self) -> int:
        return self._loop.elapsed_ns() - self._booted_ns

    def wall_ns(self) -> int:
        return self._loop.chain_ns() + self._wall_ahead_ns
