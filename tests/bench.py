"""`make bench`: payments between real daemons, as processes of their own, with durable stores.

The floor is measured in the same run, on the same disk, and stands beside what is measured: absolute times on
a shared machine mean little.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
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
from perund.node.payment_ids import PaymentIds
from perund.store.jobs import insert_channel
from perund.store.schema import migrate
from perund.store.statements import statements_of
from perund.store.store import connect
from protocol.effects import EventRecord, PeerHoldsRecord, Record, SignatureRecord, StateRecord, UpdateRecord
from protocol.messages import Update
from protocol.opening import Opened
from protocol.payments import EMPTY, Batch
from protocol.signing import ChannelKey, verify
from protocol.terms import Terms
from protocol.types import Nanos, Params, SignedState, State
from tests import bench_chain, bench_tower, bench_watch

ICP = 100_000_000
WARM_UP = 100
ROUNDS = 200


@dataclass(frozen=True)
class Floor:
    """What one payment cannot do without, in ms: each is the median of many."""

    sign_ms: float
    verify_ms: float
    update_ms: float
    """Participant 0 writes the update before it is sent."""
    state_ms: float
    """Participant 1 writes the fully signed state before it acknowledges."""
    agreed_ms: float
    """Participant 0 writes that state before it calls the payment delivered."""

    @property
    def payment_ms(self) -> float:
        """Both sides sign and verify once, and three durable writes follow each other."""
        return 2 * self.sign_ms + 2 * self.verify_ms + self.update_ms + self.state_ms + self.agreed_ms


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
    """Measure a payment's signatures, verifications and durable writes alone, in this process.

    The writes are those of the real machines, made by the real statements into a store like the nodes', one
    transaction after the other on one thread: nothing else of a payment is in the figure.
    """
    keys = ChannelKey(b"\x07" * 32), ChannelKey(b"\x08" * 32)
    params = Params(bytes(64), (keys[0].public, keys[1].public), Nanos(3_600 * 10**9))
    terms = Terms(bytes(32), b"\x02" * 33, 0, params, (10**12, 0), Nanos(10**18), bytes(32), bytes(32))
    state_0 = terms.state_0()
    opened = Opened(terms, SignedState(state_0, (keys[0].sign_state(state_0), keys[1].sign_state(state_0))), None)
    database = connect(directory / "floor.db")
    migrate(database)
    for statement in insert_channel(opened, 1, bytes(32), Nanos(1), 1):
        database.execute(statement.sql, statement.values)
    times: dict[str, list[float]] = {"update": [], "state": [], "agreed": []}
    events = itertools.count(1)

    def write(kind: str, *records: Record) -> None:
        statements = [s for r in records for s in statements_of(r, lambda _: 1, 1, lambda _: next(events))]
        start = time.perf_counter()
        database.execute("BEGIN IMMEDIATE")
        for statement in statements:
            database.execute(statement.sql, statement.values)
        database.execute("COMMIT")
        times[kind].append(time.perf_counter() - start)

    ids = PaymentIds()
    facts: dict[str, str | int | bool] = {"version": 1, "mine_e8s": "1", "theirs_e8s": "2", "sent": 1, "received": 0}
    for version in range(1, 400):
        state = State(terms.channel, version, (10**12 - version, version), finalized=False)
        signatures = keys[0].sign_state(state), keys[1].sign_state(state)
        batch = Batch(ids.make(1), (1,))
        signature = SignatureRecord(state.channel, version, state.digest, finalized=False)
        update = Update(state.channel, version, state.allocation, False, batch, EMPTY, signatures[0])
        signed, event = SignedState(state, signatures), EventRecord("channel.updated", state.channel, {**facts})
        write("update", signature, UpdateRecord(update))
        # Participant 1 inserts the same kind of row; its id differs, as it would in a store of its own.
        other = Batch(ids.make(1), (1,))
        write("state", signature, StateRecord(signed, other, EMPTY), event)
        write("agreed", StateRecord(signed, EMPTY, EMPTY), event, PeerHoldsRecord(state.channel, version))
    database.close()
    on_state_0 = keys[0].sign_state(state_0)
    return Floor(
        median_ms(timed(lambda: keys[0].sign_state(state_0))),
        median_ms(timed(lambda: verify(keys[0].public, state_0.encoded, on_state_0))),
        *(median_ms(times[kind]) for kind in ("update", "state", "agreed")),
    )


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
            "write_ms": round((floor.update_ms + floor.state_ms + floor.agreed_ms) / 3, 4),
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


def rest(directory: Path) -> dict[str, dict[str, float]]:
    """Measure the other parts: the agent against a devnet, the watcher, a watchtower."""
    return {
        "chain": asyncio.run(bench_chain.measure(directory)),
        **{f"watch_{name}": figures for name, figures in bench_watch.measure().items()},
        "tower": bench_tower.measure(),
    }


def is_figures(path: Path) -> bool:
    """Whether nothing is written over: there is no such file, or it is one of ours."""
    if not path.exists():
        return not path.is_symlink()
    try:
        found = json.loads(path.read_text()) if path.is_file() else None
    except ValueError:
        return False
    return isinstance(found, dict) and "single" in found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--single", type=int, default=1_000)
    parser.add_argument("--stream", type=int, default=50_000)
    parser.add_argument("--lists", type=int, default=60)
    parser.add_argument("--length", type=int, default=10_000)
    parser.add_argument("--payments-only", action="store_true", help="leave out the agent, the watcher and the tower")
    options = parser.parse_args()
    if options.json is not None and not is_figures(options.json):
        parser.error(f"--json {options.json}: the file there has no figures of a benchmark; nothing is overwritten")
    figures = asyncio.run(bench(options))
    show(figures)
    if not options.payments_only:
        with tempfile.TemporaryDirectory(prefix="perund-bench-") as name:
            others = rest(Path(name))
        for title, parts in others.items():
            table = Table("what", "figure", title=title.replace("_", " "))
            for what, figure in parts.items():
                table.add_row(what.replace("_", " "), f"{figure:.6g}")
            Console().print(table)
        figures |= others
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
