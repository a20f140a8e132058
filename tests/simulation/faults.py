"""What goes wrong, and how often. One source of randomness decides; when the world heals, nothing does any more."""

from __future__ import annotations

import random

__all__ = ["Faults"]


class Faults:
    """The faults of one node's surroundings. Each seed has another temper."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.healed = False
        temper = rng.choice((0.0, 0.3, 1.0))
        self.slow_disk = temper * rng.choice((0.0, 0.05, 0.3))
        self.failing_disk = temper * rng.choice((0.0, 0.0, 0.004))
        temper = rng.choice((0.0, 0.3, 1.0, 1.0))
        self.bad_chain = temper * rng.choice((0.0, 0.1, 0.3))
        self.lying_hint = rng.choice((0.0, 0.2, 1.0))
        self.slow_link = rng.choice((0.0, 0.05, 0.3))
        self.cutting_link = rng.choice((0.0, 0.005, 0.03))
        self.chain_down_until_s = 0.0
        """Until this loop time nothing of the chain is reached."""
        self.calm = False
        """Whether nothing goes wrong for a while: a watcher needs one chance."""

    @property
    def resting(self) -> bool:
        return self.healed or self.calm

    # --- disk --------------------------------------------------------------------------------------------

    def write_s(self) -> float:
        """How long a transaction waits and takes."""
        if not self.resting and self.rng.random() < self.slow_disk:
            return self.rng.uniform(0.05, 4.0)
        return 0.0006

    def report_s(self) -> float:
        """How long after a transaction the process hears of it."""
        if not self.resting and self.rng.random() < self.slow_disk:
            return self.rng.uniform(0.01, 1.0)
        return 0.0001

    def write_fault(self) -> str:
        """Return `fails`, `ambiguous` (it is on the disk, but an error is reported) or nothing."""
        if self.resting or self.rng.random() >= self.failing_disk:
            return ""
        return self.rng.choice(("fails", "ambiguous"))

    # --- link --------------------------------------------------------------------------------------------

    def travel_s(self) -> float:
        """How long a message takes."""
        if not self.healed and self.rng.random() < self.slow_link:
            return self.rng.uniform(0.1, 8.0)
        return self.rng.uniform(0.001, 0.02)

    def cuts(self) -> bool:
        """Whether the connection breaks at this message."""
        return not self.healed and self.rng.random() < self.cutting_link

    # --- chain -------------------------------------------------------------------------------------------

    def chain_fault(self, now_s: float, *, changes: bool) -> str:
        """Return what goes wrong with a call, or nothing."""
        if self.resting:
            return ""
        if now_s < self.chain_down_until_s:
            return "unreachable"
        if self.rng.random() >= self.bad_chain:
            return ""
        if not changes:
            return self.rng.choice(("unreachable", "lying", "withheld", "withheld", "silent"))
        return self.rng.choice(("unreachable", "rejected", "never", "reply lost", "reply lost", "late", "late", "slow"))
