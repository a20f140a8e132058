import io
import sys
from pathlib import Path

import pytest

from perund.passphrase import ask_passphrase
from perund.setup_errors import PassphraseError


def test_the_option_wins_over_the_environment_and_that_over_the_configuration(tmp_path: Path) -> None:
    for name in ("option", "config"):
        (tmp_path / name).write_text(f"from the {name}\nnot this\n")
    option, config = str(tmp_path / "option"), str(tmp_path / "config")
    environment = {"PERUND_PASSPHRASE": "from the environment"}
    assert ask_passphrase(option, configured=config, environment=environment) == "from the option"
    assert ask_passphrase(None, configured=config, environment=environment) == "from the environment"
    assert ask_passphrase(None, configured=config, environment={}) == "from the config"


def test_a_dash_reads_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from a pipe\nmore\n")))
    assert ask_passphrase("-", environment={}) == "from a pipe"


def test_without_a_source_and_a_terminal_it_says_what_can_be_done() -> None:
    with pytest.raises(PassphraseError, match="--passphrase-file"):
        ask_passphrase(None, interactive=False, environment={})


@pytest.mark.parametrize("content", [b"\n", b"", b"\xff\xfe\n", b"x" * 5_000])
def test_an_unusable_file_is_named_and_not_repeated(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "passphrase"
    path.write_bytes(content)
    with pytest.raises(PassphraseError, match="passphrase") as caught:
        ask_passphrase(str(path), environment={})
    assert "xxxx" not in str(caught.value)
