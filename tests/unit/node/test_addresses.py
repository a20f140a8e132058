"""What a node keeps of where its peers are, on a real store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from perund.config import Config, Ic, Wire
from perund.config_file import load_config, render_config
from perund.keys import Keys
from perund.node.addresses import AddressBook, announced_by
from perund.node.services import Services
from perund.recovery.backup import BACKUP_NAME, BackupFile, read_backup
from perund.setup_errors import ConfigError
from perund.store.reading import open_reader
from perund.store.schema import STORE_NAME
from perund.store.store import Store
from protocol.messages import FEATURE_ADDRESSES, Addresses, Hello, Message
from wire.address import Address
from wire.keeper import Target
from wire.nearness import Nearness
from wire.session import Session

KEYS = Keys(b"\x07" * 32)
NETWORK = b"\x11" * 32
PEER = b"\x02" * 33
HOME, NEW, NAME = Address("9.9.9.9", 1), Address("9.9.9.9", 2), Address("node.example", 9735)


def config(network: str = "local", **wire: object) -> Config:
    root_key = "00" * 133 if network == "local" else ""
    ic = Ic(perun_canister="aaaaa-aa", icp_ledger="aaaaa-aa", root_key=root_key)
    return Config(network=network, ic=ic, wire=Wire(**wire))  # type: ignore[arg-type]


@dataclass(eq=False)
class Line:
    """A session, as far as the book looks at it."""

    dialed_at: Address | None = None
    nearness: Nearness | None = Nearness.PUBLIC
    features: int = FEATURE_ADDRESSES
    peer: bytes = PEER
    said: list[Message] = field(default_factory=list)

    @property
    def hello(self) -> Hello:
        return Hello(1, NETWORK, self.features, "a peer", 1)

    def send(self, message: Message) -> None:
        self.said.append(message)


class Home:
    """A book with its store and backup file; the network notes what is asked of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.channels: set[bytes] = set()
        self.money = False
        self.may_dial = True
        self.kept: list[Target] = []
        self.chosen: set[bytes] = set()
        self.loop = asyncio.new_event_loop()
        self.open()

    def open(self) -> None:
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        self.store = Store(self.directory / STORE_NAME, NETWORK, lambda error: pytest.fail(str(error)))
        file = BackupFile(self.directory, KEYS, NETWORK, config(), self.store.read)
        file.write(1)
        self.store.back_up_with(file.append)
        services = SimpleNamespace(
            store=self.store, network=self, config=config(announce=("node.example:1",)), listening="9.9.9.9:9735"
        )
        self.book = AddressBook(
            cast("Services", services),
            self.channels.__contains__,
            self.channels.__contains__,
            lambda _: self.money,
            lambda: self.may_dial,
        )
        self.book.load()
        self.book.start()

    def choose(self, peer: bytes) -> None:
        self.chosen.add(peer)

    def keep_connected(self, peer: bytes, targets: list[Target]) -> None:
        assert peer == PEER
        self.kept = targets

    def keeps(self, peer: bytes) -> bool:
        return peer == PEER and bool(self.kept)

    def restart(self) -> None:
        self.close()
        self.kept = []
        self.open()

    def close(self) -> None:
        self.loop.run_until_complete(self.store.write(()))
        self.store.close()

    def session(self, *places: Address, dialed_at: Address | None = None, nearness: Nearness = Nearness.PUBLIC) -> Line:
        line = Line(dialed_at, nearness)
        self.book.session_ended(PEER)
        self.book.session_began(cast("Session", line))
        self.book.peer_goes_on(cast("Session", line))
        self.say(line, *places)
        return line

    def say(self, line: Line, *places: Address) -> None:
        message = Addresses(tuple((place.host, place.port) for place in places))
        self.book.announced(cast("Session", line), message)

    @property
    def known(self) -> list[Address]:
        return [row.address for row in self.book.of(PEER)]

    @property
    def proven(self) -> list[Address]:
        return [row.address for row in self.book.of(PEER) if row.proven_ms is not None]

    @property
    def stored(self) -> set[Address]:
        self.loop.run_until_complete(self.store.write(()))
        return {row.address for row in open_reader(self.directory / STORE_NAME).addresses().get(PEER, ())}

    @property
    def backed_up(self) -> list[Address]:
        self.loop.run_until_complete(self.store.write(()))
        return [peer.place for peer in read_backup(self.directory / BACKUP_NAME, KEYS).peers]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    try:
        yield made
    finally:
        made.close()
        made.loop.close()


def test_of_a_stranger_nothing_is_kept_until_it_has_a_channel(home: Home) -> None:
    home.session(HOME, NAME)
    assert (home.known, home.stored, home.kept) == ([], set(), [])
    home.channels.add(PEER)
    home.book.channel_opened(PEER)
    assert home.stored == {HOME, NAME}
    assert home.kept == [], "nor dialed, until it has money"
    home.money = True
    home.book.money_came(PEER)
    assert {target.address for target in home.kept} == {HOME, NAME}
    assert {(target.proven, target.nearest) for target in home.kept} == {(False, Nearness.PUBLIC)}
    home.restart()
    assert {target.address for target in home.kept} == {HOME, NAME}
    assert home.chosen == set(), "it has no place but that of its money"
    home.channels.clear()
    home.book.last_channel_closed(PEER)
    assert (home.known, home.stored) == ([], set())


