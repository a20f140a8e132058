"""A node and its tower: every newest state arrives, once; and a tower that makes no sense is used no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from perund.tower import link as timing
from perund.tower.receipt_rows import KeptReceipt
from protocol.messages import Ack, TowerForget, TowerReceipt, TowerRefusal, TowerState
from protocol.types import ChannelId, Nanos
from tests.unit.devnet.scene import ALICE, BOB, Channel
from tests.unit.tower.scene import TOWER_ID, client, message, post
from tests.unit.tower.street import NODE_ID, Liar, honest, receipt_for, street
from watcher.tower.policy import TowerPolicy
from watcher.tower.tower import read_state
from wire.session import Session


def channel(number: int = 1) -> Channel:
    return Channel((ALICE, BOB), nonce=number)


async def test_a_real_tower_gets_the_newest_state_and_its_receipt_is_kept(tmp_path: Path) -> None:
    async with post(tmp_path) as tower, street() as s:
        await s.tower_comes(tower)
        ours = await tower.coast.channel(1)
        for version in range(20):
            s.home.agree(ours, version)
        await s.until(lambda: bool(s.home.kept) and s.home.kept[-1].version == 19, "a receipt for the newest")
        assert tower.version(ours) == 19
        await s.until(lambda: s.home.link.lag().channels == 0, "nothing behind")
        assert s.home.link.problem is None
        s.home.states.clear()
        s.home.link.forget(ChannelId(ours.id))
        await s.until(lambda: tower.tower.slots.total == 0, "forgotten")


async def test_while_the_tower_is_down_only_the_newest_waits_and_it_is_the_first_to_come() -> None:
    async with street() as s:
        for version in range(50):
            ours = s.home.agree(channel(), version)
            s.home.agree(channel(2), 2 * version)
            await asyncio.sleep(0)
        lag = s.home.link.lag()
        assert lag.channels == 2
        assert lag.oldest_s is not None
        tower = Liar(honest)
        await s.tower_comes(tower)
        await s.until(lambda: len(s.home.kept) == 2, "both delivered")
        assert [state.version for state in tower.states()] == [49, 98]
        receipt = s.home.link.receipt(ours)
        assert receipt is not None
        assert receipt.version == 49
        assert s.home.link.lag().channels == 0


async def test_a_stream_of_states_is_thinned_and_ends_with_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "REST_NS", 50_000_000)
    async with street() as s:
        tower = Liar(honest)
        await s.tower_comes(tower)
        await s.until(lambda: s.home.link.connected, "connected")
        loop = asyncio.get_running_loop()
        began_s, version = loop.time(), 0
        while loop.time() - began_s < 0.3:
            version += 1
            s.home.agree(channel(), version)
            await asyncio.sleep(0)
        await s.until(lambda: bool(s.home.kept) and s.home.kept[-1].version == version, "the last one")
        assert version > 20
        assert len(tower.states()) <= 2 + (loop.time() - began_s) / 0.05
        assert [t.version for t in tower.states()] == sorted({t.version for t in tower.states()})


async def test_what_was_not_answered_is_delivered_again_in_the_next_session() -> None:
    async with street() as s:
        silent = Liar()
        await s.tower_comes(silent)
        s.home.agree(channel(), 3)
        await s.until(lambda: len(silent.states()) == 1, "sent")
        assert s.home.link.lag().channels == 1
        await s.tower_goes()
        s.home.agree(channel(), 4)
        tower = Liar(honest)
        await s.tower_comes(tower)
        await s.until(lambda: bool(s.home.kept), "kept")
        assert [state.version for state in tower.states()] == [4]
        assert s.home.link.lag().channels == 0


async def test_a_tower_that_does_not_answer_gets_a_new_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "ANSWER_S", 0.05)
    monkeypatch.setattr(timing, "RENEW_EVERY_S", 0.05)
    async with street() as s:
        tower = Liar()
        await s.tower_comes(tower)
        s.home.agree(channel(), 3)
        await s.until(lambda: len(tower.states()) >= 2, "asked again")
        assert s.home.link.dropped is None
        tower.answer = honest
        await s.until(lambda: bool(s.home.kept), "kept")


async def test_old_receipts_are_renewed_and_fresh_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "RENEW_EVERY_S", 0.02)
    async with street() as s:
        tower = Liar(honest)
        await s.tower_comes(tower)
        s.home.agree(channel(), 3)
        await s.until(lambda: len(s.home.kept) == 1, "kept")
        for _ in range(5):
            await asyncio.sleep(0.02)
            s.home.link.mark(ChannelId(channel().id))
        assert len(tower.states()) == 1
        s.home.ahead_ns = 6 * 10**14  # more than half of its time
        tower.answer = lambda session, state: session.send(
            receipt_for(state, now_ns=s.home.chain_ns(), expires_ns=Nanos(s.home.chain_ns() + 10**15))
        )
        await s.until(lambda: len(s.home.kept) == 2, "renewed")
        assert s.home.kept[1].expires_ns > s.home.kept[0].expires_ns


async def test_after_a_restart_only_what_the_receipts_do_not_cover_is_delivered() -> None:
    states = {n: message(channel(n), n) for n in (1, 2, 3)}
    receipts: dict[ChannelId, KeptReceipt] = {}
    async with street() as s:
        for n, old in ((1, states[1]), (2, message(channel(2), 1))):
            receipts[ChannelId(channel(n).id)] = KeptReceipt.of(receipt_for(old))
    async with street(receipts) as s:
        for state in states.values():
            params, signed = read_state(state)
            s.home.states[params.channel_id] = (params, signed)
            s.home.link.take_up(params.channel_id, signed)
        tower = Liar(honest)
        await s.tower_comes(tower)
        await s.until(lambda: len(s.home.kept) == 2, "two delivered")
        assert sorted(state.version for state in tower.states()) == [2, 3]


async def test_a_refusal_is_tried_again_later_and_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(timing, "FIRST_PAUSE_S", 0.05)
    async with post(tmp_path, TowerPolicy(max_unfunded=1)) as tower, street() as s:
        await tower.keep(9, message(channel(9), 0))
        await s.tower_comes(tower)
        s.home.agree(await tower.coast.channel(1), 4)
        await s.until(lambda: "full" in (s.home.link.problem or ""), "the reason is shown")
        assert s.home.link.lag().channels == 1
        tower.tower.forget(client(9), ChannelId(channel(9).id))
        await s.until(lambda: bool(s.home.kept), "accepted later")
        assert s.home.link.problem is None


async def test_a_settled_channel_is_not_brought_again() -> None:
    def settled(session: Session, state: TowerState) -> None:
        session.send(TowerRefusal(read_state(state)[0].channel_id, state.version, "settled", ""))

    async with street() as s:
        tower = Liar(settled)
        await s.tower_comes(tower)
        ours = s.home.agree(channel(), 4)
        await s.until(lambda: bool(tower.states()) and s.home.link.lag().channels == 0, "left alone")
        s.home.agree(channel(), 5)
        s.home.agree(channel(2), 6)
        await s.until(lambda: len(tower.states()) == 2, "the other one")
        assert [state.version for state in tower.states()] == [4, 6]
        s.home.states.pop(ours)
        s.home.link.forget(ours)


async def test_a_node_that_is_no_tower_gets_no_balances_to_see() -> None:
    async with street() as s:
        node = Liar()
        s.home.agree(channel(), 4)
        await s.tower_comes(node, features=0)
        await s.until(lambda: "no watchtower" in (s.home.link.problem or ""), "found out")
        assert node.heard == []
        await s.tower_goes()
        tower = Liar(honest)
        await s.tower_comes(tower)
        await s.until(lambda: bool(s.home.kept), "delivered to the real one")


def _other_client(state: TowerState) -> TowerReceipt:
    return receipt_for(state, client=client(5))


NONSENSE: dict[str, Callable[[TowerState], TowerReceipt]] = {
    "not signed by its node key": lambda s: replace(receipt_for(s), signature=bytes(64)),
    "another field signed": lambda s: replace(receipt_for(s), expires_ns=Nanos(2**62)),
    "for another client": _other_client,
    "another state": lambda s: receipt_for(s, digest=bytes(32)),
    "an older version": lambda s: receipt_for(s, version=s.version - 1),
    "expired when it was signed": lambda s: receipt_for(s, now_ns=Nanos(10**9), expires_ns=Nanos(10**9)),
    "not asked about": lambda s: receipt_for(s, channel=ChannelId(channel(2).id)),
}


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=list(NONSENSE))
async def test_nonsense_is_the_end_of_a_tower(nonsense: Callable[[TowerState], TowerReceipt]) -> None:
    async with street() as s:
        tower = Liar(lambda session, state: session.send(nonsense(state)))
        await s.tower_comes(tower)
        await s.until(lambda: s.home.link.connected, "connected")
        params, signed = read_state(message(channel(2), 1))
        s.home.states[params.channel_id] = (params, signed)  # a live channel that was not delivered
        s.home.agree(channel(), 4)
        await s.until(lambda: s.home.link.dropped is not None, "dropped")
        [(kind, facts)] = s.home.events
        assert (kind, facts["tower"], facts["alarm"]) == ("tower.dropped", TOWER_ID.hex(), True)
        assert s.home.given_up == [TOWER_ID]
        assert s.home.kept == []
        s.home.agree(channel(), 5)
        await s.until(lambda: s.home.network.session(TOWER_ID) is None, "hung up")
        assert len(tower.states()) == 1


async def test_garbage_is_the_end_of_a_tower() -> None:
    async with street() as s:
        tower = Liar(lambda session, state: session.link.send(b"\x93\x2a\x01\x02"))
        await s.tower_comes(tower)
        s.home.agree(channel(), 4)
        await s.until(lambda: s.home.link.dropped is not None, "dropped")
        assert s.home.events[0][0] == "tower.dropped"
        assert s.home.events[0][1]["reason"] == "it sent what is no message of the protocol (bad_message)"


async def test_a_newer_version_than_ours_is_an_alarm_and_no_proof() -> None:
    async with street() as s:
        tower = Liar(lambda session, state: session.send(receipt_for(state, version=9, digest=b"\x01" * 32)))
        await s.tower_comes(tower)
        s.home.agree(channel(), 4)
        await s.until(lambda: bool(s.home.events), "told")
        kind, facts = s.home.events[0]
        assert (kind, facts["theirs"], facts["ours"], facts["alarm"]) == ("tower.claims_newer", 9, 4, True)
        assert s.home.link.dropped is None
        assert s.home.kept == []
        assert s.home.link.lag().channels == 1


async def test_a_conflict_is_an_alarm(tmp_path: Path) -> None:
    async with post(tmp_path) as tower, street() as s:
        ours = await tower.coast.channel(1)
        await s.tower_comes(tower)
        s.home.agree(ours, 4)
        await s.until(lambda: bool(s.home.kept), "kept")
        params, signed = read_state(message(ours, 4, paid=500))
        s.home.states[params.channel_id] = (params, signed)
        s.home.link.mark(params.channel_id)
        await s.until(lambda: bool(s.home.events), "told")
        assert s.home.events[0][0] == "tower.conflict"


async def test_a_forgotten_channel_is_told_once_and_its_late_receipt_means_nothing() -> None:
    async with street() as s:
        tower = Liar()
        await s.tower_comes(tower)
        ours = s.home.agree(channel(), 4)
        await s.until(lambda: len(tower.states()) == 1, "sent")
        s.home.states.pop(ours)
        s.home.link.forget(ours)
        await s.until(lambda: TowerForget(ours) in tower.heard, "told")
        assert tower.session is not None
        tower.session.send(receipt_for(tower.states()[0]))
        s.home.agree(channel(2), 1)
        await s.until(lambda: len(tower.states()) == 2, "it goes on")
        assert s.home.link.dropped is None


async def test_a_tower_serves_whom_its_operator_named_and_has_no_channels(tmp_path: Path) -> None:
    policy = TowerPolicy(clients=frozenset({client(1)}))
    async with post(tmp_path, policy) as tower, street() as s:
        await s.tower_comes(tower)
        s.home.agree(await tower.coast.channel(1), 4)
        await s.until(lambda: "refused" in (s.home.link.problem or ""), "the reason is shown")
        assert tower.tower.slots.total == 0
        tower.tower.policy = TowerPolicy(clients=frozenset({NODE_ID}))
        await s.until(lambda: bool(s.home.kept), "served")
        session = s.home.network.session(TOWER_ID)
        assert session is not None
        session.send(Ack(ChannelId(bytes(64)), 1, bytes(64)))
        await s.until(lambda: "only_a_tower" in (s.home.link.problem or ""), "no channels")
        state = message(channel(), 0)
        session.send(replace(state, participant_1=state.participant_0))
        await s.until(lambda: "bad_params" in (s.home.link.problem or ""), "no params")
