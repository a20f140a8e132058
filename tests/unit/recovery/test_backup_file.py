"""The backup file: appended to, torn, damaged, copied at any moment, written anew; and the format before it."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from perund.recovery import backup as backup_module
from perund.recovery.backup import BACKUP_NAME, Backup, BackupError, BackupFile, read_backup
from perund.recovery.backup_format import MAGIC_1, MARK, read_content
from perund.recovery.restoring import restore_node
from perund.recovery.saved import channel_part, closed_part, half_open_part, peer_part
from perund.recovery.taking_up import take_up_from_file
from perund.store.jobs import insert_channel, record_addresses
from perund.store.lives import STARTS_BITS
from perund.store.rows import PeerAddress
from perund.store.schema import STORE_NAME
from perund.store.store import Store
from protocol.opening import Opened
from protocol.types import Nanos
from tests.unit.recovery.test_taking_up import CONFIG, KEYS, NETWORK, opened
from wire.address import Address

PEER = b"\x02" + b"\x31" * 32
OTHER = b"\x03" + b"\x31" * 32
PLACE = Address("tower.example.org", 9735)


def part_of(channel: Opened) -> bytes:
    return channel_part(channel.terms, channel.signed.signatures, 5)


@contextmanager
def kept(directory: Path, *channels: Opened) -> Iterator[BackupFile]:
    """The file of a node that runs with these channels."""
    loop = asyncio.new_event_loop()

    async def begin() -> Store:
        store = Store(directory / STORE_NAME, NETWORK, lambda error: None)
        for channel in channels:
            number = store.read.highest("channel") + 1
            await store.write(insert_channel(channel, number, NETWORK, Nanos(5), 600))
        return store

    store = loop.run_until_complete(begin())
    file = BackupFile(directory, KEYS, NETWORK, CONFIG, store.read)
    file.write(1)
    yield file
    store.close()
    loop.close()


def open_in_store(directory: Path, channel: Opened) -> None:
    """The writer of the store does it, in its own time."""
    database = apsw.Connection(str(directory / STORE_NAME))
    ((number,),) = database.execute("SELECT coalesce(max(number), 0) + 1 FROM channel")
    assert isinstance(number, int)
    for statement in insert_channel(channel, number, NETWORK, Nanos(5), 600):
        database.execute(statement.sql, statement.values)
    database.close()


def proposals(backup: Backup) -> list[int]:
    return sorted(int.from_bytes(channel.proposal_id, "big") for channel in backup.channels)


def read(directory: Path) -> Backup:
    return read_backup(directory / BACKUP_NAME, KEYS)


def test_what_is_appended_adds_up(tmp_path: Path) -> None:
    with kept(tmp_path, opened(1)) as file:
        before = (tmp_path / BACKUP_NAME).stat()
        file.append([half_open_part(PEER, b"\x77" * 32), peer_part(PEER, PLACE)])
        file.append([part_of(opened(2)), part_of(opened(3)), half_open_part(PEER, b"\x33" * 32)])
        file.append([closed_part(opened(1).terms.proposal_id), peer_part(PEER, Address("::1", 1))])
        assert (tmp_path / BACKUP_NAME).stat().st_ino == before.st_ino, "it is not written anew"
    found = read(tmp_path)
    assert proposals(found) == [2, 3]
    assert found.half_open == [(PEER, b"\x77" * 32)], "the other opening became a channel"
    assert [peer.place for peer in found.peers] == [PLACE, Address("::1", 1)], "the newest last"
    assert (found.faults, found.torn) == ([], False)
    assert found.channels[0].opened() == Opened(opened(2).terms, opened(2).signed, None)


def test_a_peer_that_moved_often_is_in_it_with_where_it_was_last(tmp_path: Path) -> None:
    with kept(tmp_path, opened(1)) as file:
        for port in (1, 2, 3, 4, 5, 3):
            file.append([peer_part(PEER, Address("a.example", port)), peer_part(OTHER, Address("b.example", port))])
    found = [peer for peer in read(tmp_path).peers if peer.peer == PEER]
    assert [peer.port for peer in found] == [2, 4, 5, 3]


def test_a_copy_made_at_any_moment_has_every_channel_that_could_be_funded_by_then(tmp_path: Path) -> None:
    with kept(tmp_path, opened(1)) as file:
        sizes = [(tmp_path / BACKUP_NAME).stat().st_size]
        for nonce in (2, 3):
            file.append([part_of(opened(nonce))])
            sizes.append((tmp_path / BACKUP_NAME).stat().st_size)
    content = (tmp_path / BACKUP_NAME).read_bytes()
    for cut in range(sizes[0], sizes[-1] + 1):
        found = read_content(Path("copy"), content[:cut], KEYS)
        durable = sum(size <= cut for size in sizes)
        assert proposals(found) == [1, 2, 3][:durable]
        assert found.faults == []
        assert found.torn is (cut not in sizes)
        # After a loss of power the end may be there in length only.
        zeroed = read_content(Path("copy"), content[:cut] + bytes(sizes[-1] - cut), KEYS)
        assert proposals(zeroed)[:durable] == [1, 2, 3][:durable]


def test_a_file_that_was_cut_in_what_was_written_at_once_says_so(tmp_path: Path) -> None:
    with kept(tmp_path, opened(1), opened(2)):
        pass
    content = (tmp_path / BACKUP_NAME).read_bytes()
    found = read_content(Path("copy"), content[:-1], KEYS)
    assert proposals(found) == [1, 2]
    assert "the file was cut" in found.faults[0]


@pytest.mark.parametrize("seed", range(40))
def test_damage_costs_the_record_it_is_in_and_is_said(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with kept(tmp_path) as file:
        ends = [(tmp_path / BACKUP_NAME).stat().st_size]
        for nonce in range(1, 9):
            file.append([part_of(opened(nonce))])
            ends.append((tmp_path / BACKUP_NAME).stat().st_size)
    content = bytearray((tmp_path / BACKUP_NAME).read_bytes())
    begin = rng.randrange(ends[0], ends[-1])
    end = min(len(content), begin + rng.choice((1, 1, 2, 50, 2_000)))
    for at in range(begin, end):
        content[at] ^= rng.randrange(1, 256)
    touched = {n for n in range(1, 9) if begin < ends[n] and end > ends[n - 1]}
    found = read_content(Path("copy"), bytes(content), KEYS)
    assert set(proposals(found)) == set(range(1, 9)) - touched
    assert found.faults or found.torn
    assert found.torn is False or touched == {8}


def test_records_that_were_moved_or_come_from_another_file_are_noticed(tmp_path: Path) -> None:
    with kept(tmp_path, opened(1)) as file:
        file.append([part_of(opened(2))])
        file.append([part_of(opened(3))])
        content = (tmp_path / BACKUP_NAME).read_bytes()
        file.write(2)
        other = (tmp_path / BACKUP_NAME).read_bytes()
    second, third = content.rfind(MARK, 0, content.rfind(MARK)), content.rfind(MARK)
    moved = content[:second] + content[third:] + content[second:third]
    assert "not there in order" in read_content(Path("copy"), moved, KEYS).faults[0]
    assert "not there in order" in read_content(Path("copy"), content[:second] + content[third:], KEYS).faults[0]
    found = read_content(Path("copy"), other + content[third:], KEYS)
    assert "of another file" in found.faults[0]
    assert proposals(found) == [1]


def version_1(**changes: object) -> bytes:
    """A file as perund wrote it before, with rows that its own reader refused."""
    row = msgspec.to_builtins(msgspec.msgpack.decode(part_of(opened(1)))[1][0], builtin_types=(bytes,))
    fields = {
        "node_id": KEYS.node_id, "network": NETWORK, "made_ms": 7, "config": "c" * 1_000_001, "channels": [row],
        "peers": [{"peer": PEER, "host": "good.example", "port": 1}], "half_open": [(PEER, b"\x77" * 32)], **changes,
    }  # fmt: skip
    nonce = bytes(12)
    return MAGIC_1 + nonce + ChaCha20Poly1305(KEYS.backup_key).encrypt(nonce, msgspec.msgpack.encode(fields), MAGIC_1)


def test_the_format_of_before_is_read_and_a_port_that_none_can_be_costs_itself() -> None:
    good = {"peer": PEER, "host": "good.example", "port": 1}
    found = read_content(Path("old"), version_1(), KEYS)
    assert (proposals(found), len(found.peers), found.faults) == ([1], 1, [])
    bad = [{**good, "port": 99_999}, {**good, "host": "x" * 300}, {**good, "host": ""}, good]
    found = read_content(Path("old"), version_1(peers=bad), KEYS)
    assert proposals(found) == [1]
    assert [peer.port for peer in found.peers] == [1]
    assert len(found.faults) == 3
    assert "99999 is not a port" in found.faults[0]


def test_a_file_that_is_none_of_ours_is_no_backup(tmp_path: Path) -> None:
    path = tmp_path / BACKUP_NAME
    for content in (b"", b"hello", b"perund-backup-2\n", b"perund-backup-1\n", version_1(node_id="ab" * 33), MARK * 99):
        path.write_bytes(content)
        with pytest.raises(BackupError):
            read_backup(path, KEYS)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BackupError, match="no regular file"):
        read_backup(path, KEYS)


def test_a_store_with_an_address_that_none_can_be_has_a_backup_that_opens(tmp_path: Path) -> None:
    with kept(tmp_path, opened(1)) as file:
        database = apsw.Connection(str(tmp_path / STORE_NAME))
        for peer, host, port in ((PEER, "good.example", 99_999), (b"\x03" * 33, 7, "x"), (b"short", "a", 1)):
            database.execute("INSERT INTO peer_address VALUES (?, ?, ?, 'given', 0, 0, NULL)", (peer, host, port))
        row = PeerAddress(PLACE, given=True, since_ms=0, proven_ms=0, nearest=None)
        for statement in record_addresses(b"\x03" + PEER[1:], [row]):
            database.execute(statement.sql, statement.values)
        database.close()
        file.write(2)
        assert (file.problem, file.left_out) == (None, [])
    found = read(tmp_path)
    assert proposals(found) == [1]
    assert [peer.place for peer in found.peers] == [PLACE]
    assert found.faults == []


def test_a_row_that_no_reader_takes_is_left_out_and_said(tmp_path: Path) -> None:
    with kept(tmp_path, opened(1), opened(2)) as file:
        database = apsw.Connection(str(tmp_path / STORE_NAME))
        database.execute("UPDATE channel SET challenge_ns = -1 WHERE number = 1")
        database.close()
        file.write(2)
        assert len(file.left_out) == 1
        assert "is no channel" in file.left_out[0]
    assert proposals(read(tmp_path)) == [2]


def test_an_opening_costs_the_same_with_many_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It appends its own record, and reads nothing but that one."""

    def must_not(self: BackupFile, *arguments: object) -> Backup:
        raise AssertionError("an opening read every channel")

    costs = []
    for count in (1, 1_000):
        directory = tmp_path / str(count)
        directory.mkdir()
        with kept(directory, opened(1)) as file:
            file.append([part_of(opened(nonce)) for nonce in range(2, count + 1)])
            before = (directory / BACKUP_NAME).stat()
            with monkeypatch.context() as patch:
                patch.setattr(BackupFile, "collect", must_not)
                patch.setattr(backup_module, "read_backup", must_not)
                file.append([part_of(opened(9_999))])
            after = (directory / BACKUP_NAME).stat()
            assert after.st_ino == before.st_ino
            costs.append(after.st_size - before.st_size)
        assert len(read(directory).channels) == count + 1
    assert costs[0] == costs[1]


