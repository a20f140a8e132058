"""What the README has people type, in four terminals, word for word."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.shell import PASSPHRASE, executable, perun, perund
from tests.e2e.town import FEE, ICP, free_port, within


class Terminal:
    """A command that keeps running in a terminal of its own."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log

    @classmethod
    async def open(cls, log: Path, *arguments: str) -> Terminal:
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                executable("perund"),
                *arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PERUND_PASSPHRASE": PASSPHRASE},
            )
        return cls(process, log)

    async def interrupt(self) -> int:
        """Press ^C."""
        self.process.send_signal(signal.SIGINT)
        return await within(self.process.wait(), "ending after ^C", 20)

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await within(self.process.stdout.readline(), "a line", 30)).decode()


@pytest.fixture
async def terminals(tmp_path: Path) -> AsyncIterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in reversed(opened):
        if terminal.process.returncode is None:
            terminal.process.kill()
            await terminal.process.wait()


async def answers(directory: str) -> dict[str, Any]:
    """Ask `perun info` until the node runs."""

    async def ask() -> dict[str, Any]:
        while (ran := await perun("--dir", directory, "info", "--json")).code != 0 or ran.json["state"] != "running":
            assert ran.code in {0, 4}, ran  # unreachable, until it starts
        found: dict[str, Any] = ran.json
        return found

    return await within(ask(), "the node answering", 40)


async def test_four_terminals(tmp_path: Path, terminals: list[Terminal]) -> None:
    alice, bob = str(tmp_path / "alice"), str(tmp_path / "bob")
    ports = {alice: free_port(), bob: free_port()}
    terminals.append(await Terminal.open(tmp_path / "devnet.log", "devnet", "--port", str(free_port())))
    ready = json.loads(await terminals[0].line())
    assert set(ready) == {"url", "root_key", "perun_canister", "icp_ledger"}
    url, canister, ledger = ready["url"], ready["perun_canister"], ready["icp_ledger"]

    for directory in (alice, bob):
        made = await perund(
            "init", "--dir", directory, "--network", "local", "--url", url, "--canister", canister,
            "--ledger", ledger, "--listen", f"127.0.0.1:{ports[directory]}",
        )  # fmt: skip
        assert made.code == 0, made
        assert "24 words" in made.out
    policy = Path(bob) / "perund.toml"  # bob's policy allows his 194
    text = policy.read_text()
    assert "contribute_max_e8s = 0" in text
    policy.write_text(text.replace("contribute_max_e8s = 0", 'contribute_max_e8s = "194 ICP"'))
    terminals += [await Terminal.open(Path(d + ".log"), "run", "--dir", d) for d in (alice, bob)]

    info = {directory: await answers(directory) for directory in (alice, bob)}
    assert {
        "node_id", "version", "pid", "data_dir", "listen", "network", "network_hash", "root_key", "perun_canister",
        "icp_ledger", "principal", "account", "chain_time", "chain_time_ns", "channels", "peers",
    } <= set(info[alice])  # fmt: skip
    assert info[alice]["listen"] == f"127.0.0.1:{ports[alice]}"
    assert info[alice]["root_key"] == ready["root_key"]
    assert info[alice]["pid"] == terminals[1].process.pid
    async with aiohttp.ClientSession() as http:
        for directory in (alice, bob):
            body = {"account": info[directory]["account"], "e8s": 300 * ICP}
            async with http.post(f"{url}/_devnet/mint", json=body) as answer:
                assert answer.status == 200

    opened = await perun(
        "--dir", alice, "open", f"{info[bob]['node_id']}@127.0.0.1:{ports[bob]}", "--mine", "242", "--theirs", "194",
        "--challenge", "60s", "--json",
    )  # fmt: skip
    channel = opened.json["channel"]
    assert opened.json["phase"] == "open"
    assert (opened.json["mine_e8s"], opened.json["theirs_e8s"]) == (str(242 * ICP), str(194 * ICP))
    paid = await perun("--dir", alice, "pay", channel, "1.5")
    assert paid.out.startswith("1.5 ICP delivered (payment "), paid
    short = channel[:12]
    assert (await perun("--dir", bob, "pay", short, "0.25 ICP", "--memo", "tea", "--json")).json["version"] == 2
    closed = (await perun("--dir", alice, "close", channel, "--json")).json
    assert closed["phase"] == "closed"
    assert closed["payout_e8s"] == str(242 * ICP - 125_000_000 - FEE)

    wallet = (await perun("--dir", alice, "wallet", "balance", "--json")).json
    assert wallet["balance_e8s"] == str(300 * ICP - 125_000_000 - 2 * FEE)
    refused = await perun("--dir", alice, "pay", channel, "1", "--json")
    assert (refused.code, refused.error["name"]) == (3, "channel_closed")
    for terminal in reversed(terminals):
        assert await terminal.interrupt() == 0, terminal.log.read_text()
    gone = await perun("--dir", alice, "info")
    assert gone.code == 4
    assert "perund run --dir" in gone.err
