"""What people and programs get wrong: an error that says what to do, its exit code, and never a traceback."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from perund.control.envelope import SOCKET_NAME
from perund.demo.processes import PASSPHRASE as NODE_PASSPHRASE
from perund.demo.processes import NodeProcess
from tests.e2e.shell import PASSPHRASE, Ran, executable, perun, perund
from tests.e2e.town import ICP, Town, within

NOWHERE = "http://127.0.0.1:9"


# --- the control socket -----------------------------------------------------------------------------------


class Raw:
    """A client that writes whatever it is told to."""

    def __init__(self, node: NodeProcess) -> None:
        self.path = str(node.dir / SOCKET_NAME)

    async def ask(self, line: bytes) -> Any:
        reader, writer = await asyncio.open_unix_connection(self.path, limit=2**24)
        writer.write(line + b"\n")
        answer = await within(reader.readline(), "an answer", 15)
        writer.close()
        return json.loads(answer)

    async def call(self, method: str, params: object) -> tuple[int, str]:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = await self.ask(json.dumps(body).encode())
        assert "error" in answer, answer
        error = answer["error"]
        assert error["message"]
        assert error["data"]["hint"]
        return error["code"], error["data"]["name"]


async def test_lines_and_calls_that_make_no_sense(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50, challenge_s=600)
    raw, good = Raw(alice), town.newest(alice, channel)

    for line, code in [
        (b"{", -32700),
        (b"\xff\xfe\x00", -32700),
        (b"[]", -32600),
        (b"17", -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"node.info"}', -32600),
        (b'{"jsonrpc":"2.0","id":1}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"node.explode"}', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"node.info","params":{"a":1}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"channel.pay","params":"x"}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"' + b"x" * 2**20 + b'"}', -32600),
        (b"[" * 100_000, -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"node.info","params":' + b"[" * 100_000, -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"channel.pay","params":' + b"[" * 9_000 + b"]" * 9_000 + b"}", -32700),
    ]:
        answer = await raw.ask(line)
        assert answer["error"]["code"] == code, (line[:60], answer)
        assert answer["error"]["message"], line[:60]

    pay = {"channel": channel, "amount_e8s": "1"}
    for changes in (
        {"amount_e8s": 1},
        {"amount_e8s": 1.5},
        {"amount_e8s": "-1"},
        {"amount_e8s": "0"},
        {"amount_e8s": "1e3"},
        {"amount_e8s": "18446744073709551616"},
        {"amount_e8s": "9" * 400},
        {"amount_e8s": None},
        {"channel": "zz"},
        {"channel": channel[:4]},
        {"channel": 5},
        {"memo": "x" * 257},
        {"memo": "é" * 200},
        {"wait": "yes"},
        {"idempotency_key": ""},
        {"payment_id": "00"},
        {"unknown": 1},
        {"amounts_e8s": ["1"]},
    ):
        assert await raw.call("channel.pay", {**pay, **changes}) == (-32602, "invalid_params"), changes
    assert await raw.call("channel.pay", {**pay, "amount_e8s": str(51 * ICP)}) == (300, "insufficient_balance")
    assert await raw.call("channel.pay", {**pay, "amount_e8s": str(2**63 - 1)}) == (300, "insufficient_balance")
    assert await raw.call("channel.pay", {**pay, "amount_e8s": str(2**63)}) == (-32602, "invalid_params")
    unknown = "00000000" if not channel.startswith("00000000") else "11111111"
    for method in ("channel.pay", "channel.get", "channel.close", "channel.dispute", "channel.withdraw"):
        params = {**pay, "channel": unknown} if method == "channel.pay" else {"channel": unknown}
        assert await raw.call(method, params) == (200, "unknown_channel"), method
    assert await raw.call("wallet.send", {"to": "nobody at all", "amount_e8s": "1"}) == (606, "bad_account")
    assert await raw.call("wallet.send", {"to": bob.info.account, "amount_e8s": str(2**63 - 1)}) == (
        601, "insufficient_funds",
    )  # fmt: skip
    assert await raw.call("peer.connect", {"peer": f"{alice.info.node_id}@127.0.0.1:1"}) == (407, "peer_is_self")
    assert await raw.call("peer.connect", {"peer": f"{'02' + '11' * 32}@127.0.0.1:9"}) in (
        (400, "peer_unreachable"), (406, "bad_peer"),
    )  # fmt: skip
    for challenge, name in ((0, "invalid_params"), (10**12, "invalid_params"), (365 * 86_400, "bad_duration")):
        order = {"peer": bob.info.node_id, "mine_e8s": "5", "theirs_e8s": "0", "challenge_s": challenge}
        assert (await raw.call("channel.open", order))[1] == name

    assert town.newest(alice, channel) == good
    await town.pay(alice, channel, 1)
    assert await town.balance(alice) == 250 * ICP - 10_000


# --- command lines ----------------------------------------------------------------------------------------


async def test_amounts_and_channels_as_people_mistype_them(town: Town) -> None:
    alice = await town.node("alice")
    directory = ("--dir", str(alice.dir))
    for arguments in (
        ("pay", "00112233", "-1"),
        ("pay", "00112233", "1,5"),
        ("pay", "00112233", "0"),
        ("pay", "00112233", "0.000000001"),
        ("pay", "00112233", "184467440738 ICP"),
        ("open", "nobody", "--mine", "1"),
        ("open", "nobody", "--mine", "lots"),
        ("wallet", "send", alice.info.account, "ten"),
        ("close", "00112233", "--force-after", "soon"),
        ("channel", "zz"),
        ("channel", "0011"),
        ("payments", "--channel", "my channel"),
        ("connect", "nobody"),
        ("explode",),
        ("pay",),
    ):
        ran = await perun(*arguments, *directory)
        assert ran.code == 2, ran
        assert ran.err
        assert "regex" not in ran.err, "people are not told patterns"
    unknown = await perun("channel", "00112233", *directory)
    assert (unknown.code, unknown.err.startswith("error: there is no channel 00112233; ")) == (3, True), unknown


async def test_without_a_node(tmp_path: Path) -> None:
    nothing = await perun("info", "--dir", str(tmp_path), "--json")
    assert nothing.code == 4
    assert "perund run --dir" in nothing.error["hint"]
    home = await perun("info", HOME=str(tmp_path))
    assert home.code == 4
    assert str(tmp_path / ".perund") in home.err


# --- starting ---------------------------------------------------------------------------------------------


async def start(node: NodeProcess, *arguments: str, **environment: str | None) -> Ran:
    """Run `perund run`, which is to fail."""
    return await perund(
        "run", "--dir", str(node.dir), *arguments, **{"PERUND_PASSPHRASE": NODE_PASSPHRASE, **environment}
    )


def refused(ran: Ran, *words: str) -> None:
    """Check that a command failed with one line that has all these words."""
    assert ran.code == 1, ran
    lines = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, ran
    for word in words:
        assert word in lines[0], ran


async def test_passphrases(town: Town, tmp_path: Path) -> None:
    alice = await town.node("alice", icp=0)
    await alice.stop()
    refused(await start(alice, PERUND_PASSPHRASE="not the one"), "passphrase")
    refused(await start(alice, PERUND_PASSPHRASE=None), "passphrase", "--passphrase-file", "PERUND_PASSPHRASE")
    refused(await start(alice, "--passphrase-file", str(tmp_path / "none")), "none")
    (tmp_path / "wrong").write_text("something else\n")
    (tmp_path / "wrong").chmod(0o600)
    refused(await start(alice, "--passphrase-file", str(tmp_path / "wrong")), "passphrase")


async def test_places_that_are_taken(town: Town) -> None:
    alice = await town.node("alice", icp=0)
    refused(await start(alice), str(alice.dir), "use")
    assert alice.info.listen is not None
    bob = await town.node("bob", icp=0)
    await bob.stop()
    refused(await start(bob, PERUND_WIRE_LISTEN=alice.info.listen), alice.info.listen, "in use", "another port")
    port = town.devnet.url.rpartition(":")[2]
    refused(await perund("devnet", "--port", port), port)


async def test_a_devnet_that_is_not_there(town: Town, tmp_path: Path) -> None:
    options = ("--network", "local", "--canister", town.devnet.perun_canister, "--ledger", town.devnet.icp_ledger)
    made = await perund("init", "--dir", str(tmp_path / "new"), "--url", NOWHERE, *options)
    refused(made, NOWHERE, "perund devnet")
    assert not (tmp_path / "new").exists(), "nothing is left behind"
    again = await perund("init", "--dir", str(tmp_path / "new"), "--url", town.devnet.url, *options, "--json")
    assert again.code == 0, again
    twice = await perund("init", "--dir", str(tmp_path / "new"), "--url", town.devnet.url, *options)
    refused(twice, "new")

    alice = await town.node("alice", icp=0)
    await alice.stop()
    path = alice.dir / "perund.toml"
    path.write_text(path.read_text().replace(town.devnet.url, NOWHERE))
    await alice.start()  # a node guards what it has: it starts, and says what is wrong
    health = await perun("health", "--dir", str(alice.dir))
    assert health.code == 1
    balance = await perun("wallet", "balance", "--dir", str(alice.dir), "--json")
    assert (balance.code, balance.error["name"], balance.error["retryable"]) == (3, "chain_unreachable", True)
    assert "--state" in balance.error["hint"], "a new devnet would be another network"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("level = ", "levle = ", ("levle", "did you mean `level`")),
        ('level = "info"', 'level = "loud"', ("log.level", "debug")),
        ("[policy]", "[polizy]", ("polizy",)),
        ("force_after_s = 600", "force_after_s = 0", ("close.force_after_s",)),
        ("force_after_s = 600", 'force_after_s = "soon"', ("close.force_after_s",)),
        ("contribute_max_e8s = 0", 'contribute_max_e8s = "lots"', ("policy.contribute_max_e8s",)),
        ("[log]", "[log", ("TOML",)),
        ('network = "local"', 'network = "mars"', ("network", "ic")),
    ],
)
async def test_keys_and_values_of_the_configuration(
    made_once: Path, tmp_path: Path, old: str, new: str, words: tuple[str, ...]
) -> None:
    text = (made_once / "perund.toml").read_text()
    assert old in text
    directory = tmp_path / "node"
    directory.mkdir(mode=0o700)
    changed = text.replace(old, new)
    (directory / "perund.toml").write_text(changed)
    number = next(n for n, line in enumerate(changed.splitlines(), 1) if line.startswith(new[:6]))

    ran = await perund("run", "--dir", str(directory))

    refused(ran, *words)
    assert re.search(rf"line {number}\b", ran.err), (ran.err, number)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration as `perund init` writes it; the network behind it is not needed."""
    directory = tmp_path_factory.mktemp("made") / "node"
    subprocess.run(
        [
            executable("perund"), "init", "--dir", str(directory), "--network", "local", "--url", NOWHERE,
            "--root-key", "aa" * 133, "--canister", "bkyz2-fmaaa-aaaaa-qaaaq-cai",
        ],
        check=True,
        env={**os.environ, "PERUND_PASSPHRASE": PASSPHRASE},
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return directory


async def test_environment_variables(town: Town) -> None:
    alice = await town.node("alice", icp=0)
    await alice.stop()
    refused(await start(alice, PERUND_LOG_LEVLE="info"), "PERUND_LOG_LEVLE", "levle")
    refused(await start(alice, PERUND_POLICY_MAX_CHANNELS="many"), "PERUND_POLICY_MAX_CHANNELS")


async def test_the_store_of_another_network(town: Town) -> None:
    alice = await town.node("alice", icp=0)
    await alice.stop()
    refused(await start(alice, PERUND_IC_PERUN_CANISTER=town.devnet.icp_ledger), "network", "canister")
