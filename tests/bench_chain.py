"""The Internet Computer side of `make bench`: certified reads and queries against a devnet in a process of its own.

The floor is one BLS verification, measured in the same run: no certified read can be had for less, and absolute
times on a shared machine mean little. The devnet signs each certificate on the same machine.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from chain import cbor
from chain.agent import Agent
from chain.certificate import MAINNET_ROOT_KEY, STATE_ROOT_DOMAIN, CertificateVerifier, key_of_der, verify_bls
from chain.hash_tree import parse_tree
from chain.identity import Anonymous
from chain.perun import PerunCanister
from chain.principal import principal_from_text
from perund.demo.processes import DevnetProcess
from protocol.types import ChannelId

__all__ = ["Figures", "measure", "show"]

Figures = dict[str, float]
"""Rates are per second, times in ms; `ratio_...` is a time over the floor."""

READS = 300
QUERIES = 600
IN_FLIGHT = 32
ROUNDS = 200
WARM_UP = 20
CHANNEL = ChannelId(bytes(64))
VECTORS = Path(__file__).parent / "vectors" / "ic-certificates.json"


async def measure(directory: Path) -> Figures:
    """Run everything and return the figures. `directory`: where the devnet keeps its log."""
    devnet = await DevnetProcess(directory).start()
    try:
        root_key, canister = bytes.fromhex(devnet.root_key), principal_from_text(devnet.perun_canister)
        async with Agent([devnet.url], root_key, Anonymous(), max_in_flight=IN_FLIGHT) as agent:
            perun = PerunCanister(agent, canister)
            figures = {
                "certified_reads_one_by_one": await rate(lambda: perun.query_state(CHANNEL), READS, 1),
                "certified_reads_in_flight": await rate(lambda: perun.query_state(CHANNEL), READS * 2, IN_FLIGHT),
                "queries_one_by_one": await rate(lambda: perun.hint_state(CHANNEL), QUERIES, 1),
                "queries_in_flight": await rate(lambda: perun.hint_state(CHANNEL), QUERIES * 2, IN_FLIGHT),
            }
    finally:
        await devnet.stop()
    figures |= verifications()
    floor = figures["floor_ms"]
    figures["ratio_certified_read"] = 1000 / figures["certified_reads_one_by_one"] / floor
    figures["ratio_certified_read_in_flight"] = 1000 / figures["certified_reads_in_flight"] / floor
    figures["ratio_verification"] = figures["verification_ms"] / floor
    return {name: round(value, 4) for name, value in figures.items()}


async def rate(request: Callable[[], Awaitable[object]], count: int, in_flight: int) -> float:
    """Return how many requests are answered per second, `in_flight` of them at a time."""
    left = count

    async def ask() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await request()

    for _ in range(WARM_UP):
        await request()
    start = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(in_flight)))
    return count / (time.perf_counter() - start)


def verifications() -> Figures:
    """Measure one BLS verification, and that of a certificate of the Internet Computer with a delegation.

    Cached: the delegation was seen before, as in all but a few certificates. Cold: it was not.
    """
    vectors = json.loads(VECTORS.read_text())["certificates"]
    vector = next(v for v in vectors if v["expected"] == "valid" and v["has_delegation"])
    encoded, canister = (
        bytes.fromhex(vector["certificate_cbor_hex"]),
        bytes.fromhex(vector["effective_canister_id_hex"]),
    )
    verifier = CertificateVerifier(MAINNET_ROOT_KEY)
    verifier.verify(encoded, canister)

    message, signature = signed_by_root(encoded)
    key = key_of_der(MAINNET_ROOT_KEY)
    assert verify_bls(key, message, signature)
    return {
        "floor_ms": median_ms(lambda: verify_bls(key, message, signature)),
        "verification_ms": median_ms(lambda: verifier.verify(encoded, canister)),
        "verification_cold_ms": median_ms(lambda: CertificateVerifier(MAINNET_ROOT_KEY).verify(encoded, canister)),
    }


def signed_by_root(encoded: bytes) -> tuple[bytes, bytes]:
    """Return what the root key signed in a certificate's delegation, and the signature."""
    match cbor.decode(encoded):
        case {"delegation": {"certificate": bytes(delegation)}}:
            match cbor.decode(delegation):
                case {"tree": tree, "signature": bytes(signature)}:
                    return STATE_ROOT_DOMAIN + parse_tree(tree).digest, signature
    raise AssertionError("the vector has no delegation")


def median_ms(action: Callable[[], object]) -> float:
    """Return the median time of an action."""
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        action()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1000


def show(figures: Figures) -> None:
    """Print the figures as a table."""
    table = Table(title="the Internet Computer side, against a devnet process")
    for column in ("what", "figure", "in BLS verifications"):
        table.add_column(column)
    table.add_row("floor: one BLS verification", f"{figures['floor_ms']:.2f} ms", "1")
    rows = (
        ("certified reads, one at a time", "certified_reads_one_by_one"),
        (f"certified reads, {IN_FLIGHT} in flight", "certified_reads_in_flight"),
        ("queries, one at a time", "queries_one_by_one"),
        (f"queries, {IN_FLIGHT} in flight", "queries_in_flight"),
    )
    for what, name in rows:
        table.add_row(what, f"{figures[name]:.0f} /s", f"{1000 / figures[name] / figures['floor_ms']:.1f}")
    for what, name in (
        ("one certificate, its delegation known", "verification_ms"),
        ("one certificate, its delegation new", "verification_cold_ms"),
    ):
        table.add_row(what, f"{figures[name]:.2f} ms", f"{figures[name] / figures['floor_ms']:.1f}")
    Console().print(table)


def main() -> None:
    """Run this part of the benchmark alone."""
    with tempfile.TemporaryDirectory(prefix="perund-bench-") as name:
        show(asyncio.run(measure(Path(name))))


if __name__ == "__main__":
    main()
