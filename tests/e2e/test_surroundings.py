"""Standard error that nobody reads, signals, sockets, descriptors, a service manager: none of them ends a daemon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from perund.config import FILE_NAME
from perund.control.client import ControlClient
from perund.control.envelope import SOCKET_NAME
from perund.control.errors import NodeUnreachable, RpcError
from perund.demo.processes import DevnetProcess, NodeProcess
from tests.e2e.lookout import Lookout
from tests.e2e.town import ICP, LOOK_AGAIN_S, Town, within
from tests.e2e.watchtower import node_with, served, tower_in

UNREAD: Final = "a pipe that nobody reads"
CLOSED: Final = "a pipe whose reader is gone"
FULL: Final = "a full disk"
WAYS: Final = (UNREAD, CLOSED, FULL)


class Stderr:
    """Somewhere to log to that does not work. `works_again`: until then."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.reader: int | None = None
        if way == FULL:
            self.writer = os.open("/dev/full", os.O_WRONLY)
            return
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.writer, b"." * 4096)
        os.set_blocking(self.writer, True)
        if way == CLOSED:
            os.close(self.reader)
            self.reader = None

    def read(self) -> str:
        """Return what is in the pipe now, without what filled it."""
        assert self.reader is not None
        os.set_blocking(self.reader, False)
        data = b""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.reader, 1 << 20):
                data += chunk
        return data.decode().lstrip(".")

    def close(self) -> None:
        for descriptor in (self.reader, self.writer):
            if descriptor is not None:
                os.close(descriptor)


@pytest.fixture(params=WAYS)
def stderr(request: pytest.FixtureRequest) -> Iterator[Stderr]:
    made = Stderr(request.param)
    yield made
    made.close()


async def eventually(condition: Callable[[], Awaitable[bool]], what: str, patience_s: float = 40.0) -> None:
    async def look() -> None:
        while not await condition():  # noqa: ASYNC110  (asked of a process)
            await asyncio.sleep(LOOK_AGAIN_S)

    await within(look(), what, patience_s)


def said(node: NodeProcess, what: str) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return what in node.log.read_text()

    return look


# --- the log ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["debug"])
async def test_a_node_pays_whatever_becomes_of_its_log(
    town: Town, stderr: Stderr, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = await town.pair(contributes=50)
    channel = await town.open(alice, bob, 50, 50)
    await bob.stop()
    monkeypatch.setenv("PERUND_LOG_LEVEL", level)
    bob.stderr = stderr.writer
    await bob.start()
    await town.pay(alice, channel, 1 * ICP)
    await town.pay(bob, channel, 2 * ICP)

    async def told() -> bool:
        health = await bob.control.call("node.health")
        return any(problem["code"] == "log_unwritable" for problem in health["problems"])

    await eventually(told, "the log is no part of health")
    lost = (await bob.control.call("node.info")).get("log_lines_lost", 0)
    assert lost == 0 if stderr.way == UNREAD else lost > 0, "what waits is not lost yet"
    assert await bob.stop() == 0


async def test_what_could_not_be_logged_is_counted_and_said_when_it_can_be(tmp_path: Path, town: Town) -> None:
    bob = await town.node("bob", icp=0)
    await bob.stop()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    bob.stderr = os.open(fifo, os.O_WRONLY)
    try:
        await bob.start()
        os.close(reader)
        for _ in range(3):
            bob.signal(signal.SIGUSR1)

            async def lost() -> bool:
                return bool((await bob.control.call("node.info")).get("log_lines_lost"))

            await eventually(lost, "a line was lost")
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        text = ""

        async def read() -> bool:
            nonlocal text
            with contextlib.suppress(BlockingIOError):
                text += os.read(reader, 65_536).decode()
            return "log.lost" in text

        await eventually(read, "log.lost is said")
        assert "lines=" in text
        assert "Broken pipe" in text
        assert not (await bob.control.call("node.health"))["problems"]
    finally:
        os.close(reader)
        os.close(bob.stderr)
    assert await bob.stop() == 0


async def test_a_tower_guards_whatever_becomes_of_its_log(
    town: Town, stderr: Stderr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERUND_TOWER_MIN_CHALLENGE_S", "1")
    tower = await tower_in(town)
    assert await tower.stop() == 0
    tower.stderr = stderr.writer
    await tower.start()
    alice, bob = await node_with(town, "alice", tower.address), await town.node("bob")
    channel = await town.open(alice, bob, 50)
    await town.pay(alice, channel, 1 * ICP)
    assert await served(town, alice, tower, channel) > 0
    assert await tower.stop() == 0


async def test_a_watch_refutes_whatever_becomes_of_its_log(town: Town, stderr: Stderr) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50, challenge_s=60)
    stale = town.newest(alice, channel)
    await town.pay(alice, channel, 1 * ICP)
    await alice.stop()
    await bob.stop()
    lookout = Lookout(bob)
    lookout.stderr = stderr.writer
    await lookout.start()
    try:
        newest = town.newest(bob, channel).state.version
        await town.register(alice, channel, stale)

        async def refuted() -> bool:
            return await town.registered_version(channel) == newest

        await eventually(refuted, "the watch refutes")
        assert await lookout.stop() == 0
    finally:
        await lookout.kill()


async def test_a_devnet_answers_whatever_becomes_of_its_log(tmp_path: Path, stderr: Stderr) -> None:
    devnet = DevnetProcess(tmp_path)
    devnet.stderr = stderr.writer
    await devnet.start()
    for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR2):  # each is a line
        devnet.signal(number)
    await devnet.advance(1)
    assert await devnet.stop() == 0


