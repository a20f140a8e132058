"""Disks that rot, are full, or cannot be written: real daemons, real files, and no e8 lost."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from perund.control import schema
from perund.control.errors import NodeUnreachable, RpcError
from perund.control.methods import CHANNEL_PAY
from perund.control.values import PaidE8s
from perund.demo.processes import NodeProcess, ProcessFailed
from perund.node.daemon import STORE_NAME
from perund.recovery.backup import BACKUP_NAME
from perund.recovery.ran_before import MARK_NAME
from tests.e2e import confined as confined_module
from tests.e2e.lookout import Lookout
from tests.e2e.town import FEE, ICP, Town, within

PAGE_BYTES = 4096
FULL_AT_BYTES = 640_000
"""More than a small store, and what the node writes to standard error; some dozen updates fill the log beside it."""


def confined(*what: str) -> tuple[str, ...]:
    """Return what starts a node with less than its user has."""
    return (sys.executable, "-P", confined_module.__file__, *what, "--")


async def refused(node: NodeProcess) -> str:
    """Start a node that must not start; return what it said."""
    before = node.log.stat().st_size
    with pytest.raises(ProcessFailed, match="ended with status 1"):
        await node.start()
    said = node.log.read_text()[before:]
    assert "Traceback" not in said
    assert said.count("error: ") == 1, said
    return said


def contents(directory: Path) -> dict[str, bytes]:
    """Return what a directory has, without what a running program needs."""
    return {
        path.name: path.read_bytes()
        for path in directory.iterdir()
        if path.is_file() and path.name not in ("perund.lock", f"{STORE_NAME}-shm")
    }


# --- a damaged store --------------------------------------------------------------------------------------


def overwrite_a_page(store: Path) -> None:
    """What a broken disk, or a file system after a crash, leaves in the middle of a file."""
    with store.open("r+b") as file:
        file.seek(store.stat().st_size // 2 // PAGE_BYTES * PAGE_BYTES)
        file.write(bytes(i * 197 % 251 for i in range(PAGE_BYTES)))


def flip_a_byte_of_the_newest_signature(store: Path) -> None:
    """A file that is in order for SQLite, and a state that the canister would refuse."""
    database = apsw.Connection(str(store))
    ((signature,),) = database.execute("SELECT signature_1 FROM channel_state").fetchall()
    database.close()
    assert isinstance(signature, bytes)
    content = store.read_bytes()
    place = content.rindex(signature) + 40
    store.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
    database = apsw.Connection(str(store))
    assert database.pragma("integrity_check") == "ok"
    database.close()


@pytest.mark.parametrize("damage", [overwrite_a_page, flip_a_byte_of_the_newest_signature])
async def test_a_damaged_store_is_refused_and_the_channel_comes_back_from_the_peer(
    town: Town, tmp_path: Path, damage: object
) -> None:
    assert callable(damage)
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    for amount in (7, 8):
        await town.pay(alice, channel, amount * ICP)
    await town.pay(bob, channel, 5 * ICP)
    await alice.stop()
    store = alice.dir / STORE_NAME
    write_back(store)
    damage(store)

    backup = contents(alice.dir)[BACKUP_NAME]
    said = await refused(alice)
    for part in (str(store), "damaged", "another directory", "backup.perund", "perund restore"):
        assert part in said
    assert contents(alice.dir)[BACKUP_NAME] == backup, "it is not made anew from what is damaged"

    lookout = await Lookout(alice).start("--once")
    assert await lookout.ended() == 1
    assert [alarm["event"] for alarm in lookout.alarms()] == ["watch.store_damaged"]
    assert "Traceback" not in lookout.log.read_text()

    aside = tmp_path / "aside"
    aside.mkdir()
    for path in alice.dir.glob(f"{STORE_NAME}*"):
        path.rename(aside / path.name)
    await alice.start()
    view = await town.closed(alice, channel)
    assert (view.version, view.payout_e8s) == (2**32, 40 * ICP - FEE)
    await town.settles(channel, bob)
    assert await town.balance(alice) == 290 * ICP - 2 * FEE
    assert await town.balance(bob) == 310 * ICP - FEE


async def test_a_damaged_log_is_an_old_store_that_the_peer_proves(town: Town) -> None:
    """For SQLite a log ends where its checksums do. What is lost with it the peer shows when it connects."""
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    log = alice.dir / f"{STORE_NAME}-wal"
    before = size(log)
    for _ in range(3):
        await town.pay(alice, channel, 5 * ICP)
    await alice.kill()
    await bob.kill()
    assert size(log) > before, "the payments are in the log only"
    spoil(log, before)

    await asyncio.gather(alice.start(), bob.start())
    view = await town.closed(alice, channel)
    assert (view.version, view.payout_e8s) == (2**32, 35 * ICP - FEE)
    await town.settles(channel, alice, bob)


def size(path: Path) -> int:
    return path.stat().st_size


def spoil(path: Path, start: int) -> None:
    """Change every byte from a place on."""
    content = path.read_bytes()
    path.write_bytes(content[:start] + bytes(byte ^ 0x55 for byte in content[start:]))


def write_back(store: Path) -> None:
    """Bring everything into the main file, and leave no log beside it."""
    database = apsw.Connection(str(store))
    assert database.pragma("journal_mode") == "wal"  # asked first: before a read it does not know of its log
    database.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    database.close()
    assert not store.with_name(f"{STORE_NAME}-wal").exists()


# --- a full disk ------------------------------------------------------------------------------------------


@pytest.fixture
def bell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file to which alarms of nodes go that are started from now on."""
    script, alarms = tmp_path / "bell.py", tmp_path / "alarms"
    script.write_text("import sys; open(sys.argv[1], 'ab').write(sys.stdin.buffer.read())")
    monkeypatch.setenv("PERUND_ALARM_COMMAND", ",".join((sys.executable, str(script), str(alarms))))
    return alarms


