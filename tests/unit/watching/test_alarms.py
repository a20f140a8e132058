"""Alarms reach somebody: the log, `perun health`, a command, a webhook. None of them can hold up the watch."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from perund.config import Alarm as Wanted
from perund.store.rows import EventRow
from perund.watching import alarms as alarms_module
from perund.watching import delivery as delivery_module
from perund.watching.alarms import Alarms
from perund.watching.delivery import Delivery
from protocol.types import ChannelId

CHANNEL = ChannelId(b"\x05" * 64)


def event(kind: str, channel: ChannelId | None = CHANNEL, **data: str | int | bool) -> EventRow:
    return EventRow(1, time.time_ns() // 1_000_000, kind, channel, data)


def script(tmp_path: Path, body: str) -> tuple[str, ...]:
    """A command that notes what it was told in `told`."""
    path = tmp_path / "bell.py"
    path.write_text(f"import json, os, sys, time\nnotes = open({str(tmp_path / 'told')!r}, 'a')\n{body}\n")
    return sys.executable, str(path)


def told(tmp_path: Path) -> list[dict[str, object]]:
    notes = tmp_path / "told"
    return [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []


class Hook:
    """Somebody's web server. `answers`: the statuses of the next answers, then 200."""

    def __init__(self) -> None:
        self.posts: list[dict[str, object]] = []
        self.answers: list[int] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.posts.append(await request.json())
        return web.Response(status=self.answers.pop(0) if self.answers else 200, headers={"Location": "/elsewhere"})


@pytest.fixture
async def hook() -> AsyncIterator[tuple[Hook, str]]:
    served = Hook()
    application = web.Application()
    application.router.add_post("/hook/{secret}", served.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield served, f"http://127.0.0.1:{runner.addresses[0][1]}/hook/s3cret"
    await runner.cleanup()


async def test_only_events_that_are_alarms_ring(tmp_path: Path) -> None:
    command = script(tmp_path, "notes.write(sys.stdin.read())")
    alarms = Alarms("perund run, there", Delivery(Wanted(command=command)))
    alarms.heard([event("channel.updated", version=3), event("channel.refuting", registered=1, ours=3, alarm=True)])
    await alarms.close()
    (one,) = told(tmp_path)
    assert one["event"] == "channel.refuting"
    assert one["channel"] == CHANNEL.hex()
    assert one["source"] == "perund run, there"
    assert one["data"] == {"registered": 1, "ours": 3}
    assert [alarm.text for alarm in alarms.current()] == ["channel.refuting: registered 1, ours 3"]


async def test_the_command_gets_no_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERUND_PASSPHRASE", "hunter2")
    command = script(tmp_path, "notes.write(json.dumps(dict(os.environ)) + chr(10))")
    alarms = Alarms("", Delivery(Wanted(command=command)))
    alarms.ring("watcher.blind", None, {"alarm": True})
    await alarms.close()
    (environment,) = told(tmp_path)
    assert "PATH" in environment
    assert "hunter2" not in json.dumps(environment)


async def test_commands_run_one_at_a_time_and_in_order(tmp_path: Path) -> None:
    command = script(
        tmp_path, "note = json.load(sys.stdin); note['from'] = time.time(); time.sleep(0.05)\n"
        "note['to'] = time.time(); notes.write(json.dumps(note) + chr(10))"
    )  # fmt: skip
    alarms = Alarms("", Delivery(Wanted(command=command)))
    for number in range(4):
        alarms.ring("channel.refuting", str(number), {"alarm": True})
    await alarms.close()
    notes = told(tmp_path)
    assert [note["channel"] for note in notes] == ["0", "1", "2", "3"]
    for earlier, later in itertools.pairwise(notes):
        assert float(str(earlier["to"])) <= float(str(later["from"]))


async def test_a_command_that_hangs_is_ended_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(delivery_module, "COMMAND_S", 0.5)
    command = script(
        tmp_path, "import subprocess\nsubprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    )
    alarms = Alarms("", Delivery(Wanted(command=command)))
    began = time.monotonic()
    alarms.ring("watcher.blind", None, {})
    await alarms.close()
    assert time.monotonic() - began < 4
    assert "did not end within" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("/no/such/program",), "No such file"),
        ((sys.executable, "-c", "import sys; sys.exit('broken bell')"), "broken bell"),
    ],
)
async def test_a_command_that_fails_is_logged(
    command: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    alarms = Alarms("", Delivery(Wanted(command=command)))
    alarms.ring("watcher.blind", None, {})
    await alarms.close()
    out = capsys.readouterr().out
    assert "alarm.command_failed" in out
    assert why in out


async def test_a_webhook_is_tried_three_times(hook: tuple[Hook, str], capsys: pytest.CaptureFixture[str]) -> None:
    served, url = hook
    served.answers = [500, 302]
    alarms = Alarms("", Delivery(Wanted(webhook=url), pause_s=0.01))
    alarms.ring("watcher.blind", None, {"lag_s": 7})
    await alarms.close()
    assert [post["event"] for post in served.posts] == ["watcher.blind"] * 3  # a redirection is followed nowhere
    assert served.posts[0]["data"] == {"lag_s": 7}

    served.answers = [500] * 3
    alarms.ring("watcher.blind", None, {"lag_s": 8})
    await alarms.close()
    assert len(served.posts) == 6
    out = capsys.readouterr().out
    assert "alarm.webhook_failed" in out
    assert "s3cret" not in out  # such an address is often a secret


async def test_a_flood_of_alarms_is_bounded_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms_module, "MOST_WAITING", 5)
    command = script(tmp_path, "notes.write(sys.stdin.read())")
    alarms = Alarms("", Delivery(Wanted(command=command)))
    for number in range(20):
        alarms.ring("channel.refuting", str(number), {})
    await alarms.close()
    notes = told(tmp_path)
    assert [note["channel"] for note in notes] == ["15", "16", "17", "18", "19"]
    assert notes[-1]["dropped"] == 15


def test_an_alarm_ends_with_its_cause() -> None:
    alarms = Alarms()
    alarms.heard(
        [
            event("watcher.blind", None, alarm=True),
            event("channel.refuting", alarm=True),
            event("watcher.margin_half", alarm=True),
            event("channel.settled_below_ours", alarm=True),
        ]
    )
    assert len(alarms.current()) == 4
    alarms.heard([event("watcher.sees", None), event("channel.refuted", version=4)])
    assert [alarm.kind for alarm in alarms.current()] == ["channel.settled_below_ours"]


def test_a_step_of_the_wall_clock_hides_no_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    alarms = Alarms()
    alarms.heard([event("channel.settled_below_ours", alarm=True)])
    now_ns = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now_ns + 20 * alarms_module.KEPT_NS)
    assert len(alarms.current()) == 1
    now_mono_ns = time.monotonic_ns()
    monkeypatch.setattr(time, "monotonic_ns", lambda: now_mono_ns + alarms_module.KEPT_NS + 1)
    assert alarms.current() == []


async def test_closing_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms_module, "GRACE_S", 0.3)
    alarms = Alarms("", Delivery(Wanted(command=script(tmp_path, "time.sleep(60)"))))
    alarms.ring("node.failed", None, {})
    async with asyncio.timeout(5):
        await alarms.close()
