"""A tower that forgets: what it does not confirm in this life of its store is behind, and is delivered again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from perund.store.store import connect
from perund.tower.receipt_rows import KeptReceipt
from perund.tower.standing import ASK_EVERY_S, PATIENCE_S
from protocol.messages import (
    FEATURE_RECALL,
    FEATURE_STANDING,
    FEATURE_TOWER,
    TowerInquiry,
    TowerList,
    TowerListRequest,
    TowerRefusal,
    TowerStanding,
    TowerState,
)
from protocol.tower_digest import BucketSums, Entry, bucket_of, write_entries
from protocol.types import ChannelId, Nanos
from tests.unit.devnet.scene import ALICE, BOB, START_NS, Channel
from tests.unit.tower.scene import Post, client, hours, message, post
from tests.unit.tower.street import Home, Liar, Street, honest, street
from watcher.tower.policy import TowerPolicy
from watcher.tower.tower import read_state
from wire.session import Session

FEATURES = FEATURE_TOWER | FEATURE_RECALL | FEATURE_STANDING


def channel(number: int = 1) -> Channel:
    return Channel((ALICE, BOB), nonce=number)


def forgot(home: Home) -> list[dict[str, str | int | bool]]:
    return [facts for kind, facts in home.events if kind == "tower.forgot"]


async def guarded(s: Street, tower: Post, numbers: range = range(1, 8), version: int = 4) -> list[Channel]:
    """Channels that a real tower holds, and has confirmed."""
    await s.tower_comes(tower, FEATURES)
    ours = [await tower.coast.channel(number) for number in numbers]
    for each in ours:
        s.home.agree(each, version)
    await s.until(lambda: s.home.link.lag().channels == 0, "delivered and confirmed")
    return ours


def other_disk(tower: Post, disk: bytes | None) -> None:
    """Put another file, or none, in the place of a tower's store."""
    for suffix in ("", "-wal", "-shm"):
        tower.path.with_name(tower.path.name + suffix).unlink(missing_ok=True)
    if disk is not None:
        tower.path.write_bytes(disk)


def copy_of(tower: Post) -> bytes:
    target = tower.path.with_name("copy.db")
    target.unlink(missing_ok=True)
    store = connect(tower.path)
    store.execute("VACUUM INTO ?", (str(target),))
    store.close()
    return target.read_bytes()


async def come_back(s: Street, tower: Post, disk: bytes | None = None, *, same: bool = False) -> None:
    """The tower stops, and starts again on what is there now."""
    await s.tower_goes()
    await s.until(lambda: not s.home.link.connected, "gone")
    await tower.close()
    if not same:
        other_disk(tower, disk)
    tower.open()
    await s.tower_comes(tower, FEATURES)


async def test_a_store_that_was_deleted_is_found_out_and_filled_again(tmp_path: Path) -> None:
    async with post(tmp_path) as tower, street() as s:
        ours = await guarded(s, tower)
        await come_back(s, tower)
        assert s.home.link.lag().channels > 0
        await s.until(lambda: s.home.link.lag().channels == 0, "confirmed again")
        assert [tower.version(each) for each in ours] == [4] * 7
        [facts] = forgot(s.home)
        assert (facts["channels"], facts["store"], facts["alarm"]) == (7, "another store", True)


async def test_an_older_copy_that_was_put_back_is_found_out(tmp_path: Path) -> None:
    async with post(tmp_path) as tower, street() as s:
        ours = await guarded(s, tower)
        copy = copy_of(tower)
        for each in ours[:3]:
            s.home.agree(each, 9)
        await s.until(lambda: s.home.link.lag().channels == 0, "confirmed")
        delivered = len(s.home.kept)
        await come_back(s, tower, copy)
        await s.until(lambda: s.home.link.lag().channels == 0 and len(s.home.kept) > delivered, "confirmed again")
        assert [tower.version(each) for each in ours] == [9] * 3 + [4] * 4
        assert len(s.home.kept) == delivered + 3, "only what differs is delivered"
        assert forgot(s.home)[0]["store"] == "an older copy"