# --- signals ----------------------------------------------------------------------------------------------


async def test_signals_that_ask_for_no_end_do_not_end_a_node(town: Town) -> None:
    alice, bob = await town.pair(contributes=50)
    channel = await town.open(alice, bob, 50, 50)
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        for node, payer in ((alice, bob), (bob, alice)):
            node.signal(number)
            await town.pay(payer, channel, 1 * ICP)
    await eventually(said(alice, "config.reloaded"), "SIGHUP is answered")
    await eventually(said(bob, "SIGUSR2"), "SIGUSR2 is named")
    await alice.kill()
    process = await alice._spawn("perund.cli.daemon", "run", "--dir", str(alice.dir))
    while process.returncode is None and not (alice.dir / SOCKET_NAME).is_socket():  # noqa: ASYNC110
        await asyncio.sleep(LOOK_AGAIN_S)
    alice.signal(signal.SIGHUP)
    await town.restart(alice)
    await town.pay(alice, channel, 1 * ICP)


async def test_signals_that_ask_for_no_end_do_not_end_a_tower_or_a_watch(town: Town) -> None:
    bob = await town.node("bob", icp=0)
    tower = await tower_in(town)
    lookout = await Lookout(bob).start()
    try:
        await lookout.until(lambda log: "watch.started" in log)
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            tower.signal(number)
            lookout.signal(number)
        await eventually(said(tower, "SIGUSR2"), "the tower lives on")
        await lookout.until(lambda log: "SIGUSR2" in log and "config.reloaded" in log)
        assert await lookout.stop() == 0
        assert await tower.stop() == 0
    finally:
        await lookout.kill()


async def test_sighup_takes_over_the_level_and_a_bad_file_changes_nothing(town: Town) -> None:
    bob = await town.node("bob", icp=0)
    path = bob.dir / FILE_NAME
    good = path.read_text()
    assert " [debug" not in bob.log.read_text()

    path.write_text(good.replace('level = "info"', 'level = "loud"'))
    bob.signal(signal.SIGHUP)
    await eventually(said(bob, "config.not_reloaded"), "a bad file is named")
    assert "log.level" in bob.log.read_text()

    changed = re.sub(r"(?m)^max_connections = .*$", "max_connections = 17", good)
    assert changed != good
    path.write_text(changed.replace('level = "info"', 'level = "error"'))
    bob.signal(signal.SIGHUP)
    await eventually(said(bob, "config.reloaded"), "a good file is taken")
    assert "wire.max_connections" in bob.log.read_text(), "what needs a restart is named"
    bob.signal(signal.SIGUSR1)
    path.write_text(good)
    bob.signal(signal.SIGHUP)

    async def again() -> bool:
        return bob.log.read_text().count("config.reloaded") == 2

    await eventually(again, "the level before is taken again")
    assert "signal_ignored" not in bob.log.read_text(), "a warning is not written at the level error"


# --- the control socket -----------------------------------------------------------------------------------


async def test_a_removed_control_socket_is_made_again_and_nobody_elses_is_touched(town: Town) -> None:
    bob = await town.node("bob", icp=0)
    path = bob.dir / SOCKET_NAME
    path.unlink()

    async def back() -> bool:
        try:
            async with await ControlClient.connect(bob.dir) as control:
                return bool((await control.call("node.info"))["pid"] == bob.pid)
        except NodeUnreachable:
            return False

    await eventually(back, "the socket is there again", 5)
    assert path.stat().st_mode & 0o777 == 0o600
    await bob.control.call("node.info")

    path.unlink()
    path.write_text("somebody's notes")
    await eventually(said(bob, "control.socket_gone"), "what took its name is named")
    assert path.read_text() == "somebody's notes"
    path.unlink()
    await eventually(back, "the socket is there again", 5)
    assert await bob.stop() == 0
    assert not path.exists()


