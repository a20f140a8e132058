"""A store's lives: each start begins one that is higher, and one that was stopped stays so."""

from __future__ import annotations

import apsw
import pytest

from perund.recovery.copying import mark_as_copy
from perund.store.jobs import record_held
from perund.store.lives import begin_life, forget_life, keep_life, recall_life, record_heard, record_stop
from perund.store.schema import migrate
from perund.store.writer import Statement
from protocol.hearing import Heard
from protocol.messages import Life, LifeStopped

NOW_MS = 1_700_000_000_000
NODE = b"\x02" * 33


def store() -> apsw.Connection:
    database = apsw.Connection(":memory:")
    migrate(database)
    database.execute("INSERT INTO about VALUES (1, ?, 1)", (bytes(32),))
    return database


def copy(database: apsw.Connection) -> apsw.Connection:
    other = apsw.Connection(":memory:")
    other.deserialize("main", database.serialize("main"))
    return other


def stop(database: apsw.Connection, number: int, by: int) -> None:
    statement = record_stop(LifeStopped(number, bytes(32), by, b"\x01" * 32, bytes(64)))
    database.execute(statement.sql, statement.values)


def test_each_start_has_a_higher_number_and_a_nonce_of_its_own() -> None:
    database = store()
    lives = [begin_life(database, NOW_MS, take_over=False) for _ in range(5)]
    assert [life.number for life in lives] == [1, 2, 3, 4, 5]
    assert len({life.nonce for life in lives}) == 5


def test_a_store_of_before_goes_on_above_its_runs() -> None:
    database = store()
    database.execute("UPDATE about SET runs = 58")
    assert begin_life(database, NOW_MS, take_over=False).number == 58


def test_two_from_one_store_have_one_number_and_two_nonces() -> None:
    database = store()
    begin_life(database, NOW_MS, take_over=False)
    one, other = (begin_life(each, NOW_MS, take_over=False) for each in (copy(database), copy(database)))
    assert one.number == other.number
    assert one.nonce != other.nonce


def test_one_that_stopped_stays_so_until_its_operator_says_otherwise() -> None:
    database = store()
    number = begin_life(database, NOW_MS, take_over=False).number
    stop(database, number, by=70)
    for _ in range(3):
        life = begin_life(database, NOW_MS, take_over=False)
        assert life.stopped is not None
        assert life.number == number
    life = begin_life(database, NOW_MS, take_over=True)
    assert life.number > 71
    assert life.stopped is None
    assert begin_life(database, NOW_MS, take_over=False).number == life.number + 1


@pytest.mark.parametrize("starts", [1, 5, 300])
def test_who_takes_over_is_above_what_the_other_copy_began_since(starts: int) -> None:
    """The other one ran on after this one had stopped: whoever heard its lives would stop this one once with each."""
    mine = store()
    begin_life(mine, NOW_MS, take_over=False)
    other = copy(mine)
    shown = begin_life(other, NOW_MS, take_over=False).number
    stop(mine, 1, by=shown)
    heard = [shown] + [begin_life(other, NOW_MS, take_over=False).number for _ in range(starts)]
    taken = begin_life(mine, NOW_MS + 1, take_over=True)
    assert taken.number > max(heard)
    # And the other way round, when the operator changes his mind.
    stop(other, max(heard), by=taken.number)
    later = [taken.number] + [begin_life(mine, NOW_MS + 1, take_over=False).number for _ in range(starts)]
    assert begin_life(other, NOW_MS + 2, take_over=True).number > max(later)
    # A clock that is far behind costs one more `--take-over`, and no life that falls.
    stop(other, 1, by=2**62)
    assert begin_life(other, 0, take_over=True).number == 2**62 + 1


def test_taking_over_what_nobody_stopped_is_a_start_like_others() -> None:
    database = store()
    assert begin_life(database, NOW_MS, take_over=True).number == 1
    assert begin_life(database, NOW_MS, take_over=True).number == 2


def test_a_copy_that_is_marked_and_a_restored_store_are_above_every_earlier_life() -> None:
    original = store()
    for _ in range(40):
        begin_life(original, NOW_MS, take_over=False)
    marked = copy(original)
    mark_as_copy(marked, "this store is a copy")
    first = begin_life(marked, NOW_MS, take_over=False)
    assert first.number > 10**6
    assert begin_life(marked, NOW_MS, take_over=False).number == first.number + 1

    restored = store()
    mark_as_copy(restored, "this node was restored from a backup")
    later = begin_life(restored, NOW_MS + 1, take_over=False)
    assert later.number > first.number + 10**6
    assert later.number < 2**63
    far = store()
    mark_as_copy(far, "restored by a clock that is wrong")
    assert begin_life(far, 2**60, take_over=False).number < 2**63


def heard(database: apsw.Connection) -> Heard | None:
    return recall_life(database, NODE)


def test_what_was_heard_goes_with_the_last_channel_and_stays_where_money_was() -> None:
    database, life = store(), Life(5, bytes(32), bytes(64))

    def run(*statements: Statement) -> None:
        for statement in statements:
            database.execute(statement.sql, statement.values)

    run(record_heard(NODE, Heard(life)), keep_life(NODE, 1), forget_life(NODE))
    assert heard(database) is None  # a channel that nobody paid into

    run(record_heard(NODE, Heard(life)), record_held(2, (0, 5)), record_held(2, (0, 0)))
    run(keep_life(NODE, 2), keep_life(NODE, 1), forget_life(NODE))
    assert heard(database) == Heard(life)
    newer = Heard(Life(6, bytes(32), bytes(64)), stopped=LifeStopped(5, bytes(32), 6, bytes(32), bytes(64)))
    run(record_heard(NODE, newer), keep_life(NODE, 1), forget_life(NODE))
    assert heard(database) == newer


def test_a_number_never_falls() -> None:
    database = store()
    begin_life(database, NOW_MS, take_over=False)
    with pytest.raises(apsw.ConstraintError, match="does not rise"):
        database.execute("UPDATE own_life SET number = 1")
