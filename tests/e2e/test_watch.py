"""`perund watch`: a watcher beside the node, which goes on while the node cannot."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import apsw
import pytest

from perund.node.daemon import STORE_NAME
from tests.e2e.lookout import Lookout
from tests.e2e.town import ICP, Town, within


@pytest.fixture
async def lookouts() -> AsyncIterator[list[Lookout]]:
    """Those that a test starts; none is left."""
    started: list[Lookout] = []
    yield started
    for lookout in started:
        await lookout.kill()


async def registered(town: Town, channel: str, version: int) -> None:
    """Return when the canister has this version."""

    async def look() -> None:
        while await town.registered_version(channel) != version:  # noqa: ASYNC110  (the canister tells nobody)
            await asyncio.sleep(0.05)

    await within(look(), f"version {version} registered")


async def test_it_refutes_while_the_node_is_stopped_in_its_tracks(town: Town, lookouts: list[Lookout]) -> None:
    alice, bob = await town.pair()
    lookout = await Lookout(bob).start()  # before there is any channel
    lookouts.append(lookout)
    await lookout.until(lambda log: "watch.started" in log)
    channel = await town.open(alice, bob, 50, challenge_s=60)
    old = town.newest(alice, channel)
    await town.pay(alice, channel, 20 * ICP)
    await lookout.until(lambda log: "channels=1" in log)
    params = town.row(alice, channel).terms.params
    bob.signal(signal.SIGSTOP)
    try:
        await alice.kill()
        assert (await town.perun.dispute(params, old)).value is None
        await registered(town, channel, 1)
    finally:
        bob.signal(signal.SIGCONT)
    await lookout.until(lambda log: "channel.refuted" in log)
    rung = [(alarm["event"], alarm["channel"], alarm["data"]) for alarm in await lookout.rung()]
    assert rung == [("channel.refuting", channel, {"registered": 0, "ours": 1})]

    await town.devnet.advance(61)
    await alice.start()
    await town.settles(channel, alice, bob)
    await lookout.until(lambda log: "channels=0" in log)
    assert await lookout.stop() == 0


async def test_it_refutes_while_a_migration_is_under_way_and_knows_nothing_of_its_schema(
    town: Town, lookouts: list[Lookout]
) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50, challenge_s=60)
    old = town.newest(alice, channel)
    await town.pay(alice, channel, 20 * ICP)
    params = town.row(alice, channel).terms.params
    await alice.kill()
    await bob.stop()
    store = apsw.Connection(str(bob.dir / STORE_NAME))
    view = store.execute("SELECT sql FROM sqlite_master WHERE name = 'watched'").fetchall()[0][0]
    store.execute("BEGIN IMMEDIATE; DROP VIEW watched; CREATE TABLE novelty(id INTEGER PRIMARY KEY)")
    lookout = await Lookout(bob).start()
    lookouts.append(lookout)

    assert (await town.perun.dispute(params, old)).value is None
    await registered(town, channel, 1)

    store.execute(f"{view}; PRAGMA user_version = 99; COMMIT")
    store.close()
    await lookout.until(lambda log: "channel.refuted" in log)
    assert "unreadable" not in lookout.log.read_text()
    assert await lookout.stop() == 0


async def test_with_forty_percent_of_the_period_left_there_is_time_enough(town: Town, lookouts: list[Lookout]) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50, challenge_s=120)
    old = town.newest(alice, channel)
    await town.pay(alice, channel, 20 * ICP)
    params = town.row(alice, channel).terms.params
    await alice.kill()
    await bob.kill()
    assert (await town.perun.dispute(params, old)).value is None
    await town.devnet.advance(72)

    lookouts.append(await Lookout(bob).start())
    await registered(town, channel, 1)
    log = await lookouts[0].until(lambda log: "channel.refuted" in log)
    assert "watcher.margin_quarter" not in log
    assert await lookouts[0].stop() == 0
    await bob.start()
    await town.devnet.advance(121)
    await alice.start()
    await town.settles(channel, alice, bob)


async def test_two_lookouts_and_the_node_race_and_do_no_harm(town: Town, lookouts: list[Lookout]) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50, challenge_s=60)
    versions = [town.newest(alice, channel)]
    for _ in range(3):
        await town.pay(alice, channel, ICP)
        versions.append(town.newest(alice, channel))
    params = town.row(alice, channel).terms.params
    for name in ("one", "two"):
        lookouts.append(await Lookout(bob, name).start())
        await lookouts[-1].until(lambda log: "channels=1" in log)
    await alice.kill()
    for signed in versions[:-1]:
        await town.perun.dispute(params, signed)
    await registered(town, channel, 3)
    # Whoever was first refuted; to the others its version is as good as theirs.
    await town.until(bob, channel, lambda c: c.registered is not None and c.registered.ours, "ours registered")
    for lookout in lookouts:
        assert await lookout.stop() == 0
        assert "Traceback" not in lookout.log.read_text()
    await town.devnet.advance(61)
    await alice.start()
    await town.settles(channel, alice, bob)


async def test_lying_queries_and_a_lost_refutation_only_delay_it(town: Town, lookouts: list[Lookout]) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50, challenge_s=60)
    old = town.newest(alice, channel)
    await town.pay(alice, channel, 20 * ICP)
    params = town.row(alice, channel).terms.params
    await alice.kill()
    await bob.kill()
    lookouts.append(await Lookout(bob).start())
    await lookouts[0].until(lambda log: "channels=1" in log)
    assert (await town.perun.dispute(params, old)).value is None
    await order(town, fault="hidden_registration", endpoint="query", count=1_000)
    await order(town, fault="drop_before", endpoint="call", method="dispute", count=3)

    await registered(town, channel, 1)
    assert await lookouts[0].stop() == 0


async def test_a_replica_that_sends_the_cursor_far_ahead_hides_nothing(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    old = town.newest(alice, channel)
    await town.pay(alice, channel, 20 * ICP)
    params = town.row(alice, channel).terms.params
    await alice.kill()
    await order(town, fault="far_cursor", endpoint="query", count=1_000)
    assert (await town.perun.dispute(params, old)).value is None

    await registered(town, channel, 1)


async def order(town: Town, **fault: str | int) -> None:
    """Have requests to the Internet Computer fail."""
    async with aiohttp.ClientSession() as http, http.post(f"{town.devnet.url}/_devnet/faults", json=fault) as answer:
        assert answer.status == 200, await answer.text()


async def test_one_round_for_cron_says_by_its_status_whether_something_was_wrong(
    town: Town, lookouts: list[Lookout]
) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50, challenge_s=60)
    old = town.newest(alice, channel)
    await town.pay(alice, channel, 20 * ICP)
    params = town.row(alice, channel).terms.params
    await alice.kill()
    await bob.stop()  # cleanly: the store is one file now

    lookout = Lookout(bob)
    lookouts.append(lookout)
    files = _files(bob.dir)
    assert await (await lookout.start("--once")).ended() == 0
    assert lookout.alarms() == []
    assert _files(bob.dir).keys() - files.keys() <= {f"{STORE_NAME}-wal", f"{STORE_NAME}-shm"}
    assert (bob.dir / STORE_NAME).read_bytes() == files[STORE_NAME]  # not a byte is written
    assert (await town.perun.dispute(params, old)).value is None
    assert await (await lookout.start("--once")).ended() == 1
    assert await town.registered_version(channel) == 1
    assert [alarm["event"] for alarm in lookout.alarms()] == ["channel.refuting"]
    assert await (await lookout.start("--once")).ended() == 0  # refuted: all is well again
    await town.devnet.stop()
    assert await (await lookout.start("--once")).ended() == 1  # nothing certified came


def _files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


async def test_a_directory_without_a_node_is_a_clear_error(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "perund.cli.daemon", "watch", "--dir", str(tmp_path), stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 1
    assert b"perund.toml" in said
