"""Whatever is typed, the answer is a sentence that names it, with a status that is documented."""

from __future__ import annotations

import asyncio
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from chain.certificate import MAINNET_ROOT_KEY
from perund.cli.client import main as perun
from perund.cli.daemon import main as perund
from perund.config import Config
from perund.config_file import write_config
from perund.keystore import KeyStore, ScryptCost
from perund.private_file import make_private_dir
from perund.store.schema import STORE_NAME
from perund.store.store import Store
from tests.unit.cli.nonsense import Case, commands, furnish, right, with_wrong

WORDS = sorted(right(Path("/tmp/x")))


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of a node, as far as it can be made without one."""
    node = tmp_path_factory.mktemp("made") / "node"
    make_private_dir(node)
    ic = {
        "perun_canister": "r7inp-6aaaa-aaaaa-aaabq-cai",
        "root_key": MAINNET_ROOT_KEY.hex(),
        "urls": ("http://127.0.0.1:9",),
    }
    config = msgspec.convert({"network": "local", "ic": ic}, Config)
    write_config(node, config)
    asyncio.run(_make_store(node, config.network_hash))
    KeyStore(node).create(bytes(range(32)), "correct horse battery", ScryptCost(n=2**15))
    return node


async def _make_store(node: Path, network: bytes) -> None:
    store = Store(node / STORE_NAME, network, lambda error: None)
    store.close()


@pytest.fixture
def place(made_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    furnish(tmp_path)
    shutil.copytree(made_once, tmp_path / "node")
    monkeypatch.chdir(tmp_path)
    for name in ("PERUND_PASSPHRASE", "PERUND_DIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def ran(case: Case) -> Result:
    return CliRunner().invoke(case.program, case.arguments, input=b"")


def test_every_command_of_both_programs_is_in_the_table() -> None:
    assert sorted([name for name, _ in [*commands("perund", perund), *commands("perun", perun)]]) == WORDS


@pytest.mark.parametrize("words", WORDS)
def test_nothing_ends_in_a_traceback_and_what_is_wrong_is_named(place: Path, words: str) -> None:
    faults = []
    for case in with_wrong(place, words):
        result = ran(case)
        faults += [f"{case}: {fault}" for fault in _faults(case, result, place)]
        for made in ("new", "nonexistent"):
            shutil.rmtree(place / made, ignore_errors=True)
    assert not faults, "\n".join(faults)


def _faults(case: Case, result: Result, place: Path) -> Iterator[str]:
    said = result.stderr
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        yield "".join(traceback.format_exception(result.exception)[-3:])
        return
    if result.exit_code not in range(7):
        yield f"status {result.exit_code}"
    if result.exit_code == 0:
        return
    if case.arguments[0] == "watch":  # its output is its log
        return
    if not said.startswith("error: ") or said.count("\n") != 1 or not said.rstrip("\n").isprintable():
        yield f"not one line of an error: {said!a}"
    if len(said) > 1_500 and len(case.wrong) < 1_000:
        yield f"{len(said)} characters are no sentence"
    plain = "".join(c if c.isprintable() else "?" for c in case.wrong)
    names = (ascii(case.wrong)[:30], ascii(case.wrong)[1:-1][:30], case.wrong[:30], plain[:30], str(place))
    unnamed = ("unexpected extra argument ()", "\ufffd", "root key of http://", "standard input", "999.1.1.1")
    if not any(name and name.lower() in said.lower() for name in (*names, *unnamed)):
        yield f"it does not name the value: {said!a}"
