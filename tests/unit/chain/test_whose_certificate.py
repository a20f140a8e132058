"""Whose certificate it is: what was shown of one canister or one subnet says nothing of another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from chain.agent import Agent
from chain.certificate import CertificateVerifier
from chain.errors import CallExpired, ChainError, LyingReplica, OutcomeUnknown
from tests.unit.chain.conftest import AgentOf
from tests.unit.chain.replica import (
    CANISTER,
    ELSEWHERE,
    SECOND,
    BlsKey,
    FakeClock,
    TestReplica,
    Tree,
    answer,
    certificate,
    leb,
    ranges,
    tree_of,
)

Start = Callable[..., Awaitable[TestReplica]]

ROOT, SUBNET, OTHER = BlsKey(7_777_777), BlsKey(99), BlsKey(98)
NOW_NS = 1_700_000_000 * 10**9


def canister(number: int) -> bytes:
    return number.to_bytes(8, "big") + b"\x01\x01"


def signed_by(key: BlsKey, named: BlsKey, granted: Tree) -> bytes:
    """A certificate by the key, with a genuine delegation of the root that it says is to `named`."""
    delegation: dict[str, Any] = {"subnet_id": named.subnet_id, "certificate": certificate(ROOT, tree_of(granted))}
    return certificate(key, tree_of({b"time": leb(NOW_NS)}), delegation)


def granted(shards: dict[bytes, bytes]) -> Tree:
    return {
        b"time": leb(NOW_NS),
        b"canister_ranges": {SUBNET.subnet_id: shards},
        b"subnet": {SUBNET.subnet_id: {b"public_key": SUBNET.der}},
    }


@pytest.mark.parametrize(
    ("number", "hosted"),
    [(9, False), (10, True), (15, True), (16, False), (20, True), (25, True), (26, False), (30, True), (31, True),
     (32, False), (99, False)],
)  # fmt: skip
def test_a_canister_is_looked_for_in_the_shard_that_its_id_falls_into(number: int, hosted: bool) -> None:
    """A subnet with many ranges has them in shards, each named by where it begins."""
    shards = {
        canister(10): ranges((canister(10), canister(15))),
        canister(20): ranges((canister(20), canister(22)), (canister(24), canister(25))),
        canister(30): ranges((canister(30), canister(31))),
    }
    encoded = signed_by(SUBNET, SUBNET, granted(shards))
    if hosted:
        assert CertificateVerifier(ROOT.der).verify(encoded, canister(number)).delegated
    else:
        with pytest.raises(LyingReplica, match="not shown to host"):
            CertificateVerifier(ROOT.der).verify(encoded, canister(number))


def test_a_range_counts_in_the_shard_where_it_belongs_and_in_no_other() -> None:
    shards = {
        canister(10): ranges((canister(10), canister(29))),
        canister(20): ranges((canister(24), canister(25))),
    }
    encoded = signed_by(SUBNET, SUBNET, granted(shards))
    with pytest.raises(LyingReplica, match="not shown to host"):
        CertificateVerifier(ROOT.der).verify(encoded, canister(22))


@pytest.mark.parametrize("known_first", [False, True])
def test_one_subnet_does_not_sign_for_another_that_the_same_delegation_shows(known_first: bool) -> None:
    """The root certified both keys in one tree. Which of them signs is said by the delegation, not by what is kept."""
    both: Tree = {
        b"time": leb(NOW_NS),
        b"canister_ranges": {
            SUBNET.subnet_id: {canister(10): ranges((canister(10), canister(19)))},
            OTHER.subnet_id: {canister(20): ranges((canister(20), canister(29)))},
        },
        b"subnet": {key.subnet_id: {b"public_key": key.der} for key in (SUBNET, OTHER)},
    }
    verifier = CertificateVerifier(ROOT.der)
    if known_first:
        assert verifier.verify(signed_by(SUBNET, SUBNET, both), canister(10)).subnet_id == SUBNET.subnet_id
    with pytest.raises(LyingReplica, match="does not verify"):
        verifier.verify(signed_by(SUBNET, OTHER, both), canister(20))
    assert verifier.verify(signed_by(OTHER, OTHER, both), canister(20)).subnet_id == OTHER.subnet_id
    with pytest.raises(LyingReplica, match="not shown to host"):
        verifier.verify(signed_by(OTHER, OTHER, both), canister(10))


@pytest.mark.parametrize("subnet", [None, BlsKey(99)], ids=["the root subnet", "a subnet"])
async def test_nodes_that_vouch_for_one_canister_vouch_for_no_other(
    agent_of: AgentOf, start: Start, subnet: BlsKey | None
) -> None:
    replica = await start(subnet=subnet)
    agent = agent_of(replica)
    await agent.query(CANISTER, "hint", b"")
    with pytest.raises(LyingReplica, match="not shown to host"):
        await agent.query(ELSEWHERE, "hint", b"")


async def test_that_the_root_subnet_hosts_one_canister_says_nothing_of_another(
    agent: Agent, replica: TestReplica
) -> None:
    await agent.call(CANISTER, "look", b"")
    with pytest.raises(ChainError, match="not shown to host"):
        await agent.read_state(ELSEWHERE, [(b"time",)])


def test_a_certificate_of_another_subnet_is_none_of_the_one_that_was_asked_for() -> None:
    encoded = signed_by(SUBNET, SUBNET, granted({canister(10): ranges((canister(10), canister(15)))}))
    verifier = CertificateVerifier(ROOT.der)
    assert verifier.verify_of_subnet(encoded, SUBNET.subnet_id).subnet_id == SUBNET.subnet_id
    with pytest.raises(LyingReplica, match="was asked for"):
        verifier.verify_of_subnet(encoded, OTHER.subnet_id)


async def test_what_the_root_subnet_hosts_is_asked_again_after_five_minutes(
    agent: Agent, replica: TestReplica, clock: FakeClock
) -> None:
    await agent.call(CANISTER, "look", b"")
    replica.hosted = (ELSEWHERE, ELSEWHERE)  # the canister has moved
    clock.advance(301)
    with pytest.raises(LyingReplica, match="not shown to host"):
        await agent.call(CANISTER, "look", b"")


async def test_a_canister_that_has_moved_away_is_not_the_root_subnets_any_more(
    agent: Agent, replica: TestReplica
) -> None:
    """Else a genuine certificate of the root subnet would prove that a call on the other one is absent."""
    await agent.call(CANISTER, "look", b"")
    replica.subnet = SUBNET
    await agent.call(CANISTER, "look", b"")
    replica.subnet, replica.hosted = None, (ELSEWHERE, ELSEWHERE)
    with pytest.raises(LyingReplica, match="not shown to host"):
        await agent.call(CANISTER, "look", b"")


def of_before(replica: TestReplica, _: bytes) -> dict[str, bytes]:
    """What the subnet certified five minutes and a second ago, in full."""
    hidden, replica.hidden = replica.hidden, None
    try:
        return {"certificate": replica.certify(replica.now_ns() - 301 * SECOND)}
    finally:
        replica.hidden = hidden


async def test_an_old_certificate_does_not_show_what_the_root_subnet_hosts(agent: Agent, replica: TestReplica) -> None:
    await agent.synchronise(CANISTER)
    replica.hidden = b"subnet"  # the reply's own certificate does not show it
    replica.answer_with("read_state", *[answer(of_before)] * 6)
    with pytest.raises(LyingReplica, match="not shown to host"):
        await agent.call(CANISTER, "look", b"")


async def test_old_certificates_of_a_subnet_show_no_keys_of_its_nodes(
    agent: Agent, replica: TestReplica, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that has left the subnet since would vouch for answers."""
    await agent.query(CANISTER, "hint", b"")
    clock.advance(301)  # the keys are asked for again, where they were found before
    real = replica.certify
    monkeypatch.setattr(replica, "certify", lambda _=None: real(replica.now_ns() - 301 * SECOND))
    with pytest.raises(LyingReplica, match="too old"):
        await agent.query(CANISTER, "hint", b"")


@pytest.mark.parametrize(("late_s", "expired"), [(-1, False), (0, False), (1, True), (300, True)])
async def test_a_call_has_expired_when_a_later_certificate_shows_it_absent(
    agent: Agent, replica: TestReplica, clock: FakeClock, late_s: int, expired: bool
) -> None:
    """At the very moment of its expiry it may be executed still."""
    await agent.synchronise(CANISTER)
    call = agent.sign_call(CANISTER, "pay", b"")
    clock.advance((call.ingress_expiry_ns - replica.now_ns()) / SECOND + late_s)
    with pytest.raises(CallExpired if expired else OutcomeUnknown):
        await agent.outcome(call, give_up_after_s=0)
