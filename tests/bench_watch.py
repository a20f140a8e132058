"""What watching costs, and how fast it is: the cost of an interval, and the time to a certified refutation."""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from chain.perun import CanisterError
from perund.control import schema
from perund.control.methods import CHANNEL_OPEN, CHANNEL_PAY
from perund.control.values import E8s, PaidE8s, Seconds
from perund.demo.processes import NodeProcess
from perund.node.daemon import STORE_NAME
from perund.store.reading import Reader, open_reader
from perund.store.rows import ChannelRow
from protocol.types import ChannelId, Nanos, RegisteredState
from tests.unit.devnet.scene import START_NS
from tests.unit.watcher.shore import SECOND, Shore, in_no_time
from watcher.ports import CertifiedLook, CertifiedPage, LogEntry
from watcher.watch import Watcher

__all__ = ["CrowdedShore", "Interval", "cost_of_interval", "measure"]

ICP: Final = 100_000_000
LOOK_AGAIN_S: Final = 0.01
CHALLENGE_S: Final = 60
INTERVAL_S: Final = 10
CROWDS: Final = (10, 1_000, 100_000)
REFUTATIONS: Final = 10


@dataclass(frozen=True)
class Interval:
    """What one interval of a watcher costs. `busy_s`: processor time; calls by kind."""

    channels: int
    busy_s: float
    pages: float
    looks: float
    hints: float
    start_s: float
    """Processor time until every channel was covered by a look."""
    memory_bytes: int
    """For each channel."""


class CrowdedShore(Shore):
    """A canister with nothing registered, and very many quiet channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.look_times: list[float] = []
        self.pages = self.looks = self.hints = 0
        self.ids = [ChannelId(hashlib.sha512(number.to_bytes(8, "big")).digest()) for number in range(channels)]

    async def look(self, channel: ChannelId) -> CertifiedLook:
        asked_ns = self.monotonic_ns()
        self.looks += 1
        self.look_times.append(self.now_s())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0.01)
        self.in_flight -= 1
        return CertifiedLook(None, asked_ns, Nanos(START_NS + asked_ns))

    async def page(self, cursor: int, limit: int) -> CertifiedPage:
        asked_ns = self.monotonic_ns()
        self.pages += 1
        await asyncio.sleep(0.01)
        return CertifiedPage((), 0, asked_ns, Nanos(START_NS + asked_ns))

    async def hint_page(self, cursor: int, limit: int) -> tuple[LogEntry, ...]:
        self.hints += 1
        return ()

    async def hint(self, channel: ChannelId) -> RegisteredState | None:
        self.hints += 1
        return None

    def looked(self, channel: ChannelId, look: CertifiedLook) -> None:
        pass

    def chain_ns(self) -> int:
        return START_NS + self.monotonic_ns()

    def crowd_watcher(self, *, by_log: bool = True) -> Watcher:
        """A watcher of them all."""
        watcher = Watcher(
            self, self, self, self, disputes=self if by_log else None, hints=self, hint_every_s=2, notices=self
        )
        for channel in self.ids:
            watcher.watch(channel, Nanos(CHALLENGE_S * SECOND))
        return watcher


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def cost_of_interval(channels: int, intervals: int = 20) -> Interval:
    """Measure a watcher of so many quiet channels, by the log, over some intervals of virtual time."""
    found: list[Interval] = []

    @in_no_time
    async def life() -> None:
        shore = CrowdedShore(channels)
        before = _resident_bytes()
        began = time.process_time()
        watcher = shore.crowd_watcher()
        run = asyncio.ensure_future(watcher.run())
        await asyncio.sleep(INTERVAL_S * 1.5)
        start_s = time.process_time() - began
        memory = max(0, _resident_bytes() - before) // channels
        pages, looks, hints = shore.pages, shore.looks, shore.hints
        began = time.process_time()
        await asyncio.sleep(intervals * INTERVAL_S)
        busy_s = time.process_time() - began
        found.append(
            Interval(
                channels,
                busy_s / intervals,
                (shore.pages - pages) // intervals,
                (shore.looks - looks) / intervals,
                (shore.hints - hints) // intervals,
                start_s,
                memory,
            )
        )
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)

    life()
    return found[0]


async def _time_to_refute(directory: Path) -> list[float]:
    """Register an old state again and again, each in a channel of its own; return seconds until a look shows ours."""
    from tests.e2e.town import Town

    cabinet = directory / "cabinet"
    cabinet.mkdir()
    town = await Town(directory, cabinet).found()
    try:
        alice, bob = await town.pair()
        reader = open_reader(alice.dir / STORE_NAME)
        stale = [await _open_and_pay(alice, bob, reader) for _ in range(REFUTATIONS)]
        await alice.kill()
        times: list[float] = []
        for row in stale:
            began = time.perf_counter()
            answer = (await town.perun.dispute(row.terms.params, row.memory.newest)).value
            assert answer is None or answer is CanisterError.OUTDATED_STATE
            while not await town.registered_version(row.terms.channel.hex()):  # noqa: ASYNC110  (it tells nobody)
                await asyncio.sleep(LOOK_AGAIN_S)
            times.append(time.perf_counter() - began)
        return times
    finally:
        await town.leave()


async def _open_and_pay(alice: NodeProcess, bob: NodeProcess, reader: Reader) -> ChannelRow:
    params = schema.ChannelOpenParams(
        peer=bob.address, mine_e8s=E8s(ICP), theirs_e8s=E8s(0), challenge_s=Seconds(3_600)
    )
    channel = (await alice.control.call(CHANNEL_OPEN, params)).channel
    number = reader.channel_number(bytes.fromhex(channel))
    assert number is not None
    row = reader.channel(number)
    assert row is not None
    await alice.control.call(CHANNEL_PAY, schema.PayParams(channel=channel, amount_e8s=PaidE8s(1_000)))
    return row


def measure() -> dict[str, dict[str, float]]:
    """Return the figures: seconds from registration to certified refutation, and what an interval costs."""
    with tempfile.TemporaryDirectory(prefix="perund-bench-") as name:
        times = sorted(asyncio.run(_time_to_refute(Path(name))))
    figures = {
        "refutation": {
            "median_s": round(times[len(times) // 2], 3),
            "slowest_s": round(times[-1], 3),
            "hint_every_s": 2.0,
        }
    }
    for channels in CROWDS:
        cost = asdict(cost_of_interval(channels))
        figures[f"interval_of_{channels}"] = {key: round(float(value), 6) for key, value in cost.items()}
    return figures


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
