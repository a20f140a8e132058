"""A node that is told to stop stops, also when its jobs wake at that very moment."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.adversarial.house import ICP, House
from tests.adversarial.inhabitant import Inhabitant


async def test_a_job_that_is_woken_while_it_is_stopped_ends_all_the_same(house: House, tmp_path: Path) -> None:
    alice = Inhabitant(house, tmp_path / "alice").start()
    house.mint(alice.wallet, 20 * ICP)
    alice.agree(theirs=0)
    driver = alice.driver
    await alice.until(lambda: driver.channel.we_are_ready, "our look at the deposit")
    job, _ = alice.node.jobs[driver.channel.id].of()
    await alice.until(lambda: job.waiting_for, "a job that sleeps")
    await asyncio.sleep(0)
    job.hurry()
    async with asyncio.timeout(5):
        await alice.stop()
