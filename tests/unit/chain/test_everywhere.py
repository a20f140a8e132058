"""Calls that do no harm, at every server at once: nothing that a server can withhold or spoil holds them up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from chain.errors import ChainError, LyingReplica
from chain.transport import URGENT_SLOTS
from tests.unit.chain.conftest import AgentOf
from tests.unit.chain.replica import CANISTER, SECOND, BlsKey, FakeClock, TestReplica, http

Start = Callable[..., Awaitable[TestReplica]]


async def never(replica: TestReplica, request: web.Request, request_id: bytes) -> web.Response | None:
    """Execute, and keep the answer."""
    del request
    replica.finish(request_id)
    await asyncio.Event().wait()
    return None


class Kept:
    """Handlers without end."""

    def __init__(self, handler: Any) -> None:
        self.handler = handler

    def __getitem__(self, part: slice) -> list[Any]:
        del part
        return [self.handler]

    def remove(self, handler: Any) -> None:
        del handler


def always(replica: TestReplica, kind: str, handler: Any) -> None:
    replica.handlers[kind] = Kept(handler)  # type: ignore[assignment]


def spoil(replica: TestReplica) -> None:
    """From now on no certificate of this server verifies."""
    replica.root = BlsKey(4_242)


async def test_one_honest_server_is_enough_whatever_the_others_do(agent_of: AgentOf, start: Start) -> None:
    keeper, liar, honest = await start(), await start(), await start()
    agent = agent_of(keeper, liar, honest)
    always(keeper, "call", never)
    spoil(liar)
    assert (await agent.call_everywhere(CANISTER, "look", b"", 5.0)).value == honest.reply
    assert [len(r.calls) for r in (keeper, liar, honest)] == [1, 1, 1]
    assert len({r.calls[0]["id"] for r in (keeper, liar, honest)}) == 1, "the same bytes: they execute once"


async def test_without_any_proof_it_is_handed_over_and_what_was_shown_comes_back(
    agent_of: AgentOf, start: Start
) -> None:
    replica = await start()
    agent = agent_of(replica)
    spoil(replica)
    with pytest.raises(LyingReplica) as refused:
        await agent.call_everywhere(CANISTER, "refute", b"", 5.0)
    assert replica.statuses  # it was executed
    assert refused.value.shown == replica.reply


async def test_a_server_that_answers_nothing_has_it_all_the_same(agent_of: AgentOf, start: Start) -> None:
    replica = await start()
    agent = agent_of(replica)
    always(replica, "call", never)
    always(replica, "read_state", never)
    with pytest.raises(ChainError):
        await agent.call_everywhere(CANISTER, "refute", b"", 1.0)
    assert len(replica.statuses) >= 1


@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M:%S.000000123 UTC", "%Y-%m-%dT%H:%M:%SZ"])
@pytest.mark.parametrize("off_s", [-172_800, 172_800])
async def test_a_clock_that_is_off_is_no_obstacle(
    agent_of: AgentOf, start: Start, clock: FakeClock, form: str, off_s: int
) -> None:
    """No certificate tells the time, this machine's clock is days off, and the server says what it would take."""
    replica = await start(behind_s=off_s)
    agent = agent_of(replica)
    spoil(replica)

    async def strict(replica: TestReplica, request: web.Request, request_id: bytes) -> web.Response | None:
        del request, request_id
        expiry, now_ns = replica.calls[-1]["ingress_expiry"], replica.now_ns()
        if now_ns <= expiry <= now_ns + 330 * SECOND:
            return None
        earliest = datetime.fromtimestamp(now_ns // SECOND, UTC).strftime(form)
        text = "Invalid request expiry: Specified ingress_expiry not within expected range: "
        return web.Response(status=400, text=f"{text}Minimum allowed expiry: {earliest}, Maximum allowed expiry: x")

    always(replica, "call", strict)
    with pytest.raises(LyingReplica) as refused:
        await agent.call_everywhere(CANISTER, "refute", b"", 10.0)
    assert refused.value.shown == replica.reply
    assert len(replica.statuses) == 1


async def test_requests_that_hang_leave_room_for_it(agent_of: AgentOf, start: Start) -> None:
    replica = await start()
    agent = agent_of(replica, max_in_flight=2)
    await agent.synchronise(CANISTER)
    always(replica, "call", never)
    hanging = [asyncio.ensure_future(agent.call(CANISTER, "look", b"")) for _ in range(10)]
    async with asyncio.timeout(5):
        while len(replica.calls) < 2:  # noqa: ASYNC110  (the server tells nobody)
            await asyncio.sleep(0.01)
    replica.handlers["call"] = []
    try:
        assert (await agent.call_everywhere(CANISTER, "refute", b"", 5.0)).value == replica.reply
        assert URGENT_SLOTS > 1
    finally:
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)


async def test_whoever_lost_patience_with_a_server_asks_another_one_next(agent_of: AgentOf, start: Start) -> None:
    keeper, honest = await start(), await start()
    agent = agent_of(keeper, honest)
    await agent.synchronise(CANISTER)
    always(keeper, "call", never)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await agent.call(CANISTER, "look", b"")
    async with asyncio.timeout(3):
        assert (await agent.call(CANISTER, "look", b"")).value == honest.reply


async def test_a_query_that_nobody_can_vouch_for_is_shown(agent_of: AgentOf, start: Start) -> None:
    replica = await start(subnet_versions=())
    agent = agent_of(replica)
    always(replica, "read_state", http(500))
    with pytest.raises(ChainError) as refused:
        await agent.query(CANISTER, "hint", b"")
    assert refused.value.shown == replica.reply
