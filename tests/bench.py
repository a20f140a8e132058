"""`make bench`: payments between real daemons, as processes of their own, with durable stores.

The floor is measured in the same run, on the same disk, and stands beside what is measured: absolute times on
a shared machine mean little.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from perund.control import schema
from perund.control.methods import CHANNEL_OPEN, CHANNEL_PAY
from perund.control.values import E8s, PaidColumn, PaidE8s, Seconds
from perund.demo.processes import DevnetProcess, NodeProcess
from perund.store.store import connect
from protocol.signing import ChannelKey, verify
from protocol.types import ChannelId, State

ICP = 100_000_000
WARM_UP = 100
ROUNDS = 200


@dataclass(frozen=True)
class Floor:
    """What one payment cannot do without, in ms: each is the median of many."""

    sign_ms: float
    verify_ms: float
    write_ms: float

    @property
    def payment_ms(self) -> float:
        """Both sides sign and verify once. Three durable writes follow each other: the update before it is
        sent, the fully signed state before it is acknowledged, and that state before it is called delivered.
        """
        return 2 * self.sign_ms + 2 * self.verify_ms + 3 * self.write_ms


def median_ms(work: list[float]) -> float:
    """Return the median of seconds, in ms."""
    return statistics.median(work) * 1000


def timed(action: object, rounds: int = ROUNDS) -> list[float]:
    """Return how long each call took, in seconds."""
    assert callable(action)
    out = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        out.append(time.perf_counter() - start)
    return out


def measure_floor(directory: Path) -> Floor:
    """Measure signatures, verifications and durable writes alone, in this process."""
    key, state = ChannelKey(b"\x07" * 32), State(ChannelId(b"\x08" * 64), 7, (5, 6), finalized=False)
    signature = key.sign_state(state)
    database = connect(directory / "floor.db")
    database.execute("CREATE TABLE state(id INTEGER PRIMARY KEY, version INTEGER, signature BLOB)")
    database.execute("INSERT INTO state VALUES (1, 0, ?)", (signature,))
    version = 0

    def write() -> None:
        nonlocal version
        version += 1
        with database:
            database.execute("UPDATE state SET version = ?, signature = ? WHERE id = 1", (version, signature))

    floor = Floor(
        median_ms(timed(lambda: key.sign_state(state))),
        median_ms(timed(lambda: verify(key.public, state.encoded, signature))),
        median_ms(timed(write, 500)),
    )
    database.close()
    return floor


async def single(alice: NodeProcess, channel: str, count: int) -> list[float]:
    """Pay one at a time on an idle channel; return each latency in seconds, as the caller sees it."""
    params = schema.PayParams(channel=channel, amount_e8s=PaidE8s(1))
    latencies = []
    for number in range(WARM_UP + count):
        start = time.perf_counter()
        await alice.control.call(CHANNEL_PAY, params)
        if number >= WARM_UP:
            latencies.append(time.perf_counter() - start)
    return latencies


async def stream(alice: NodeProcess, channel: str, count: int) -> float:
    """Pipeline payments, a call each, and return how many per second were delivered."""
    await alice.control.pay_many(channel, [1] * 2_000)
    start = time.perf_counter()
    answers = await alice.control.pay_many(channel, [1] * count, window=4_000)
    elapsed = time.perf_counter() - start
    failed = [a for a in answers if not isinstance(a, schema.PayResult) or a.status != "delivered"]
    assert not failed, failed[:3]
    return count / elapsed


async def lists(alice: NodeProcess, channel: str, calls: int, length: int, flight: int) -> float:
    """Hand payments over in lists, `flight` of them at a time, and return payments per second."""
    params = schema.PayParams(channel=channel, amounts_e8s=PaidColumn([1] * length))
    slots = asyncio.Semaphore(flight)

    async def one() -> None:
        async with slots:
            answer = await alice.control.call(CHANNEL_PAY, params)
            assert answer.status == "delivered", answer

    await one()
    start = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(calls)))
    return calls * length / (time.perf_counter() - start)


async def bench(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Run everything and return the figures."""
    with tempfile.TemporaryDirectory(prefix="perund-bench-") as name:
        directory = Path(name)
        devnet = await DevnetProcess(directory).start()
        alice = await (await NodeProcess(directory, "alice").init(devnet)).start()
        bob = await (await NodeProcess(directory, "bob").init(devnet)).start()
        try:
            await devnet.mint(alice.info.account, 1_000 * ICP)
            opened = await alice.control.call(
                CHANNEL_OPEN,
                schema.ChannelOpenParams(
                    peer=bob.address, mine_e8s=E8s(100 * ICP), theirs_e8s=E8s(0), challenge_s=Seconds(3_600)
                ),
            )
            floor = measure_floor(directory)
            latencies = sorted(await single(alice, opened.channel, options.single))
            streamed = await stream(alice, opened.channel, options.stream)
            listed = await lists(alice, opened.channel, options.lists, options.length, 4)
        finally:
            for process in (alice, bob, devnet):
                await process.stop()
    p50 = statistics.median(latencies) * 1000
    return {
        "single": {
            "p50_ms": round(p50, 3),
            "p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1000, 3),
            "floor_ms": round(floor.payment_ms, 3),
            "ratio": round(p50 / floor.payment_ms, 2),
            "per_second": round(len(latencies) / sum(latencies), 1),
            "sign_ms": round(floor.sign_ms, 4),
            "verify_ms": round(floor.verify_ms, 4),
            "write_ms": round(floor.write_ms, 4),
        },
        "stream": {"per_second": round(streamed)},
        "lists": {"per_second": round(listed)},
    }


def show(figures: dict[str, dict[str, float]]) -> None:
    """Print the figures as a table."""
    one = figures["single"]
    table = Table(title="payments between two daemons, durable on both sides")
    for column in ("what", "figure", "target"):
        table.add_column(column)
    table.add_row("one at a time, p50", f"{one['p50_ms']:.2f} ms", f"{2 * one['floor_ms']:.2f} ms")
    table.add_row("one at a time, p99", f"{one['p99_ms']:.2f} ms", "")
    table.add_row("floor: 2 signatures, 2 verifications, 3 writes", f"{one['floor_ms']:.2f} ms", "")
    table.add_row("p50 / floor", f"{one['ratio']:.2f}", "2.00")
    table.add_row("one at a time", f"{one['per_second']:.0f} /s", "")
    table.add_row("pipelined through one channel", f"{figures['stream']['per_second']:.0f} /s", "10000 /s")
    table.add_row("handed over in lists", f"{figures['lists']['per_second']:.0f} /s", "100000 /s")
    Console().print(table)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--single", type=int, default=1_000)
    parser.add_argument("--stream", type=int, default=50_000)
    parser.add_argument("--lists", type=int, default=60)
    parser.add_argument("--length", type=int, default=10_000)
    options = parser.parse_args()
    figures = asyncio.run(bench(options))
    show(figures)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
