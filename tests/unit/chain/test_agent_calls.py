"""A call that moves money, and everything a server can do to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from chain.agent import Agent
from chain.clock import Certified
from chain.errors import (
    CallExpired,
    CallRejected,
    LyingReplica,
    OutcomeUnknown,
    RequestRefused,
    UncertifiedReject,
    Unreachable,
)
from chain.request import NEVER_FRESH, SignedCall
from chain.state_reader import INGRESS_TTL_NS
from tests.unit.chain.conftest import AgentOf
from tests.unit.chain.replica import (
    CANISTER,
    ELSEWHERE,
    SECOND,
    BlsKey,
    FakeClock,
    TestReplica,
    answer,
    certificate,
    http,
    leb,
    tree_of,
)

Start = Callable[..., Awaitable[TestReplica]]


async def test_a_call_returns_the_certified_reply_and_says_when_it_was_asked(
    agent: Agent, replica: TestReplica, clock: FakeClock
) -> None:
    replica.reply = b"DIDL\x00\x01\x7e\x01"
    result = await agent.call(CANISTER, "greet", b"DIDL\x00\x00")
    assert result == Certified(replica.reply, clock.wall, clock.wall, clock.mono, replica.calls[0]["id"])
    assert replica.calls[0]["method_name"] == "greet"
    assert agent.chain_time() == clock.wall


async def test_a_subnet_answers_with_a_delegation(agent_of: AgentOf, start: Start) -> None:
    replica = await start(subnet=BlsKey(99))
    result = await agent_of(replica).call(CANISTER, "m", b"")
    assert result.value == replica.reply


async def test_a_delegation_for_other_canisters_is_refused(agent_of: AgentOf, start: Start) -> None:
    replica = await start(subnet=BlsKey(99), hosted=(ELSEWHERE, ELSEWHERE))
    agent = agent_of(replica)
    with pytest.raises(LyingReplica, match="not shown to host"):
        await agent.submit(agent.sign_call(CANISTER, "m", b""))


async def test_a_delegation_that_the_root_did_not_sign_is_refused(agent_of: AgentOf, start: Start) -> None:
    replica = await start(subnet=BlsKey(99), root=BlsKey(100))
    agent = agent_of(replica, root_key=BlsKey(101).der)
    with pytest.raises(LyingReplica, match="does not verify"):
        await agent.submit(agent.sign_call(CANISTER, "m", b""))


async def test_the_root_subnet_proves_nothing_about_canisters_that_it_does_not_host(
    agent_of: AgentOf, start: Start, clock: FakeClock
) -> None:
    # A genuine certificate of the root subnet, in which a call on another subnet is truly absent.
    replica = await start(hosted=(ELSEWHERE, ELSEWHERE))
    agent = agent_of(replica)
    await agent.synchronise(ELSEWHERE)
    call = agent.sign_call(CANISTER, "pay", b"")
    clock.advance(250)
    with pytest.raises(OutcomeUnknown, match="not shown to host it"):
        await agent.outcome(call)


@pytest.mark.parametrize("versions", [(2, 3), (2,)])
async def test_an_older_server_is_spoken_to_in_its_own_version(
    agent: Agent, replica: TestReplica, versions: tuple[int, ...]
) -> None:
    replica.versions = versions
    first = await agent.call(CANISTER, "m", b"")
    assert first.value == replica.reply
    replica.requests.clear()
    await agent.call(CANISTER, "m", b"")
    assert replica.requests[0] == f"v{max(versions)}/call"  # remembered: no second 404


async def test_a_call_that_takes_long_is_polled_for(agent: Agent, replica: TestReplica) -> None:
    async def slow(replica: TestReplica, request: web.Request, request_id: bytes) -> web.Response:
        replica.statuses[request_id] = {b"status": b"processing"}
        return web.Response(status=202, text="not finished")

    async def finished(replica: TestReplica, request: web.Request, request_id: bytes) -> None:
        replica.finish(replica.calls[0]["id"])

    await agent.synchronise(CANISTER)
    replica.answer_with("call", slow)
    call = agent.sign_call(CANISTER, "m", b"")
    replica.answer_with("read_state", *[answer(lambda r, _: {"certificate": r.certify()})] * 3, finished)
    assert (await agent.submit(call)).value == replica.reply
    assert len(replica.calls) == 1


async def test_a_certificate_that_only_says_processing_is_no_reply(agent: Agent, replica: TestReplica) -> None:
    async def processing(replica: TestReplica, request: web.Request, request_id: bytes) -> None:
        replica.statuses[request_id] = {b"status": b"processing"}
        replica.answer_with("read_state", http(503), finish)

    async def finish(replica: TestReplica, request: web.Request, request_id: bytes) -> None:
        replica.finish(replica.calls[0]["id"])

    await agent.call(CANISTER, "m", b"")
    replica.calls.clear()
    replica.answer_with("call", processing)
    assert (await agent.call(CANISTER, "m", b"")).value == replica.reply


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_the_same_bytes_are_sent_again_after_a_failure(agent: Agent, replica: TestReplica, status: int) -> None:
    replica.answer_with("call", http(status), http(status))
    await agent.call(CANISTER, "m", b"")
    assert len(replica.calls) == 3
    assert len({call["body"] for call in replica.calls}) == 1


async def test_a_connection_that_breaks_after_the_call_does_not_make_a_second_call(
    agent: Agent, replica: TestReplica
) -> None:
    async def executed_but_cut(replica: TestReplica, request: web.Request, request_id: bytes) -> web.Response:
        replica.finish(request_id)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    replica.answer_with("call", executed_but_cut)
    result = await agent.call(CANISTER, "pay", b"")
    assert result.value == replica.reply
    assert len({call["id"] for call in replica.calls}) == 1


async def test_another_server_is_used_when_one_does_not_answer(
    agent_of: AgentOf, replica: TestReplica, start: Start
) -> None:
    dead = await start()
    dead.answer_with("read_state", *[http(503)] * 9)
    dead.answer_with("call", *[http(503)] * 9)
    agent = agent_of(dead, replica)
    assert (await agent.call(CANISTER, "m", b"")).value == replica.reply
    dead.requests.clear()
    await agent.call(CANISTER, "m", b"")
    assert dead.requests == []  # it is asked last from now on


async def test_without_any_connection_nothing_left_the_machine(agent_of: AgentOf, replica: TestReplica) -> None:
    replica.url = "http://127.0.0.1:1"
    agent = agent_of(replica)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1.*check the network"):
        await agent.submit(agent.sign_call(CANISTER, "m", b""), give_up_after_s=20)


async def test_a_certified_reject_is_an_error_with_its_code(agent: Agent, replica: TestReplica) -> None:
    async def reject(replica: TestReplica, request: web.Request, request_id: bytes) -> None:
        replica.reject(request_id)

    replica.answer_with("call", reject)
    with pytest.raises(CallRejected, match="it trapped") as caught:
        await agent.call(CANISTER, "m", b"")
    assert (caught.value.code, caught.value.error_code) == (5, "IC0503")


async def test_a_reject_by_one_node_proves_nothing_and_is_told_apart(agent: Agent, replica: TestReplica) -> None:
    rejection = {"reject_code": 4, "reject_message": "no", "error_code": "IC0406"}
    replica.answer_with("call", answer(lambda _r, _i: {"status": "non_replicated_rejection", **rejection}))
    with pytest.raises(UncertifiedReject) as caught:
        await agent.call(CANISTER, "m", b"")
    assert caught.value.code == 4


async def test_a_lying_node_cannot_reject_what_another_executes(
    agent_of: AgentOf, replica: TestReplica, start: Start
) -> None:
    liar = await start()
    rejection = {"status": "non_replicated_rejection", "reject_code": 4, "reject_message": "no"}
    liar.answer_with("call", answer(lambda _r, _i: rejection))
    assert (await agent_of(liar, replica).call(CANISTER, "m", b"")).value == replica.reply


async def test_a_wrong_signature_is_a_lie(agent: Agent, replica: TestReplica) -> None:
    def forged(replica: TestReplica, request_id: bytes) -> dict[str, object]:
        replica.finish(request_id)
        return {"status": "replied", "certificate": certificate(BlsKey(5), tree_of(replica.tree()))}

    await agent.synchronise(CANISTER)
    replica.answer_with("call", answer(forged))
    with pytest.raises(LyingReplica, match="does not verify"):
        await agent.call(CANISTER, "m", b"")


async def test_a_reply_that_the_certificate_hides_is_a_lie(agent: Agent, replica: TestReplica) -> None:
    await agent.call(CANISTER, "m", b"")
    replica.hidden = b"reply"
    with pytest.raises(LyingReplica, match="without its reply"):
        await agent.call(CANISTER, "m", b"")


async def test_a_status_that_is_hidden_is_not_absent(agent: Agent, replica: TestReplica, clock: FakeClock) -> None:
    await agent.call(CANISTER, "m", b"")
    replica.execute = False
    call = agent.sign_call(CANISTER, "pay", b"")
    clock.advance(241)
    replica.hidden = b"request_status"
    with pytest.raises(OutcomeUnknown, match="does not show the status"):
        await agent.outcome(call)


async def test_an_old_certificate_is_refused(agent: Agent, replica: TestReplica, clock: FakeClock) -> None:
    await agent.call(CANISTER, "m", b"")
    clock.advance(3600)
    old = answer(lambda r, _: {"status": "replied", "certificate": r.certify(clock.wall - 301 * SECOND)})
    replica.answer_with("call", old)
    with pytest.raises(LyingReplica, match="too old"):
        await agent.call(CANISTER, "m", b"")


async def test_a_certificate_from_before_one_already_seen_is_refused(
    agent: Agent, replica: TestReplica, clock: FakeClock
) -> None:
    await agent.call(CANISTER, "m", b"")
    replica.behind_s = 120
    with pytest.raises(LyingReplica, match="too old"):
        await agent.read_state(CANISTER, [(b"time",)])
    replica.behind_s = 30
    assert (await agent.read_state(CANISTER, [(b"time",)])).time_ns == clock.wall - 30 * SECOND


async def test_a_withheld_answer_is_as_old_as_its_request(agent: Agent, replica: TestReplica, clock: FakeClock) -> None:
    await agent.synchronise(CANISTER)
    signed_ns = clock.mono

    async def withhold(replica: TestReplica, request: web.Request, request_id: bytes) -> None:
        clock.advance(200)

    replica.answer_with("call", withhold)
    look = await agent.call(CANISTER, "query_state", b"")
    assert look.chain_time_ns == clock.wall  # under a new certificate
    assert look.age_ns(clock) == clock.mono - signed_ns >= 200 * SECOND


async def test_a_call_that_nobody_executed_is_proven_void_after_its_expiry(
    agent: Agent, replica: TestReplica, clock: FakeClock
) -> None:
    await agent.synchronise(CANISTER)
    replica.execute = False
    call = agent.sign_call(CANISTER, "pay", b"")
    with pytest.raises(CallExpired) as caught:
        await agent.submit(call)
    assert caught.value.request_id == call.request_id
    assert clock.wall > call.ingress_expiry_ns
    assert len({sent["body"] for sent in replica.calls}) == 1
    assert len(replica.calls) > 3  # a server that dropped it got it again


async def test_absence_long_after_the_expiry_proves_nothing(agent: Agent, clock: FakeClock) -> None:
    await agent.synchronise(CANISTER)
    call = agent.sign_call(CANISTER, "pay", b"")
    clock.advance(240 + 301)
    with pytest.raises(OutcomeUnknown, match="forgotten"):
        await agent.submit(call)


async def test_absence_before_the_expiry_proves_nothing(agent: Agent, replica: TestReplica) -> None:
    await agent.synchronise(CANISTER)
    call = agent.sign_call(CANISTER, "pay", b"")
    with pytest.raises(OutcomeUnknown):
        await agent.outcome(call, give_up_after_s=30)


async def test_a_forgotten_answer_is_unknown(agent: Agent, replica: TestReplica) -> None:
    await agent.synchronise(CANISTER)
    call = agent.sign_call(CANISTER, "pay", b"")
    replica.statuses[call.request_id] = {b"status": b"done"}
    with pytest.raises(OutcomeUnknown, match="forgotten its answer"):
        await agent.submit(call)


async def test_a_call_whose_outcome_no_server_shows_is_unknown(agent: Agent, replica: TestReplica) -> None:
    await agent.synchronise(CANISTER)
    replica.answer_with("call", *[http(500)] * 1000)
    replica.answer_with("read_state", *[http(500)] * 1000)
    with pytest.raises(OutcomeUnknown, match="too late to tell"):
        await agent.submit(agent.sign_call(CANISTER, "pay", b""))


async def test_a_look_gives_up(agent: Agent, replica: TestReplica, clock: FakeClock) -> None:
    await agent.synchronise(CANISTER)
    replica.execute = False
    started = clock.mono
    with pytest.raises(OutcomeUnknown, match="no proof in the time given"):
        await agent.call(CANISTER, "query_state", b"", give_up_after_s=60)
    assert 60 * SECOND <= clock.mono - started < 80 * SECOND


async def test_a_refused_call_is_not_signed_anew(agent: Agent, replica: TestReplica) -> None:
    await agent.synchronise(CANISTER)
    text = "Invalid request expiry: Specified ingress_expiry not within expected range: Minimum allowed expiry: 1"
    replica.answer_with("call", http(400, text))
    with pytest.raises(RequestRefused, match="Invalid request expiry") as caught:
        await agent.submit(agent.sign_call(CANISTER, "pay", b""))
    assert caught.value.for_its_expiry
    assert len(replica.calls) == 1


async def test_what_a_paused_machine_signs_by_an_old_time_is_made_once_more(agent: Agent, replica: TestReplica) -> None:
    """Its clocks stood still for an hour, and it cannot know. Only a call that may be made again: `submit` never is."""
    await agent.synchronise(CANISTER)
    replica.behind_s = -3600
    text = "Invalid request expiry: Specified ingress_expiry not within expected range: Minimum allowed expiry: 1"
    replica.answer_with("call", http(400, text))
    assert (await agent.call(CANISTER, "query_state", b"")).value == replica.reply
    assert [sent["ingress_expiry"] - replica.now_ns() for sent in replica.calls] == [-3360 * SECOND, INGRESS_TTL_NS]

    replica.answer_with("call", http(400, text), http(400, text), http(400, "no such method"))
    with pytest.raises(RequestRefused) as caught:  # it is that server's clock that is off
        await agent.call(CANISTER, "query_state", b"")
    assert "HTTP" not in str(caught.value)
    assert "try again" in str(caught.value)
    with pytest.raises(RequestRefused, match="no such method"):
        await agent.call(CANISTER, "query_state", b"")
    assert len(replica.calls) == 5


async def test_time_is_learnt_anew_when_it_is_old_and_once_for_all_who_ask(
    agent: Agent, replica: TestReplica, clock: FakeClock
) -> None:
    reads = 0

    async def count(replica: TestReplica, request: web.Request, request_id: bytes) -> None:
        nonlocal reads
        reads += 1

    replica.answer_with("read_state", *[count] * 100)
    for _ in range(2):
        await asyncio.gather(*(agent.renew_time(CANISTER, 10 * SECOND) for _ in range(9)))
        clock.advance(11)
    assert reads == 2
    replica.behind_s = -3600  # and a pause that no clock here has noticed
    await agent.renew_time(CANISTER, 0)
    assert agent.chain_time() == replica.now_ns()


async def test_a_refusal_after_a_lost_answer_leaves_the_decision_to_the_chain(
    agent: Agent, replica: TestReplica
) -> None:
    await agent.synchronise(CANISTER)

    async def executed(replica: TestReplica, request: web.Request, request_id: bytes) -> web.Response:
        replica.finish(request_id)
        return web.Response(status=500)

    replica.answer_with("call", executed, http(400, "no"))
    assert (await agent.submit(agent.sign_call(CANISTER, "pay", b""))).value == replica.reply


async def test_an_endless_body_is_cut_off(agent: Agent, replica: TestReplica) -> None:
    async def endless(replica: TestReplica, request: web.Request, request_id: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while request.transport is not None and not request.transport.is_closing():
            await response.write(bytes(1 << 18))
        return response

    await agent.synchronise(CANISTER)
    replica.answer_with("call", endless)  # type: ignore[arg-type]
    with pytest.raises(LyingReplica, match="sent more than"):
        await agent.call(CANISTER, "m", b"")


async def test_a_malformed_answer_is_a_lie(agent: Agent, replica: TestReplica) -> None:
    await agent.synchronise(CANISTER)
    replica.answer_with("call", http(200, "<html>"))
    with pytest.raises(LyingReplica, match="malformed"):
        await agent.call(CANISTER, "m", b"")


async def test_a_stored_call_is_continued_after_a_restart(
    replica: TestReplica, agent_of: AgentOf, clock: FakeClock
) -> None:
    before = agent_of(replica)
    await before.synchronise(CANISTER)
    call = before.sign_call(CANISTER, "pay", b"\x01")
    restored = SignedCall.from_bytes(call.to_bytes())
    replica.finish(call.request_id)  # the first process sent it, and died
    clock.advance(300)
    result = await agent_of(replica).submit(restored)
    assert result.value == replica.reply
    assert replica.calls == []  # expired: only asked for, not sent
    assert result.signed_at_mono_ns == NEVER_FRESH  # never counts as a look


async def test_two_calls_that_look_alike_are_two_calls(agent: Agent) -> None:
    first, second = (agent.sign_call(CANISTER, "m", b"") for _ in range(2))
    assert first.request_id != second.request_id


async def test_expiry_comes_from_chain_time_not_from_a_wrong_wall_clock(
    agent: Agent, replica: TestReplica, clock: FakeClock
) -> None:
    replica.behind_s = -3600  # this machine's clock is an hour slow
    await agent.call(CANISTER, "m", b"")
    assert replica.calls[0]["ingress_expiry"] == replica.now_ns() + INGRESS_TTL_NS
    assert agent.chain_time_is_certified


async def test_chain_time_never_goes_back(agent: Agent, replica: TestReplica, clock: FakeClock) -> None:
    await agent.synchronise(CANISTER)
    clock.advance(10)
    seen = agent.chain_time()
    replica.behind_s = 20
    await agent.read_state(CANISTER, [(b"time",)])
    clock.wall -= 3600 * SECOND
    assert agent.chain_time() == seen


async def test_no_more_requests_at_once_than_allowed(replica: TestReplica, agent_of: AgentOf) -> None:
    running, most = 0, 0

    async def count(replica: TestReplica, request: web.Request, request_id: bytes) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(20):
            await asyncio.sleep(0)
        running -= 1

    agent = agent_of(replica, max_in_flight=3)
    await agent.synchronise(CANISTER)
    replica.answer_with("call", *[count] * 12)
    await asyncio.gather(*(agent.call(CANISTER, "m", b"") for _ in range(12)))
    assert 1 < most <= 3


async def test_time_leaves_must_be_numbers(agent: Agent, replica: TestReplica) -> None:
    for leaf in (b"", b"\x80", b"\x80\x00\x00", leb(2**64)):
        replica.state = {b"time": leaf}
        with pytest.raises(LyingReplica, match="number is malformed"):
            await agent.read_state(CANISTER, [(b"time",)])
