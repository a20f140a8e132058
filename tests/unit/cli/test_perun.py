"""`perun` against a node in memory, through the real socket."""

import asyncio
import json
import os
import pty
import socket
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from perund.cli.client import main
from perund.control import schema
from perund.control.client import ControlClient
from perund.control.errors import RpcError
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
        (
            ["peers"],
            "127.0.0.1:9736 (given, last there 2026-01-01T00:00:00.000Z), bob.example:9735 (announced, not proven)",
        ),
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
    (_, opened), (_, paid) = node.calls
    assert opened.idempotency_key  # made by the command: asking again is the same opening
    assert opened == schema.ChannelOpenParams(
        peer=PEER_ID,
        mine_e8s=E8s(1),
        theirs_e8s=E8s(200_000_000),
        challenge_s=Seconds(5_400),
        wait=False,
        idempotency_key=opened.idempotency_key,
        timeout_s=opened.timeout_s,
    )
    assert paid == schema.PayParams(
        channel=CHANNEL,
        amount_e8s=PaidE8s(150_000_000),
        memo="für dich",
        idempotency_key="k",
        timeout_s=paid.timeout_s,
    )


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


@pytest.mark.parametrize("name", ["wait_ended", "outcome_unknown"])
async def test_what_may_be_done_has_an_exit_code_of_its_own_and_a_key_to_ask_with(
    data_dir: Path, node: NodeDouble, name: str
) -> None:
    for action in (["pay", CHANNEL, "2"], ["wallet", "send", "aaaaa-aa", "2"], ["open", PEER_ID, "--mine", "2"]):
        command = [*action, "--timeout", "1s"]
        node.error = RpcError(name, "the node stops")
        result = await perun(data_dir, *command)
        assert result.exit_code == 6
        key = node.calls[-1][1].idempotency_key
        assert f"--key {key} asks again" in result.stderr
        result = await perun(data_dir, "--json", *command)
        assert json.loads(result.stderr)["error"]["idempotency_key"] == node.calls[-1][1].idempotency_key
        node.error = None
        assert (await perun(data_dir, *command, "--idempotency-key", key)).exit_code == 0
        assert node.calls[-1][1].idempotency_key == key


async def test_what_loses_money_needs_a_yes(data_dir: Path, node: NodeDouble) -> None:
    node.loses_money = True
    send = ("--dir", str(data_dir), "wallet", "send", "aaaaa-aa", "2")
    code, _, error = await run(*send)
    assert (code, node.done) == (3, [])
    assert "--yes" in error
    code, _, error = await run(*send, answer="n\n")
    assert (code, node.done) == (1, [])
    assert "aaaaa-aa is nobody's" in error
    code, out, _ = await run(*send, answer="y\n")
    assert (code, node.done) == (0, ["wallet.send"])
    assert "sent 2 ICP" in out
    keys = {params.idempotency_key for _, params in node.calls[-2:]}
    assert len(keys) == 1, "asked twice, done once"
    assert (await run(*send, "--yes"))[0] == 0


async def run(*arguments: str, answer: str | None = None) -> tuple[int, str, str]:
    """Run the program. `answer`: what a person types at its terminal; without one there is no terminal."""
    master, terminal = pty.openpty() if answer is not None else (-1, asyncio.subprocess.DEVNULL)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "perund.cli.client",
        *arguments,
        stdin=terminal,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    if answer is not None:
        os.write(master, answer.encode())
        os.close(terminal)
    out, error = await process.communicate()
    if answer is not None:
        os.close(master)
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


async def test_a_key_that_is_being_taken_up_is_waited_for(data_dir: Path, node: NodeDouble) -> None:
    node.error = RpcError("busy", "the call with key 'k' is being taken up; ask again")
    result = await perun(data_dir, "pay", CHANNEL, "2", "--key", "k", "--timeout", "1s")
    assert result.exit_code == 6
    assert "waiting: the call with key 'k' is being taken up" in result.stderr
    assert "the same command with --key k asks again, and nothing is done twice" in result.stderr
    assert len(node.calls) > 1


async def test_a_node_with_too_many_clients_is_not_asked_again_for_ever(data_dir: Path) -> None:
    clients = [await ControlClient.connect(data_dir) for _ in range(64)]
    try:
        result = await asyncio.wait_for(perun(data_dir, "pay", CHANNEL, "2"), 20)
    finally:
        for client in clients:
            await client.close()
    assert result.exit_code in (3, 4)
    assert "clients" in result.stderr


async def test_what_waits_is_asked_for_in_turns(data_dir: Path, node: NodeDouble) -> None:
    node.error = RpcError("wait_ended", "it waits for the peer, which is away")
    result = await perun(data_dir, "close", CHANNEL, "--timeout", "3s", "--json")
    assert result.exit_code == 6
    said = json.loads(result.stderr)["error"]  # nothing but the object: a program reads it
    assert said["message"] == "not ended within 3s: it waits for the peer, which is away"
    (key,) = {params.idempotency_key for _, params in node.calls}
    assert said["idempotency_key"] == key
    assert [int(params.timeout_s) for _, params in node.calls][:1] == [2]


async def test_a_look_at_a_node_that_answers_nothing_ends_by_its_time(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "control.sock"))
        silent.listen()
        for command in (["info"], ["channels"], ["wallet", "balance"], ["stop"]):
            result = await perun(tmp_path, *command, "--timeout", "1s", "--json")
            assert result.exit_code == 6
            said = json.loads(result.stderr)["error"]
            assert said["name"] == "wait_ended"
            assert said["message"] == "the node has not answered, or not to the end, within 1s"


async def test_a_key_that_the_node_tells_is_told(data_dir: Path, node: NodeDouble) -> None:
    node.error = RpcError("outcome_unknown", "the disk failed", idempotency_key="k")
    params = json.dumps({"channel": CHANNEL, "amount_e8s": "1", "idempotency_key": "k"})
    result = await perun(data_dir, "--json", "call", "channel.pay", params)
    assert result.exit_code == 6
    assert json.loads(result.stderr)["error"]["idempotency_key"] == "k"


async def test_nothing_is_drawn_over_a_question(data_dir: Path, node: NodeDouble) -> None:
    node.loses_money = True
    ours, theirs = pty.openpty()
    os.write(ours, b"n\n")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "perund.cli.client", "--dir", str(data_dir), "wallet", "send", "aaaaa-aa", "2",
        stdin=theirs, stderr=theirs, stdout=asyncio.subprocess.PIPE, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    await process.communicate()
    said = os.read(ours, 65_536).decode()
    os.close(ours)
    assert process.returncode == 1
    before, question = said.split("aaaaa-aa is nobody's")
    assert "asking the node" in before
    assert before.rindex("\x1b[?25h") > before.rindex("\x1b[?25l"), "the line that changes is gone"
    assert "asking the node" not in question
    assert "all the same?" in question
