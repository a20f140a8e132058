"""A store that is lost is no beginning: whoever ran here is asked about before a node starts empty."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from perund.recovery.backup import BACKUP_NAME
from perund.recovery.ran_before import MARK_NAME, StoreIsMissing, note_run, require_store, trace_of_a_run
from perund.setup_errors import SetupError
from perund.store.schema import STORE_NAME
from perund.store.store import Store, connect

NETWORK = b"\x11" * 32


async def ran(directory: Path) -> int:
    """A node starts and stops; return the number of its life."""
    store = Store(directory / STORE_NAME, NETWORK, lambda error: None)
    store.close()
    return store.life.number


def test_a_directory_that_was_just_made_simply_begins(tmp_path: Path) -> None:
    for name in ("keystore.json", "perund.toml", "perund.lock"):
        (tmp_path / name).touch()
    assert trace_of_a_run(tmp_path) is None
    require_store(tmp_path, None, begin_empty=False)
    assert not (tmp_path / STORE_NAME).exists()


async def test_the_mark_says_that_a_node_ran_and_is_made_once(tmp_path: Path) -> None:
    note_run(tmp_path)
    said = (tmp_path / MARK_NAME).read_bytes()
    note_run(tmp_path)
    assert (tmp_path / MARK_NAME).read_bytes() == said
    assert (tmp_path / MARK_NAME).stat().st_mode & 0o077 == 0
    assert trace_of_a_run(tmp_path) == MARK_NAME
    with pytest.raises(StoreIsMissing, match=r"is missing.*perund\.ran is there.*perund restore.*--begin-empty"):
        require_store(tmp_path, MARK_NAME, begin_empty=False)
    await ran(tmp_path)
    require_store(tmp_path, MARK_NAME, begin_empty=False)


@pytest.mark.parametrize("left", [BACKUP_NAME, STORE_NAME, f"{STORE_NAME}-wal"])
def test_what_a_node_of_before_the_mark_left_says_it_too(tmp_path: Path, left: str) -> None:
    """A copy of the one file, of a node whose log had everything, is a database with nothing in it."""
    if left == STORE_NAME:
        connect(tmp_path / left).close()
        assert (tmp_path / left).stat().st_size == 4096
    else:
        (tmp_path / left).touch()
    trace = trace_of_a_run(tmp_path)
    assert trace == left
    with pytest.raises(StoreIsMissing, match="is empty" if left == STORE_NAME else "is missing"):
        require_store(tmp_path, trace, begin_empty=False)


@pytest.mark.parametrize("there", [False, True])
async def test_one_that_begins_empty_lives_above_what_others_have_heard_of(tmp_path: Path, *, there: bool) -> None:
    """Else its peers would take it for an older copy of what it was."""
    before = await ran(tmp_path)
    (tmp_path / STORE_NAME).unlink()
    (tmp_path / f"{STORE_NAME}-wal").unlink()
    if there:
        connect(tmp_path / STORE_NAME).close()
    require_store(tmp_path, MARK_NAME, begin_empty=True)
    assert (tmp_path / STORE_NAME).stat().st_mode & 0o077 == 0
    assert await ran(tmp_path) > before + 2**40
    with pytest.raises(SetupError, match="without --begin-empty"):
        require_store(tmp_path, MARK_NAME, begin_empty=True)


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    database = apsw.Connection(str(tmp_path / STORE_NAME))
    database.execute("CREATE TABLE precious(x)")
    database.close()
    for begin_empty in (False, True):
        with pytest.raises(Exception, match="another program"):
            require_store(tmp_path, STORE_NAME, begin_empty=begin_empty)
