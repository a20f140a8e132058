import stat
from pathlib import Path

import msgspec
import pytest

from chain.certificate import MAINNET_ROOT_KEY
from perund import config_file
from perund.config import Config, Ic, Policy
from perund.config_file import load_config, render_config, write_config
from perund.environment import SECTIONS, data_dir
from perund.setup_errors import ConfigError, DirectoryError

CANISTER = "r7inp-6aaaa-aaaaa-aaabq-cai"
ROOT_KEY = MAINNET_ROOT_KEY.hex()  # any well-formed key does for a local network here


def local(**policy: int) -> Config:
    return Config(network="local", ic=Ic(perun_canister=CANISTER, root_key=ROOT_KEY), policy=Policy(**policy))  # type: ignore[arg-type]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_config(tmp_path, local())
    return tmp_path


def replace(data_dir: Path, old: str, new: str) -> int:
    """Change one line of the file and return its number."""
    path = data_dir / "perund.toml"
    lines = path.read_text().splitlines()
    number = next(place for place, line in enumerate(lines) if line.startswith(old))
    lines[number] = new
    path.write_text("\n".join(lines))
    return number + 1


def test_what_init_writes_is_what_is_read(written: Path) -> None:
    assert load_config(written, {}) == local()
    assert stat.S_IMODE((written / "perund.toml").stat().st_mode) == 0o600


def test_every_key_is_written_with_its_description() -> None:
    text = render_config(local())
    for section in (field for field in Config.__struct_fields__ if field != "network"):
        struct = type(getattr(local(), section))
        for key in struct.__struct_fields__:
            place = text.index(f"\n{key} = ")
            assert text[:place].splitlines()[-1].startswith("# "), f"{section}.{key} has no description"


def test_a_file_is_never_overwritten(written: Path) -> None:
    with pytest.raises(DirectoryError, match="exists already"):
        write_config(written, local())


def test_defaults_follow_the_network(tmp_path: Path) -> None:
    path = tmp_path / "perund.toml"
    path.write_text(f'network = "local"\n[ic]\nperun_canister = "{CANISTER}"\nroot_key = "{ROOT_KEY}"\n')
    assert load_config(tmp_path, {}).policy.min_challenge_s == 60
    path.write_text(f'network = "ic"\n[ic]\nperun_canister = "{CANISTER}"\n')
    config = load_config(tmp_path, {})
    assert config.policy.min_challenge_s == 3_600
    assert config.policy.contribute_max_e8s == 0
    assert config.root_key == MAINNET_ROOT_KEY


def test_amounts_can_be_written_for_people(written: Path) -> None:
    replace(written, "contribute_max_e8s", 'contribute_max_e8s = "194 ICP"')
    assert load_config(written, {}).policy.contribute_max_e8s == 19_400_000_000


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("listen", "lissten = 1", r"wire.lissten: there is no `lissten` in \[wire\]; did you mean `listen`"),
        ("listen", 'listen = "nowhere"', "wire.listen: .*allowed: Where peers reach"),
        ("listen", 'listen = "1.2.3.4:99999"', "wire.listen: .*65535"),
        ("max_channels", "max_channels = -1", "policy.max_channels: -1 is not allowed; allowed: .*0 to 1000000"),
        (
            "max_channels ",
            "max_channels = 5000000",
            "policy.max_channels: 5000000 is not allowed.*0 to 1000000",
        ),
        ("accept", 'accept = "yes"', "policy.accept: 'yes' is not allowed.*true or false"),
        ("contribute_max_e8s", 'contribute_max_e8s = "1.5"', "policy.contribute_max_e8s: .*needs its unit"),
        ("contribute_max_e8s", "contribute_max_e8s = -5", "policy.contribute_max_e8s: .*negative"),
        ("min_challenge_s", "min_challenge_s = 9000000", "policy.min_challenge_s: .*above `max_challenge_s`"),
        ("looks_per_challenge", "looks_per_challenge = 2", "watch.looks_per_challenge: 2 is not allowed.*3 to 100"),
        ("level", 'level = "loud"', "log.level: .*warning"),
        ("perun_canister", 'perun_canister = "r7inp-6aaaa-aaaaa-aaabq-caj"', "ic.perun_canister: .*no principal"),
        ("root_key", 'root_key = "abcd"', "ic.root_key: .*266 hex digits"),
        ("root_key", 'root_key = ""', "ic.root_key: .*is empty"),
        ("network", 'network = "moon"', "network: .*devnet"),
        ("[watch]", "[wach]", r"wach: there is no `wach`; did you mean `watch`"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_line_and_what_is_allowed(
    written: Path, old: str, new: str, expected: str
) -> None:
    if old == "max_channels":
        old = "max_channels ="
    line = replace(written, old, new)
    with pytest.raises(ConfigError, match=expected) as caught:
        load_config(written, {})
    assert f"perund.toml, line {line}: " in str(caught.value)


def test_a_syntax_error_names_its_line(written: Path) -> None:
    line = replace(written, "accept", "accept = ")
    with pytest.raises(ConfigError, match=f"not TOML.*line {line}"):
        load_config(written, {})


@pytest.mark.parametrize("content", ["", "network = 5", "ic = 3", '[ic]\nurls = "x"'])
def test_a_file_that_lacks_what_is_needed_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "perund.toml").write_text(content)
    with pytest.raises(ConfigError):
        load_config(tmp_path, {})


