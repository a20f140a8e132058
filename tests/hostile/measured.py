"""What a flood costs whoever has money here: the latency of honest payments, log, disk, memory, and the way to stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from perund.control import schema
from perund.control.methods import CHANNEL_OPEN, CHANNEL_PAY
from perund.control.values import E8s, PaidE8s, Seconds
from perund.demo.processes import NodeProcess
from perund.node.daemon import STORE_NAME
from tests.e2e.town import ICP, Town, within

__all__ = ["ALLOWANCE_MS", "RATIO", "Cost", "Flooded", "Used", "attacked", "used"]

RATIO: Final = 3.0
ALLOWANCE_MS: Final = 25.0
"""An honest payment under a flood may take as long without a question of ratios: the attackers, two nodes and an
Internet Computer share two processors here with whatever else runs on the machine.
"""


@dataclass(frozen=True)
class Used:
    """What a node has taken so far, in bytes."""

    log: int
    disk: int
    memory: int

    def since(self, before: Used) -> Used:
        return Used(self.log - before.log, self.disk - before.disk, self.memory - before.memory)


def used(node: NodeProcess) -> Used:
    """Measure a process and its files."""
    files = (node.dir / STORE_NAME, node.dir / f"{STORE_NAME}-wal")
    status = Path(f"/proc/{node.pid}/status").read_text().splitlines()
    memory = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))
    return Used(node.log.stat().st_size, sum(f.stat().st_size for f in files if f.exists()), memory)


@dataclass(frozen=True)
class Cost:
    """What a flood did. Times in ms, sizes in bytes."""

    kind: str
    before_ms: float
    under_ms: float
    used: Used
    sent: int

    def __str__(self) -> str:
        return (
            f"{self.kind}: p50 {self.before_ms:.1f} -> {self.under_ms:.1f} ms "
            f"({self.under_ms / self.before_ms:.1f} x), "
            f"log {self.used.log / 1000:.0f} kB, disk {self.used.disk / 1e6:.1f} MB, "
            f"memory {self.used.memory / 1e6:.1f} MB; {self.sent} messages sent"
        )

    @property
    def in_time(self) -> bool:
        """Whether honest payments took at most three times as long as before, in the same run."""
        return self.under_ms <= max(RATIO * self.before_ms, ALLOWANCE_MS)


class Flooded:
    """Bob's node, which is attacked; alice's, with an honest channel in which both have money."""

    town: Town
    alice: NodeProcess
    bob: NodeProcess
    channel: str

    async def settle_in(self, town: Town) -> Flooded:
        """Make both, and their channel."""
        self.town = town
        self.alice, self.bob = await town.pair(contributes=10)
        self.channel = await town.open(self.alice, self.bob, 100, challenge_s=3_600)
        await self.latency_ms(1.0)
        return self

    async def latency_ms(self, seconds: float) -> float:
        """Pay from alice to bob, one after the other; return the median in ms."""
        params = schema.PayParams(channel=self.channel, amount_e8s=PaidE8s(1))
        took: list[float] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end or len(took) < 5:
            start = time.perf_counter()
            await within(self.alice.control.call(CHANNEL_PAY, params), "an honest payment")
            took.append(time.perf_counter() - start)
        return statistics.median(took) * 1000

    async def measure(
        self, kind: str, seconds: float, *, pays: int = 0, prepare: Callable[[], Awaitable[None]] | None = None
    ) -> Cost:
        """Have bob attacked for so long. `pays`: what bob pays the attacker first, in e8s."""
        before_ms = await self.latency_ms(seconds / 2)
        async with attacked(self.town, self.bob, kind, pays=pays) as attack:
            if prepare is not None:
                await prepare()
            start = used(self.bob)
            await asyncio.sleep(0.3)
            under_ms = await self.latency_ms(seconds)
            spent = used(self.bob).since(start)
        return Cost(kind, before_ms, under_ms, spent, attack.sent)

    async def stop_s(self) -> float:
        """Stop bob, and return how long it took. It must end well."""
        start = time.monotonic()
        assert await self.bob.stop() == 0, self.bob.log.read_text()[-2_000:]
        return time.monotonic() - start


class _Attack:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.sent = 0


@contextlib.asynccontextmanager
async def attacked(
    town: Town, node: NodeProcess, kind: str, *, pays: int = 0, network: str | None = None
) -> AsyncIterator[_Attack]:
    """Run attackers of a kind against a node until the block is left.

    `pays`: what they get from the node first, in e8s; `network`: its network hash in hex, if it is a tower.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.hostile.attacker", kind,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    attack = _Attack(process)
    facts = {
        "address": node.address,
        "network": network or node.info.network_hash,
        "url": town.devnet.url,
        "root_key": town.devnet.root_key,
        "perun_canister": town.devnet.perun_canister,
        "icp_ledger": town.devnet.icp_ledger,
    }
    try:
        process.stdin.write(json.dumps(facts).encode() + b"\n")
        opening: asyncio.Task[None] | None = None
        while True:
            told = json.loads(await within(process.stdout.readline(), f"the attackers of kind {kind}"))
            if "node_id" in told:
                opening = asyncio.ensure_future(_open(node, told["node_id"], pays))
            if told.get("ready"):
                break
        yield attack
        process.stdin.close()
        told = await within(process.stdout.readline(), f"the count of {kind}")
        assert told or node.returncode is not None, f"the attackers of kind {kind} ended too early"
        attack.sent = json.loads(told)["sent"] if told else 0  # a node that stops takes its attackers along
        if opening is not None:
            opening.cancel()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()


async def _open(node: NodeProcess, peer: str, pays: int) -> None:
    params = schema.ChannelOpenParams(
        peer=peer, mine_e8s=E8s(5 * ICP), theirs_e8s=E8s(0), challenge_s=Seconds(3_600), wait=True
    )
    opened = await node.control.call(CHANNEL_OPEN, params)
    if pays:
        await node.control.call(CHANNEL_PAY, schema.PayParams(channel=opened.channel, amount_e8s=PaidE8s(pays)))
        # One more stays outstanding: an attacker that acknowledges nothing more has the rest wait.
        await node.control.call(
            CHANNEL_PAY, schema.PayParams(channel=opened.channel, amount_e8s=PaidE8s(1), wait=False)
        )
