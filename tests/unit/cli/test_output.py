"""Where the output cannot go: what is done stays done and its status says so, and nothing ends in a traceback."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import shlex
import sys
import typing
from pathlib import Path

import pytest

from chain.certificate import MAINNET_ROOT_KEY
from perund.cli import show
from perund.cli.client import PHASES
from perund.cli.client import main as perun
from perund.cli.daemon import main as perund
from perund.cli.failing import COMMANDS, FAILED, OK, PARTLY, REFUSED, UNREACHABLE, UNTOLD, USAGE, for_people
from perund.cli.output import say_json
from perund.config import Config
from perund.control import schema
from perund.control.errors import ERRORS
from perund.control.methods import METHODS
from perund.control.values import E8s
from protocol.effects import Phase
from protocol.errors import CallerMistake
from tests.unit.cli.nonsense import commands
from tests.unit.control.node_double import CHANNEL, NODE_ID, PEER_ID, WHEN, NodeDouble, a_channel

BIN = Path(sys.executable).parent


async def shell(line: str, **environment: str) -> tuple[int, str, str]:
    """Run a line of the shell, with the programs on its path."""
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **environment}
    pipe = asyncio.subprocess.PIPE
    ran = await asyncio.create_subprocess_exec(
        "/bin/bash", "-c", line, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=env
    )
    out, error = await ran.communicate()
    assert ran.returncode is not None
    assert b"Traceback" not in error, error.decode()
    assert b"Exception ignored" not in error, error.decode()
    return ran.returncode, out.decode(), error.decode()


PAY = f"pay {CHANNEL[:8]} 1"


@pytest.mark.parametrize("where", [">/dev/full", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full >/dev/full"])
@pytest.mark.parametrize("json_", ["", "--json "])
async def test_what_is_paid_is_paid_wherever_the_output_goes(
    data_dir: Path, node: NodeDouble, where: str, json_: str
) -> None:
    code, _, error = await shell(f"perun {json_}--dir {data_dir} {PAY} {where}")
    assert code == 0
    assert [name for name, _ in node.calls] == ["channel.pay"]
    if where == ">/dev/full":
        assert "No space left on device" in error
        assert "it is done: do not do it again" in error


async def test_a_payment_into_a_pipe_that_nobody_reads_is_paid(data_dir: Path, node: NodeDouble) -> None:
    code, _, _ = await shell(f"(sleep 0.01; perun --dir {data_dir} {PAY}) | exec true; exit ${{PIPESTATUS[0]}}")
    assert code == 0
    assert [name for name, _ in node.calls] == ["channel.pay"]


@pytest.mark.parametrize("command", ["info", "channels", "--help", "--version", "events --after 0 --count 1"])
async def test_what_was_only_asked_for_failed_when_it_is_not_written(data_dir: Path, command: str) -> None:
    code, _, error = await shell(f"perun --dir {data_dir} {command} >/dev/full")
    assert code == 1
    assert error.startswith("error: the output cannot be written (No space left on device)")
    code, _, error = await shell(f"perun --dir {data_dir} {command} | exec true; exit ${{PIPESTATUS[0]}}")
    assert code in (0, 1)
    assert error == ""


async def test_an_error_that_nobody_can_read_has_its_status(data_dir: Path, node: NodeDouble) -> None:
    node.error = CallerMistake("unknown_channel", "no channel begins with abababab")
    for where in ("2>&-", "2>/dev/full", ">&- 2>&-"):
        assert (await shell(f"perun --dir {data_dir} {PAY} {where}"))[0] == 3
        assert (await shell(f"perun --dir {data_dir} inof {where}"))[0] == 2
        assert (await shell(f"perund run --dir {data_dir}/none {where}"))[0] == 1


async def test_words_that_nobody_has_seen_make_no_node(tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("correct horse battery\n")
    line = (
        f"perund init --dir {tmp_path}/new --network local --url http://127.0.0.1:9 "
        f"--root-key {MAINNET_ROOT_KEY.hex()} "
        f"--canister r7inp-6aaaa-aaaaa-aaabq-cai --passphrase-file {tmp_path}/passphrase"
    )
    for json_ in ("", " --json"):
        code, _, error = await shell(f"{line}{json_} >/dev/full")
        assert code == 1
        assert "no node was made" in error
        assert not (tmp_path / "new").exists()
    code, out, _ = await shell(line)
    assert code == 0
    assert "24 words" in out


async def test_without_a_home_and_without_a_directory_it_says_what_to_give(tmp_path: Path) -> None:
    code, _, error = await shell("perun info", HOME=str(tmp_path), PERUND_DIR="")
    assert (code, error) == (
        4, f"error: no node runs in {tmp_path}/.perund; start it with `perund run --dir {tmp_path}/.perund`\n"
    )  # fmt: skip
    code, _, error = await shell("PERUND_DRI=/srv/node perun info", HOME=str(tmp_path))
    assert code == 1
    assert "PERUND_DRI names nothing" in error
    assert "did you mean `PERUND_DIR`" in error


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8"])
async def test_text_that_the_terminal_cannot_show_stops_nothing(data_dir: Path, node: NodeDouble, locale: str) -> None:
    node.error = CallerMistake("peer_refused", "the peer says: ☃")
    code, _, error = await shell(f"perun --dir {data_dir} {PAY}", LC_ALL=locale, PYTHONIOENCODING="ascii")
    assert code == 3
    assert error.startswith("error: the peer says: ")
    code, _, _ = await shell(f"perun --dir {data_dir} payments", LC_ALL=locale, PYTHONIOENCODING="ascii")
    assert code == 3


# --- what is shown ----------------------------------------------------------------------------------------


def test_json_moves_no_cursor_and_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    memo = "tea\u202e\x9b2J\x7f\u2066 ☃ \U000e0001 é"
    say_json(json.dumps({"memo": memo}, ensure_ascii=False).encode())
    out = capsys.readouterr().out
    assert out.rstrip("\n").isprintable()
    assert json.loads(out) == {"memo": memo}
    assert "☃ " in out
    assert "é" in out


def on_terminal(columns: int, show_it: str) -> list[str]:
    """Return the lines that a terminal of a width gets."""
    ours, theirs = pty.openpty()
    code = f"from tests.unit.cli import test_output\ntest_output.{show_it}()"
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", code],
        {**os.environ, "COLUMNS": str(columns)},
        file_actions=[(os.POSIX_SPAWN_DUP2, theirs, 1)],
    )
    os.close(theirs)
    read = b""
    try:
        while block := os.read(ours, 65_536):
            read += block
    except OSError:
        pass
    os.close(ours)
    assert os.waitpid(child, 0)[1] == 0, read
    return read.decode().replace("\r", "").splitlines()


PEERS = schema.PeerList(
    peers=[
        schema.Peer(
            node_id=NODE_ID,
            address="[2001:db8::1]:9735",
            connected=True,
            agent="perund/0.1.0",
            channels=12,
            addresses=[],
        ),
        schema.Peer(node_id=PEER_ID, connected=False, channels=0, addresses=[]),
    ]
)
PAYMENTS = schema.PaymentPage(
    payments=[
        schema.Payment(
            channel=CHANNEL, payment="0f" * 16, direction="sent", amount_e8s=E8s(123_456_789), status="delivered",
            created_at=WHEN, memo="for a very long walk along the river, and for the tea afterwards",
        )
    ]
)  # fmt: skip


def show_tables() -> None:
    show.peers(PEERS)
    show.payments(PAYMENTS)


def show_channels() -> None:
    show.channels([a_channel(frozen="bad_state: it lied", mine_e8s=E8s(1_500_000_000))])


@pytest.mark.parametrize("columns", [20, 80, 132, 300])
def test_no_value_of_a_table_is_cut_at_any_width(columns: int) -> None:
    shown = "\n".join(on_terminal(columns, "show_tables"))
    for value in (NODE_ID, PEER_ID, "[2001:db8::1]:9735", "perund/0.1.0", "0f" * 16, "1.23456789 ICP", WHEN):
        assert value in shown
    assert PAYMENTS.payments[0].memo is not None
    assert PAYMENTS.payments[0].memo in shown


def test_the_table_of_channels_fits_where_it_can() -> None:
    lines = on_terminal(80, "show_channels")
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["channel", "peer", "phase", "mine", "theirs"]
    assert lines[1].startswith(CHANNEL[:16])
    assert lines[2] == "    version: 7"


# --- in the words of who reads it -------------------------------------------------------------------------


def test_every_method_has_a_command_and_every_phase_can_be_asked_for() -> None:
    assert list(COMMANDS) == list(METHODS)
    assert list(PHASES) == [phase.value for phase in Phase]


def test_no_hint_names_a_method_or_a_field_of_the_interface() -> None:
    for kind in ERRORS[5:]:  # the first are those of JSON-RPC, for who writes it
        said = for_people(kind.hint)
        assert not [name for name in METHODS if name in said and f"perun call {name}" not in said], said
        assert "_e8s`" not in said


def test_amounts_are_told_as_they_are_typed() -> None:
    said = for_people("123 e8s are more than the 250000000 e8s that can be sent (max_fee_e8s = 5); '7 e8s' stays")
    assert for_people("this tower takes 100000000 to 250000000 e8s") == "this tower takes 1 ICP to 2.5 ICP"
    assert said == "0.00000123 ICP are more than the 2.5 ICP that can be sent (max_fee_e8s = 5); '7 e8s' stays"


# --- how fast it begins -----------------------------------------------------------------------------------

HEAVY = (
    "aiohttp",
    "apsw",
    "cbor2",
    "coincurve",
    "cryptography",
    "ic",
    "mnemonic",
    "nacl",
    "pyblst",
    "rich",
    "structlog",
)
LOOP = ("asyncio", "hashlib", "msgspec")


@pytest.mark.parametrize(
    ("command", "forbidden"),
    [
        ("perund --help", (*HEAVY, *LOOP)),
        ("perund init --help", (*HEAVY, *LOOP)),
        ("perund nonsense", (*HEAVY, *LOOP)),
        ("perun --help", (*HEAVY, *LOOP)),
        ("perun pay --help", (*HEAVY, *LOOP)),
        ("perun channels --phase opne", (*HEAVY, *LOOP)),
        ("perun info --dir DIR", (*HEAVY, "asyncio", "hashlib")),
        ("perun channels --dir DIR", (*HEAVY, "asyncio", "hashlib")),
        ("perun health --json --dir DIR", (*HEAVY, "asyncio", "hashlib")),
        (f"perun pay {CHANNEL} 1 --dir DIR", HEAVY),
    ],
)
async def test_a_command_loads_only_what_it_needs(data_dir: Path, command: str, forbidden: tuple[str, ...]) -> None:
    program, *arguments = shlex.split(command.replace("DIR", str(data_dir)))
    module = {"perun": "client", "perund": "daemon"}[program]
    code = (
        f"import sys, atexit\nfrom perund.cli.{module} import main\n"
        f"atexit.register(lambda: print('LOADED', *sys.modules, file=sys.stderr))\nmain({arguments!r})"
    )
    _, _, error = await shell(f"{sys.executable} -c {shlex.quote(code)}")
    loaded = error[error.index("LOADED") :].split()
    assert [name for name in forbidden if name in loaded] == []


# --- the pages --------------------------------------------------------------------------------------------

DOCS = Path(__file__).parents[3] / "docs"


def test_the_page_of_the_command_lines_has_every_command_and_every_status() -> None:
    page = (DOCS / "cli.md").read_text()
    for words, _ in [*commands("perund", perund), *commands("perun", perun)]:
        assert f"`{words.split(maxsplit=1)[1]}" in page, words
    for status in (OK, FAILED, USAGE, REFUSED, UNREACHABLE, PARTLY, UNTOLD):
        assert f"\n| {status} | " in page


def test_the_page_of_the_main_network_names_keys_that_there_are() -> None:
    table = (DOCS / "mainnet.md").read_text().split("## What to set")[1].split("## What to check")[0]
    named = re.findall(r"`([a-z]+)\.([a-z0-9_]+)`", table)
    assert len(named) > 10
    for section, key in named:
        assert key in typing.get_type_hints(Config)[section].__struct_fields__, f"{section}.{key}"