# --- while a node runs ------------------------------------------------------------------------------------


def test_what_does_not_read_back_is_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes bytes and keeps others: our signature must not leave."""
    with kept(tmp_path, opened(1)) as file:
        really = os.write

        def lying(descriptor: int, data: memoryview) -> int:
            return really(descriptor, bytes(len(data)))

        monkeypatch.setattr(os, "write", lying)
        with pytest.raises(BackupError, match="does not read back"):
            file.append([part_of(opened(2))])


def test_a_disk_that_is_full_in_the_middle_of_a_record_leaves_a_good_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kept(tmp_path, opened(1)) as file:
        really, left = os.write, [100]

        def small(descriptor: int, data: memoryview) -> int:
            if not left:
                raise OSError(28, "No space left on device")
            return really(descriptor, data[: left.pop()])

        monkeypatch.setattr(os, "write", small)
        with pytest.raises(OSError, match="No space"):
            file.append([part_of(opened(2))])
    assert (proposals(read(tmp_path)), read(tmp_path).torn) == ([1], False)


@pytest.mark.parametrize("what", ["gone", "another file", "written into", "an older copy of it"])
def test_a_file_that_others_changed_is_made_anew_and_nothing_is_written_over(tmp_path: Path, what: str) -> None:
    path = tmp_path / BACKUP_NAME
    with kept(tmp_path, opened(1)) as file:
        old = path.read_bytes()
        open_in_store(tmp_path, opened(2))
        file.append([part_of(opened(2))])
        assert not file.touched()
        if what == "gone":
            path.unlink()
        elif what == "another file":
            path.unlink()
            path.write_bytes(b"precious")
        else:
            path.write_bytes(old if what == "an older copy of it" else b"precious")
        assert file.touched()
        assert file.check() is (what == "an older copy of it")
        open_in_store(tmp_path, opened(3))
        file.append([part_of(opened(3))])
        assert not file.touched()
        assert file.check()
        assert file.problem is None
    assert proposals(read(tmp_path)) == [1, 2, 3]
    aside = [found.read_bytes() for found in tmp_path.glob(f"{BACKUP_NAME}.unreadable-*")]
    assert aside == ([] if what == "gone" else [old if what == "an older copy of it" else b"precious"])


def test_a_link_goes_on_leading_to_the_backup(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    (tmp_path / BACKUP_NAME).symlink_to(stick / "alice.backup")
    with kept(tmp_path, opened(1)) as file:
        file.append([part_of(opened(2))])
        file.compact(3)
    assert (tmp_path / BACKUP_NAME).is_symlink()
    assert [path.name for path in stick.iterdir()] == ["alice.backup"]
    assert read(tmp_path).faults == []


def test_writing_anew_loses_nothing_that_is_appended_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads the store and writes beside the file while openings go on appending."""
    with kept(tmp_path, opened(1)) as file:
        collecting, appended = threading.Event(), threading.Event()
        collect = BackupFile.collect

        def slow(self: BackupFile, *arguments: object) -> Backup:
            found = collect(self, *arguments)  # type: ignore[arg-type]
            collecting.set()
            assert appended.wait(10)
            return found

        monkeypatch.setattr(BackupFile, "collect", slow)
        before = (tmp_path / BACKUP_NAME).stat().st_ino
        compacting = threading.Thread(target=file.compact, args=(9,))
        compacting.start()
        assert collecting.wait(10)
        file.append([part_of(opened(2))])
        assert proposals(read(tmp_path)) == [1, 2], "the file of before has it at once"
        file.append([closed_part(opened(1).terms.proposal_id)])
        appended.set()
        compacting.join(10)
        assert (tmp_path / BACKUP_NAME).stat().st_ino != before
        file.append([part_of(opened(3))])
    found = read(tmp_path)
    assert (proposals(found), found.made_ms, found.faults) == ([2, 3], 9, [])


