"""What a peer's talk leads to is bounded: events, proposals that wait, work that is not on the disk, a slow stop."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from typing import cast

import pytest

from chain.errors import Unreachable
from perund.node.backlog import MOST_UNWRITTEN, Backlog
from perund.node.effort import effort_of
from perund.node.noise import Noise
from perund.node.proposals import MOST_OF_ONE, MOST_WAITING, Proposals
from perund.stopping import bounded
from perund.store.store import Store
from protocol.effects import NOTHING, EventRecord, PaymentsEndedRecord, PhaseRecord, Record, Send, Step
from protocol.messages import ChannelProposal, ChannelReject, Confirm, Decline, Message, Offer, Update
from protocol.payments import EMPTY, Batch
from protocol.types import ChannelId, Nanos, ParticipantKey
from wire.session import Session

CHANNEL = ChannelId(bytes(64))
S = 1_000_000_000


class Line:
    """A session, as far as it matters here."""

    def __init__(self, peer: bytes = b"\x02" * 33) -> None:
        self.peer = peer
        self.sent: list[Message] = []
        self.held = False

    def send(self, message: Message) -> None:
        self.sent.append(message)

    def hold(self) -> None:
        self.held = True

    def release(self) -> None:
        self.held = False


# --- events ---------------------------------------------------------------------------------------------------


def claim(version: int) -> Step:
    facts: dict[str, str | int | bool] = {"claimed": version, "alarm": True}
    return Step((EventRecord("channel.peer_claims_newer", CHANNEL, facts),), (Send(Confirm(CHANNEL, 1)),))


def test_a_peer_that_claims_again_and_again_rings_a_few_times_a_day() -> None:
    noise = Noise()
    told: list[Record] = []
    for second in range(0, 86_400, 5):
        step = noise.quiet(claim(second), second * S)
        assert len(step.outgoing) == 1, "only the event is left out"
        told += step.durable
    assert 5 <= len(told) <= 17
    counts = [int(str(event.data.get("repeated", 0))) for event in told if isinstance(event, EventRecord)]
    assert sum(counts) > 9_000


def test_each_kind_and_channel_is_counted_by_itself() -> None:
    noise = Noise()
    for _ in range(50):
        noise.quiet(claim(1), 0)
    other = EventRecord("channel.peer_claims_newer", ChannelId(b"\x01" * 64), {})
    assert noise.event(other, 0) == other
    assert noise.event(EventRecord("channel.peer_is_behind", CHANNEL, {}), 0) is not None


def test_what_costs_money_or_happens_once_is_told_always() -> None:
    noise = Noise()
    steps = [Step((EventRecord("channel.updated", CHANNEL, {"version": n}),)) for n in range(100)]
    assert all(noise.quiet(step, 0) is step for step in steps)


def test_the_last_of_a_flood_is_told_with_a_count() -> None:
    noise = Noise()
    for n in range(20):
        noise.quiet(claim(n), 0)
    assert noise.overdue(59 * S) == []
    (event,) = noise.overdue(61 * S)
    assert event == EventRecord("channel.peer_claims_newer", CHANNEL, {"claimed": 19, "repeated": 14})
    assert noise.overdue(10_000 * S) == []


# --- effort ---------------------------------------------------------------------------------------------------


def offer(count: int) -> Offer:
    return Offer(CHANNEL, Batch(b"".join(n.to_bytes(16, "big") for n in range(count)), (1,) * count))


def test_what_leads_to_nothing_costs_more_than_what_is_useful() -> None:
    declined = Step((PaymentsEndedRecord(CHANNEL, 1, bytes(16_000), "declined", "no"),), ())
    again = Step((), (Send(Decline(CHANNEL, bytes(16_000), "declined_before")),))
    useful = Step((PhaseRecord(CHANNEL, "open", "", "", Nanos(0)),))  # type: ignore[arg-type]
    assert effort_of(offer(1_000), declined) >= 1
    assert effort_of(offer(1_000), again) >= 0.1
    assert 0 < effort_of(Confirm(CHANNEL, 1), NOTHING) < 0.001
    assert effort_of(Confirm(CHANNEL, 1), useful) == 0
    assert effort_of(offer(1), NOTHING) < 0.001
    assert effort_of(Decline(CHANNEL, bytes(16 * 4_000), "no"), NOTHING) >= 0.02
    assert effort_of(Update(CHANNEL, 1, (1, 1), False, offer(2_000).payments, EMPTY, bytes(64)), NOTHING) >= 0.01


# --- backpressure ---------------------------------------------------------------------------------------------


class Disk:
    """A store that writes when told."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def commit(self, records: object, then: Callable[[], None]) -> None:
        self.waiting.append(then)

    def write(self) -> None:
        waiting, self.waiting = self.waiting, []
        for then in waiting:
            then()


