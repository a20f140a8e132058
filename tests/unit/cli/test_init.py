"""`perund init` and what `perund run` says before there is a node."""

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from chain.certificate import MAINNET_ROOT_KEY
from perund.cli.daemon import main
from perund.config_file import load_config
from perund.keystore import KeyStore

CANISTER = "r7inp-6aaaa-aaaaa-aaabq-cai"
PHRASE = "abandon " * 23 + "art"
ENVIRONMENT = {"PERUND_PASSPHRASE": "correct horse battery"}


def perund(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, arguments, env={**ENVIRONMENT, **environment})


def init(data_dir: Path, *more: str, network: str = "local") -> Result:
    url = ["--url", "http://127.0.0.1:9"] if network == "local" else []
    known = ["--dir", str(data_dir), "--network", network, "--canister", CANISTER, *url, "--non-interactive"]
    return perund("init", *known, *more)


LOCAL_KEY = ("--root-key", MAINNET_ROOT_KEY.hex())


def test_init_makes_a_private_directory_with_keys_and_configuration(tmp_path: Path) -> None:
    data_dir = tmp_path / "alice"
    result = init(data_dir, *LOCAL_KEY, "--json", "--contribute-max", "194 ICP", "--listen", "127.0.0.1:1234")
    assert result.exit_code == 0, result.output
    made = json.loads(result.output)
    assert len(made["phrase"].split()) == 24
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    config = load_config(data_dir, {})
    assert (config.wire.listen, config.policy.contribute_max_e8s) == ("127.0.0.1:1234", 19_400_000_000)
    assert config.root_key == MAINNET_ROOT_KEY
    assert KeyStore(data_dir).open(ENVIRONMENT["PERUND_PASSPHRASE"]).node_id == made["node_id"]


def test_a_phrase_brings_the_same_node_back(tmp_path: Path) -> None:
    (tmp_path / "words").write_text(PHRASE)
    made = [
        json.loads(
            init(
                tmp_path / name, *LOCAL_KEY, "--json", "--without-channels", "--phrase-file", str(tmp_path / "words")
            ).output
        )
        for name in ("a", "b")
    ]
    assert made[0]["node_id"] == made[1]["node_id"]
    assert made[0]["account"] == made[1]["account"]
    assert "perund restore" in made[0]["warning"]


def test_words_whose_channels_nobody_can_be_asked_for_make_no_node(tmp_path: Path) -> None:
    (tmp_path / "words").write_text(PHRASE)
    result = init(tmp_path / "alice", *LOCAL_KEY, "--phrase-file", str(tmp_path / "words"))
    assert result.exit_code == 1
    for part in ("cannot be asked", "perund restore --backup", "--without-channels"):
        assert part in result.output
    assert not (tmp_path / "alice").exists()


def test_the_words_are_shown_once_and_stored_nowhere_in_clear(tmp_path: Path) -> None:
    data_dir = tmp_path / "alice"
    result = init(data_dir, *LOCAL_KEY)
    assert "Write these 24 words down" in result.output
    words = KeyStore(data_dir).open(ENVIRONMENT["PERUND_PASSPHRASE"]).phrase.split()
    assert all(word in result.output for word in words)
    stored = b"".join(path.read_bytes() for path in data_dir.iterdir())
    assert " ".join(words).encode() not in stored


def test_nothing_that_exists_is_overwritten(tmp_path: Path) -> None:
    data_dir = tmp_path / "alice"
    init(data_dir, *LOCAL_KEY)
    before = {path.name: path.read_bytes() for path in data_dir.iterdir()}
    result = init(data_dir, *LOCAL_KEY)
    assert result.exit_code == 1
    assert "not empty" in result.output
    assert {path.name: path.read_bytes() for path in data_dir.iterdir()} == before


def test_the_real_network_has_its_key_built_in(tmp_path: Path) -> None:
    assert init(tmp_path / "alice", network="ic").exit_code == 0
    config = load_config(tmp_path / "alice", {})
    assert config.root_key == MAINNET_ROOT_KEY
    assert config.policy.min_challenge_s == 3_600


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ((), "start the devnet with `perund devnet`"),
        (("--root-key", "abcd"), "--root-key: 'abcd' is not allowed; allowed: Root key"),
        ((*LOCAL_KEY, "--canister", "nonsense"), "canister"),
        ((*LOCAL_KEY, "--listen", "nowhere"), "listen"),
        ((*LOCAL_KEY, "--phrase-file", "/no/such/file"), "cannot be read"),
        ((*LOCAL_KEY, "--passphrase-file", "/no/such/file"), "cannot be read"),
        ((*LOCAL_KEY, "--phrase-file", "-", "--passphrase-file", "-"), "standard input"),
    ],
)
def test_what_is_wrong_is_explained_and_makes_nothing(tmp_path: Path, more: tuple[str, ...], expected: str) -> None:
    result = init(tmp_path / "alice", *more)
    assert result.exit_code != 0
    assert expected in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "alice").exists()


def test_run_says_what_is_missing(tmp_path: Path) -> None:
    result = perund("run", "--dir", str(tmp_path))
    assert result.exit_code == 1
    assert "perund init" in result.output
    init(tmp_path / "alice", *LOCAL_KEY)
    result = perund("run", "--dir", str(tmp_path / "alice"), PERUND_PASSPHRASE="wrong passphrase")
    assert result.exit_code == 1
    assert "does not open" in result.output
    for part in ("perund passphrase", "perund restore"):
        assert part in result.output
    assert "init --phrase-file" not in result.output
    assert "wrong passphrase" not in result.output
