"""The files under running nodes are moved, removed and replaced: nothing is called paid that is not there after it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from perund.control.errors import NodeUnreachable, RpcError
from perund.demo.processes import NodeProcess
from perund.node.daemon import STORE_NAME
from tests.e2e.lookout import Lookout
from tests.e2e.test_bad_disk import ended, told
from tests.e2e.town import FEE, ICP, Town, within


@pytest.fixture
def bell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file to which alarms of nodes go that are started from now on."""
    script, alarms = tmp_path / "bell.py", tmp_path / "alarms"
    script.write_text("import sys; open(sys.argv[1], 'ab').write(sys.stdin.buffer.read())")
    monkeypatch.setenv("PERUND_ALARM_COMMAND", ",".join((sys.executable, str(script), str(alarms))))
    return alarms


def nothing(node: NodeProcess) -> None:
    """Nothing has to be put right before the next start."""


def move_the_database(node: NodeProcess) -> None:
    (node.dir / STORE_NAME).rename(node.dir.parent / "moved.db")


def put_it_back(node: NodeProcess) -> None:
    (node.dir.parent / "moved.db").rename(node.dir / STORE_NAME)


def unlink_the_log(node: NodeProcess) -> None:
    (node.dir / f"{STORE_NAME}-wal").unlink()


def rename_the_directory(node: NodeProcess) -> None:
    node.dir.rename(node.dir.with_name("elsewhere"))


def name_it_as_before(node: NodeProcess) -> None:
    node.dir.with_name("elsewhere").rename(node.dir)


def replace_the_lock(node: NodeProcess) -> None:
    (node.dir / "perund.lock").unlink()
    (node.dir / "perund.lock").touch(0o600)


@pytest.mark.parametrize("payee", ["bob", "alice"], ids=["participant 1", "participant 0"])
@pytest.mark.parametrize(
    ("happens", "put_right"),
    [
        (move_the_database, put_it_back),
        (unlink_the_log, nothing),
        (rename_the_directory, name_it_as_before),
        (replace_the_lock, nothing),
    ],
    ids=lambda f: f.__name__,
)
async def test_a_payee_whose_files_are_taken_away_acknowledges_nothing_and_loses_nothing(
    town: Town,
    bell: Path,
    payee: str,
    happens: Callable[[NodeProcess], None],
    put_right: Callable[[NodeProcess], None],
) -> None:
    alice, bob = await town.pair(contributes=50)
    channel = await town.open(alice, bob, 50, 50)
    node, payer = (bob, alice) if payee == "bob" else (alice, bob)
    for _ in range(5):
        await town.pay(payer, channel, 1 * ICP)

    happens(node)
    paying = asyncio.create_task(town.pay(payer, channel, 1 * ICP))
    assert await ended(node) == 1
    said = node.log.read_text()
    assert "node.failed" in said
    assert "while it was in use" in said
    assert "Traceback" not in said
    assert "node.failed" in told(bell)
    assert not paying.done(), "nobody was told that it arrived"

    put_right(node)
    await node.start()
    assert (await within(paying, "it arrives after all")).status == "delivered"
    view = await town.view(node, channel)
    assert not view.frozen, "what was told is there: nothing was lost"
    assert view.mine_e8s == 56 * ICP
    await town.close(node, channel)
    await town.settles(channel, alice, bob)
    assert await town.balance(node) == 306 * ICP - 2 * FEE


async def test_a_log_that_was_cut_off_is_a_loss_that_the_next_start_knows_of(town: Town, bell: Path) -> None:
    """SQLite would take what is left for all there was, and the node would go on from a state of before."""
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await bob.stop()
    await bob.start()
    for _ in range(5):
        await town.pay(alice, channel, 1 * ICP)
    log = bob.dir / f"{STORE_NAME}-wal"
    os.truncate(log, 0)
    assert await ended(bob) == 1, "also without a payment"
    assert "node.failed" in told(bell)

    await bob.start()
    event = await town.event(bob, "node.store_in_doubt")
    assert "was cut off" in str(event.data["why"])
    view = await town.closed(bob, channel)
    assert view.payout_e8s == 5 * ICP - FEE


async def test_an_older_copy_over_a_running_node_is_not_what_it_goes_on_from(town: Town, bell: Path) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await bob.stop()
    old = bob.dir / STORE_NAME
    copy = bob.dir.parent / "older.db"
    shutil.copy(old, copy)
    await bob.start()
    for _ in range(5):
        await town.pay(alice, channel, 1 * ICP)
    copy.rename(old)
    assert await ended(bob) == 1
    assert "another file" in bob.log.read_text()
    for rest in ("-wal", "-shm"):
        old.with_name(f"{STORE_NAME}{rest}").unlink()

    await bob.start()
    await town.event(bob, "node.store_in_doubt")
    view = await town.closed(bob, channel)
    assert view.payout_e8s == 5 * ICP - FEE


async def test_the_watch_beside_a_node_goes_over_to_the_files_that_are_there_now(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await town.pay(alice, channel, 1 * ICP)
    lookout = await Lookout(bob).start()
    try:
        await lookout.until(lambda said: "watch.channels_changed" in said)
        move_the_database(bob)
        assert await ended(bob) == 1
        await lookout.until(lambda said: "watch.store_replaced" in said)
        put_it_back(bob)
        await bob.start()
        await town.pay(alice, channel, 2 * ICP)
        await town.close(bob, channel)
        await lookout.until(lambda said: said.rindex("channels=0") > said.index("watch.store_replaced"))
        assert "watch.store_replaced" in {alarm["event"] for alarm in lookout.alarms()}
        assert await lookout.stop() == 0
    finally:
        await lookout.kill()


async def test_a_second_program_that_writes_stops_the_node(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    program = (
        "import apsw, sys; apsw.Connection(sys.argv[1]).execute("
        "\"UPDATE channel_state SET reason = 'somebody' WHERE phase = 'open'\")"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(bob.dir / STORE_NAME))
    assert await process.wait() == 0
    paying = asyncio.create_task(town.pay(alice, channel, 1 * ICP))
    assert await ended(bob) == 1
    assert "of another program" in bob.log.read_text()
    await bob.start()
    try:
        assert (await within(paying, "it arrives after all")).status == "delivered"
    except (NodeUnreachable, RpcError) as error:
        raise AssertionError("the payer is not at fault") from error