def test_a_node_that_has_stopped_puts_no_older_file_in_the_place_of_its_successors(tmp_path: Path) -> None:
    with kept(tmp_path, opened(1)) as file:
        file.close()
        content = (tmp_path / BACKUP_NAME).read_bytes()
        file.compact(9)
        assert (tmp_path / BACKUP_NAME).read_bytes() == content
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(f".{BACKUP_NAME}")] == []


def test_what_is_closed_is_written_out_of_the_file_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_module, "SLACK_BYTES", 2_000)
    with kept(tmp_path, opened(1)) as file:
        appended = 0
        while not file.bloated:
            file.append([part_of(opened(2)), closed_part(opened(2).terms.proposal_id)])
            appended += 1
            assert appended < 1_000
        large = (tmp_path / BACKUP_NAME).stat().st_size
        file.compact(2)
        assert (tmp_path / BACKUP_NAME).stat().st_size < large / 2
    assert proposals(read(tmp_path)) == [1]


def test_bad_rows_do_not_keep_the_good_ones_from_being_taken_up(tmp_path: Path) -> None:
    with kept(tmp_path, opened(1)) as file:
        forged = opened(2)
        file.append([channel_part(forged.terms, (b"\x01" * 64, b"\x01" * 64), 5), part_of(opened(3))])
    for path in tmp_path.glob(f"{STORE_NAME}*"):
        path.unlink()
    taken = take_up_from_file(tmp_path, tmp_path / STORE_NAME, KEYS, NETWORK)
    assert sorted(taken) == sorted([opened(1).terms.channel, opened(3).terms.channel])
    assert len(list(tmp_path.glob(f"{BACKUP_NAME}.unreadable-*"))) == 1, "for people, before it is made anew"


@pytest.mark.parametrize("channels", [0, 1])
def test_what_is_restored_begins_a_life_above_all_before(tmp_path: Path, channels: int) -> None:
    """Also with no channel left: a tower has heard of the lives before, and would have the new one stop."""
    (tmp_path / "before").mkdir()
    with kept(tmp_path / "before", *[opened(number + 1) for number in range(channels)]):
        pass
    earliest_ms = time.time_ns() // 1_000_000
    restore_node(tmp_path / "after", tmp_path / "before" / BACKUP_NAME, b"\x07" * 32, "correct horse")
    with kept(tmp_path / "after") as file:
        assert file.collect(1).network == NETWORK
        database = apsw.Connection(str(tmp_path / "after" / STORE_NAME))
        ((number,),) = database.execute("SELECT number FROM own_life")
        database.close()
    assert int(str(number)) > earliest_ms << STARTS_BITS
