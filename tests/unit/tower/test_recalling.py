"""A tower gives a client back what is in its own slot; a node takes only what is a state of its channel (rule 7)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from perund.tower import link as link_timing
from perund.tower import recalling
from protocol.messages import (
    FEATURE_TOWER,
    TowerHeld,
    TowerRecall,
    TowerRefusal,
    TowerState,
)
from protocol.types import ChannelId
from tests.unit.devnet.scene import ALICE, BOB, Channel
from tests.unit.tower.scene import HOUR, TOWER_ID, client, message, post
from tests.unit.tower.street import NODE_ID, Liar, Street, honest, receipt_for, street
from watcher.tower.policy import TowerPolicy
from watcher.tower.tower import read_state
from wire.session import Session


def channel(number: int = 1) -> Channel:
    return Channel((ALICE, BOB), nonce=number)


def held(state: TowerState) -> TowerHeld:
    params, signed = read_state(state)
    return TowerHeld(params.channel_id, state.version, state.allocation, state.finalized, *signed.signatures)


NOTHING_HELD = ("no_slot", 0)


# --- the tower --------------------------------------------------------------------------------------------


async def test_a_client_gets_the_newest_state_of_its_own_slot_and_of_no_other(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        shared, other = await tower.coast.channel(1), await tower.coast.channel(2)
        for version in (0, 3):
            await tower.keep(1, message(shared, version))
        await tower.keep(2, message(shared, 8))
        await tower.keep(2, message(other, 5))

        def ask(who: int, what: Channel) -> TowerHeld | TowerRefusal:
            return tower.tower.recall(client(who), ChannelId(what.id))

        assert ask(1, shared) == held(message(shared, 3))
        assert ask(2, shared) == held(message(shared, 8))
        for who, what in ((1, other), (3, shared), (1, channel(9))):
            refusal = ask(who, what)
            assert isinstance(refusal, TowerRefusal)
            assert (refusal.code, refusal.version) == NOTHING_HELD
            assert refusal.channel == what.id
        await tower.restart()
        assert ask(1, shared) == held(message(shared, 3))
        tower.tower.forget(client(1), ChannelId(shared.id))
        assert isinstance(ask(1, shared), TowerRefusal)
        assert ask(2, shared) == held(message(shared, 8))


async def test_it_is_answered_without_money_without_the_time_and_when_the_disk_cannot_be_written(
    tmp_path: Path,
) -> None:
    async with post(tmp_path) as tower:
        ours = await tower.coast.channel(1, money=0)
        await tower.keep(1, message(ours, 4))
        tower.coast.certified = False
        assert tower.tower.recall(client(1), ChannelId(ours.id)) == held(message(ours, 4))
        slot = tower.tower.slots.get(client(1), ChannelId(ours.id))
        assert slot is not None
        assert not slot.proven
        slot.version = 3
        tower.coast.certified = True
        tower.tower.offer(client(1), message(ours, 4, paid=9), lambda _: None)  # the disk refuses it
        await tower.until(lambda: bool(tower.failures), "a failed write")
        tower.tower.guards_only = True  # as the process does
        assert tower.tower.recall(client(1), ChannelId(ours.id)) == held(message(ours, 4))
        tower.failures.clear()


async def test_a_settled_channel_is_given_back_for_as_long_as_it_is_remembered(tmp_path: Path) -> None:
    async with post(tmp_path) as tower:
        ours = await tower.coast.channel(1, challenge_s=3600)
        await tower.keep(1, message(ours, 4))
        await tower.proven(ours)
        tower.coast.register(ours, 4)
        await tower.pass_time(2 * HOUR)
        tower.watcher.hurry(ChannelId(ours.id))
        guarded = tower.tower.slots.channels[ChannelId(ours.id)]
        await tower.until(lambda: guarded.settled_ns is not None, "settled")
        assert tower.tower.recall(client(1), ChannelId(ours.id)) == held(message(ours, 4))


# --- a node and its tower ---------------------------------------------------------------------------------


async def lost(s: Street, number: int = 1, version: int = 0) -> ChannelId:
    """A channel that recovers, of which the node has this version."""
    params, signed = read_state(message(channel(number), version))
    s.home.states[params.channel_id] = (params, signed)
    s.home.lost.add(params.channel_id)
    s.home.link.mark(params.channel_id)
    s.home.link.want(params.channel_id)
    return params.channel_id


async def test_a_real_tower_gives_back_what_a_node_lost_before_it_is_brought_anything_older(tmp_path: Path) -> None:
    async with post(tmp_path) as tower, street() as s:
        for number in (1, 2):
            tower.tower.offer(NODE_ID, message(await tower.coast.channel(number), 7), lambda _: None)
        await tower.written()
        await lost(s, 1)
        await lost(s, 2)
        nothing = await lost(s, 3)
        await s.tower_comes(tower)

        await s.until(lambda: len(s.home.kept) == 3, "promised again")

        assert sorted(h.version for h in s.home.adopted) == [7, 7]
        assert len(s.home.asked) == 3
        assert {r.version for r in s.home.kept} == {7, 0}
        assert s.home.states[nothing][1].state.version == 0
        assert s.home.events == []  # no claim that the node has to be told of: it knows all there is
        assert s.home.link.dropped is None


async def test_what_is_newer_is_asked_for_when_a_receipt_claims_it() -> None:
    newer = message(channel(), 9)

    def claims(session: Session, state: TowerState) -> None:
        session.send(receipt_for(newer))

    async with street() as s:
        tower = Liar(claims, lambda session, recall: session.send(held(newer)))
        await s.tower_comes(tower)
        ours = s.home.agree(channel(), 4)
        await s.until(lambda: bool(s.home.adopted), "given back")
        assert [kind for kind, _ in s.home.events] == ["tower.claims_newer"]
        assert s.home.states[ours][1].state.version == 9
        tower.answer = honest
        assert s.home.link.dropped is None


async def test_each_session_begins_with_the_question() -> None:
    async with street() as s:
        ours = await lost(s)
        for version in (3, 5):
            tower = Liar(honest, lambda session, recall, v=version: session.send(held(message(channel(), v))))  # type: ignore[misc]
            await s.tower_comes(tower)
            await s.until(lambda v=version: bool(s.home.kept) and s.home.kept[-1].version == v, "promised")  # type: ignore[misc]
            assert isinstance(tower.heard[0], TowerRecall)
            assert [h.version for h in s.home.adopted][-1] == version
            await s.tower_goes()
            await s.until(lambda: not s.home.link.connected, "gone")
        assert s.home.asked == [ours, ours]


@pytest.mark.parametrize("version", [0, 4])
async def test_a_version_that_is_not_newer_changes_nothing(version: int) -> None:
    async with street() as s:
        ours = await lost(s, version=4)
        tower = Liar(honest, lambda session, recall: session.send(held(message(channel(), version))))
        await s.tower_comes(tower)
        await s.until(lambda: bool(s.home.kept), "it goes on")
        assert (s.home.adopted, s.home.asked, s.home.events) == ([], [ours], [])
        assert s.home.kept[0].version == 4


NONSENSE: dict[str, Callable[[], TowerHeld | TowerRefusal]] = {
    "a signature of nobody": lambda: replace(held(message(channel(), 9)), signature_0=bytes(64)),
    "another version": lambda: replace(held(message(channel(), 9)), version=10),
    "another allocation": lambda: replace(held(message(channel(), 9)), allocation=(0, 1000)),
    "the state of another channel": lambda: replace(held(message(channel(2), 9)), channel=ChannelId(channel().id)),
    "a channel that was not asked for": lambda: held(message(channel(2), 9)),
    "nothing of a channel that was not asked for": lambda: TowerRefusal(ChannelId(channel(2).id), 0, "no_slot", ""),
}


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=list(NONSENSE))
async def test_nonsense_is_the_end_of_a_tower(nonsense: Callable[[], TowerHeld | TowerRefusal]) -> None:
    async with street() as s:
        params, signed = read_state(message(channel(2), 1))
        s.home.states[params.channel_id] = (params, signed)  # a live channel that does not recover
        ours = await lost(s)
        tower = Liar(honest, lambda session, recall: session.send(nonsense()))
        await s.tower_comes(tower)
        await s.until(lambda: s.home.link.dropped is not None, "dropped")
        [(kind, facts)] = s.home.events
        assert (kind, facts["tower"], facts["alarm"]) == ("tower.dropped", TOWER_ID.hex(), True)
        assert s.home.given_up == [TOWER_ID]
        assert s.home.adopted == []
        s.home.link.want(ours)
        await s.until(lambda: s.home.network.session(TOWER_ID) is None, "hung up")
        assert tower.recalls() == [ours]


async def test_an_answer_that_nobody_asked_for_and_a_flood_of_them_are_the_end() -> None:
    async with street() as s:
        tower = Liar(honest)
        await s.tower_comes(tower)
        s.home.agree(channel(), 4)
        await s.until(lambda: bool(s.home.kept), "promised")
        assert tower.session is not None
        for version in range(5, 500):
            tower.session.send(held(message(channel(), version)))
        await s.until(lambda: s.home.link.dropped is not None, "dropped")
        assert s.home.adopted == []


async def test_the_second_answer_to_one_question_is_nobodys() -> None:
    def twice(session: Session, recall: TowerRecall) -> None:
        for version in (8, 9):
            session.send(held(message(channel(), version)))

    async with street() as s:
        await lost(s)
        await s.tower_comes(Liar(honest, twice))
        await s.until(lambda: s.home.link.dropped is not None, "dropped")
        assert [h.version for h in s.home.adopted] == [8]


async def test_a_refusal_of_a_state_answers_no_recall_and_the_other_way_round() -> None:
    def refuses(session: Session, state: TowerState) -> None:
        session.send(TowerRefusal(read_state(state)[0].channel_id, state.version, "full", ""))

    async with street() as s:
        tower = Liar(refuses)
        await s.tower_comes(tower)
        ours = s.home.agree(channel(), 4)
        await s.until(lambda: "full" in (s.home.link.problem or ""), "refused")
        s.home.link.want(ours)
        await s.until(lambda: bool(tower.recalls()), "asked")
        assert tower.session is not None
        tower.session.send(TowerRefusal(ours, 0, "no_slot", ""))
        await s.until(lambda: s.home.asked == [ours], "answered")
        assert s.home.link.dropped is None
        tower.session.send(TowerRefusal(ours, 4, "no_slot", ""))
        await s.until(lambda: s.home.link.dropped is not None, "it was not asked")


async def test_an_older_tower_is_not_asked_and_serves_on() -> None:
    """It would end the session over a message that it does not know, at every new session again."""
    async with street() as s:
        ours = await lost(s)
        tower = Liar(honest)
        await s.tower_comes(tower, features=FEATURE_TOWER)
        await s.until(lambda: bool(s.home.kept), "delivered")
        assert tower.recalls() == []
        assert s.home.asked == [ours]  # nobody waits for it
        s.home.link.want(ours)
        assert s.home.asked == [ours, ours]
        await s.tower_goes()
        newer = Liar(honest, lambda session, recall: session.send(held(message(channel(), 9))))
        await s.tower_comes(newer)
        await s.until(lambda: bool(s.home.adopted), "asked after its upgrade")


async def test_a_node_that_is_no_tower_is_not_waited_for() -> None:
    async with street() as s:
        ours = await lost(s)
        node = Liar()
        await s.tower_comes(node, features=0)
        await s.until(lambda: s.home.asked == [ours], "not waited for")
        assert node.heard == []


async def test_a_tower_that_hangs_up_over_the_question_is_not_asked_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It says that it answers, and does not: it gets the states all the same, and is asked now and then."""
    async with street() as s:
        ours = await lost(s)
        tower = Liar(honest, lambda session, recall: session.close("what?"))
        await s.tower_comes(tower)
        await s.until(lambda: bool(s.home.kept), "delivered in the next session")
        assert tower.recalls() == [ours]
        assert s.home.link.dropped is None
        assert s.home.asked == []
        s.home.link.recall._not_before_ns = 0  # the pause is over
        tower.give_back = lambda session, recall: session.send(held(message(channel(), 9)))
        s.home.link.want(ours)
        await s.until(lambda: bool(s.home.adopted), "given back")
        assert s.home.link.recall._pause_s == recalling.FIRST_PAUSE_S


