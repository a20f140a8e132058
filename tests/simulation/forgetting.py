"""A node and a tower that forgets, on a line that is cut: what the node counts as guarded is guarded.

The node's side and the tower are the real ones. The tower's disk is a dictionary that a seed puts back, empties or
lets lapse; the session is a pair of queues, each in order, cut at any message.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from coincurve import PrivateKey

from perund.tower.link import TowerLink
from protocol.hearing import Heard
from protocol.messages import (
    FEATURE_RECALL,
    FEATURE_STANDING,
    FEATURE_TOWER,
    Hello,
    TowerForget,
    TowerHeld,
    TowerInquiry,
    TowerListRequest,
    TowerReceipt,
    TowerState,
)
from protocol.types import ChannelId, Nanos, Params, SignedState
from tests.unit.devnet.scene import ALICE, BOB, Channel
from tests.unit.tower.scene import NETWORK, TOWER_ID, TOWER_KEY, message
from watcher.tower.policy import TowerPolicy
from watcher.tower.receipts import Notary
from watcher.tower.slots import Guarded, Slot
from watcher.tower.tower import Tower, read_state
from wire.address import NodeAddress
from wire.session import Session

__all__ = ["Believed", "run"]

NODE_ID = PrivateKey(b"\x55" * 32).public_key.format()
SECOND = 10**9
DAY = 86_400 * SECOND
START = 1_700_000_000 * SECOND


class Believed(AssertionError):
    """The node counts a channel as guarded that the tower does not hold."""


@dataclass
class Clock:
    now_ns: int = 0
    certified: bool = True

    def chain_ns(self) -> Nanos:
        return Nanos(START + self.now_ns)

    def elapsed_ns(self) -> int:
        return self.now_ns


@dataclass
class Disk:
    """A tower's store: written at once."""

    life: bytes
    count: int = 0
    rows: dict[tuple[bytes, ChannelId], tuple[Slot, TowerState]] = field(default_factory=dict)

    def copy(self) -> Disk:
        rows = {key: (_copied(slot), state) for key, (slot, state) in self.rows.items()}
        return Disk(self.life, self.count, rows)

    # --- watcher.tower.ports.Books ------------------------------------------------------------------------

    def writes(self) -> int:
        return self.count

    def slots(self) -> Iterable[tuple[Guarded, Slot]]:
        for slot, state in self.rows.values():
            yield Guarded(slot.channel, state.challenge_duration_ns), _copied(slot)

    def newest(self, channel: ChannelId) -> tuple[Params, SignedState] | None:
        found = [state for slot, state in self.rows.values() if slot.channel == channel]
        return read_state(max(found, key=lambda state: state.version)) if found else None

    def held(self, client: bytes, channel: ChannelId) -> SignedState | None:
        row = self.rows.get((client, channel))
        return read_state(row[1])[1] if row is not None else None

    def keep(self, slot: Slot, message: TowerState, then: Callable[[], None]) -> None:
        self.count += 1
        self.rows[slot.client, slot.channel] = (_copied(slot), message)
        then()

    def change(self, slots: Iterable[Slot], settled_ns: Nanos | None, then: Callable[[], None] | None = None) -> None:
        for slot in slots:
            self.rows[slot.client, slot.channel] = (_copied(slot), self.rows[slot.client, slot.channel][1])
        if then is not None:
            then()

    def drop(self, slots: Iterable[Slot]) -> None:
        for slot in slots:
            self.rows.pop((slot.client, slot.channel), None)

    def conflict(self, slot: Slot, message: TowerState, at_ns: Nanos) -> None: ...

    def heard(self, client: bytes) -> Heard | None: ...

    def keep_heard(self, client: bytes, heard: Heard) -> None: ...

    def note(self, kind: str, at_ns: Nanos, channel: ChannelId | None, facts: Any) -> None: ...


def _copied(slot: Slot) -> Slot:
    return Slot(
        slot.client, slot.channel, slot.version, slot.digest, slot.since_ns, slot.lapses_ns, slot.expires_ns,
        proven=slot.proven,
    )  # fmt: skip


class Line:
    """A session, from the node's side. `Session` as far as a link uses it."""

    def __init__(self, features: int) -> None:
        self.hello = Hello(1, NETWORK, features, "a tower", 1)
        self.peer = TOWER_ID
        self.fault: str | None = None
        self.out: deque[object] = deque()
        self.back: deque[object] = deque()
        self.cut = False

    def send(self, message: object) -> None:
        self.out.append(message)

    def close(self, reason: str) -> None:
        del reason
        self.cut = True


class _Guard:
    def watch(self, channel: ChannelId, challenge_ns: Nanos) -> None: ...

    def unwatch(self, channel: ChannelId) -> None: ...

    def hurry(self, channel: ChannelId) -> None: ...


