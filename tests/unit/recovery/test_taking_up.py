"""A store that lacks what the backup file has is an old one: nothing of the file is lost, and all of it recovers."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

import apsw
import pytest

from perund.config import Config, Ic
from perund.keys import Keys
from perund.recovery.backup import BACKUP_NAME, Backup, BackupError, BackupFile, SavedChannel
from perund.recovery.taking_up import take_up_from_file
from perund.store.jobs import insert_channel, record_addresses
from perund.store.reading import open_reader
from perund.store.rows import PeerAddress, proven
from perund.store.schema import STORE_NAME
from perund.store.store import Store
from perund.store.writer import Statement
from protocol.effects import Phase
from protocol.opening import Opened
from protocol.signing import ChannelKey
from protocol.terms import Terms
from protocol.types import Nanos, Params, SignedState
from wire.address import Address

NETWORK = b"\x11" * 32
KEYS = Keys(b"\x07" * 32)
OURS, THEIRS = ChannelKey(b"\x01" * 32), ChannelKey(b"\x02" * 32)
CONFIG = Config(
    network="local",
    ic=Ic(
        urls=("http://127.0.0.1:1",),
        perun_canister="aaaaa-aa",
        icp_ledger="aaaaa-aa",
        root_key="00" * 133,
    ),
)


def opened(nonce: int) -> Opened:
    params = Params(nonce.to_bytes(64, "big"), (OURS.public, THEIRS.public), Nanos(60 * 10**9))
    terms = Terms(nonce.to_bytes(32, "big"), b"\x02" * 33, 0, params, (70, 30), Nanos(9), b"\x33" * 32, b"\x44" * 32)
    state = terms.state_0()
    return Opened(terms, SignedState(state, (OURS.sign_state(state), THEIRS.sign_state(state))), None)


def run_with(directory: Path, *channels: Opened) -> None:
    """A node's store with these channels, and the backup file that it writes."""
    directory.mkdir(exist_ok=True)
    asyncio.run(_run_with(directory, channels))


async def _run_with(directory: Path, channels: tuple[Opened, ...], more: Sequence[Statement] = ()) -> None:
    store = Store(directory / STORE_NAME, NETWORK, lambda error: None)
    for channel in channels:
        number = store.read.highest("channel") + 1
        await store.write(insert_channel(channel, number, NETWORK, Nanos(5), 600))
    await store.write(more)
    BackupFile(directory, KEYS, NETWORK, CONFIG, store.read).write(1)
    store.close()


def take_up(directory: Path) -> tuple[bytes, ...]:
    return take_up_from_file(directory, directory / STORE_NAME, KEYS, NETWORK)


def frozen(directory: Path) -> dict[bytes, str]:
    rows = open_reader(directory / STORE_NAME).channels_page(None, 0, 99)
    return {row.terms.channel: row.memory.frozen for row in rows}


def test_a_store_that_has_everything_is_left_as_it_is(tmp_path: Path) -> None:
    run_with(tmp_path, opened(1), opened(2))
    assert take_up(tmp_path) == ()
    assert set(frozen(tmp_path).values()) == {""}


def test_a_channel_that_was_closed_is_not_missing(tmp_path: Path) -> None:
    """A crash may come between its end and the file."""
    run_with(tmp_path, opened(1))
    database = apsw.Connection(str(tmp_path / STORE_NAME))
    database.execute("UPDATE channel_state SET phase = 'closed'")
    database.close()
    assert take_up(tmp_path) == ()


def test_an_old_store_gets_what_it_lacks_and_all_its_channels_recover(tmp_path: Path) -> None:
    first, second = opened(1), opened(2)
    run_with(tmp_path, first)
    run_with(tmp_path / "newer", first, second)
    shutil.copy(tmp_path / "newer" / BACKUP_NAME, tmp_path)

    assert take_up(tmp_path) == (second.terms.channel,)

    found = frozen(tmp_path)
    assert set(found) == {first.terms.channel, second.terms.channel}
    assert all(text.startswith("data_loss: ") for text in found.values())
    assert take_up(tmp_path) == (), "once"


def test_without_a_store_every_channel_comes_from_the_file(tmp_path: Path) -> None:
    run_with(tmp_path, opened(1), opened(2))
    for path in tmp_path.glob(f"{STORE_NAME}*"):
        path.unlink()
    assert len(take_up(tmp_path)) == 2
    rows = open_reader(tmp_path / STORE_NAME).channels_page(None, 0, 99)
    assert [row.memory.phase for row in rows] == [Phase.FUNDING] * 2
    assert [row.opened_ns for row in rows] == [5, 5]
    run_with(tmp_path)  # it is a store of this network


def test_a_restored_node_knows_everywhere_that_a_peer_was(tmp_path: Path) -> None:
    """The newest first; and what the file knows is newer than what an old store does."""
    peer, places = b"\x02" * 33, [Address("a.example", port) for port in range(1, 6)]
    rows = [
        PeerAddress(place, given=port == 1, since_ms=port, proven_ms=port, nearest=None)
        for port, place in enumerate(places, 1)
    ]
    asyncio.run(_run_with(tmp_path, (opened(1),), record_addresses(peer, rows[:2])))
    (tmp_path / "newer").mkdir()
    asyncio.run(_run_with(tmp_path / "newer", (opened(1), opened(2)), record_addresses(peer, rows)))
    shutil.copy(tmp_path / "newer" / BACKUP_NAME, tmp_path)

    assert len(take_up(tmp_path)) == 1

    found = open_reader(tmp_path / STORE_NAME).addresses()[peer]
    assert [row.address for row in proven(found)] == places[1:]
    assert all(row.given for row in found), "without that it would not be dialed before a look shows money"


def test_a_file_that_cannot_be_read_is_put_aside_and_not_overwritten(tmp_path: Path) -> None:
    run_with(tmp_path, opened(1))
    content = (tmp_path / BACKUP_NAME).read_bytes()[:-1]
    (tmp_path / BACKUP_NAME).write_bytes(content)
    assert take_up(tmp_path) == ()
    assert not (tmp_path / BACKUP_NAME).exists()
    (aside,) = tmp_path.glob(f"{BACKUP_NAME}.unreadable-*")
    assert aside.read_bytes() == content
    assert set(frozen(tmp_path).values()) == {""}


def test_a_forged_channel_in_the_file_is_not_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_with(tmp_path, opened(1))
    collect = BackupFile.collect

    def forged(self: BackupFile, made_ms: int) -> Backup:
        backup = collect(self, made_ms)
        (channel,) = backup.channels
        fields = {name: getattr(channel, name) for name in channel.__struct_fields__}
        backup.channels[0] = SavedChannel(**{**fields, "signatures": (b"\x01" * 64, b"\x01" * 64)})
        return backup

    monkeypatch.setattr(BackupFile, "collect", forged)
    run_with(tmp_path)
    for path in tmp_path.glob(f"{STORE_NAME}*"):
        path.unlink()
    assert take_up(tmp_path) == ()
    assert list(tmp_path.glob(f"{BACKUP_NAME}.unreadable-*"))


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    run_with(tmp_path, opened(1))
    with pytest.raises(BackupError, match="network"):
        take_up_from_file(tmp_path, tmp_path / STORE_NAME, KEYS, b"\x12" * 32)
    assert (tmp_path / BACKUP_NAME).exists()
