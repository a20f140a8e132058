"""The files under a running store: moved, replaced, cut off, written to by others. Then nobody is told anything."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from perund.recovery.checking import check_store
from perund.recovery.copying import copy_store
from perund.recovery.doubting import settle_doubt
from perund.store.doubt import doubt_of
from perund.store.errors import End, Fate, FilesReplaced, StorageFailed
from perund.store.lock import DirectoryLock
from perund.store.own_files import log_of, shared_memory_of
from perund.store.store import Store
from protocol.effects import EventRecord
from tests.unit.store.books import NETWORK, Books, terms_of

BEFORE = 20


def event(number: int) -> EventRecord:
    return EventRecord("test.happened", None, {"number": number, "text": "x" * 500})


def copy(source: Path, target: Path) -> None:
    """Copy by another process: closing a file would drop the locks that SQLite has on it in this one."""
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)


class Scene:
    """A store at work in a directory of its own, locked as a node's is, and an old copy of all its files."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "node"
        self.home.mkdir()
        self.lock = DirectoryLock(self.home)
        self.books = Books(self.home)
        self.path = self.books.path
        self.aside = directory / "aside"

    async def work(self) -> None:
        await self.books.add(terms_of())
        self.books.store.close()
        self.books.store.read._database.close()
        in_another_process(self.path, "PRAGMA wal_checkpoint(TRUNCATE)")
        self.books = Books(self.home)  # what follows is in the log only
        await self.books.store.write([event(0)])
        copy(self.home, self.aside)
        for number in range(1, BEFORE):
            await self.books.store.write([event(number)])

    def end(self) -> None:
        self.books.store.close()
        self.books.store.read._database.close()
        self.lock.release()


@pytest.fixture
async def scene(tmp_path: Path) -> Scene:
    made = Scene(tmp_path)
    await made.work()
    return made


