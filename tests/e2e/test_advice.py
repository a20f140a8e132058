"""What commands say and do when somebody has the words, or has lost the passphrase: following it loses nothing."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from perund.demo.processes import PASSPHRASE, NodeProcess
from perund.keystore import FILE_NAME, KeyStore
from perund.mnemonic import new_entropy, phrase_of
from perund.recovery.backup import BACKUP_NAME
from tests.e2e.test_bad_disk import refused
from tests.e2e.town import ICP, Town

NEW_PASSPHRASE = "another battery staple"


@dataclass
class Said:
    """How a command ended. Nothing of it may show words or passphrases."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        told = json.loads(self.out)
        assert isinstance(told, dict)
        return told


async def perund(*arguments: str | Path, stdin: str = "", passphrase: str = PASSPHRASE) -> Said:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "perund.cli.daemon", *map(str, arguments),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "PERUND_PASSPHRASE": passphrase},
    )  # fmt: skip
    out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    said = Said(process.returncode, out.decode(), err.decode())
    assert "Traceback" not in said.err
    return said


def words_of(node: NodeProcess, layout: str = "{n:2d} {w:<9} ") -> Path:
    """The words on paper: numbered, six in a line."""
    path = node.dir.parent / f"{node.name}.words"
    words = KeyStore(node.dir).open(PASSPHRASE).phrase.split()
    told = [layout.format(n=n, w=w) for n, w in enumerate(words, 1)]
    path.write_text("\n".join("".join(told[start : start + 6]) for start in range(0, 24, 6)))
    return path


async def init(town: Town, directory: Path, words: Path, *more: str, url: str | None = None) -> Said:
    return await perund(
        "init", "--dir", directory, "--network", "local", "--url", url or town.devnet.url, "--canister",
        town.devnet.perun_canister, "--ledger", town.devnet.icp_ledger, "--listen", "127.0.0.1:0", "--root-key",
        town.devnet.root_key, "--non-interactive", "--phrase-file", words, "--json", *more,
    )  # fmt: skip


def made(directory: Path) -> bool:
    return directory.exists()


async def test_words_of_a_node_with_channels_make_no_node_without_them(town: Town, tmp_path: Path) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await town.pay(alice, channel, 5 * ICP)
    await bob.stop()
    new = tmp_path / "new"

    said = await init(town, new, words_of(alice))
    assert said.status == 1
    for part in ("has had channels", "perund restore --backup", "--without-channels"):
        assert part in said.err
    assert not made(new)

    # Who put nothing in has left no trace on the ledger; but the peer knows.
    said = await init(town, new, words_of(bob), "--ask-peer", alice.address)
    assert said.status == 1
    assert "has a channel with the node of these words" in said.err
    assert not made(new)

    said = await init(town, new, words_of(bob), url="http://127.0.0.1:9")
    assert said.status == 1
    assert "cannot be asked" in said.err
    assert not made(new)

    said = await init(town, new, words_of(bob), "--without-channels")
    assert said.status == 0, said.err
    assert "is not watched" in said.json["warning"]
    await bob.start()


async def test_words_that_were_never_used_make_a_node(town: Town, tmp_path: Path) -> None:
    alice = await town.node("alice")
    fresh = tmp_path / "fresh.words"
    fresh.write_text(phrase_of(new_entropy()))
    said = await init(town, tmp_path / "fresh", fresh, "--ask-peer", alice.address)
    assert said.status == 0, said.err
    assert "perund restore" in said.json["warning"]


@pytest.mark.parametrize("lost", ["the passphrase", "the key store", "damaged"])
async def test_a_lost_passphrase_or_key_store_costs_no_channel(town: Town, tmp_path: Path, lost: str) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await town.pay(alice, channel, 5 * ICP)
    words, foreign = words_of(bob), words_of(alice)
    await bob.stop()
    keystore = bob.dir / FILE_NAME
    if lost == "the key store":
        keystore.unlink()
    elif lost == "damaged":
        keystore.write_bytes(keystore.read_bytes()[:100])

    said = await perund("run", "--dir", bob.dir, passphrase="forgotten it is")
    assert said.status == 1
    assert "perund passphrase --dir" in said.err
    assert "perund restore" in said.err

    new = tmp_path / "new-passphrase"
    new.write_text(NEW_PASSPHRASE)
    change = ("passphrase", "--dir", bob.dir, "--new-passphrase-file", new, "--non-interactive")
    said = await perund(*change, "--phrase-file", foreign)
    assert said.status == 1
    assert "nothing was changed" in said.err

    said = await perund(*change, "--phrase-file", words)
    assert said.status == 0, said.err
    assert KeyStore(bob.dir).open(NEW_PASSPHRASE).node_id == bob.info.node_id

    said = await perund(*change[:3], "--new-passphrase-file", "-", "--non-interactive", stdin=f"{PASSPHRASE}\n",
                        passphrase=NEW_PASSPHRASE)  # fmt: skip
    assert said.status == 0, said.err
    assert not [path.name for path in bob.dir.iterdir() if path.name.startswith(f".{FILE_NAME}")]
    await bob.start()
    await town.pay(alice, channel, 1 * ICP)
    assert (await town.view(bob, channel)).mine_e8s == 6 * ICP


async def test_a_passphrase_that_does_not_do_changes_nothing(town: Town) -> None:
    alice = await town.node("alice", icp=0)
    before = (alice.dir / FILE_NAME).read_bytes()
    wrong = await perund("passphrase", "--dir", alice.dir, "--new-passphrase-file", "-", "--non-interactive",
                         stdin="long enough", passphrase="not this one")  # fmt: skip
    short = await perund("passphrase", "--dir", alice.dir, "--new-passphrase-file", "-", "--non-interactive",
                         stdin="short")  # fmt: skip
    assert (wrong.status, short.status) == (1, 1)
    assert "at least 8" in short.err
    assert (alice.dir / FILE_NAME).read_bytes() == before
    await town.restart(alice)


async def test_restore_takes_the_words_as_init_prints_them(town: Town, tmp_path: Path) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await town.pay(alice, channel, 5 * ICP)
    await bob.stop()
    (bob.dir / FILE_NAME).rename(tmp_path / "hidden.json")
    assert "a node lived here" in await refused(bob)
    (tmp_path / "hidden.json").rename(bob.dir / FILE_NAME)
    said = await perund("restore", "--dir", tmp_path / "bob2", "--backup", bob.dir / BACKUP_NAME, "--phrase-file",
                        words_of(bob), "--non-interactive", "--json")  # fmt: skip
    assert said.status == 0, said.err
    assert said.json["channels"] == [channel]
    await bob.start()