def test_the_environment_overrides_the_file(written: Path) -> None:
    config = load_config(
        written,
        {
            "PERUND_WIRE_LISTEN": "0.0.0.0:1",
            "PERUND_POLICY_ACCEPT": "false",
            "PERUND_POLICY_MAX_CHANNELS": "7",
            "PERUND_POLICY_CONTRIBUTE_MAX_E8S": "2 ICP",
            "PERUND_IC_URLS": "http://a:1, http://b:2",
            "PERUND_PASSPHRASE": "not a key",
            "PERUND_SERVICE_HOST": "set by an orchestrator, none of our sections",
            "HOME": "/",
        },
    )
    assert config.wire.listen == "0.0.0.0:1"
    assert not config.policy.accept
    assert config.policy.max_channels == 7
    assert config.policy.contribute_max_e8s == 200_000_000
    assert config.ic.urls == ("http://a:1", "http://b:2")


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("PERUND_WIRE_LISTN", "x", "PERUND_WIRE_LISTN: there is no `listn`"),
        ("PERUND_POLICY_ACCEPT", "maybe", r"PERUND_POLICY_ACCEPT \(policy.accept\): 'maybe'.*true or false"),
        ("PERUND_POLICY_MAX_CHANNELS", "many", "PERUND_POLICY_MAX_CHANNELS .*whole number"),
        ("PERUND_WIRE_LISTEN", "nowhere", r"PERUND_WIRE_LISTEN \(wire.listen\)"),
        ("PERUND_NETWORK", "moon", r"PERUND_NETWORK \(network\)"),
    ],
)
def test_a_wrong_variable_is_named(written: Path, variable: str, value: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_config(written, {variable: value})


def test_the_real_network_takes_no_other_root_key_and_no_plain_http() -> None:
    with pytest.raises(msgspec.ValidationError, match="not the one"):
        msgspec.convert({"network": "ic", "ic": {"perun_canister": CANISTER, "root_key": "30" * 133}}, Config)
    with pytest.raises(msgspec.ValidationError, match="https"):
        msgspec.convert({"network": "ic", "ic": {"perun_canister": CANISTER, "urls": ["http://icp-api.io"]}}, Config)


@pytest.mark.parametrize(
    ("variable", "near"),
    [
        ("PERUND_DRI", "did you mean `PERUND_DIR`"),
        ("PERUND_PASSPRASE", "did you mean `PERUND_PASSPHRASE`"),
        ("PERUND_LOGG_LEVEL", "allowed: PERUND_DIR"),
        ("PERUND_NETWORK_URL", "allowed: PERUND_DIR"),
        ("PERUND_WIRE", "allowed: PERUND_DIR"),
        ("PERUND_", "allowed: PERUND_DIR"),
    ],
)
def test_a_variable_that_names_nothing_is_refused(written: Path, variable: str, near: str) -> None:
    with pytest.raises(ConfigError, match=near) as caught:
        load_config(written, {variable: "x"})
    assert variable in str(caught.value)
    with pytest.raises(ConfigError, match=near):
        data_dir({variable: "x"})


def test_variables_of_an_orchestrator_are_let_through(written: Path) -> None:
    """Kubernetes sets these in every container beside a service that is called perund."""
    names = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_PEERS", "PORT", "PORT_9735_TCP", "PORT_9735_TCP_ADDR")
    load_config(written, {f"PERUND_{name}": "10.0.0.1" for name in names})


def test_the_sections_that_a_variable_can_name_are_those_of_the_file() -> None:
    assert list(SECTIONS) == list(config_file._SECTIONS)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_of_an_editor_is_no_mistake(written: Path, encoding: str) -> None:
    path = written / "perund.toml"
    before = load_config(written, {})
    path.write_bytes(path.read_text().encode(encoding))
    assert load_config(written, {}) == before


@pytest.mark.parametrize("old", ['passphrase_file = ""', "command = []"])
def test_a_nul_is_refused_where_a_file_or_a_program_is_named(written: Path, old: str) -> None:
    new = old.replace('""', '"a\\u0000b"').replace("[]", '["a\\u0000b"]')
    replace(written, old, new)
    with pytest.raises(ConfigError, match="is not allowed"):
        load_config(written, {})


def test_no_message_of_the_schema_shows_a_pattern(written: Path) -> None:
    replace(written, "perun_canister =", "perun_canister = 'NO' #")
    with pytest.raises(ConfigError, match="'NO' is not allowed; allowed: Principal") as caught:
        load_config(written, {})
    assert "regex" not in str(caught.value)


def test_the_data_directory_is_given_or_in_the_home_of_the_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_dir({"PERUND_DIR": "/srv/node"}) == Path("/srv/node")
    assert data_dir({}) == tmp_path / ".perund"
    assert data_dir({"PERUND_DIR": ""}) == tmp_path / ".perund"
