"""A lost disk costs time and fees: the phrase and the backup file find every channel again (rule 7)."""

import asyncio
import json
import random
import shutil
from pathlib import Path

import apsw
import pytest

from perund.control.errors import RpcError
from perund.demo.processes import PASSPHRASE, NodeProcess
from perund.keystore import KeyStore
from perund.node.daemon import STORE_NAME
from perund.recovery.backup import BACKUP_NAME, read_backup
from perund.store.reading import open_reader
from tests.e2e.shell import perund
from tests.e2e.town import FEE, ICP, Town


async def restored(node: NodeProcess, directory: Path) -> NodeProcess:
    """The node on another machine: only its 24 words and its backup file came along."""
    words = directory / "words"
    words.write_text(KeyStore(node.dir).open(PASSPHRASE).phrase)
    saved = directory / "saved.backup"
    shutil.copy(node.dir / BACKUP_NAME, saved)
    other = NodeProcess(directory, "restored")
    ran = await perund(
        "restore", "--dir", str(other.dir), "--backup", str(saved), "--phrase-file", str(words),
        "--non-interactive", "--json", PERUND_PASSPHRASE=PASSPHRASE,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.json["node_id"] == node.info.node_id
    return await other.start()


async def test_a_restored_node_adopts_the_newest_state_and_closes_far_above_it(town: Town, tmp_path: Path) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    for amount in (7, 8):
        await town.pay(alice, channel, amount * ICP)
    await town.pay(bob, channel, 5 * ICP)
    await alice.stop()

    again = await restored(alice, tmp_path)
    view = await town.closed(again, channel)
    assert view.version == 2**32
    assert view.payout_e8s == 40 * ICP - FEE
    await town.closed(bob, channel)
    assert await town.balance(bob) == 310 * ICP - FEE
    await again.stop()


async def test_a_restored_node_whose_peer_is_gone_disputes_only_when_the_risk_is_named(
    town: Town, tmp_path: Path
) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await alice.stop()
    await bob.stop()

    again = await restored(alice, tmp_path)
    assert (await town.view(again, channel)).recovering
    with pytest.raises(RpcError) as refused:
        await again.control.call("channel.dispute", {"channel": channel})
    assert refused.value.name == "channel_recovering"
    await again.control.call("channel.dispute", {"channel": channel, "accept_risk": True})
    await town.until(again, channel, lambda c: c.registered is not None, "state 0 registered")
    await town.devnet.advance(13)
    view = await town.closed(again, channel)
    assert view.payout_e8s == 50 * ICP - FEE
    await again.stop()


async def test_a_copy_of_the_store_knows_that_it_is_one(town: Town, tmp_path: Path) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await town.pay(alice, channel, 1 * ICP)
    copy = tmp_path / "copy.db"
    ran = await perund("backup", "--dir", str(alice.dir), "--store", str(copy), "--json")
    assert ran.json == {"store": str(copy), "channels": 1}
    await town.pay(alice, channel, 2 * ICP)
    await alice.stop()
    for suffix in ("", "-wal", "-shm"):
        (alice.dir / f"{STORE_NAME}{suffix}").unlink(missing_ok=True)
    shutil.copy(copy, alice.dir / STORE_NAME)

    await alice.start()
    view = await town.closed(alice, channel)
    assert view.version == 2**32
    assert view.payout_e8s == 47 * ICP - FEE


async def test_check_finds_nothing_in_a_healthy_store_and_names_what_is_wrong(town: Town, tmp_path: Path) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await town.pay(alice, channel, 1 * ICP)
    for node in (alice, bob):
        ran = await perund("check", "--dir", str(node.dir), "--json")
        assert (ran.code, ran.json) == (0, {"channels": 1, "findings": []})
    await alice.stop()
    database = apsw.Connection(str(alice.dir / STORE_NAME))
    database.execute("UPDATE channel_state SET allocation_0 = allocation_0 + 1")
    database.close()
    ran = await perund("check", "--dir", str(alice.dir), "--json", "--offline")
    assert ran.code == 1
    wrong = " ".join(finding["what"] for finding in json.loads(ran.out)["findings"])
    assert "not signed by both" in wrong
    assert "rule 6" in wrong


async def test_a_backup_that_is_not_ours_or_damaged_is_refused(town: Town, tmp_path: Path) -> None:
    alice, bob = await town.pair()
    await town.open(alice, bob, 50)
    words = tmp_path / "words"
    words.write_text(KeyStore(bob.dir).open(PASSPHRASE).phrase)
    content = (alice.dir / BACKUP_NAME).read_bytes()
    for name, damaged in (("foreign", content), ("cut", content[:-1]), ("text", b"hello")):
        path = tmp_path / name
        path.write_bytes(damaged)
        target = tmp_path / f"{name}-node"
        ran = await perund(
            "restore", "--dir", str(target), "--backup", str(path), "--phrase-file", str(words), "--non-interactive",
            "--json", PERUND_PASSPHRASE=PASSPHRASE,
        )  # fmt: skip
        assert ran.code == 1
        assert "backup" in ran.error["message"] or "24 words" in ran.error["message"]
        assert not target.exists()


@pytest.mark.parametrize("kept", ["an old copy of the store", "no store"])
async def test_a_node_that_lacks_a_channel_of_its_backup_file_takes_it_up(
    town: Town, tmp_path: Path, kept: str
) -> None:
    """The file would be rewritten from the store at every start: without this, the newer channel would be gone."""
    alice, bob = await town.pair()
    first = await town.open(alice, bob, 50)
    copy = tmp_path / "copy.db"
    ran = await perund("backup", "--dir", str(alice.dir), "--store", str(copy), "--json")
    assert ran.code == 0, ran.err
    second = await town.open(alice, bob, 40)
    await town.pay(alice, second, 7 * ICP)
    await alice.kill()
    for path in alice.dir.glob(f"{STORE_NAME}*"):
        path.unlink()
    if kept != "no store":
        shutil.copy(copy, alice.dir / STORE_NAME)

    await alice.start()
    view = await town.closed(alice, second)
    assert (view.version, view.payout_e8s) == (2**32, 33 * ICP - FEE)
    assert (await town.event(alice, "node.store_is_old")).data["channels"] == (2 if kept == "no store" else 1)
    # In the other one nothing was lost, and nobody can show that: it is for its operator to say so.
    await town.until(alice, first, lambda c: c.phase == "open", "open again")
    with pytest.raises(RpcError) as refused:
        await alice.control.call("channel.close", {"channel": first})
    assert refused.value.name == "channel_recovering"
    await alice.control.call("channel.recover", {"channel": first, "accept_version": 0})
    view = await town.closed(alice, first)
    assert (view.version, view.payout_e8s) == (2**32, 50 * ICP - FEE)
    assert await town.balance(alice) == 300 * ICP - 7 * ICP - 4 * FEE


async def test_a_node_that_is_killed_while_channels_open_left_a_file_that_has_each_of_them(town: Town) -> None:
    """The file as the kill left it, on its own: what the other side can hold our signature for is in it."""
    alice, bob = await town.pair()
    keys = {node: KeyStore(node.dir).open(PASSPHRASE) for node in (alice, bob)}
    rng = random.Random(7)
    await town.open(alice, bob, 1)
    for turn in range(6):
        killed, other = (alice, bob) if turn % 2 else (bob, alice)
        openings = [asyncio.create_task(town.propose(alice, bob, 1)) for _ in range(2)]
        await asyncio.sleep(rng.uniform(0.001, 0.2))  # the moment of a kill is what is tried here
        await killed.kill()
        for opening in openings:
            opening.cancel()
        await asyncio.gather(*openings, return_exceptions=True)
        found = read_backup(killed.dir / BACKUP_NAME, keys[killed])
        assert found.faults == []
        shares = {channel.our_share for channel in found.channels} | {share for _, share in found.half_open}
        theirs = [row.terms for row in open_reader(other.dir / STORE_NAME).channels_page(None, 0, 999)]
        assert {terms.peer_share for terms in theirs} <= shares, "our signature left before the file had it"
        await killed.start()
    for node in (alice, bob):
        await node.stop()
        rows = open_reader(node.dir / STORE_NAME).channels_page(None, 0, 999)
        found = read_backup(node.dir / BACKUP_NAME, keys[node])
        assert {row.terms.proposal_id for row in rows if row.memory.phase != "closed"} <= {
            channel.proposal_id for channel in found.channels
        }
        assert len(rows) > 1, "something was opened"
