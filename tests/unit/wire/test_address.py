"""One type for an address: what one of those who write it takes, none of those who read it refuses."""

from __future__ import annotations

import errno
import json
import tempfile
from pathlib import Path

import apsw
import click
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perund.cli.values import PeerRef
from perund.config import Config, Ic, Watch, Wire
from perund.config_file import load_config, write_config
from perund.control import schema
from perund.recovery.saved import Backup, Gathering, SavedPeer, about_part, peer_part
from perund.store.jobs import record_addresses
from perund.store.reading import Reader
from perund.store.rows import PeerAddress
from perund.store.schema import migrate
from wire.address import MAX_ADDRESS, Address, BadAddress, NodeAddress
from wire.network import _why_not_listening

NODE = "02" + "ab" * 32
NODE_ID = bytes.fromhex(NODE)

good = pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:9735", "localhost:1", "tower.example.org.:65535", "[::1]:9735", "[2001:db8::7]:1",
        "[fe80::1%eth0]:5", "[::ffff:1.2.3.4]:5", "my_host:1", "a" * 63 + ".example:1", "bücher.example:9735",
        "x:00009",
    ],
)  # fmt: skip
bad = pytest.mark.parametrize(
    "text",
    [
        "", ":", "host", "host:", ":1", "host:0", "host:65536", "host:99999", "host:-1", "host:+1", "host: 1",
        "host:1 ",
        "host:1e3", "host:٣", "host:123456", "::1:9735", "[::1]", "[::1:9735", "::1]:9735", "[host]:1", "[1.2.3.4]:1",
        "[::1%]:1", "[::1%a b]:1", "[::g]:1", "a b:1", "a\tb:1", "a\0:1", "a@b:1", "a/b:1", "-a:1", "a-:1", "a..b:1",
        ".a:1", "a" * 64 + ".example:1", ("a" * 60 + ".") * 5 + "b:1", "host\n:1", "*:1", "\ud800:1",
    ],
)  # fmt: skip


@good
def test_an_address_is_read_and_written(text: str) -> None:
    address = Address.of(text)
    assert Address.of(str(address)) == address
    assert len(str(address)) <= MAX_ADDRESS
    node = NodeAddress.of(f"{NODE}@{text}")
    assert (node.place, node.node_id) == (address, NODE_ID)
    assert NodeAddress.of(str(node)) == node


@bad
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadAddress):
        Address.of(text)


@pytest.mark.parametrize("node_id", ["", "ab", "04" + "ab" * 32, "02" + "AB" * 32, "02" + "ab" * 33])
def test_a_node_id_has_66_hex_digits(node_id: str) -> None:
    with pytest.raises(BadAddress):
        NodeAddress.of(f"{node_id}@host:1")


@pytest.mark.parametrize("row", [("h", "1"), ("h", 1.0), ("h", None), (b"h", 1), (None, 1), ("h", 2**63), ("h", True)])
def test_a_row_may_hold_anything(row: tuple[object, object]) -> None:
    with pytest.raises(BadAddress):
        Address(*row)  # type: ignore[arg-type]


def test_to_listen_port_0_is_allowed() -> None:
    assert Address.to_listen_on("[::]:0") == ("::", 0)
    with pytest.raises(BadAddress):
        Address.to_listen_on("host:65536")


def verdicts(text: str) -> dict[str, bool]:
    """Ask everybody who takes `NODEID@host:port` from people."""
    whole = f"{NODE}@{text}"

    def takes(kind: type, **fields: object) -> bool:
        try:
            msgspec.convert(json.loads(json.dumps(fields)), kind, dec_hook=lambda kind, value: kind(value))
        except (msgspec.ValidationError, ValueError):
            return False
        return True

    def command_line() -> bool:
        try:
            PeerRef(place=True).convert(whole, None, None)
        except click.UsageError:
            return False
        return True

    return {
        "the type": _is_address(text),
        "the command line": command_line(),
        "peer.connect": takes(schema.PeerConnectParams, peer=whole),
        "channel.open": takes(schema.ChannelOpenParams, peer=whole, mine_e8s="1", theirs_e8s="0", challenge_s=9),
        "a tower in the configuration": takes(Watch, towers=[whole]),
    }


def _is_address(text: str) -> bool:
    try:
        Address.of(text)
    except BadAddress:
        return False
    return True


def kept_everywhere(address: Address) -> None:
    """Whoever keeps an address gives the same one back."""
    database = apsw.Connection(":memory:")
    migrate(database)
    row = PeerAddress(address, given=True, since_ms=1, proven_ms=2, nearest=None)
    for statement in record_addresses(NODE_ID, [row]):
        database.execute(statement.sql, statement.values)
    read = Reader(database)
    assert (read.addresses(), read.unusable_addresses()) == ({NODE_ID: [row]}, {})

    gathering = Gathering()
    gathering.take(about_part("about", Backup(NODE, bytes(32), 1, "", [], [], [])))
    gathering.take(peer_part(NODE_ID, address))
    found = gathering.backup()
    assert found is not None
    assert (found.peers, gathering.faults) == ([SavedPeer(NODE_ID, address.host, address.port)], [])
    assert found.peers[0].place == address

    ic = Ic(perun_canister="aaaaa-aa", root_key="00" * 133)
    with tempfile.TemporaryDirectory() as name:
        config = Config(
            network="local", ic=ic, wire=Wire(listen=str(address)), watch=Watch(towers=(f"{NODE}@{address}",))
        )
        write_config(Path(name), config)
        assert load_config(Path(name), {}) == config
    (tower,) = config.watch.towers
    assert NodeAddress.of(tower).place == address


@good
def test_what_one_writes_all_read(text: str) -> None:
    assert all(verdicts(text).values()), verdicts(text)
    kept_everywhere(Address.of(text))


@bad
def test_what_one_refuses_all_refuse(text: str) -> None:
    if "\ud800" not in text:
        assert not any(verdicts(text).values()), verdicts(text)


hosts = st.one_of(
    st.text(max_size=260),
    st.ip_addresses().map(lambda ip: f"[{ip}]" if ip.version == 6 else str(ip)),
    st.from_regex(r"[a-zA-Z0-9_.-]{1,70}", fullmatch=True),
    st.lists(st.text("abcxyz-09_ü", min_size=1, max_size=70), max_size=6).map(".".join),
)
ports = st.one_of(st.integers(-10, 100_000).map(str), st.text("0123456789 +-", max_size=6))


@settings(max_examples=400, deadline=None)
@given(hosts, ports)
@example("127.0.0.1", "99999")
@example("[::1%eth0]", "1")
@example("ß", "7")
@example("x。y", "7")
def test_everybody_agrees(host: str, port: str) -> None:
    text = f"{host}:{port}"
    if any("\ud800" <= c <= "\udfff" for c in text):
        return  # no such text comes from a person or in JSON
    found = verdicts(text)
    assert len(set(found.values())) == 1, found
    if found["the type"]:
        address = Address.of(text)
        assert Address.of(str(address)) == address
        kept_everywhere(address)


@pytest.mark.parametrize("host", ["::1", "2001:db8::7", "fe80::1%eth0", "127.0.0.1", "localhost"])
def test_an_address_in_a_message_can_be_given_back(host: str) -> None:
    place = str(Address(host, 9735))
    assert Address.of(place) == Address(host, 9735)
    for number in (errno.EADDRINUSE, errno.EACCES, errno.EIO):
        assert place in _why_not_listening(host, 9735, OSError(number, "no"))
