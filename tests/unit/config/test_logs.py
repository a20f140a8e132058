import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from perund.logs import configure_logs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def logged(form: str, **facts: object) -> str:
    out = io.StringIO()
    configure_logs("info", form, out)
    structlog.get_logger().info("channel.updated", **facts)
    return out.getvalue()


def test_programs_get_json_when_it_is_no_terminal() -> None:
    line = json.loads(logged("auto", channel="ab", version=7))
    assert (line["event"], line["level"], line["version"]) == ("channel.updated", "info", 7)
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize("key", ["passphrase", "wallet_seed", "phrase", "client_secret", "privateKey", "ENTROPY"])
@pytest.mark.parametrize("form", ["json", "console"])
def test_what_sounds_secret_is_not_written(form: str, key: str) -> None:
    for facts in ({key: "hunter2"}, {"inside": {"deep": {key: "hunter2"}}}):
        text = logged(form, **facts)
        assert "hunter2" not in text
        assert "[redacted]" in text


def test_a_peer_cannot_forge_a_line_or_move_the_cursor() -> None:
    text = logged("console", agent="x\n2026 [info] node.stopped\x1b[2J")
    assert text.count("\n") == 1
    assert "\x1b[2J" not in text


def test_the_level_decides() -> None:
    out = io.StringIO()
    configure_logs("warning", "json", out)
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["loud"]


def test_the_libraries_below_log_the_same_way() -> None:
    out = io.StringIO()
    configure_logs("info", "json", out)
    logging.getLogger("asyncio").warning("slow %s", "callback")
    assert json.loads(out.getvalue())["event"] == "slow callback"
