"""What the backup file costs: at an opening, at the start, in the background. `python -m tests.bench_backup`."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from perund.recovery.backup import BackupFile, read_backup
from perund.recovery.saved import channel_part
from perund.store.jobs import insert_channel
from perund.store.schema import STORE_NAME
from perund.store.store import Store
from protocol.types import Nanos
from tests.unit.recovery.test_taking_up import CONFIG, KEYS, NETWORK, opened

__all__ = ["measure"]

CHANNELS: Final = (10, 1_000, 10_000)
OPENINGS: Final = 200


async def _measure(directory: Path, count: int) -> dict[str, float]:
    store = Store(directory / STORE_NAME, NETWORK, lambda error: None)
    for number in range(1, count + 1):
        store.commit(insert_channel(opened(number), number, NETWORK, Nanos(5), 600))
    await store.write(())
    file = BackupFile(directory, KEYS, NETWORK, CONFIG, store.read)
    began = time.perf_counter()
    file.write(1)
    written_s = time.perf_counter() - began
    parts = [channel_part(opened(n).terms, opened(n).signed.signatures, 5) for n in range(count + 1, count + OPENINGS)]
    appended, processor = [], time.process_time()
    for part in parts:
        began = time.perf_counter()
        file.append([part])
        appended.append(time.perf_counter() - began)
    processor_s = (time.process_time() - processor) / len(parts)
    began = time.perf_counter()
    found = read_backup(file.path, KEYS)
    read_s = time.perf_counter() - began
    assert len(found.channels) == count + len(parts)
    assert not found.faults
    size = file.path.stat().st_size
    store.close()
    return {
        "append_cpu_ms": processor_s * 1_000,
        "append_p50_ms": statistics.median(appended) * 1_000,
        "append_p99_ms": statistics.quantiles(appended, n=100)[98] * 1_000,
        "write_anew_ms": written_s * 1_000,
        "read_whole_ms": read_s * 1_000,
        "size_mb": size / 1e6,
    }


def measure() -> dict[int, dict[str, float]]:
    """Return the figures by how many channels there are."""
    found = {}
    for count in CHANNELS:
        with tempfile.TemporaryDirectory(prefix="perund-bench-") as name:
            found[count] = asyncio.run(_measure(Path(name), count))
    return found


if __name__ == "__main__":
    figures = measure()
    table = Table("channels", *next(iter(figures.values())), title="the backup file")
    for channels, row in figures.items():
        table.add_row(str(channels), *(f"{figure:.3g}" for figure in row.values()))
    Console().print(table)