class Town:
    """Implements `perund.tower.link.Household`."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.clock = Clock()
        self.states: dict[ChannelId, tuple[Params, SignedState]] = {}
        self.lives: dict[bytes, tuple[bytes, int]] = {}
        self.events: list[str] = []
        self.channels = [Channel((ALICE, BOB), nonce=number) for number in range(1, self.rng.choice((2, 5, 30)))]
        self.disk = Disk(self.rng.randbytes(32))
        self.copies: list[Disk] = []
        self.lapsed_ns = -DAY
        self.able = self.rng.random() < 0.8
        """Whether the tower says what it holds; else it is one of before."""
        self._start_tower()
        self.line: Line | None = None
        self.link = TowerLink(NodeAddress(TOWER_ID, "tower", 1), self, NETWORK, NODE_ID, {})

    def _start_tower(self) -> None:
        self.disk.count += 1
        policy = TowerPolicy(max_unfunded=1_000, max_unfunded_per_client=1_000)
        self.tower = Tower(policy, self.disk, Notary(TOWER_KEY, NETWORK), self.clock)
        self.tower.start(_Guard(), lambda _: None)

    # --- Household ----------------------------------------------------------------------------------------

    def newest(self, channel: ChannelId) -> tuple[Params, SignedState] | None:
        return self.states.get(channel)

    def chain_ns(self) -> Nanos:
        return self.clock.chain_ns()

    def elapsed_ns(self) -> int:
        return self.clock.elapsed_ns()

    def tower_life(self, tower: bytes) -> tuple[bytes, int] | None:
        return self.lives.get(tower)

    def keep_tower_life(self, tower: bytes, life: bytes, writes: int) -> None:
        self.lives[tower] = (life, writes)

    def keep_receipt(self, tower: bytes, receipt: TowerReceipt) -> None: ...

    def event(self, kind: str, channel: ChannelId | None, facts: dict[str, str | int | bool]) -> None:
        self.events.append(kind)

    def dropped(self, tower: bytes) -> None:
        raise AssertionError(f"an honest tower is dropped: {self.link.dropped}")

    def recovering(self) -> list[ChannelId]:
        return []

    def recalled(self, tower: bytes, held: TowerHeld) -> str | None:
        raise AssertionError("nothing was lost")

    def answered(self, tower: bytes, channel: ChannelId) -> None: ...

    # --- what happens -------------------------------------------------------------------------------------

    def step(self, *, calm: bool) -> None:
        rng = self.rng
        self.clock.now_ns += rng.choice((0, SECOND // 100, SECOND // 5, SECOND if rng.random() < 0.9 else 40 * SECOND))
        if not calm and rng.random() < 0.03:
            self._fault()
        if rng.random() < (0.02 if calm else 0.2):
            self._agree()
        if self.line is None and rng.random() < 0.3:
            features = FEATURE_TOWER | FEATURE_RECALL | (FEATURE_STANDING if self.able else 0)
            self.line = Line(features)
            self.link.session_began(cast("Session", self.line))
        self.link._renew(lambda: list(self.states))
        self.link._end_silence()
        _ = self.link._ask_next() or self.link._send_next()
        self._carry()
        self._check()

    def _agree(self) -> None:
        channel = self.rng.choice(self.channels)
        known = self.states.get(ChannelId(channel.id))
        version = known[1].state.version + self.rng.randint(1, 3) if known is not None else 0
        params, signed = read_state(message(channel, version))
        self.states[params.channel_id] = (params, signed)
        self.link.mark(params.channel_id)

    def _carry(self) -> None:
        line = self.line
        for _ in range(self.rng.choice((0, 1, 1, 5))):
            if line is None or line.cut:
                break
            if line.out:
                self._serve(line, line.out.popleft())
            if line.back and self.rng.random() < 0.7:
                self.link.received(cast("Session", line), cast("TowerReceipt", line.back.popleft()))
        if line is not None and line.cut:
            self._cut()

    def _serve(self, line: Line, asked: object) -> None:
        match asked:
            case TowerState():
                self.tower.offer(NODE_ID, asked, line.back.append)
            case TowerForget():
                self.tower.forget(NODE_ID, asked.channel)
            case TowerInquiry():
                self.tower.standing(NODE_ID, asked.nonce, line.back.append)
            case TowerListRequest():
                self.tower.listed(NODE_ID, asked, line.back.append)
            case _:
                raise AssertionError(asked)

    def _cut(self) -> None:
        line, self.line = self.line, None
        if line is not None:
            self.link.session_ended(cast("Session", line), "cut")

    def _fault(self) -> None:
        what = self.rng.random()
        if what < 0.3:
            self._cut()
        elif what < 0.5:
            self.copies.append(self.disk.copy())
        elif what < 0.6 and self.able and self.disk.rows:
            # A slot goes while the session is up: found out when the tower is asked again.
            slot = self.rng.choice(list(self.tower.slots))
            self.tower._drop([slot])
            self.lapsed_ns = self.clock.now_ns
        else:
            self._cut()
            if what < 0.75:
                self.disk = Disk(self.rng.randbytes(32))
            elif what < 0.9 and self.copies:
                self.disk = self.rng.choice(self.copies).copy()
            self._start_tower()

    def _check(self) -> None:
        """What is not behind is held: at once after a session began, and within the time between two questions."""
        if self.link.lag().channels or self.clock.now_ns - self.lapsed_ns < 120 * SECOND:
            return
        for channel, (_, signed) in self.states.items():
            held = self.disk.held(NODE_ID, channel)
            if held is None or held.state.version < signed.state.version:
                raise Believed(f"0 behind, and the tower has {held} of {signed.state}")


def run(seed: int) -> Town:
    """Let everything go wrong, and then heal. Raises `Believed`, or `AssertionError` when it does not heal."""
    town = Town(seed)
    for _ in range(400):
        town.step(calm=False)
    for _ in range(3_000):
        town.step(calm=True)
        if town.line is not None and not town.link.lag().channels and town.clock.now_ns - town.lapsed_ns > 200 * SECOND:
            return town
    raise AssertionError(f"{town.link.lag()} behind after all is well: {town.link.problem}")