@pytest.mark.parametrize(("effort", "most"), [(0.0, MOST_UNWRITTEN), (0.16, 11), (3.0, 1)])
def test_a_session_is_read_on_when_what_it_made_us_write_is_on_the_disk(effort: float, most: int) -> None:
    line, disk = Line(), Disk()
    backlog = Backlog(line, cast("Store", disk))
    for _ in range(3):
        handled = 0
        while not line.held:
            backlog.grew(effort)
            handled += 1
        assert handled == most
        backlog.grew(effort)  # what was handed over in the same call
        assert len(disk.waiting) == 1
        disk.write()
        assert not line.held


# --- proposals ------------------------------------------------------------------------------------------------


def proposal() -> ChannelProposal:
    return ChannelProposal(os.urandom(32), os.urandom(32), ParticipantKey(bytes(32)), (5, 1), Nanos(1), Nanos(1))


class Desk:
    """Proposals that wait for a look at the wallet, which is made when told, or fails."""

    def __init__(self) -> None:
        self.judged: list[tuple[bytes, bytes]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.looks = 0
        self.answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.proposals = Proposals(self._look, lambda s, p: self.judged.append((s.peer, p.proposal_id)), self._spawn)

    async def _look(self) -> int:
        self.looks += 1
        return await asyncio.shield(self.answer)

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        self.tasks.append(asyncio.get_running_loop().create_task(work, name=name))
        return self.tasks[-1]

    def bring(self, line: Line, what: ChannelProposal) -> None:
        self.proposals.received(cast("Session", line), what)


async def test_while_nobody_answers_few_proposals_wait_in_one_task() -> None:
    desk = Desk()
    lines = [Line(n.to_bytes(33, "big")) for n in range(500)]
    for line in lines:
        for _ in range(20):
            desk.bring(line, proposal())
    assert (len(desk.tasks), len(desk.proposals)) == (1, MOST_WAITING)
    refused = [message for line in lines for message in line.sent if isinstance(message, ChannelReject)]
    assert len(refused) == 500 * 20 - MOST_WAITING
    assert {message.code for message in refused} == {"too_many_openings"}
    assert max(20 - len(line.sent) for line in lines) == MOST_OF_ONE
    desk.answer.set_result(7)
    await desk.tasks[0]
    assert len(desk.judged) == MOST_WAITING
    assert desk.looks == 1
    desk.bring(lines[-1], proposal())
    await desk.tasks[1]
    assert desk.judged[-1][0] == lines[-1].peer


async def test_a_look_that_fails_or_takes_too_long_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perund.node.proposals.LOOK_S", 0.05)
    desk = Desk()
    desk.bring(Line(), proposal())
    await desk.tasks[0]
    assert len(desk.judged) == 1
    desk.answer.set_exception(Unreachable("http://nowhere", "nobody is there"))
    desk.bring(Line(), proposal())
    await desk.tasks[1]
    assert len(desk.judged) == 2


async def test_the_same_proposal_again_is_judged_once_in_the_newest_session() -> None:
    desk, again = Desk(), proposal()
    first, second, thief = Line(), Line(), Line(b"\x03" * 33)
    desk.bring(first, again)
    desk.bring(second, again)
    desk.bring(thief, again)
    desk.answer.set_result(7)
    await desk.tasks[0]
    assert desk.judged == [(second.peer, again.proposal_id)]
    assert (first.sent, second.sent, len(thief.sent)) == ([], [], 1)


# --- stopping -------------------------------------------------------------------------------------------------


async def test_no_step_of_a_stop_is_waited_for_without_end() -> None:
    never, gone = asyncio.Event(), asyncio.Event()

    async def step() -> None:
        try:
            await never.wait()
        finally:
            gone.set()

    start = time.monotonic()
    await bounded("it", step, 0.05)()
    assert time.monotonic() - start < 2
    await asyncio.wait_for(gone.wait(), 2)


async def test_a_step_that_fails_says_so() -> None:
    async def step() -> None:
        raise OSError("it fails")

    with pytest.raises(OSError, match="it fails"):
        await bounded("it", step)()


def test_a_thread_that_hangs_does_not_keep_the_process() -> None:
    """As a name server that does not answer does: `asyncio.run` waits for its threads, for minutes."""
    program = (
        "import asyncio, threading; from perund.stopping import end_in_time\n"
        "async def main():\n"
        "    asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)\n"
        "    end_in_time(lambda: 3, 0.3)\n"
        "asyncio.run(main())"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=30, check=False).returncode == 3