def test_what_was_announced_goes_with_the_next_announcement_and_what_was_proven_stays(home: Home) -> None:
    home.channels.add(PEER)
    home.session(HOME, NAME)
    home.session(HOME, dialed_at=HOME)
    assert (home.known, home.proven, home.backed_up) == ([HOME], [HOME], [HOME])
    home.session(NEW, NAME)
    assert home.known == [HOME, NEW, NAME]
    home.session()
    assert home.known == [HOME]
    home.restart()
    assert (home.known, home.proven) == ([HOME], [HOME])


def test_in_a_session_only_the_first_announcement_counts(home: Home) -> None:
    home.channels.add(PEER)
    line = home.session(HOME)
    home.say(line, NEW)
    assert home.known == [HOME]


def test_the_newest_proof_is_tried_first_and_four_are_remembered(home: Home) -> None:
    home.channels.add(PEER)
    given = Address("given.example", 1)
    home.book.given(PEER, given)
    places = [Address("9.9.9.9", port) for port in range(1, 9)]
    for place in places:
        home.session(place, dialed_at=None)
        home.book.proved(PEER, place)
    assert home.known == [*reversed(places[4:]), given], "and where our operator said last"
    assert home.backed_up == places[4:]
    home.restart()
    assert home.known == [*reversed(places[4:]), given]
    assert home.chosen == {PEER}
    home.channels.clear()
    home.book.last_channel_closed(PEER)
    assert home.known == [given]


def test_who_is_at_an_address_that_nobody_told_is_not_remembered_there(home: Home) -> None:
    home.channels.add(PEER)
    home.session(dialed_at=HOME)
    assert home.known == []


def test_what_the_operator_says_is_not_made_less_by_what_the_peer_says(home: Home) -> None:
    home.book.given(PEER, Address("10.0.0.1", 1))
    home.session(Address("10.0.0.1", 2), NEW)
    home.book.given(PEER, NEW)
    home.session(NEW)
    rows = {row.address: row for row in home.book.of(PEER)}
    assert set(rows) == {Address("10.0.0.1", 1), NEW}
    assert {(row.given, row.nearest) for row in rows.values()} == {(True, None)}
    assert [target.nearest for target in home.kept] == [None, None]
    home.session(NEW, NAME)
    assert [target.address for target in home.kept][-1] == NAME, "without a channel, too: our operator chose it"


@pytest.mark.parametrize(("nearness", "taken"), [(Nearness.PUBLIC, 2), (Nearness.PRIVATE, 3), (Nearness.LOOPBACK, 4)])
def test_an_address_is_no_nearer_than_who_announces_it(home: Home, nearness: Nearness, taken: int) -> None:
    home.channels.add(PEER)
    places = [NAME, HOME, Address("192.168.1.1", 1), Address("::1", 1)]
    home.session(Address("0.0.0.0", 1), Address("224.0.0.1", 1), *places, nearness=nearness)
    assert set(home.known) == set(places[:taken])
    assert {row.nearest for row in home.book.of(PEER)} == {nearness}


def test_a_node_that_stopped_signing_dials_nobody(home: Home) -> None:
    home.channels.add(PEER)
    home.money, home.may_dial = True, False
    home.session(HOME)
    home.book.money_came(PEER)
    assert home.kept == []


def test_it_says_where_it_is_to_those_who_take_it(home: Home) -> None:
    before, now = Line(features=0), Line()
    for line in (before, now):
        home.book.session_began(cast("Session", line))
    assert before.said == []
    assert now.said == [Addresses((("node.example", 1),))]


def test_a_flood_of_the_same_is_written_once(home: Home) -> None:
    home.channels.add(PEER)
    home.session(HOME, NAME)
    asked = home.store.asked
    for _ in range(100):
        home.session(HOME, NAME)
    assert home.store.asked == asked


@pytest.mark.parametrize(
    ("network", "listening", "said"),
    [
        ("ic", "9.9.9.9:9735", ["9.9.9.9:9735"]),
        ("ic", "[2606:4700::1111]:9735", ["[2606:4700::1111]:9735"]),
        ("ic", "0.0.0.0:9735", []),
        ("ic", "[::]:9735", []),
        ("ic", "127.0.0.1:9735", []),
        ("ic", "192.168.1.2:9735", []),
        ("ic", None, []),
        ("local", "127.0.0.1:9735", ["127.0.0.1:9735"]),
        ("local", "192.168.1.2:9735", ["192.168.1.2:9735"]),
        ("local", "0.0.0.0:9735", []),
        ("local", "[fe80::1%eth0]:9735", []),
    ],
)
def test_a_private_address_is_told_to_nobody_unasked(network: str, listening: str | None, said: list[str]) -> None:
    assert [str(place) for place in announced_by(config(network), listening)] == said
    assert announced_by(config(network, announce=()), listening) == ()
    asked = config(network, announce=("192.168.1.2:9735", "node.example:1"))
    assert [str(place) for place in announced_by(asked, listening)] == ["192.168.1.2:9735", "node.example:1"]


@pytest.mark.parametrize(
    "announce",
    [("node.example",), ("node.example:0",), ("a.example:1", "a.example:1"), ("fe80::1%eth0",), ("[fe80::1%e]:1",),
     ("bücher.example:1",), tuple(f"h{number}.example:1" for number in range(9)), ("Listen",), ("",)],
)  # fmt: skip
def test_what_cannot_be_announced_is_refused_with_the_configuration(announce: tuple[str, ...], tmp_path: Path) -> None:
    quoted = ", ".join(f'"{text}"' for text in announce)
    text = render_config(config()).replace('announce = ["listen"]', f"announce = [{quoted}]")
    (tmp_path / "perund.toml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_config(tmp_path, {})
    assert "announce" in str(refused.value)