async def test_a_tower_that_only_restarts_is_brought_nothing(tmp_path: Path) -> None:
    async with post(tmp_path) as tower, street() as s:
        await guarded(s, tower)
        delivered = len(s.home.kept)
        await come_back(s, tower, same=True)
        await s.until(lambda: s.home.link.lag().channels == 0, "confirmed")
        assert len(s.home.kept) == delivered
        assert not forgot(s.home)


async def test_what_was_not_confirmed_in_this_life_is_behind() -> None:
    """A node that starts again has good receipts. It does not count them until the tower says that it holds that."""
    state = message(channel(), 4)
    params, signed = read_state(state)
    now_ns = START_NS + time.monotonic_ns()
    kept = {params.channel_id: KeptReceipt(4, signed.state.digest, Nanos(now_ns), Nanos(now_ns + 10**15))}
    async with street(kept) as s:
        s.home.states[params.channel_id] = (params, signed)
        s.home.link.take_up(params.channel_id, signed)
        assert s.home.link.lag().channels == 1
        tower = Liar(honest)
        await s.tower_comes(tower, FEATURES)
        await s.until(lambda: any(isinstance(m, TowerInquiry) for m in tower.heard), "asked")
        assert s.home.link.lag().channels == 1
        assert not tower.states(), "the receipt is believed so far that nothing is brought for nothing"
        stand(tower, [Entry(params.channel_id, 4, signed.state.digest)])
        await s.until(lambda: s.home.link.lag().channels == 0, "confirmed")
        await s.tower_goes()
        await s.until(lambda: s.home.link.lag().channels == 1, "gone: nobody confirms it")


def inquiries(tower: Liar) -> list[TowerInquiry]:
    return [m for m in tower.heard if isinstance(m, TowerInquiry)]


def stand(tower: Liar, entries: list[Entry], life: bytes = b"\x01" * 32, writes: int = 1) -> None:
    """Answer the newest inquiry."""
    sums = BucketSums()
    for entry in entries:
        sums.add(entry)
    assert tower.session is not None
    tower.session.send(TowerStanding(inquiries(tower)[-1].nonce, life, writes, len(entries), sums.encoded))


async def test_a_tower_that_forgets_within_a_session_is_found_out_by_asking_again() -> None:
    """It says what is right once, and forgets later."""
    async with street() as s:
        tower = Liar(honest)
        await s.tower_comes(tower, FEATURES)
        ours = s.home.agree(channel(), 4)
        await s.until(lambda: bool(s.home.kept) and len(inquiries(tower)) == 1, "delivered and asked")
        entry = Entry(ours, 4, s.home.kept[0].state_hash)
        stand(tower, [entry])
        await s.until(lambda: s.home.link.lag().channels == 0, "confirmed")

        await s.until(lambda: s.home.link.standing.settled, "taken")
        s.home.elapsed_ahead_ns += (ASK_EVERY_S + 1) * 10**9
        s.home.link._wake.set()
        await s.until(lambda: len(inquiries(tower)) == 2, "asked again")
        stand(tower, [])
        await s.until(lambda: any(isinstance(m, TowerListRequest) for m in tower.heard[-1:]), "what it has, then?")
        assert s.home.link.lag().channels == 1
        assert tower.session is not None
        tower.session.send(TowerList(bucket_of(ours), b"", b"", complete=True))
        await s.until(lambda: len(s.home.kept) == 2, "delivered again")
        assert s.home.link.lag().channels == 0
        assert forgot(s.home)[0]["channels"] == 1


