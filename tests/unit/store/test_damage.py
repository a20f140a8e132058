"""A store that a bad disk changed is refused, whatever was hit, with words that a person can act on."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from perund.recovery.checking import check_store
from perund.store import damage as damage_module
from perund.store.damage import require_sound_channel
from perund.store.errors import StorageFailed, StoreDamaged
from perund.store.reading import open_reader
from perund.store.store import Store
from protocol.effects import EventRecord, Phase, PhaseRecord, StateRecord, UpdateRecord
from protocol.messages import Update
from protocol.payments import EMPTY
from protocol.types import Nanos, State
from tests.unit.store.books import KEYS, NETWORK, Books, batch, signature_of, signed, terms_of

PAGE_BYTES = 4096
EVENTS = 60
NOISE = bytes(i * 197 % 251 for i in range(PAGE_BYTES))


def refuse(path: Path) -> StoreDamaged:
    """Open the store and take up its channels as a node does; return why that is refused."""
    with pytest.raises(StoreDamaged) as refused:
        take_up(path)
    return refused.value


def take_up(path: Path) -> int:
    store = Store(path, NETWORK, lambda _: None)
    try:
        rows = list(store.read.live_channels())
        for row in rows:
            require_sound_channel(row, store.read, KEYS[row.terms.our_index].public)
        return len(rows)
    finally:
        store.close()
        store.read._database.close()


def rows_in(page: bytes) -> int:
    """Return how many cells the header of a page tells (SQLite's file format, 1.6)."""
    return int.from_bytes(page[3:5], "big")


def pages_of(path: Path) -> list[bytes]:
    content = path.read_bytes()
    return [content[start : start + PAGE_BYTES] for start in range(0, len(content), PAGE_BYTES)]


def write(path: Path, pages: list[bytes]) -> None:
    path.write_bytes(b"".join(pages))


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A store of twenty channels with payments and a history, all of it in the main file."""
    books = Books(tmp_path)
    for number in range(1, 21):
        terms = await books.add(terms_of(number), number)
        newest = signed(terms.channel, 1, 989, 511)
        await books.store.write(
            [StateRecord(newest, batch(1), EMPTY), signature_of(newest.state), EventRecord("test.paid", None, {})]
        )
        proposed = State(terms.channel, 2, (977, 523), finalized=False)
        update = Update(
            terms.channel, 2, proposed.allocation, finalized=False, from_0=batch(2), from_1=EMPTY,
            signature=KEYS[0].sign_state(proposed),
        )  # fmt: skip
        await books.store.write([UpdateRecord(update), signature_of(proposed)])
    await books.store.write([EventRecord("test.happened", None, {"text": "x" * 200})] * EVENTS)
    shut(books)
    return books.path


def write_back(path: Path) -> None:
    """Have the last connection write the log back."""
    database = apsw.Connection(str(path))
    assert database.pragma("journal_mode") == "wal"  # asked first: before a read it does not know of its log
    database.close()


def shut(books: Books) -> None:
    """Close a store, and leave no log beside it: whatever is damaged next is all there is."""
    books.store.close()
    books.store.read._database.close()
    write_back(books.path)
    assert not books.path.with_name("perund.db-wal").exists()


async def test_a_sound_store_is_taken_up(path: Path) -> None:
    assert take_up(path) == 20
    assert check_store(path) == (20, [])


@pytest.mark.parametrize("how", ["zeros", "noise", "another page"])
async def test_no_page_can_be_overwritten_unnoticed(path: Path, how: str) -> None:
    pages = pages_of(path)
    fullest = max(pages[1:], key=rows_in)
    bad = {"zeros": bytes(PAGE_BYTES), "noise": NOISE, "another page": fullest}[how]
    for place, page in enumerate(pages):
        if bad is fullest and (page is fullest or not rows_in(page)):
            continue  # it is well formed: from a page that had no rows nothing is lost
        write(path, [*pages[:place], bad, *pages[place + 1 :]])
        error = refuse(path)
        assert str(path) in str(error)
        assert "backup.perund" in str(error)


async def test_a_file_that_was_cut_is_refused(path: Path) -> None:
    pages = pages_of(path)
    for cut in ([pages[0][:100]], pages[:1], pages[: len(pages) // 2], pages[:-1]):
        write(path, cut)
        refuse(path)


async def test_what_is_refused_is_left_as_it_is(path: Path) -> None:
    pages = pages_of(path)
    pages[len(pages) // 2] = NOISE
    write(path, pages)
    refuse(path)
    assert pages_of(path) == pages


@pytest.mark.parametrize(
    ("column", "what"),
    [
        ("channel_state.signature_0", "the newest state"),
        ("channel_state.signature_1", "the newest state"),
        ("channel_state.allocation_0", "allocates"),
        ("channel_state.version", "the newest state"),
        ("channel.signature_0", "state 0"),
        ("channel.allocation_1", "state 0"),
        ("channel.nonce", "hash of the params"),
        ("channel.participant_1", "hash of the params"),
        ("channel.challenge_ns", "hash of the params"),
        ("outstanding.message", ""),
    ],
)
async def test_one_changed_bit_of_what_money_depends_on_is_enough(path: Path, column: str, what: str) -> None:
    table, name = column.split(".")
    database = apsw.Connection(str(path))
    ((value,),) = database.execute(f"SELECT {name} FROM {table} WHERE number = 17")
    changed = value ^ 1 if isinstance(value, int) else value[:-1] + bytes([value[-1] ^ 1])
    database.execute(f"UPDATE {table} SET {name} = ? WHERE number = 17", (changed,))
    assert database.pragma("integrity_check") == "ok"  # the file is in order
    database.close()
    assert what in refuse(path).what
    _, findings = check_store(path)
    assert any(what in finding.what for finding in findings)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE channel_state SET phase = 'opem' WHERE number = 17",
        "UPDATE channel SET our_share = x'01' WHERE number = 17",
        "UPDATE channel SET our_share = 'text' WHERE number = 17",
        "UPDATE channel SET nonce = 5 WHERE number = 17",
        "UPDATE channel_state SET allocation_1 = 'many' WHERE number = 17",
        "UPDATE channel_state SET signature_1 = 7 WHERE number = 17",
        "UPDATE outstanding SET message = x'93' WHERE number = 17",
    ],
)
async def test_a_value_of_another_kind_is_damage_and_no_defect(path: Path, sql: str) -> None:
    database = apsw.Connection(str(path))
    database.execute(sql)
    database.close()
    refuse(path)


async def test_another_key_than_ours_is_damage(path: Path) -> None:
    read = open_reader(path)
    row = read.channel(17)
    assert row is not None
    with pytest.raises(StoreDamaged, match="does not give our key"):
        require_sound_channel(row, read, KEYS[1].public)


async def test_a_channel_whose_money_is_out_is_history(books: Books) -> None:
    terms = await books.add(terms_of())
    await books.store.write([PhaseRecord(terms.channel, Phase.CLOSED, "", "", Nanos(9))])
    shut(books)
    database = apsw.Connection(str(books.path))
    database.execute("UPDATE channel_state SET signature_0 = x'00'")
    database.close()
    assert take_up(books.path) == 0


async def test_in_a_large_store_the_payments_are_left_to_perund_check(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(damage_module, "LARGE_BYTES", PAGE_BYTES)
    pages = pages_of(path)
    database = apsw.Connection(str(path))
    roots = {str(name): int(root) - 1 for name, root in database.execute("SELECT name, rootpage FROM sqlite_schema")}
    database.close()

    def damage(table: str) -> None:
        write(path, [*pages[: roots[table]], NOISE, *pages[roots[table] + 1 :]])

    damage("payment")
    Store(path, NETWORK, lambda _: None).close()
    with pytest.raises(StoreDamaged):
        check_store(path)
    for table in ("channel", "channel_state", "outstanding", "event"):
        damage(table)
        with pytest.raises(StoreDamaged):
            Store(path, NETWORK, lambda _: None)


async def test_damage_that_is_met_while_the_node_runs_is_a_failure_of_the_store(path: Path) -> None:
    read = open_reader(path)
    assert read.highest("event") == EVENTS + 20
    pages = pages_of(path)
    write(path, [pages[0], *[NOISE] * (len(pages) - 1)])
    for ask in (
        lambda: read.channel(17),
        lambda: list(read.live_channels()),
        lambda: read.payments(17, (0, -1, b""), 9),
        lambda: open_reader(path).addresses(),
    ):
        with pytest.raises(StoreDamaged, match="malformed"):
            ask()
    with pytest.raises(StorageFailed, match="cannot be read"):
        open_reader(path.with_name("not there"))
