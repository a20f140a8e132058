"""Ordering faults: whom they hit, how often, how they are cleared, and that each is documented."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chain.agent import Agent
from chain.certificate import CertificateVerifier
from chain.clock import Certified
from chain.errors import ChainError, LyingReplica
from chain.identity import Ed25519Identity
from chain.ledger import IcpLedger
from chain.perun import PerunCanister
from devnet.network import ICP_LEDGER_ID, PERUN_CANISTER_ID
from devnet.replica import cbor
from devnet.replica.delegation import delegation
from devnet.replica.faults import DELAYED, KINDS
from devnet.replica.hash_tree import EMPTY, Leaf, put
from devnet.replica.keys import RootKey
from devnet.replica.state_tree import FIRST_CANISTER, LAST_CANISTER
from protocol.types import ChannelId, Funding, ParticipantKey, RegisteredState
from tests.adversarial.house import House
from tests.adversarial.inhabitant import Inhabitant, Peer

NOBODY = ChannelId(bytes(64))
PAGE = Path(__file__).parents[2] / "docs" / "devnet.md"


async def no_pause(_seconds: float) -> None:
    return None


@pytest.fixture
async def agent(house: House) -> AsyncIterator[Agent]:
    async with Agent([house.url], house.root_key, Ed25519Identity(b"\x05" * 32), pause=no_pause) as opened:
        yield opened


async def due(house: House) -> list[dict[str, object]]:
    async with house.http.get(f"{house.url}/_devnet/faults") as answer:
        listed = (await answer.json())["due"]
        assert isinstance(listed, list)
        return listed


async def test_a_fault_hits_the_method_that_it_names_as_often_as_it_says(house: House, agent: Agent) -> None:
    perun = PerunCanister(agent, PERUN_CANISTER_ID)
    await house.order("reject_certified", method="query_state", count=2)
    assert (await perun.query_holdings(Funding(NOBODY, ParticipantKey(bytes(32))))).value is None
    for _ in range(2):
        with pytest.raises(ChainError, match="overloaded"):
            await perun.query_state(NOBODY)
    assert (await perun.query_state(NOBODY)).value is None
    assert await due(house) == []


async def test_a_fault_hits_the_canister_that_it_names(house: House, agent: Agent) -> None:
    await house.order("reject_certified", canister=house.info["icp_ledger"])
    assert (await PerunCanister(agent, PERUN_CANISTER_ID).query_state(NOBODY)).value is None
    with pytest.raises(ChainError, match="overloaded"):
        await IcpLedger(agent, ICP_LEDGER_ID).fee()
    (order,) = await due(house)
    assert (order["fault"], order["canister"], order["left"]) == ("reject_certified", house.info["icp_ledger"], 999_999)
    await house.clear()
    assert (await IcpLedger(agent, ICP_LEDGER_ID).fee()).value == 10_000


WRONG: list[dict[str, object]] = [
    {"fault": "reject", "endpoint": "query"},
    {"fault": "stale_query", "endpoint": "call"},
    {"fault": "drop", "endpoint": "read_state", "method": "withdraw"},
    {"fault": "drop", "method": 5},
    {"fault": "drop", "canister": "nowhere"},
    {"fault": "drop", "seconds": 5},
    {"fault": "slow", "seconds": 10**9},
]


@pytest.mark.parametrize("fields", WRONG, ids=str)
async def test_an_order_that_makes_no_sense_is_told(house: House, fields: dict[str, object]) -> None:
    async with house.http.post(f"{house.url}/_devnet/faults", json=fields) as answer:
        assert answer.status == 400
        assert list(await answer.json()) == ["error"]
    assert await due(house) == []


async def test_a_stale_query_answers_as_of_the_order_and_a_hidden_registration_hides(
    house: House, alice: Inhabitant
) -> None:
    peer: Peer = await alice.open()
    channel = alice.driver.channel.id
    await house.order("stale_query")
    house.dispute(alice.driver.channel.terms.params, peer.signed[0])
    perun = alice.services.perun
    assert await perun.hint_state(channel) is None, "the query should be stale"
    await house.clear()
    assert await perun.hint_state(channel) is not None
    await house.order("hidden_registration")
    assert await perun.hint_state(channel) is None
    assert (await perun.hint_disputes_since(0, 10)).entries == ()
    assert (await perun.query_state(channel)).value is not None, "what is certified cannot be hidden"


async def test_a_look_that_was_withheld_is_as_old_as_its_request(house: House, alice: Inhabitant) -> None:
    peer = await alice.open()
    await alice.pay(1)
    channel, perun = alice.driver.channel.id, alice.services.perun
    await alice.services.watcher.look(channel)
    kept_s = 480  # the network forgets an answer nine minutes after its request
    await house.order("withheld", method="query_state", seconds=kept_s, count=1)
    signed_ns = alice.services.time.elapsed_ns()
    answers: list[Certified[RegisteredState | None]] = []
    asking = alice.node.spawn(_ask(perun, channel, answers), "look")
    await house.hit("withheld", 1)
    house.dispute(alice.driver.channel.terms.params, peer.signed[0])  # after the look, before its answer
    now_ns = alice.services.time.elapsed_ns()
    house.advance(kept_s)
    await asking
    (look,) = answers
    assert look.value is None
    assert look.chain_time_ns >= house.now_ns - 60 * 10**9, "its certificate is fresh"
    assert signed_ns <= look.signed_at_mono_ns <= now_ns, "and it is as old as its request"


async def _ask(perun: PerunCanister, channel: ChannelId, answers: list[Certified[RegisteredState | None]]) -> None:
    answers.append(await perun.query_state(channel))


def test_a_delegation_is_good_where_the_root_gave_it_and_nowhere_else() -> None:
    root, subnet = RootKey.generate(), RootKey.generate()
    inner = delegation(root, subnet, FIRST_CANISTER, LAST_CANISTER)
    verifier = CertificateVerifier(root.public_der)
    tree = put(EMPTY, b"time", Leaf(b"\x05"))
    certificate = {"tree": tree.cbor(), "signature": subnet.sign(tree.digest), "delegation": inner}
    assert verifier.verify(cbor.encode(certificate), PERUN_CANISTER_ID).delegated
    for wrong in (
        delegation(RootKey.generate(), subnet, FIRST_CANISTER, LAST_CANISTER),
        delegation(root, subnet, FIRST_CANISTER, FIRST_CANISTER),
        {**inner, "subnet_id": b"\x01"},
    ):
        with pytest.raises(LyingReplica):
            verifier.verify(cbor.encode({**certificate, "delegation": wrong}), PERUN_CANISTER_ID)


def test_the_page_tells_of_every_fault_and_where_it_can_hit() -> None:
    rows = {line.split("|")[1].strip(" `"): line for line in PAGE.read_text().splitlines() if line.startswith("| `")}
    for kind, endpoints in KINDS.items():
        assert kind in rows, f"docs/devnet.md does not tell of the fault {kind}"
        told = rows[kind].split("|")[2].strip()
        assert told == ("any" if len(endpoints) == 3 else ", ".join(sorted(endpoints))), kind
        assert ("seconds" in rows[kind]) is (kind in DELAYED), kind