async def test_a_tower_that_forgets_again_and_again_is_brought_it_ever_more_rarely() -> None:
    """It signs for what it is brought, and says each time that it is asked that it holds nothing."""
    async with street() as s:
        tower, link = Liar(honest), s.home.link
        await s.tower_comes(tower, FEATURES)
        ours = s.home.agree(channel(), 4)
        await s.until(lambda: bool(s.home.kept), "delivered")
        rounds, listed, behind, problems = 120, 0, 0, 0

        def due() -> bool:
            now_ns = s.home.elapsed_ns()
            return bool(link._in_flight) or any(link._not_before.get(c, 0) <= now_ns for c in link._waiting)

        def lists() -> int:
            return sum(isinstance(m, TowerListRequest) for m in tower.heard)

        for each in range(1, rounds + 1):
            await s.until(lambda n=each: len(inquiries(tower)) == n, "asked")  # type: ignore[misc]
            stand(tower, [])
            await s.until(lambda n=listed: link.standing.settled or lists() > n, "what it has, then?")  # type: ignore[misc]
            if lists() > listed:
                listed += 1
                assert tower.session is not None
                tower.session.send(TowerList(bucket_of(ours), b"", b"", complete=True))
            await s.until(lambda: link.standing.settled and not due(), "taken, and delivered if it was due")
            behind += link.lag().channels
            problems += link.problem is not None
            s.home.elapsed_ahead_ns += (ASK_EVERY_S + 1) * 10**9
            link._wake.set()
        assert 5 <= len(tower.states()) <= 15, "in an hour"
        assert behind > 100, "it is not counted on meanwhile"
        assert problems > 90, "and people are told"


async def test_a_tower_that_does_not_answer_any_more_confirms_nothing() -> None:
    async with street() as s:
        tower = Liar(honest)
        await s.tower_comes(tower, FEATURES)
        ours = s.home.agree(channel(), 4)
        await s.until(lambda: bool(s.home.kept), "delivered")
        await s.until(lambda: len(inquiries(tower)) == 1, "asked")
        assert s.home.link.lag().channels == 0, "its receipt is of this session"
        assert ours in s.home.states
        s.home.elapsed_ahead_ns += (PATIENCE_S + 1) * 10**9
        s.home.link._wake.set()
        await s.until(lambda: s.home.link.lag().channels == 1, "it is silent")
        lag = s.home.link.lag()
        assert lag.oldest_s is not None
        assert lag.oldest_s < PATIENCE_S


async def test_a_tower_of_before_is_brought_everything_in_each_session() -> None:
    async with street() as s:
        tower = Liar(honest)
        await s.tower_comes(tower)  # it does not know the question
        for number in range(1, 6):
            s.home.agree(channel(number), 4)
        await s.until(lambda: s.home.link.lag().channels == 0, "delivered")
        assert len(tower.states()) == 5
        await s.tower_goes()
        await s.until(lambda: s.home.link.lag().channels == 5, "nobody knows what it has")
        again = Liar(honest)
        await s.tower_comes(again)
        await s.until(lambda: s.home.link.lag().channels == 0, "delivered again")
        assert len(again.states()) == 5
        assert not inquiries(tower) and not inquiries(again)


async def test_a_channel_that_the_tower_calls_settled_is_brought_once() -> None:
    def settled(session: Session, state: TowerState) -> None:
        session.send(TowerRefusal(read_state(state)[0].channel_id, state.version, "settled", "it is"))

    async with street() as s:
        tower = Liar(honest)
        await s.tower_comes(tower, FEATURES)
        ours = s.home.agree(channel(), 4)
        await s.until(lambda: bool(s.home.kept) and bool(inquiries(tower)), "delivered")
        tower.answer = settled
        stand(tower, [])
        await s.until(lambda: any(isinstance(m, TowerListRequest) for m in tower.heard), "listed")
        assert tower.session is not None
        tower.session.send(TowerList(bucket_of(ours), b"", b"", complete=True))
        await s.until(lambda: len(tower.states()) == 2, "brought")
        await s.until(lambda: s.home.link.lag().channels == 0, "settled")
        assert not forgot(s.home), "it had promised to guard it until then"