async def test_the_pause_after_an_open_question_doubles_up_to_a_limit() -> None:
    async with street() as s:
        recall = s.home.link.recall
        pauses = []
        for _ in range(9):
            recall.session_began(3)
            recall.want(ChannelId(channel().id))
            recall._not_before_ns = 0
            assert recall.next(0) is not None
            recall.session_ended(0)
            pauses.append(recall._not_before_ns // 10**9)
        assert pauses == [5, 10, 20, 40, 80, 160, 320, 600, 600]


async def test_a_silent_tower_gets_a_new_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_timing, "ANSWER_S", 0.05)
    monkeypatch.setattr(link_timing, "RENEW_EVERY_S", 0.05)
    monkeypatch.setattr(recalling, "FIRST_PAUSE_S", 0.05)
    async with street() as s:
        s.home.link.recall._pause_s = 0.05  # type: ignore[assignment]
        await lost(s)
        tower = Liar(honest)
        await s.tower_comes(tower)
        await s.until(lambda: len(tower.recalls()) >= 2, "asked again")
        assert s.home.link.dropped is None


async def test_many_channels_are_asked_for_in_turn_and_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recalling, "WINDOW", 4)
    async with street() as s:
        every = [await lost(s, number) for number in range(30)]
        waiting: list[tuple[Session, TowerRecall]] = []
        tower = Liar(honest, lambda session, recall: waiting.append((session, recall)))
        await s.tower_comes(tower)
        most = 0
        while len(s.home.asked) < 30:
            await s.until(lambda: bool(waiting), "asked")
            most = max(most, len(waiting))
            session, recall = waiting.pop(0)
            before = len(s.home.asked)
            session.send(TowerRefusal(recall.channel, 0, "no_slot", ""))
            await s.until(lambda b=before: len(s.home.asked) > b, "answered")  # type: ignore[misc]
        assert most <= 4
        assert tower.recalls() == every