def in_another_process(path: Path, statement: str) -> None:
    """What somebody does with a tool for databases."""
    code = (
        "import apsw, sys\n"
        "database = apsw.Connection(sys.argv[1], flags=apsw.SQLITE_OPEN_READWRITE)\n"
        "database.execute(sys.argv[2]).fetchall()\n"
        "database.close()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path), statement], check=True)


def move_the_database(scene: Scene) -> None:
    scene.path.rename(scene.aside / "moved.db")


def unlink_the_database(scene: Scene) -> None:
    scene.path.unlink()


def rename_a_copy_over_the_database(scene: Scene) -> None:
    (scene.aside / scene.path.name).rename(scene.path)


def copy_over_the_database(scene: Scene) -> None:
    """`cp old perund.db`: the same file, other content."""
    copy(scene.aside / scene.path.name, scene.path)


def unlink_the_log(scene: Scene) -> None:
    log_of(scene.path).unlink()


def rename_an_old_log_over_it(scene: Scene) -> None:
    log_of(scene.aside / scene.path.name).rename(log_of(scene.path))


def empty_the_log(scene: Scene) -> None:
    os.truncate(log_of(scene.path), 0)


def cut_the_log(scene: Scene) -> None:
    os.truncate(log_of(scene.path), log_of(scene.path).stat().st_size // 2)


def overwrite_the_log(scene: Scene) -> None:
    """As long as before, and not what was written."""
    with log_of(scene.path).open("r+b") as file:
        file.write(b"\0" * log_of(scene.path).stat().st_size)


def unlink_the_shared_memory(scene: Scene) -> None:
    shared_memory_of(scene.path).unlink()


def rename_the_directory(scene: Scene) -> None:
    scene.home.rename(scene.home.with_name("renamed"))


def put_a_copy_in_the_place_of_the_directory(scene: Scene) -> None:
    scene.home.rename(scene.home.with_name("renamed"))
    scene.aside.rename(scene.home)


def replace_the_lock(scene: Scene) -> None:
    """After which a second node could start."""
    (scene.home / "perund.lock").unlink()
    DirectoryLock(scene.home)


def commit_from_another_process(scene: Scene) -> None:
    in_another_process(scene.path, "DELETE FROM event WHERE cursor = 3")


def write_back_from_another_process(scene: Scene) -> None:
    in_another_process(scene.path, "PRAGMA wal_checkpoint(TRUNCATE)")


WHOLE = [
    move_the_database,
    unlink_the_database,
    rename_a_copy_over_the_database,
    unlink_the_log,
    rename_an_old_log_over_it,
    unlink_the_shared_memory,
    rename_the_directory,
    put_a_copy_in_the_place_of_the_directory,
]
SHARED = [replace_the_lock, commit_from_another_process]
LOST = [copy_over_the_database, empty_the_log, cut_the_log, overwrite_the_log, write_back_from_another_process]


async def refused(scene: Scene) -> FilesReplaced:
    """Commit something; return why nobody heard that it is durable."""
    told: list[str] = []
    scene.books.store.commit([event(BEFORE)], lambda: told.append("sent"))
    with pytest.raises(StorageFailed) as failed:
        await asyncio.wait_for(scene.books.store.write([event(BEFORE + 1)]), 5)
    assert told == []
    assert scene.books.failures == [failed.value]
    assert isinstance(failed.value, FilesReplaced)
    assert str(scene.path) in str(failed.value)
    with pytest.raises(FilesReplaced):
        scene.books.store.commit([event(BEFORE)])
    return failed.value


@pytest.mark.parametrize("happens", WHOLE, ids=lambda f: f.__name__)
async def test_on_other_files_nobody_is_told_and_nothing_that_was_told_is_lost(
    scene: Scene, happens: Callable[[Scene], None], tmp_path: Path
) -> None:
    keep = tmp_path / "kept.db"  # a name that stays, whatever becomes of the other one
    keep.hardlink_to(scene.path)
    happens(scene)
    error = await refused(scene)
    assert error.fate is Fate.UNKNOWN
    assert error.mark is not None
    scene.end()

    # The database has it all by itself: nobody needs the log that was taken away.
    alone = tmp_path / "alone"
    alone.mkdir()
    copy(keep, alone / scene.path.name)
    again = Books(alone)
    assert {row.cursor for row in again.store.read.events(0, 99)} >= set(range(1, BEFORE + 1))
    again.store.close()


@pytest.mark.parametrize("happens", LOST, ids=lambda f: f.__name__)
async def test_what_may_be_lost_is_said_to_the_next_start(scene: Scene, happens: Callable[[Scene], None]) -> None:
    happens(scene)
    error = await refused(scene)
    assert (error.fate, error.mark) == (Fate.UNKNOWN, None)
    scene.end()
    doubt = doubt_of(scene.path)
    assert doubt is not None
    assert doubt.what == str(error)
    if happens is copy_over_the_database:
        return  # it may be damaged as well, and is refused then
    found = settle_doubt(scene.path)
    assert found == (str(error), 1)
    assert doubt_of(scene.path) is None
    again = Books(scene.home)
    assert again.row().memory.frozen.startswith("data_loss")
    again.store.close()


@pytest.mark.parametrize("happens", [unlink_the_log, rename_an_old_log_over_it, unlink_the_shared_memory, *SHARED])
async def test_where_nothing_is_lost_the_next_start_believes_it(scene: Scene, happens: Callable[[Scene], None]) -> None:
    happens(scene)
    await refused(scene)
    scene.end()
    assert settle_doubt(scene.path) is None
    assert doubt_of(scene.path) is None
    again = Books(scene.home)
    missing = {3} if happens is commit_from_another_process else set()
    assert {row.cursor for row in again.store.read.events(0, 99)} >= set(range(1, BEFORE + 1)) - missing
    assert again.row().memory.frozen == ""
    again.store.close()


@pytest.mark.parametrize("happens", [*WHOLE, *LOST, *SHARED], ids=lambda f: f.__name__)
async def test_what_was_written_to_files_that_are_gone_nobody_calls_written(
    scene: Scene, happens: Callable[[Scene], None]
) -> None:
    store = scene.books.store
    before = store.commit([event(BEFORE)])
    await store.write(())
    happens(scene)
    unit = store.asked + 1
    error = await refused(scene)
    whole = error.fate is Fate.WHOLE
    assert {store.end_of(0), store.end_of(before)} == {End.WRITTEN if whole else End.UNKNOWN}
    # Found before anything of it was written, or after it was: then it is where the rest is.
    assert store.end_of(unit) in (End.NOT_WRITTEN, End.WRITTEN if whole else End.UNKNOWN)
    assert store.end_of(store.asked + 1) is End.NOT_WRITTEN
    scene.end()


async def test_an_older_copy_that_was_put_in_its_place_is_not_believed(scene: Scene) -> None:
    rename_a_copy_over_the_database(scene)
    error = await refused(scene)
    scene.end()
    for name in (log_of(scene.path), shared_memory_of(scene.path)):
        name.unlink()
    assert settle_doubt(scene.path) == (str(error), 1)


async def test_a_database_that_was_moved_and_put_back_is_believed(scene: Scene) -> None:
    move_the_database(scene)
    await refused(scene)
    scene.end()
    (scene.aside / "moved.db").rename(scene.path)
    assert settle_doubt(scene.path) is None
    again = Books(scene.home)
    assert {row.cursor for row in again.store.read.events(0, 99)} >= set(range(1, BEFORE + 1))
    again.store.close()


async def test_a_database_that_comes_back_after_a_start_without_it_is_not_believed(scene: Scene) -> None:
    """What a supervisor makes of it: the node was started at once, and signed what it recovered."""
    move_the_database(scene)
    await refused(scene)
    scene.end()
    assert settle_doubt(scene.path) is None
    Books(scene.home).store.close()
    for path in scene.home.glob("perund.db*"):
        path.unlink()
    (scene.aside / "moved.db").rename(scene.path)
    found = settle_doubt(scene.path)
    assert found is not None
    assert "was started without it" in found[0]
    assert found[1] == 1
    assert settle_doubt(scene.path) is None, "said once"


async def test_a_directory_that_was_renamed_takes_the_word_along(scene: Scene) -> None:
    put_a_copy_in_the_place_of_the_directory(scene)
    error = await refused(scene)
    scene.end()
    renamed = scene.home.with_name("renamed") / scene.path.name
    assert settle_doubt(renamed) is None, "it has everything"
    assert settle_doubt(scene.path) == (str(error), 1), "this one is a copy"


async def test_a_store_that_is_idle_hears_of_it(scene: Scene) -> None:
    move_the_database(scene)
    heard = asyncio.get_running_loop().create_future()
    scene.books.store._failed = heard.set_result
    scene.books.store.require_own_files()
    assert isinstance(await asyncio.wait_for(heard, 5), FilesReplaced)
    scene.end()


async def test_a_stop_says_it_too(scene: Scene) -> None:
    unlink_the_log(scene)
    scene.end()
    assert isinstance(scene.books.failures[0], FilesReplaced)


async def test_who_only_reads_or_copies_is_no_harm(scene: Scene, tmp_path: Path) -> None:
    in_another_process(scene.path, "SELECT count(*) FROM event")
    assert check_store(scene.path) == (1, [])
    assert copy_store(scene.path, tmp_path / "copy.db") == 1
    await scene.books.store.write([event(BEFORE)])
    assert scene.books.failures == []
    scene.end()


async def test_a_log_that_is_used_again_from_its_beginning_is_ours(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = scene.books.store._writer._files
    monkeypatch.setattr(files, "_pages_written_back", 10)
    size = scene.path.stat().st_size
    for number in range(100):
        await scene.books.store.write([event(number)] * 20)
    assert scene.path.stat().st_size > size, "it was written back"
    assert log_of(scene.path).stat().st_size < 80 * 4120
    assert scene.books.failures == []
    unlink_the_log(scene)
    error = await refused(scene)
    assert error.mark is not None
    scene.end()


async def test_a_store_in_a_directory_that_a_link_leads_to_notices_that_the_link_leads_elsewhere(
    scene: Scene, tmp_path: Path
) -> None:
    scene.end()
    link = tmp_path / "link"
    link.symlink_to(scene.home)
    failures: list[StorageFailed] = []
    store = Store(link / scene.path.name, NETWORK, failures.append)
    await store.write([event(1)])
    link.unlink()
    link.symlink_to(scene.aside)
    with pytest.raises(FilesReplaced):
        await store.write([event(2)])
    store.close()


async def test_a_doubt_that_cannot_be_read_counts(scene: Scene) -> None:
    scene.end()
    scene.path.with_name(f"{scene.path.name}.in-doubt").write_bytes(b"{")
    found = settle_doubt(scene.path)
    assert found is not None
    assert found[1] == 1


# --- a stop leaves one file -------------------------------------------------------------------------------


async def test_after_a_stop_the_database_alone_has_everything(scene: Scene, tmp_path: Path) -> None:
    """Who copies one file has copied the node."""
    scene.end()
    assert log_of(scene.path).stat().st_size == 0
    (tmp_path / "other").mkdir()
    copy(scene.path, tmp_path / "other")
    other = Books(tmp_path / "other")
    assert len(other.store.read.events(0, 99)) == BEFORE
    other.store.close()


async def test_who_reads_from_the_log_does_not_keep_a_stop_and_loses_nothing(scene: Scene) -> None:
    pipe = asyncio.subprocess.PIPE
    reader = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _READS, str(scene.path), stdin=pipe, stdout=pipe
    )
    assert reader.stdout is not None
    await reader.stdout.readline()
    await scene.books.store.write([event(BEFORE)])
    scene.end()
    assert log_of(scene.path).stat().st_size > 0
    await reader.communicate(b"done")
    again = Books(scene.home)
    assert len(again.store.read.events(0, 99)) == BEFORE + 1
    again.store.close()
    assert log_of(scene.path).stat().st_size == 0


_READS = """
import apsw, sys
database = apsw.Connection(sys.argv[1], flags=apsw.SQLITE_OPEN_READWRITE)
database.execute("BEGIN")
database.execute("SELECT count(*) FROM event").fetchall()
print("reading", flush=True)
sys.stdin.read()
"""