# --- the service manager ----------------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True], ids=["a file", "an abstract name"])
async def test_the_service_manager_is_told(
    town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, abstract: bool
) -> None:
    bob = await town.node("bob", icp=0)
    await bob.stop()
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.setblocking(False)
    name = f"@perund-{os.getpid()}" if abstract else str(tmp_path / "notify")
    manager.bind(name.replace("@", "\0"))
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    loop = asyncio.get_running_loop()

    async def told(what: str) -> None:
        async def look() -> None:
            while what not in (await loop.sock_recv(manager, 65_536)).decode().split("\n"):
                pass

        await within(look(), f"{what} is told")

    with manager:
        await bob.start()
        await told("READY=1")
        await told("WATCHDOG=1")
        await told("WATCHDOG=1")
        stopping = asyncio.create_task(bob.stop())
        await told("STOPPING=1")
        assert await stopping == 0


# --- the start --------------------------------------------------------------------------------------------


async def test_a_node_that_starts_says_so_and_what_it_waits_for(town: Town, tmp_path: Path) -> None:
    bob = await town.node("bob", icp=0)
    await bob.stop()
    silent = socket.socket()  # takes connections, and never answers
    silent.bind(("127.0.0.1", 0))
    silent.listen(64)
    path = bob.dir / FILE_NAME
    before = path.read_text()
    away = f"http://127.0.0.1:{silent.getsockname()[1]}"
    path.write_text(before.replace(town.devnet.url, away))
    process = await bob._spawn("perund.cli.daemon", "run", "--dir", str(bob.dir))
    locked = bob.dir / "perund.lock"
    while locked.read_text().strip() != str(process.pid):  # noqa: ASYNC110  (the start before this is imports and scrypt)
        await asyncio.sleep(LOOK_AGAIN_S)
    began = time.monotonic()

    async def answers() -> bool:
        with contextlib.suppress(NodeUnreachable):
            bob.control = await ControlClient.connect(bob.dir)
            return True
        return False

    with silent:
        await eventually(answers, "the control socket is there", 2)
        info = await bob.control.call("node.info")
        assert time.monotonic() - began < 1.5
        assert info["state"] == "starting"
        assert info["node_id"] == bob.info.node_id
        assert info["account"] == bob.info.account

        async def waits() -> bool:
            return away in (await bob.control.call("node.info"))["waits_for"]

        await eventually(waits, "it says what it waits for", 5)
        health = await bob.control.call("node.health")
        assert not health["ok"]
        assert [problem["code"] for problem in health["problems"]] == ["starting"]
        for method in ("wallet.balance", "channel.list", "event.subscribe"):
            with pytest.raises(RpcError) as refused:
                await bob.control.call(method)
            assert refused.value.name == "node_starting"
            assert refused.value.retryable
            assert away in refused.value.message
        path.write_text(before)
        began = time.monotonic()
        assert await bob.stop() == 0, "a stop is heard while it starts"
        assert time.monotonic() - began < 8


# --- descriptors ------------------------------------------------------------------------------------------


async def test_a_flood_of_connections_leaves_descriptors_and_a_short_log(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await bob.stop()
    bob.wrapper = ("prlimit", "--nofile=160:160")
    await bob.start()
    await town.pay(alice, channel, 1 * ICP)
    assert "node.few_open_files" in bob.log.read_text()
    size = bob.log.stat().st_size
    host, _, port = bob.info.listen.rpartition(":") if bob.info.listen else ("", "", "0")
    flood: list[asyncio.StreamWriter] = []

    async def come(seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                flood.append((await asyncio.open_connection(host, int(port)))[1])
            if len(flood) > 600:
                flood.pop(0).close()

    flooding = [asyncio.create_task(come(6)) for _ in range(4)]
    while not all(task.done() for task in flooding):
        await town.pay(alice, channel, 1_000)
    await asyncio.gather(*flooding)
    for writer in flood:
        writer.close()
    assert bob.log.stat().st_size - size < 60_000, bob.log.read_text()[-3000:]
    assert "Traceback" not in bob.log.read_text()
    await town.pay(alice, channel, 1 * ICP)
    assert not (await bob.control.call("node.health"))["problems"]