def told(bell: Path) -> str:
    return bell.read_text() if bell.exists() else ""


async def ended(node: NodeProcess) -> int:
    """Return the exit status of a node that ends by itself."""

    async def wait() -> int:
        while node.returncode is None:  # noqa: ASYNC110  (a process is not an event)
            await asyncio.sleep(0.02)
        return node.returncode

    return await within(wait(), f"the end of {node.name}")


class Payer:
    """Pays again and again until its node is gone, or it is stopped. Knows what it asked for and what it was told."""

    def __init__(self, node: NodeProcess, channel: str) -> None:
        self.node = node
        self.channel = channel
        self.asked = 0
        self.told: list[str] = []
        self.stopped = False
        self.task = asyncio.create_task(self._pay())

    async def _pay(self) -> None:
        with contextlib.suppress(NodeUnreachable, RpcError):
            while not self.stopped:
                self.asked += 1
                params = schema.PayParams(channel=self.channel, amount_e8s=PaidE8s(1 + self.asked % 7))
                paid = await self.node.control.call(CHANNEL_PAY, params)
                assert paid.status == "delivered"
                self.told.append(str(paid.payment))


@pytest.mark.parametrize("full", ["alice", "bob"], ids=["the proposer's", "the acceptor's"])
async def test_a_node_whose_disk_is_full_ends_and_goes_on_when_there_is_room(town: Town, bell: Path, full: str) -> None:
    alice, bob = await town.pair(contributes=50)
    channel = await town.open(alice, bob, 50, 50)
    node, other = (alice, bob) if full == "alice" else (bob, alice)
    await node.stop()
    node.wrapper = confined(f"file-bytes={FULL_AT_BYTES}")
    await node.start()

    payers = Payer(node, channel), Payer(other, channel)
    assert await ended(node) == 1
    await within(payers[0].task, "the payer hears of it")
    payers[1].stopped = True
    assert payers[0].told
    assert payers[1].told, "it was paid both ways until the disk was full"
    said = node.log.read_text()
    assert "node.failed" in said
    assert "Traceback" not in said
    assert "node.failed" in told(bell)

    # Rule 2: whatever it signed was durable first. The peer holds nothing that is not in its books.
    theirs = town.newest(other, channel).state
    ours = town.row(node, channel).memory
    assert ours.last_signature is not None
    assert ours.last_signature.version >= theirs.version
    if ours.last_signature.version == theirs.version:
        assert ours.last_signature.digest == theirs.digest

    node.wrapper = ()
    await node.start()
    await within(payers[1].task, "what the other paid meanwhile is delivered")
    ids = await agreed(town, node, other, channel)
    assert len(set(ids)) == len(ids), "each exactly once"
    assert {*payers[0].told, *payers[1].told} <= set(ids)
    assert len(ids) <= payers[0].asked + payers[1].asked
    await town.close(alice, channel)
    await town.settles(channel, alice, bob)


