"""What an operator can get wrong, and what the configuration says."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from perund.config import Config
from perund.store.errors import StorageFailed, UnknownSchema, WrongNetwork
from perund.store.store import connect
from perund.tower.books import TowerBooks, read_status
from perund.tower.daemon import policy_of
from protocol.types import MAX_E8S
from tests.unit.tower.scene import NETWORK
from watcher.tower.policy import TowerPolicy
from wire.address import NodeAddress

NODE = "02" + "ab" * 32
BASE = {"network": "local", "ic": {"perun_canister": "ryjl3-tyaaa-aaaaa-aaaba-cai", "root_key": "00" * 133}}


def config(**sections: object) -> Config:
    return msgspec.convert(BASE | sections, Config)


def test_the_defaults_of_the_file_are_those_of_the_policy() -> None:
    policy = policy_of(config())
    assert policy == TowerPolicy(min_challenge_ns=policy.min_challenge_ns)
    assert policy.min_challenge_ns == 60 * 10**9
    assert policy.max_total_e8s == MAX_E8S


def test_the_section_becomes_the_policy() -> None:
    policy = policy_of(config(tower={"clients": [NODE], "max_total_e8s": 7, "funding_s": 60, "max_unfunded": 3}))
    assert policy.clients == {bytes.fromhex(NODE)}
    assert (policy.max_total_e8s, policy.funding_ns, policy.max_unfunded) == (7, 60 * 10**9, 3)


@pytest.mark.parametrize(
    ("section", "what"),
    [
        ({"watch": {"towers": [f"{NODE}@a:1", f"{NODE}@b:1"]}}, "the same node id twice"),
        ({"watch": {"towers": [f"{NODE}@a:0"]}}, "a port is 1 to 65535"),
        ({"watch": {"towers": [f"{NODE}@a"]}}, "matching regex"),
        ({"watch": {"towers": ["a:1"]}}, "matching regex"),
        ({"tower": {"min_challenge_s": 9, "max_challenge_s": 8}}, "above"),
        ({"tower": {"min_total_e8s": 9, "max_total_e8s": 8}}, "above"),
    ],
)
def test_what_cannot_be_is_refused(section: dict[str, object], what: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=what):
        config(**section)


@pytest.mark.parametrize("place", ["tower.example.org:9735", "192.0.2.7:1", "[2001:db8::1]:65535"])
def test_an_address_is_read_and_written(place: str) -> None:
    text = f"{NODE}@{place}"
    assert config(watch={"towers": [text]}).watch.towers == (text,)
    address = NodeAddress.of(text)
    assert str(address) == text
    assert "[" not in address.host


async def test_books_of_another_network_or_a_newer_tower_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "tower.db"
    with pytest.raises(StorageFailed, match="no watchtower has run"):
        read_status(path)
    TowerBooks(path, NETWORK, lambda error: None).close()
    assert path.with_name("tower.db-wal").stat().st_size == 0, "a stop leaves one file that has everything"
    assert read_status(path).slots == 0
    assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(WrongNetwork):
        TowerBooks(path, bytes(32), lambda error: None)
    database = connect(path)
    database.pragma("user_version", 99)
    database.close()
    with pytest.raises(UnknownSchema):
        TowerBooks(path, NETWORK, lambda error: None)
    with pytest.raises(UnknownSchema, match="run the newer perund"):
        read_status(path)
    path.with_name("tower.db-wal").unlink()
    path.write_bytes(b"no database at all" * 300)
    with pytest.raises(StorageFailed, match="cannot be opened"):
        TowerBooks(path, NETWORK, lambda error: None)
