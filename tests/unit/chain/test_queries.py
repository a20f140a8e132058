"""Queries (one node's word), reads of state, and the root key of a local network."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import aiohttp.test_utils
import pytest
from aiohttp import web
from nacl.signing import SigningKey

from chain.agent import Agent, fetch_root_key
from chain.errors import ChainError, LyingReplica, RequestRefused, UncertifiedReject, Unreachable, UnsafeRootKey
from chain.hash_tree import Missing
from chain.identity import Anonymous, Secp256k1Identity
from chain.transport import is_mainnet
from tests.unit.chain.conftest import AgentOf
from tests.unit.chain.replica import (
    CANISTER,
    ELSEWHERE,
    SECOND,
    BlsKey,
    FakeClock,
    TestReplica,
    answer,
    cbor_response,
    http,
)

Start = Callable[..., Awaitable[TestReplica]]
REPLIED = {"status": "replied", "reply": {"arg": b"DIDL\x00\x00"}}


async def test_a_signed_query_is_answered(agent: Agent, replica: TestReplica) -> None:
    assert await agent.query(CANISTER, "hint", b"") == replica.reply
    replica.requests.clear()
    await agent.query(CANISTER, "hint", b"")
    assert replica.requests == ["v3/query"]  # the node keys are known


async def test_keys_are_fetched_again_after_five_minutes(agent: Agent, replica: TestReplica, clock: FakeClock) -> None:
    await agent.query(CANISTER, "hint", b"")
    clock.advance(301)
    replica.requests.clear()
    await agent.query(CANISTER, "hint", b"")
    assert replica.requests == ["v3/query", "v3/subnet"]


@pytest.mark.parametrize(("versions", "asked"), [((3,), "v3/subnet"), ((2,), "v2/subnet"), ((), "v3/read_state")])
async def test_node_keys_come_from_the_subnet_or_as_servers_of_before_show_them(
    agent_of: AgentOf, start: Start, versions: tuple[int, ...], asked: str
) -> None:
    replica = await start(subnet=BlsKey(99), subnet_versions=versions)
    assert await agent_of(replica).query(CANISTER, "hint", b"") == replica.reply
    assert replica.requests[-1] == asked


@pytest.mark.parametrize("subnets", [(BlsKey(99), BlsKey(98)), (None, BlsKey(98)), (BlsKey(99), None)])
async def test_a_canister_that_moved_to_another_subnet_is_found_there(
    agent_of: AgentOf, start: Start, clock: FakeClock, subnets: tuple[BlsKey | None, BlsKey | None]
) -> None:
    replica = await start(subnet=subnets[0])
    agent = agent_of(replica)
    await agent.query(CANISTER, "hint", b"")
    replica.subnet, replica.node = subnets[1], SigningKey(b"\x07" * 32)
    assert await agent.query(CANISTER, "hint", b"") == replica.reply
    assert (await agent.call(CANISTER, "look", b"")).value == replica.reply
    clock.advance(301)
    assert await agent.query(CANISTER, "hint", b"") == replica.reply


async def test_a_subnet_that_no_longer_hosts_the_canister_vouches_for_nobody(
    agent_of: AgentOf, start: Start, clock: FakeClock
) -> None:
    replica = await start(subnet=BlsKey(99))
    agent = agent_of(replica)
    await agent.query(CANISTER, "hint", b"")
    clock.advance(301)
    replica.hosted = (ELSEWHERE, ELSEWHERE)
    with pytest.raises(LyingReplica, match="not shown to host"):
        await agent.query(CANISTER, "hint", b"")


async def test_on_a_subnet_too(agent_of: AgentOf, start: Start) -> None:
    replica = await start(subnet=BlsKey(99))
    assert await agent_of(replica).query(CANISTER, "hint", b"") == replica.reply


async def test_a_new_node_of_the_subnet_is_recognised(agent: Agent, replica: TestReplica) -> None:
    await agent.query(CANISTER, "hint", b"")
    replica.node = SigningKey(b"\x06" * 32)
    assert await agent.query(CANISTER, "hint", b"") == replica.reply


def unsigned(replica: TestReplica, request_id: bytes) -> dict[str, Any]:
    return {**REPLIED, "signatures": []}


def altered(replica: TestReplica, request_id: bytes) -> dict[str, Any]:
    return {**replica.signed(REPLIED, request_id), "reply": {"arg": b"DIDL\x00\x01"}}


def of_another_request(replica: TestReplica, request_id: bytes) -> dict[str, Any]:
    return replica.signed(REPLIED, bytes(32))


def stale(replica: TestReplica, request_id: bytes) -> dict[str, Any]:
    return replica.signed(REPLIED, request_id, replica.now_ns() - 301 * SECOND)


def by_a_stranger(replica: TestReplica, request_id: bytes) -> dict[str, Any]:
    stranger = TestReplica(replica.clock, node=SigningKey(b"\x09" * 32))
    return stranger.signed(REPLIED, request_id)


def signed_twice(replica: TestReplica, request_id: bytes) -> dict[str, Any]:
    signed = replica.signed(REPLIED, request_id)
    return {**signed, "signatures": signed["signatures"] * 2}


def short_signature(replica: TestReplica, request_id: bytes) -> dict[str, Any]:
    signed = replica.signed(REPLIED, request_id)
    return {**signed, "signatures": [{**signed["signatures"][0], "signature": b"x"}]}


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        (unsigned, "not signed"),
        (altered, "signature of node"),
        (of_another_request, "signature of node"),
        (stale, "five minutes old"),
        (by_a_stranger, "not of the canister's subnet"),
        (signed_twice, "more signatures"),
        (short_signature, "signature of node"),
        (lambda _r, _i: {"status": "replied"}, "neither"),
        (lambda _r, _i: [], "no map"),
    ],
)
async def test_an_answer_that_does_not_verify_is_a_lie(
    agent: Agent, replica: TestReplica, lie: Callable[[TestReplica, bytes], Any], says: str
) -> None:
    replica.answer_with("query", *[answer(lie)] * 6)
    with pytest.raises(LyingReplica, match=says):
        await agent.query(CANISTER, "hint", b"")


async def test_an_honest_server_is_found_behind_a_lying_one(
    agent_of: AgentOf, replica: TestReplica, start: Start
) -> None:
    liar = await start()
    liar.answer_with("query", answer(unsigned))
    assert await agent_of(liar, replica).query(CANISTER, "hint", b"") == replica.reply


async def test_a_rejected_query_is_an_error(agent: Agent, replica: TestReplica) -> None:
    rejection = {"status": "rejected", "reject_code": 5, "reject_message": "trap", "error_code": "IC0503"}
    replica.answer_with("query", answer(lambda r, i: r.signed(rejection, i)))
    with pytest.raises(UncertifiedReject, match="trap") as caught:
        await agent.query(CANISTER, "hint", b"")
    assert (caught.value.code, caught.value.error_code) == (5, "IC0503")


async def test_a_read_refused_for_its_expiry_is_made_again_by_certified_time(
    agent: Agent, replica: TestReplica, clock: FakeClock
) -> None:
    refusal = http(400, "Invalid request expiry: Specified ingress_expiry not within expected range")
    replica.answer_with("query", refusal)
    replica.behind_s = 3600
    assert await agent.query(CANISTER, "hint", b"") == replica.reply
    assert agent.chain_time() == replica.now_ns()


async def test_a_refused_read_is_not_repeated(agent: Agent, replica: TestReplica) -> None:
    replica.answer_with("read_state", http(403, "Failed to authenticate"))
    with pytest.raises(RequestRefused, match=r"403.*Failed to authenticate"):
        await agent.read_state(CANISTER, [(b"time",)])
    assert replica.requests == ["v3/read_state"]


async def test_a_path_that_no_server_knows(agent: Agent, replica: TestReplica) -> None:
    replica.answer_with("read_state", http(404, "Invalid path requested."), http(404, "Invalid path requested."))
    with pytest.raises(RequestRefused, match="Invalid path"):
        await agent.read_state(CANISTER, [(b"nonsense",)])
    replica.requests.clear()
    await agent.read_state(CANISTER, [(b"time",)])
    assert replica.requests[0] == "v3/read_state"  # it was the path, not the version


async def test_a_redirect_is_not_followed(agent: Agent, replica: TestReplica) -> None:
    async def elsewhere(replica: TestReplica, request: web.Request, request_id: bytes) -> web.Response:
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    replica.answer_with("read_state", elsewhere)
    with pytest.raises(RequestRefused, match="307"):
        await agent.read_state(CANISTER, [(b"time",)])


async def test_reads_are_tried_again_and_then_given_up(agent: Agent, replica: TestReplica, clock: FakeClock) -> None:
    replica.answer_with("read_state", *[http(503, "overloaded")] * 3)
    assert (await agent.read_state(CANISTER, [(b"time",)])).time_ns == replica.now_ns()
    assert len(clock.paused_s) == 3
    replica.answer_with("read_state", *[http(503, "overloaded")] * 100)
    with pytest.raises(Unreachable, match="overloaded"):
        await agent.read_state(CANISTER, [(b"time",)])


async def test_a_read_shows_values_absence_and_what_is_hidden(agent: Agent, replica: TestReplica) -> None:
    replica.state = {b"canister": {CANISTER: {b"module_hash": bytes(32)}}}
    path = (b"canister", CANISTER, b"module_hash")
    assert (await agent.read_state(CANISTER, [path])).lookup(*path) == bytes(32)
    assert (await agent.read_state(CANISTER, [path])).lookup(*path[:2], b"controllers") is Missing.ABSENT
    replica.hidden = b"module_hash"
    assert (await agent.read_state(CANISTER, [path])).lookup(*path) is Missing.UNKNOWN


async def test_a_canister_that_the_root_subnet_does_not_host(agent: Agent) -> None:
    with pytest.raises(LyingReplica, match="not shown to host"):
        await agent.query(ELSEWHERE, "hint", b"")


@pytest.mark.parametrize("identity", [Anonymous(), Secp256k1Identity(b"\x01" * 32)], ids=["anonymous", "secp256k1"])
async def test_any_identity_may_ask(
    agent_of: AgentOf, replica: TestReplica, identity: Anonymous | Secp256k1Identity
) -> None:
    agent = agent_of(replica, identity=identity)
    assert await agent.query(CANISTER, "hint", b"") == replica.reply
    assert (await agent.call(CANISTER, "look", b"")).value == replica.reply
    assert replica.calls[0]["sender"] == identity.sender


async def test_the_session_may_be_shared_and_is_not_closed(agent_of: AgentOf, replica: TestReplica) -> None:
    async with aiohttp.ClientSession() as session:
        agent = agent_of(replica, http=session)
        await agent.synchronise(CANISTER)
        await agent.close()
        assert not session.closed


async def test_an_agent_is_a_context_manager(agent_of: AgentOf, replica: TestReplica) -> None:
    async with agent_of(replica) as agent:
        await agent.synchronise(CANISTER)
    assert agent.chain_time_is_certified


@pytest.mark.parametrize("urls", [[], ["icp0.io"], ["ftp://x"], ["https://"], ["https://x/?a=b"]])
def test_addresses_that_are_none(urls: list[str]) -> None:
    with pytest.raises(ChainError, match=r"URL|address"):
        Agent(urls, BlsKey(1).der, Anonymous())


def test_a_root_key_that_is_none() -> None:
    with pytest.raises(LyingReplica, match="133 bytes"):
        Agent(["http://x"], bytes(133), Anonymous())


async def test_a_local_network_shows_its_root_key(replica: TestReplica) -> None:
    assert await fetch_root_key(replica.url) == replica.root.der


@pytest.mark.parametrize(
    "url",
    [
        "https://icp0.io",
        "https://ic0.app/",
        "https://icp-api.io:443",
        "https://icp.net",
        "https://abc.icp.net/x",
        "https://ICP-API.IO.",
        "https://abc.icp0.io/x",
        "https://dashboard.internetcomputer.org",
        "https://user@ic0.app",
    ],
)
async def test_the_root_key_of_the_internet_computer_is_never_fetched(url: str) -> None:
    assert is_mainnet(url)
    with pytest.raises(UnsafeRootKey, match="built in"):
        await fetch_root_key(url)


def test_what_is_not_mainnet() -> None:
    assert not any(
        map(
            is_mainnet,
            [
                "http://localhost:4943",
                "http://notic0.app",
                "http://noticp.net",
                "http://icp.net.example.org",
                "http://icp0.io.example.org",
            ],
        )
    )


@pytest.mark.parametrize("status", [{}, {"root_key": b"x"}, {"root_key": "text"}, []])
async def test_a_status_without_a_root_key(status: Any) -> None:
    app = web.Application()

    async def serve(request: web.Request) -> web.Response:
        return cbor_response(status)

    app.router.add_get("/api/v2/status", serve)
    server = aiohttp.test_utils.TestServer(app)
    await server.start_server()
    try:
        with pytest.raises(LyingReplica):
            await fetch_root_key(str(server.make_url("")))
    finally:
        await server.close()
