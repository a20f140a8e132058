"""How many states a watchtower takes each second, durably, and what a slot costs: `python -m tests.bench_tower`."""

from __future__ import annotations

import asyncio
import gc
import json
import tempfile
import time
from pathlib import Path
from typing import Final

from perund.store.errors import StorageFailed
from perund.tower.books import TowerBooks
from protocol.messages import TowerReceipt, TowerRefusal, TowerState
from protocol.signing import ChannelKey
from protocol.types import ChannelId, Nanos, Params, State
from tests.unit.tower.scene import NETWORK, TOWER_KEY
from watcher.tower.policy import TowerPolicy
from watcher.tower.receipts import Notary
from watcher.tower.tower import Tower

__all__ = ["measure"]

KEYS: Final = (ChannelKey(b"\x01" * 32), ChannelKey(b"\x02" * 32))
CLIENT: Final = b"\x02" + b"\x44" * 32
CHALLENGE: Final = Nanos(3600 * 10**9)
IN_FLIGHT: Final = 256
"""States that clients have on their way at one moment: they share commits."""


class _Now:
    """The time, certified."""

    certified = True

    def chain_ns(self) -> Nanos:
        return Nanos(time.time_ns())

    def elapsed_ns(self) -> int:
        return time.monotonic_ns()


class _Watched:
    """Counts what a watcher would watch: its own memory is measured with the watcher."""

    def __init__(self) -> None:
        self.channels: set[ChannelId] = set()

    def watch(self, channel: ChannelId, challenge_ns: Nanos) -> None:
        self.channels.add(channel)

    def unwatch(self, channel: ChannelId) -> None:
        self.channels.discard(channel)

    def hurry(self, channel: ChannelId) -> None: ...


def _state(number: int, version: int) -> TowerState:
    params = Params(number.to_bytes(64, "big"), (KEYS[0].public, KEYS[1].public), CHALLENGE)
    state = State(params.channel_id, version, (10**9 - version, version), finalized=False)
    signatures = (KEYS[0].sign_state(state), KEYS[1].sign_state(state))
    return TowerState(
        params.nonce,
        *params.participants,
        CHALLENGE,
        version,
        state.allocation,
        False,
        *signatures,
    )


async def _bring(tower: Tower, states: list[TowerState]) -> float:
    """Return the seconds until every state has its receipt. Clients wait for theirs; `IN_FLIGHT` are under way."""
    loop = asyncio.get_running_loop()
    waiting = iter(states)
    left = len(states)
    done = loop.create_future()

    def bring_next() -> None:
        state = next(waiting, None)
        if state is not None:
            tower.offer(CLIENT, state, answered)

    def answered(answer: TowerReceipt | TowerRefusal) -> None:
        nonlocal left
        assert isinstance(answer, TowerReceipt), answer
        left -= 1
        if left == 0:
            done.set_result(None)
        loop.call_soon(bring_next)

    began_s = time.perf_counter()
    for _ in range(IN_FLIGHT):
        bring_next()
    await done
    return time.perf_counter() - began_s


def _memory() -> int:
    """Return the bytes that this process has in memory. Linux only."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def _disk(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.iterdir())


async def _measure(channels: int, rounds: int, directory: Path) -> dict[str, float]:
    failures: list[StorageFailed] = []
    books = TowerBooks(directory / "tower.db", NETWORK, failures.append)
    try:
        policy = TowerPolicy(max_channels=10**7, max_channels_per_client=10**7, max_unfunded_per_client=10**7)
        tower = Tower(policy, books, Notary(TOWER_KEY, NETWORK), _Now())
        tower.start(_Watched(), lambda guarded: tower.proved(guarded.channel))
        await _bring(tower, [_state(0, 0)])  # the client shows money: it is a stranger no more
        first = [_state(number, 0) for number in range(1, channels + 1)]
        before = _memory()
        opened_s = await _bring(tower, first)
        grown = _memory() - before
        updates = [_state(number, version) for version in range(1, rounds + 1) for number in range(1, channels + 1)]
        one = [_state(0, version) for version in range(1, 201)]
        updated_s = await _bring(tower, updates)
        began_s = time.perf_counter()
        for state in one:
            await _bring(tower, [state])
        alone_s = time.perf_counter() - began_s
        assert tower.slots.total == channels + 1
        assert not failures
        disk = _disk(directory)
    finally:
        books.close()
    return {
        "new_channels_per_second": round(channels / opened_s),
        "states_per_second": round(len(updates) / updated_s),
        "one_at_a_time_ms": round(alone_s / len(one) * 1000, 3),
        "memory_per_slot_bytes": round(grown / channels),
        "disk_per_slot_bytes": round(disk / (channels + 1)),
    }


def measure(channels: int = 5_000, rounds: int = 2) -> dict[str, float]:
    """Bring `channels` channels to a tower, then `rounds` newer states for each of them, and return the figures.

    Verified, durable and with a signed receipt each; without the wire. Memory is that of the slots and of what
    Python keeps around them.
    """
    with tempfile.TemporaryDirectory(prefix="perund-bench-tower-") as name:
        return asyncio.run(_measure(channels, rounds, Path(name)))


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