async def test_a_late_answer_about_a_closed_channel_means_nothing() -> None:
    async with street() as s:
        ours = await lost(s)
        tower = Liar(honest)
        await s.tower_comes(tower)
        await s.until(lambda: bool(tower.recalls()), "asked")
        s.home.states.pop(ours)
        s.home.lost.clear()
        s.home.link.forget(ours)
        assert tower.session is not None
        tower.session.send(held(message(channel(), 9)))
        s.home.agree(channel(2), 1)
        await s.until(lambda: bool(s.home.kept), "it goes on")
        assert s.home.adopted == []
        assert s.home.link.dropped is None


async def test_a_client_that_says_what_only_towers_say_is_told_so(tmp_path: Path) -> None:
    async with post(tmp_path, TowerPolicy()) as tower, street() as s:
        await s.tower_comes(tower)
        await s.until(lambda: s.home.link.connected, "connected")
        session = s.home.network.session(TOWER_ID)
        assert session is not None
        session.send(held(message(channel(), 1)))
        await s.until(lambda: "unexpected" in (s.home.link.problem or ""), "told")


async def test_a_stream_of_questions_is_slowed_down_and_answered(tmp_path: Path) -> None:
    """The bounds of `tower_limits` are on messages: a recall is one."""
    async with post(tmp_path) as tower, street() as s:
        tower.tower.offer(NODE_ID, message(channel(), 2), lambda _: None)  # no money in it: a stranger's
        await tower.written()
        answers: list[object] = []
        s.home.link.received = lambda session, message: answers.append(message)  # type: ignore[method-assign]
        await s.tower_comes(tower)
        await s.until(lambda: s.home.network.session(TOWER_ID) is not None, "connected")
        session = s.home.network.session(TOWER_ID)
        assert session is not None
        loop = asyncio.get_running_loop()
        began_s, many = loop.time(), 40
        for _ in range(many):
            session.send(TowerRecall(ChannelId(channel(1).id)))
        await s.until(lambda: len(answers) >= many, "each is answered")
        assert loop.time() - began_s > (many - 20) / 20 * 0.8, "strangers have 20 messages a second"
        assert set(map(type, answers)) == {TowerHeld}