async def test_a_slot_that_lapsed_is_behind_though_its_receipt_was_kept(tmp_path: Path) -> None:
    """The tower's policy changed, or a look failed for long: it lets go of what a receipt still promises."""
    async with post(tmp_path) as tower, street() as s:
        ours = await guarded(s, tower, range(1, 2))
        slot = tower.tower.slots.get(s.home.network.node_id, ChannelId(ours[0].id))
        assert slot is not None
        tower.tower._drop([slot])
        tower.tower.policy = TowerPolicy(max_total_e8s=1)
        s.home.elapsed_ahead_ns += (ASK_EVERY_S + 1) * 10**9
        s.home.link._wake.set()
        await s.until(lambda: "bad_amount" in (s.home.link.problem or ""), "refused")
        assert s.home.link.lag().channels == 1
        assert s.home.kept, "there is a receipt all the same"


async def test_a_forgotten_forget_does_not_make_it_ask_for_ever(tmp_path: Path) -> None:
    """The tower missed that a channel is closed: what it holds more than it should does no harm to the others."""
    async with post(tmp_path) as tower, street() as s:
        ours = await guarded(s, tower, range(1, 4))
        await s.tower_goes()
        await s.until(lambda: not s.home.link.connected, "gone")
        s.home.states.pop(ChannelId(ours[0].id))
        s.home.link.forget(ChannelId(ours[0].id))
        await s.tower_comes(tower, FEATURES)
        await s.until(lambda: s.home.link.lag().channels == 0 and s.home.link.standing.settled, "confirmed")
        lists: list[TowerListRequest] = []
        listed = tower.tower.listed

        def noting(who: bytes, asked: TowerListRequest, answer: Callable[[TowerList], None]) -> None:
            lists.append(asked)
            listed(who, asked, answer)

        tower.tower.listed = noting  # type: ignore[method-assign, assignment]
        s.home.elapsed_ahead_ns += (ASK_EVERY_S + 1) * 10**9
        s.home.link._wake.set()
        asked_ns = s.home.link.standing._asked_ns
        await s.until(lambda: s.home.link.standing._asked_ns > asked_ns, "asked again")
        await s.until(lambda: s.home.link.standing._open is None, "answered")
        await asyncio.sleep(0)
        assert not lists
        assert s.home.link.lag().channels == 0


async def test_nobody_else_learns_what_a_client_has(tmp_path: Path) -> None:
    async with post(tmp_path, running=False) as tower:
        ours = await tower.coast.channel(1)
        await tower.keep(1, message(ours, 4))

        found: list[list[TowerStanding | TowerList]] = [[], []]
        for who, answers in enumerate(found, start=1):
            tower.tower.standing(client(who), 7, answers.append)
            tower.tower.listed(client(who), TowerListRequest(bucket_of(ChannelId(ours.id)), b""), answers.append)
        await tower.written()
        await tower.until(lambda: all(len(answers) == 2 for answers in found), "answered")
        (mine, my_list), (theirs, their_list) = found
        assert isinstance(mine, TowerStanding)
        assert isinstance(theirs, TowerStanding)
        assert isinstance(my_list, TowerList)
        assert isinstance(their_list, TowerList)
        assert (mine.slots, theirs.slots, theirs.buckets, their_list.entries) == (1, 0, b"", b"")
        digest = read_state(message(ours, 4))[1].state.digest
        assert my_list.entries == write_entries([Entry(ChannelId(ours.id), 4, digest)])
        assert (mine.life, mine.writes) == (tower.books.life, 2)


async def test_a_tower_that_cannot_write_confirms_nothing(tmp_path: Path) -> None:
    async with post(tmp_path, running=False) as tower:
        await tower.keep(1, message(await tower.coast.channel(1), 4))
        tower.tower.guards_only = True
        answers: list[object] = []
        tower.tower.standing(client(1), 7, answers.append)
        tower.tower.listed(client(1), TowerListRequest(0, b""), answers.append)
        await tower.written()
        assert not answers


def far_list(session: Session, bucket: int) -> None:
    session.send(TowerList(bucket, b"", b"", complete=False))


