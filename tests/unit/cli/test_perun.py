"""`perun` against a node in memory, through the real socket."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from perund.cli.client import main
from perund.control import schema
from perund.control.values import E8s, PaidE8s, Seconds
from protocol.errors import CallerMistake
from tests.unit.control.node_double import CHANNEL, NODE_ID, PEER_ID, NodeDouble


async def perun(data_dir: Path, *arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, main, ["--dir", str(data_dir), *arguments])


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["info"], NODE_ID),
        (["wallet", "balance"], "1.5 ICP"),
        (["wallet", "address"], "00" * 32),
        (["wallet", "send", "aaaaa-aa", "1.5"], "sent 1.5 ICP in block 12"),
        (["connect", f"{PEER_ID}@127.0.0.1:9736"], "connected to"),
        (["peers"], PEER_ID),
        (["open", f"{PEER_ID}@127.0.0.1:9736", "--mine", "242", "--theirs", "194", "--challenge", "60s"], "242 ICP"),
        (["pay", CHANNEL[:8], "1.5", "--memo", "tea"], "1.5 ICP delivered"),
        (["channels"], "(frozen)"),
        (["channel", CHANNEL[:8]], "0.00000242 ICP"),
        (["payments"], "tea"),
        (["cancel", CHANNEL[:8], "0f" * 16], "is cancelled"),
        (["close", CHANNEL[:8], "--force-after", "10m", "--no-wait"], "closed"),
        (["dispute", CHANNEL[:8], "--yes"], "leaving"),
        (["recover", CHANNEL[:8]], "holds version 2"),
        (["recover", CHANNEL[:8], "--accept", "--yes"], "0.5 ICP, if a later state gave you more"),
        (["withdraw", CHANNEL[:8]], "99"),
        (["events", "--after", "0", "--count", "2"], "channel.updated version=2"),
        (["stop"], "stopping"),
        (["call", "node.health"], "chain_lag"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
async def test_every_command_shows_its_result(data_dir: Path, arguments: list[str], shown: str) -> None:
    result = await perun(data_dir, *arguments)
    assert result.exit_code == 0, result.output
    assert shown in result.output


@pytest.mark.parametrize("arguments", [["--json", "info"], ["info", "--json"], ["wallet", "--json", "balance"]])
async def test_json_before_and_after_the_command(data_dir: Path, arguments: list[str]) -> None:
    result = await perun(data_dir, *arguments)
    assert json.loads(result.output)["account"] == "00" * 32


async def test_arguments_reach_the_node_exactly(data_dir: Path, node: NodeDouble) -> None:
    await perun(
        data_dir, "open", PEER_ID, "--mine", "0.00000001", "--theirs", "2 ICP", "--challenge", "1h30m", "--no-wait"
    )
    await perun(data_dir, "pay", CHANNEL, "150000000 e8s", "--memo", "für dich", "--idempotency-key", "k")
    assert [params for _, params in node.calls] == [
        schema.ChannelOpenParams(
            peer=PEER_ID,
            mine_e8s=E8s(1),
            theirs_e8s=E8s(200_000_000),
            challenge_s=Seconds(5_400),
            wait=False,
        ),
        schema.PayParams(channel=CHANNEL, amount_e8s=PaidE8s(150_000_000), memo="für dich", idempotency_key="k"),
    ]


async def test_every_page_of_channels_is_shown(data_dir: Path) -> None:
    result = await perun(data_dir, "channels", "--json")
    assert len(json.loads(result.output)["channels"]) == 2


async def test_health_has_an_exit_code(data_dir: Path) -> None:
    result = await perun(data_dir, "health")
    assert result.exit_code == 1
    assert "no certified answer for 70 s" in result.output


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["pay", CHANNEL, "0"], "zero"),
        (["pay", CHANNEL, "1.123456789"], "8 decimals"),
        (["pay", CHANNEL, "99999999999999"], "more than"),
        (["pay", CHANNEL, "1 BTC"], "unknown unit"),
        (["pay", CHANNEL, "1", "--memo", "x" * 257], "at most 256"),
        (["open", PEER_ID, "--mine", "0", "--theirs", "0"], "can pay nothing"),
        (["open", PEER_ID, "--mine", "1", "--challenge", "60"], "not a duration"),
        (["dispute", CHANNEL], "needs a yes"),
        (["recover", CHANNEL, "--accept"], "needs a yes"),
        (["nonsense"], "No such command"),
        (["chanels"], "Did you mean one of: 'cancel', 'channel', 'channels'"),
        (["channels", "--phase", "opne"], "did you mean `open`? allowed: funding, open, closing, leaving, closed"),
        (["events", "--kind", "channel.updatd"], "did you mean `channel.updated`"),
        (["call", "node.inof"], "did you mean `node.info`"),
        (["cancel", CHANNEL, "0f0f"], "'0f0f' is not a payment id: it has 32 hex digits"),
        (["pay", CHANNEL, "1", "--payment-id", "mine"], "'mine' is not a payment id"),
        (["pay", CHANNEL, "1", "--idempotency-key", ""], "a key has 1 to 128"),
        (["pay", CHANNEL, "1", "--waiit"], "--wait"),
        (["call", "node.info", "{"], "not JSON"),
    ],
)
async def test_wrong_usage_is_explained_and_reaches_nobody(
    data_dir: Path, node: NodeDouble, arguments: list[str], why: str
) -> None:
    result = await perun(data_dir, *arguments)
    assert result.exit_code == 2
    assert why in result.output
    assert "regex" not in result.output
    assert node.calls == []
    as_json = await perun(data_dir, "--json", *arguments)
    assert as_json.exit_code == 2
    assert why in json.loads(as_json.stderr)["error"]["message"] + json.loads(as_json.stderr)["error"]["hint"]


async def test_a_refusal_says_what_and_what_to_do(data_dir: Path, node: NodeDouble) -> None:
    node.error = CallerMistake("insufficient_balance", "2 ICP are more than the 1 ICP that can be sent")
    result = await perun(data_dir, "pay", CHANNEL, "2")
    assert result.exit_code == 3
    assert (
        result.stderr
        == "error: 2 ICP are more than the 1 ICP that can be sent; `perun channel CHANNEL` has what is sendable\n"
    )
    result = await perun(data_dir, "--json", "pay", CHANNEL, "2")
    assert json.loads(result.stderr)["error"]["name"] == "insufficient_balance"


async def test_a_refusal_from_a_peer_cannot_move_the_cursor(data_dir: Path, node: NodeDouble) -> None:
    node.error = CallerMistake("peer_refused", "the peer says: \x1b[2J\rpaid")
    result = await perun(data_dir, "pay", CHANNEL, "2")
    assert "\x1b" not in result.stderr
    assert "\r" not in result.stderr


async def test_a_defect_is_a_failure_without_a_traceback(data_dir: Path, node: NodeDouble) -> None:
    node.error = ZeroDivisionError("inside")
    result = await perun(data_dir, "info")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("error: perund failed inside (ZeroDivisionError); a defect of perund")


async def run(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "perund.cli.client",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), error.decode()


async def test_exit_codes_of_the_process(data_dir: Path, node: NodeDouble, tmp_path: Path) -> None:
    node.error = CallerMistake("unknown_channel", "no channel begins with abababab")
    at_node, nowhere = ["--dir", str(data_dir)], ["--dir", str(tmp_path)]
    ended = await asyncio.gather(
        run(*at_node, "--help"), run("inof"), run(*at_node, "channel", "abababab"), run(*nowhere, "info")
    )
    assert [code for code, _, _ in ended] == [0, 2, 3, 4]
    assert "perund run --dir" in ended[3][2]
    assert all("Traceback" not in error for _, _, error in ended)
