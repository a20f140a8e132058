"""`perund demo`: both acts, and what it says when something stops it."""

import asyncio
import contextlib
import re
import signal
import subprocess

from tests.e2e.shell import executable, perund
from tests.e2e.town import within


async def test_both_acts() -> None:
    ran = await perund("demo")

    assert ran.code == 0, ran
    act_one, _, act_two = ran.out.partition("# Act two")
    expected = [
        r"Querying deposit channel: 0x[0-9a-f]{8}… for peer IDx: 0, now: 0 ICP",
        r"Querying deposit channel: 0x[0-9a-f]{8}… for peer IDx: 1, now: 0 ICP",
        r"Depositing +channel: 0x[0-9a-f]{8}… for peer IDx: 0, add: 242 ICP",
        r"Depositing +channel: 0x[0-9a-f]{8}… for peer IDx: 1, add: 194 ICP",
        r"Querying deposit channel: 0x[0-9a-f]{8}… for peer IDx: 0, now: 242 ICP",
        r"Querying deposit channel: 0x[0-9a-f]{8}… for peer IDx: 1, now: 194 ICP",
        r"100 payments in \d+ updates",
        r"Concluding +channel: 0x[0-9a-f]{8}…",
        r"Withdrawing +channel: 0x[0-9a-f]{8}… for peer IDx: [01]",
        r"Withdrawing +channel: 0x[0-9a-f]{8}… for peer IDx: [01]",
        r"Querying deposit channel: 0x[0-9a-f]{8}… for peer IDx: 0, now: 0 ICP",
        r"Querying deposit channel: 0x[0-9a-f]{8}… for peer IDx: 1, now: 0 ICP",
        r"alice: wallet 300 ICP - deposit 242 ICP \+ share ",
        r"    - deposit fee 0.0001 ICP",
        r"    = ([\d.]+) ICP; the ledger says \1 ICP",
        r"bob: wallet 300 ICP - deposit 194 ICP \+ share ",
    ]
    position = 0
    for pattern in expected:
        found = re.compile(pattern).search(act_one, position)
        assert found is not None, f"{pattern!r} does not follow; act one:\n{act_one}"
        position = found.end()
    assert re.search(r"Disputing +channel: .* with the old version (\d+)", act_two)
    assert re.search(r"Refuted +channel: .* now registered: version (\d+)", act_two)
    assert ran.out.rstrip().endswith("Both acts ended as they should.")


async def test_a_devnet_that_dies_in_between() -> None:
    process = await asyncio.create_subprocess_exec(
        executable("perund"), "demo", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        first = (await within(process.stdout.readline(), "the first line", 30)).decode()
        found = re.search(r"\(process (\d+)\)", first)
        assert found is not None, first
        with contextlib.suppress(ProcessLookupError):
            _kill_the_devnet_of(process.pid, int(found[1]))

        out, err = await within(process.communicate(), "the demo giving up", 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 1
    assert "The demo failed: " in out.decode()
    assert "Traceback" not in err.decode(), err.decode()
    assert "Both acts" not in out.decode()


def _kill_the_devnet_of(demo: int, devnet: int) -> None:
    """Kill the process that the demo named, after checking that it is the demo's child."""
    import os
    from pathlib import Path

    status = Path(f"/proc/{devnet}/status").read_text()
    assert f"PPid:\t{demo}\n" in status
    os.kill(devnet, signal.SIGKILL)