async def agreed(town: Town, node: NodeProcess, other: NodeProcess, channel: str) -> list[str]:
    """Return the ids of a channel's payments as soon as both sides list the same ones, all of them delivered."""

    async def look() -> list[str]:
        while True:
            lists = await town.payments(node, channel), await town.payments(other, channel)
            brief = [sorted((p.payment, p.amount_e8s, p.direction) for p in listed) for listed in lists]
            mirrored = sorted((i, e8s, "sent" if way == "received" else "received") for i, e8s, way in brief[1])
            if {p.status for listed in lists for p in listed} == {"delivered"} and brief[0] == mirrored:
                return [p.payment for p in lists[0]]
            await asyncio.sleep(0.03)

    return await within(look(), "both list the same")


# --- a directory that cannot be written -------------------------------------------------------------------


@pytest.fixture
def modes(town: Town) -> Iterator[None]:
    """Whatever a test did to them, the directories of nodes can be cleaned up."""
    yield
    for node in town.nodes.values():
        node.dir.chmod(0o700)


@pytest.mark.usefixtures("modes")
@pytest.mark.parametrize("ran_before", [True, False])
async def test_a_directory_that_cannot_be_written_is_named_and_nothing_is_changed(
    town: Town, *, ran_before: bool
) -> None:
    alice = await town.node("alice")
    await alice.stop()
    write_back(alice.dir / STORE_NAME)
    if not ran_before:
        for name in ("perund.lock", STORE_NAME, BACKUP_NAME, MARK_NAME):
            (alice.dir / name).unlink()
    files = contents(alice.dir)
    alice.dir.chmod(0o500)
    alice.wrapper = confined("file-modes")

    said = await refused(alice)
    assert f"{alice.dir} cannot be written" in said
    assert contents(alice.dir) == files
    assert (alice.dir / "perund.lock").exists() == ran_before

    alice.dir.chmod(0o700)
    await alice.start()


@pytest.mark.usefixtures("modes")
@pytest.mark.parametrize("name", ["alice", "bob"], ids=["the proposer's", "the acceptor's"])
async def test_a_directory_that_becomes_read_only_ends_the_node_before_it_funds_anything(
    town: Town, bell: Path, name: str
) -> None:
    alice, bob = await town.pair()
    first = await town.open(alice, bob, 50)
    node, other = (alice, bob) if name == "alice" else (bob, alice)
    await node.stop()
    node.wrapper = confined("file-modes")
    await node.start()
    await town.pay(alice, first, 3 * ICP)
    node.dir.chmod(0o500)

    opening = asyncio.create_task(town.propose(alice, bob, 40))
    assert await ended(node) == 1
    said = node.log.read_text()
    assert "the backup file cannot be written" in said
    assert "Traceback" not in said
    assert "node.failed" in told(bell)
    assert channels_of(town, other) == {first}, "no signature left on what could not be found again"

    node.dir.chmod(0o700)
    await node.start()
    with contextlib.suppress(NodeUnreachable, RpcError):  # the proposer's caller was told that its node ended
        await within(opening, "the opening")
    second = await within(another_channel(town, other, first), "the channel is opened after all")
    for channel in (first, second):
        for who in (alice, bob):
            await town.until(who, channel, lambda c: c.phase == "open", "open")
        await town.pay(alice, channel, 2 * ICP)
        await town.pay(bob, channel, 1 * ICP)
        await town.close(bob, channel)
    for who in (alice, bob):
        for channel in (first, second):
            await town.closed(who, channel)
    assert await town.balance(alice) == 300 * ICP - (3 + 1 + 1) * ICP - 4 * FEE
    assert await town.balance(bob) == 300 * ICP + (3 + 1 + 1) * ICP - 2 * FEE


async def another_channel(town: Town, node: NodeProcess, known: str) -> str:
    while not (found := channels_of(town, node) - {known}):  # noqa: ASYNC110  (a file tells nobody)
        await asyncio.sleep(0.03)
    return found.pop()


def channels_of(town: Town, node: NodeProcess) -> set[str]:
    """Return the channels on a node's disk whose money is not out."""
    return {row.terms.channel.hex() for row in town.reader(node).live_channels()}
