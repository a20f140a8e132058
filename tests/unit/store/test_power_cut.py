"""What a store has confirmed is there after a power cut, by the connection that real nodes have.

The disk of these tests keeps of each file what was synced; a power cut leaves that and nothing else.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from perund.store.reading import open_reader
from perund.store.store import connect
from protocol.effects import EventRecord
from tests.unit.store.books import Books

EVENT = EventRecord("test.happened", None, {})


class _Disk:
    """The file system that SQLite takes while this stands."""

    def __init__(self) -> None:
        self.synced: dict[str, bytes] = {}
        disk = self

        class _File(apsw.VFSFile):
            def __init__(self, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
                super().__init__("unix", name, flags)
                self._name = name.filename() if isinstance(name, apsw.URIFilename) else name

            def xSync(self, flags: int) -> None:
                super().xSync(flags)
                if self._name:
                    disk.synced[Path(self._name).name] = Path(self._name).read_bytes()

        class _Vfs(apsw.VFS):
            def __init__(self) -> None:
                super().__init__("keeps what is synced", "unix", makedefault=True)

            def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
                return _File(name, flags)

        self.vfs = _Vfs()


@pytest.fixture
def disk() -> Iterator[_Disk]:
    made = _Disk()
    yield made
    made.vfs.unregister()


async def test_what_is_confirmed_survives_a_power_cut(disk: _Disk, tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    books = Books(tmp_path / "before")
    for count in range(1, 6):
        await books.store.write([EVENT])
        after = tmp_path / f"after {count}"
        after.mkdir()
        for name in ("perund.db", "perund.db-wal"):
            (after / name).write_bytes(disk.synced[name])
        assert len(open_reader(after / "perund.db").events(0, 9)) == count
    books.store.close()


def test_the_connection_of_a_store_waits_for_the_disk_at_every_commit(tmp_path: Path) -> None:
    database = connect(tmp_path / "perund.db")
    assert database.pragma("synchronous") == 2
    assert database.pragma("journal_mode") == "wal"
    database.close()


async def test_nobody_is_told_before_the_backup_file_has_it_too(tmp_path: Path) -> None:
    books = Books(tmp_path)
    asked, may_go_on = threading.Event(), threading.Event()
    told: list[str] = []

    def append(_: object) -> None:
        asked.set()
        assert may_go_on.wait(60)

    books.store.back_up_with(append)
    books.store.commit([EVENT], lambda: told.append("sent"), (b"an opening",))
    assert await asyncio.to_thread(asked.wait, 60)
    for _ in range(5):
        await asyncio.sleep(0)
    assert told == []
    may_go_on.set()
    await books.store.write([EVENT])
    assert told == ["sent"]
    books.store.close()
