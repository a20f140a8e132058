"""How a job goes on: at once while it gets somewhere, later and later while it waits, now when it is hurried."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace
from typing import cast

import pytest

from perund.node.driver import ChannelDriver
from perund.node.job import FIRST_WAIT_S, LAST_WAIT_S, ChannelJob, Progress
from perund.store.errors import StorageFailed
from protocol.errors import PerundError
from tests.unit.watcher.shore import in_no_time

DRIVER = cast("ChannelDriver", SimpleNamespace(short="0123456789abcdef"))


class Job(ChannelJob):
    """Does what the test says, step by step; when nothing is left it is not needed."""

    def __init__(self, *script: Progress | Exception) -> None:
        super().__init__(DRIVER, "test")
        self.script = list(script)
        self.at_s: list[float] = []
        self.problems: list[str] = []

    @property
    def needed(self) -> bool:
        return bool(self.script)

    async def step(self) -> Progress:
        self.at_s.append(asyncio.get_running_loop().time())
        self.problems.append(self.problem)
        now = self.script.pop(0)
        if isinstance(now, Exception):
            raise now
        return now

    @property
    def gaps(self) -> list[float]:
        return [round(later - earlier, 2) for earlier, later in itertools.pairwise(self.at_s)]


@in_no_time
async def test_it_goes_on_at_once_while_it_gets_somewhere() -> None:
    job = Job(*[Progress.again()] * 5)
    await job.run()
    assert job.gaps == [0, 0, 0, 0]


@in_no_time
async def test_it_waits_longer_and_longer_for_the_same_thing_and_starts_afresh_for_another() -> None:
    job = Job(*[Progress.wait("the peer")] * 12, *[Progress.wait("the ledger")] * 2, Progress.again())
    await job.run()
    assert job.gaps[0] == FIRST_WAIT_S
    assert job.gaps[:11] == sorted(job.gaps[:11])
    assert max(job.gaps) == LAST_WAIT_S
    assert job.gaps[12] == FIRST_WAIT_S
    assert job.waiting_for == ""


@in_no_time
async def test_it_never_sleeps_over_the_moment_that_it_waits_for() -> None:
    job = Job(*[Progress.wait("the challenge period", 0.5)] * 20)
    await job.run()
    assert max(job.gaps) == 0.5


@in_no_time
async def test_a_failure_is_shown_and_tried_again() -> None:
    job = Job(PerundError("no answer"), PerundError("no answer"), Progress.again(), Progress.again())
    await job.run()
    assert job.problems == ["", "no answer", "no answer", ""]
    assert job.gaps[0] == FIRST_WAIT_S
    assert job.gaps[1] > FIRST_WAIT_S
    assert job.problem == ""


@in_no_time
async def test_hurry_takes_the_next_step_now() -> None:
    job = Job(*[Progress.wait("the peer")] * 12, Progress.again())
    run = asyncio.ensure_future(job.run())
    await asyncio.sleep(40)  # it naps for ten seconds by now
    steps = len(job.at_s)
    job.hurry()
    await asyncio.sleep(0.01)
    assert len(job.at_s) == steps + 1
    await asyncio.sleep(FIRST_WAIT_S)
    assert len(job.at_s) == steps + 2
    await run


@in_no_time
async def test_a_failed_write_ends_it() -> None:
    job = Job(StorageFailed("the disk"), Progress.again())
    with pytest.raises(StorageFailed):
        await job.run()
    assert len(job.at_s) == 1


@in_no_time
async def test_what_a_person_must_know_of_stays_known_on_the_way_to_the_next_refusal() -> None:
    stuck = Progress.stuck("no money")
    job = Job(stuck, Progress.again(), stuck, Progress.again(), Progress.wait("the ledger"), Progress.again())
    await job.run()
    assert job.problems == ["", "no money", "no money", "no money", "no money", ""]
    assert job.problem == ""


@in_no_time
async def test_a_problem_knows_since_when_it_is_there() -> None:
    job = Job(Progress.stuck("no money"), Progress.stuck("still no money"), Progress.wait("the ledger"))
    job.problem = "the first"
    first = job.problem_since_ns
    job.problem = "the second"
    assert job.problem_since_ns == first > 0
    job.problem = ""
    job.problem = "the third"
    assert job.problem_since_ns > first
    await job.run()