NONSENSE: dict[str, Callable[[Session, ChannelId], None]] = {
    "a list of what it holds has no end": lambda session, ours: far_list(session, bucket_of(ours)),
}


@pytest.mark.parametrize("reason", list(NONSENSE))
async def test_nonsense_about_what_it_holds_is_the_end_of_a_tower(reason: str) -> None:
    async with street() as s:
        tower = Liar(honest)
        await s.tower_comes(tower, FEATURES)
        ours = s.home.agree(channel(), 4)
        await s.until(lambda: bool(s.home.kept) and bool(inquiries(tower)), "delivered")
        stand(tower, [])
        await s.until(lambda: any(isinstance(m, TowerListRequest) for m in tower.heard), "listed")
        assert tower.session is not None
        NONSENSE[reason](tower.session, ours)
        await s.until(lambda: s.home.link.dropped is not None, "dropped")
        assert reason in str(s.home.link.dropped)


async def test_answers_to_nothing_mean_nothing() -> None:
    async with street() as s:
        tower = Liar(honest)
        await s.tower_comes(tower, FEATURES)
        ours = s.home.agree(channel(), 4)
        await s.until(lambda: bool(s.home.kept) and bool(inquiries(tower)), "delivered")
        assert tower.session is not None
        tower.session.send(TowerStanding(1, bytes(32), 1, 0, b""))
        tower.session.send(TowerList(bucket_of(ours), b"", b"", complete=True))
        s.home.agree(channel(2), 1)
        await s.until(lambda: len(s.home.kept) == 2, "it goes on")
        assert s.home.link.dropped is None
        assert s.home.link.lag().channels == 0


async def test_many_channels_are_listed_page_by_page(tmp_path: Path) -> None:
    policy = TowerPolicy(max_unfunded_per_client=10_000, max_unfunded=10_000)
    async with post(tmp_path, policy, running=False) as tower:
        slots = tower.tower.slots
        from watcher.tower.slots import Slot  # a slot needs no state for this

        ids = [ChannelId(b"\x05" + number.to_bytes(63, "big")) for number in range(600)]
        for each in ids:
            slot = Slot(client(1), each, 0, b"", Nanos(0), Nanos(2**60), Nanos(2**60))
            slots.add(slot, Nanos(10**12))
            slots.hold(slot, 3, bytes(32))
        found: list[Entry] = []
        after, pages, complete = b"", 0, False
        while not complete:
            page, complete = slots.listed(client(1), 5, after)
            found += page
            after, pages = page[-1].channel, pages + 1
        assert [entry.channel for entry in found] == ids
        assert pages == 3
        sums = BucketSums()
        for entry in found:
            sums.add(entry)
        assert slots.standing(client(1)) == (600, sums.encoded)
        for slot in list(slots):
            slots.remove(slot)
        assert slots.standing(client(1)) == (0, b"")


async def test_a_settled_channel_is_not_among_what_is_held(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        ours = await tower.coast.channel(1, challenge_s=60)
        await tower.keep(1, message(ours, 4))
        await tower.proven(ours)
        assert tower.tower.slots.standing(client(1))[0] == 1
        tower.coast.register(ours, 4)
        await tower.pass_time(hours(1))
        tower.watcher.hurry(ChannelId(ours.id))
        await tower.until(lambda: tower.tower.slots.standing(client(1))[0] == 0, "settled")
        await tower.restart()
        assert tower.tower.slots.standing(client(1)) == (0, b"")


def test_forgetting_is_told_apart_whatever_the_order() -> None:
    entries = [Entry(ChannelId(bytes([n % 3]) + bytes(62) + bytes([n])), n, bytes(32)) for n in range(9)]
    one, other = BucketSums(), BucketSums()
    for entry in entries:
        one.add(entry)
    for entry in reversed(entries):
        other.add(entry)
    assert one.encoded == other.encoded
    other.remove(entries[4])
    other.add(Entry(entries[4].channel, 3, bytes(32)))
    assert one.encoded != other.encoded
