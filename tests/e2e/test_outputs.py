"""What a command writes replaces nothing of anybody else, and what it cannot do with an option it says."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import apsw
import pytest

from perund.demo.processes import PASSPHRASE, NodeProcess
from perund.keystore import KeyStore
from perund.node.daemon import STORE_NAME
from perund.recovery.backup import BACKUP_NAME, read_backup
from tests.e2e.shell import Ran, executable, perun, perund, run
from tests.e2e.test_bad_disk import confined
from tests.e2e.town import ICP, Town

KEPT = ("keystore.json", "perund.toml", STORE_NAME, "perund.lock")


async def backup(node: NodeProcess, *options: str) -> Ran:
    return await perund("backup", "--dir", str(node.dir), *options, PERUND_PASSPHRASE=PASSPHRASE)


def everything(directory: Path) -> dict[str, bytes | str]:
    """What is in a directory: contents, and where links lead to. What SQLite keeps beside a store comes and goes."""
    found: dict[str, bytes | str] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if name.endswith(("-wal", "-shm")):
            continue
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            found[name] = path.read_bytes()
        else:
            found[name] = ""
    return found


async def test_a_backup_is_written_over_nothing_but_an_older_one_of_this_node(town: Town, tmp_path: Path) -> None:
    alice, bob = await town.pair()
    await town.open(alice, bob, 50)
    await alice.stop()
    database = apsw.Connection(str(alice.dir / STORE_NAME))
    database.pragma("wal_checkpoint", "TRUNCATE")
    database.close()
    others = tmp_path / "others"
    others.mkdir()
    (others / "empty").touch()
    (others / "text").write_text("precious")
    (others / "directory").mkdir()
    shutil.copy(bob.dir / BACKUP_NAME, others / "bobs.backup")
    os.mkfifo(others / "pipe")
    (others / "link to keys").symlink_to(alice.dir / "keystore.json")
    (others / "link to nowhere").symlink_to(others / "no" / "directory")
    (others / "link to itself").symlink_to(others / "link to itself")
    damaged = bytearray((alice.dir / BACKUP_NAME).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (others / "damaged").write_bytes(damaged)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(others / "socket"))
        before = everything(alice.dir), everything(others)
        targets = [
            *others.iterdir(),
            *(alice.dir / name for name in KEPT),
            others / "text" / "below",
            Path("/dev/full"),
        ]
        for target in targets:
            ran = await backup(alice, "--out", str(target), "--json")
            assert ran.code == (2 if target.is_dir() else 1), (target, ran)
            assert target.is_dir() or ran.error["hint"]
            assert "Traceback" not in ran.err
            assert (everything(alice.dir), everything(others)) == before, target


async def test_a_copy_of_the_store_is_written_over_nothing(town: Town, tmp_path: Path) -> None:
    alice = await town.node("alice", icp=0)
    others = tmp_path / "others"
    others.mkdir()
    (others / "text").write_text("precious")
    (others / "empty").touch()
    os.mkfifo(others / "pipe")
    (others / "link to text").symlink_to(others / "text")
    (others / "link to a new file").symlink_to(others / "new")
    before = everything(others)
    theirs = [others / name for name in before]
    for target in (*theirs, alice.dir / "keystore.json", alice.dir / STORE_NAME, Path("/dev/full")):
        ran = await backup(alice, "--store", str(target), "--json")
        assert ran.code == 1, (target, ran)
        assert "nothing was overwritten" in ran.error["hint"]
        assert everything(others) == before, target


async def test_an_older_backup_of_this_node_is_replaced_also_behind_a_link(town: Town, tmp_path: Path) -> None:
    alice, bob = await town.pair()
    await town.open(alice, bob, 50)
    stick = tmp_path / "stick"
    stick.mkdir()
    link = tmp_path / "link"
    link.symlink_to(stick / "alice.backup")
    assert (await backup(alice, "--out", str(link), "--json")).json["channels"] == 1
    await town.open(alice, bob, 40)
    assert (await backup(alice, "--out", str(link), "--json")).json["channels"] == 2
    assert link.is_symlink()
    keys = KeyStore(alice.dir).open(PASSPHRASE)
    found = read_backup(stick / "alice.backup", keys)
    assert (len(found.channels), found.faults, found.torn) == (2, [], False)
    assert (stick / "alice.backup").stat().st_mode & 0o077 == 0
    assert [path.name for path in stick.iterdir()] == ["alice.backup"]


async def test_the_file_of_a_running_node_is_left_to_it(town: Town) -> None:
    alice, bob = await town.pair()
    await town.open(alice, bob, 50)
    own = alice.dir / BACKUP_NAME
    inode = own.stat().st_ino
    for options in ((), ("--out", str(own))):
        ran = await backup(alice, "--json", *options)
        assert (ran.json["channels"], ran.json["kept_by_node"]) == (1, True)
    assert own.stat().st_ino == inode
    await town.open(alice, bob, 40)
    assert (await backup(alice, "--json")).json["channels"] == 2
    await alice.stop()
    ran = await backup(alice, "--json")
    assert (ran.json["channels"], ran.json["kept_by_node"]) == (2, False)


async def test_a_backup_from_an_old_store_does_not_replace_what_knows_more(town: Town, tmp_path: Path) -> None:
    """The channel that only the file has would be gone."""
    alice, bob = await town.pair()
    await town.open(alice, bob, 50)
    copy = tmp_path / "copy.db"
    assert (await backup(alice, "--store", str(copy))).code == 0
    await town.open(alice, bob, 40)
    await alice.stop()
    saved = tmp_path / "saved"
    shutil.copy(alice.dir / BACKUP_NAME, saved)
    for path in alice.dir.glob(f"{STORE_NAME}*"):
        path.unlink()
    shutil.copy(copy, alice.dir / STORE_NAME)
    before = saved.read_bytes()
    for options in ((), ("--out", str(saved)), ("--out", str(alice.dir / BACKUP_NAME))):
        ran = await backup(alice, "--json", *options)
        assert ran.code == 1
        assert "does not know" in ran.error["message"]
    assert saved.read_bytes() == before == (alice.dir / BACKUP_NAME).read_bytes()


async def test_a_copy_of_the_store_takes_no_log_that_lies_there(town: Town, tmp_path: Path) -> None:
    alice, bob = await town.pair()
    await town.open(alice, bob, 50)
    for suffix in ("-wal", "-journal", "-shm"):
        (tmp_path / f"copy.db{suffix}").write_text("of another database")
        ran = await backup(alice, "--store", str(tmp_path / "copy.db"), "--json")
        assert ran.code == 1
        assert f"copy.db{suffix} exists already" in ran.error["message"]
        (tmp_path / f"copy.db{suffix}").unlink()
    assert not (tmp_path / "copy.db").exists()
    assert (await backup(alice, "--store", str(tmp_path / "copy.db"), "--json")).json["channels"] == 1
    assert (tmp_path / "copy.db").stat().st_mode & 0o077 == 0


CONTRADICTIONS = [
    ("backup", "--out", "a", "--store", "b"),
    ("backup", "--store", "b", "--passphrase-file", "c"),
    ("watchtower", "--status", "--passphrase-file", "c"),
    ("watchtower", "--json"),
    ("restore", "--backup", "a", "--phrase-file", "-", "--passphrase-file", "-"),
    ("init", "--network", "local", "--canister", "x", "--phrase-file", "-", "--passphrase-file", "-"),
]


@pytest.mark.parametrize("arguments", CONTRADICTIONS, ids=" ".join)
async def test_options_that_contradict_each_other_are_a_usage_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "a").touch()
    ran = await perund(
        *(str(tmp_path / a) if a in ("a", "b", "c") else a for a in arguments), "--dir", str(tmp_path / "node")
    )
    assert ran.code == 2, ran
    assert list(everything(tmp_path)) == ["a"]


async def test_the_directory_that_is_named_is_the_one_that_is_asked(town: Town) -> None:
    """A variable of the shell sent commands to another node than the one they named."""
    alice, bob = await town.pair()
    for arguments in (("--dir", str(alice.dir), "info"), ("info", "--dir", str(alice.dir))):
        ran = await perun(*arguments, "--json", PERUND_DIR=str(bob.dir))
        assert ran.json["node_id"] == alice.info.node_id
    assert (await perun("info", "--json", PERUND_DIR=str(bob.dir))).json["node_id"] == bob.info.node_id
    both = await perun("--dir", str(alice.dir), "info", "--dir", str(bob.dir))
    assert both.code == 2
    assert "twice" in both.err


async def test_a_port_that_none_can_be_changes_nothing(town: Town, tmp_path: Path) -> None:
    alice, bob = await town.pair()
    await town.open(alice, bob, 50)
    for place in ("127.0.0.1:99999", "127.0.0.1:0", "::1:9735"):
        ran = await perun("connect", f"{bob.info.node_id}@{place}", "--dir", str(alice.dir))
        assert ran.code == 2, ran
    ran = await perun("connect", f"{bob.info.node_id}@127.0.0.1:1", "--dir", str(alice.dir), "--json")
    assert (ran.code, ran.error["name"]) == (3, "peer_unreachable")
    assert "nothing was changed" in ran.error["message"]
    assert (await perun("connect", bob.address, "--dir", str(alice.dir))).code == 0
    keys = KeyStore(alice.dir).open(PASSPHRASE)
    (peer,) = read_backup(alice.dir / BACKUP_NAME, keys).peers
    assert f"{peer.host}:{peer.port}" == bob.info.listen


async def test_a_store_that_an_older_version_poisoned_is_healed(town: Town, tmp_path: Path) -> None:
    """It has a port that none can be, and so had each backup: none of those opened."""
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await bob.stop()  # it would say where it is
    await alice.stop()
    database = apsw.Connection(str(alice.dir / STORE_NAME))
    database.execute("UPDATE peer_address SET port = 99999")
    database.close()
    await alice.start()
    out = tmp_path / "out"
    ran = await backup(alice, "--out", str(out), "--json")
    assert ran.json["channels"] == 1
    assert ran.json["left_out"] == []
    assert "99999 is not a port" in ran.json["ignored"][0]
    for path in (out, alice.dir / BACKUP_NAME):
        found = read_backup(path, KeyStore(alice.dir).open(PASSPHRASE))
        assert (len(found.channels), found.peers, found.faults) == (1, [], [])

    health = await perun("health", "--dir", str(alice.dir), "--json")
    assert (health.code, "peer_address_unusable" in health.out) == (1, True), health
    await bob.start()
    assert (await perun("connect", bob.address, "--dir", str(alice.dir))).code == 0
    assert (await perun("health", "--dir", str(alice.dir), "--json")).json["ok"] is True
    await town.pay(alice, channel, 1 * ICP)
    (peer,) = read_backup(alice.dir / BACKUP_NAME, KeyStore(alice.dir).open(PASSPHRASE)).peers
    assert f"{peer.host}:{peer.port}" == bob.info.listen


async def test_health_says_that_the_backup_does_not_open(town: Town) -> None:
    alice, bob = await town.pair()
    await town.open(alice, bob, 50)
    path = alice.dir / BACKUP_NAME
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    ran = await perun("health", "--dir", str(alice.dir), "--json")
    assert ran.code == 1
    assert "backup_unreadable" in ran.out
    await town.open(alice, bob, 40)  # an opening needs a good file, and makes one
    assert len(read_backup(path, KeyStore(alice.dir).open(PASSPHRASE)).channels) == 2
    assert (await perun("health", "--dir", str(alice.dir), "--json")).json["ok"] is True
    (aside,) = alice.dir.glob(f"{BACKUP_NAME}.unreadable-*")
    assert aside.read_bytes() == content


async def test_a_restore_on_a_full_disk_leaves_no_node_that_knows_no_channels(town: Town, tmp_path: Path) -> None:
    """With its keys and without its channels it would start, and watch nothing; so they come last, or not at all."""
    alice, bob = await town.pair()
    await town.open(alice, bob, 50)
    words, restored = tmp_path / "words", tmp_path / "restored"
    words.write_text(KeyStore(alice.dir).open(PASSPHRASE).phrase)
    await alice.stop()
    restore = (
        executable("perund"), "restore", "--dir", str(restored), "--backup", str(alice.dir / BACKUP_NAME),
        "--phrase-file", str(words), "--non-interactive", "--json",
    )  # fmt: skip
    for bytes_that_fit in (2_000, 20_000, 60_000):
        ran = await run(*confined(f"file-bytes={bytes_that_fit}"), *restore, PERUND_PASSPHRASE=PASSPHRASE)
        assert ran.code == 1, ran
        assert list(restored.iterdir()) == []
    ran = await run(*restore, PERUND_PASSPHRASE=PASSPHRASE)
    assert len(ran.json["channels"]) == 1


async def test_a_restore_takes_what_is_good_and_says_what_is_not(town: Town, tmp_path: Path) -> None:
    alice, bob = await town.pair()
    for amount in (50, 40, 30):
        await town.open(alice, bob, amount)
    words = tmp_path / "words"
    words.write_text(KeyStore(alice.dir).open(PASSPHRASE).phrase)
    content = bytearray((alice.dir / BACKUP_NAME).read_bytes())
    await alice.stop()
    content[-100] ^= 1  # in the record of the last channel
    for name, saved, code, channels in (
        ("damaged", bytes(content), 5, 2), ("torn", bytes(content[:-50]), 0, 2), ("cut", bytes(content[:9_000]), 5, 0),
    ):  # fmt: skip
        path = tmp_path / name
        path.write_bytes(saved)
        ran = await perund(
            "restore", "--dir", str(tmp_path / f"{name}-node"), "--backup", str(path), "--phrase-file", str(words),
            "--non-interactive", PERUND_PASSPHRASE=PASSPHRASE,
        )  # fmt: skip
        assert ran.code == code, (name, ran)
        assert f"is restored, with {channels} channels" in ran.out
        assert ("not restored: " in ran.err) is (code == 5)
        assert ("is incomplete" in ran.err) is (name != "damaged")
