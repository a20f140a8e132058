"""Rounds: who shares a signature, and what a certificate is worth."""

from __future__ import annotations

import asyncio

import pytest

from devnet.replica.clock import ChainClock
from devnet.replica.gate import Gate
from devnet.replica.hash_tree import EMPTY, Leaf, put
from devnet.replica.keys import NodeKey, RootKey
from devnet.replica.requests import RequestLog
from devnet.replica.rounds import Round, Rounds
from devnet.replica.state_tree import StateTree
from tests.unit.replica.certificate_check import Certificate


def test_a_certificate_of_another_network_is_not_believed() -> None:
    ours, theirs = RootKey.generate(), RootKey.generate()
    tree = put(EMPTY, b"time", Leaf(b"\x01"))
    raw = Round(tree, ours.sign(tree.digest)).certificate([])
    assert Certificate(raw, ours.public_der).time_ns == 1
    with pytest.raises(AssertionError, match="signature"):
        Certificate(raw, theirs.public_der)


def make_rounds(root_key: RootKey) -> Rounds:
    clock = ChainClock(wall_ns=lambda: 1_000)
    tree = StateTree(root_key, NodeKey(bytes(32)), {})
    return Rounds(root_key, tree, RequestLog(), clock, Gate(), None)


async def test_who_waits_together_shares_a_signature() -> None:
    rounds = make_rounds(RootKey(5))
    together = await asyncio.gather(*(rounds.certified() for _ in range(10)))
    later = await rounds.certified()
    assert len({shared.signature for shared in together}) == 1
    assert later.signature != together[0].signature


async def test_one_who_gives_up_waiting_does_not_disturb_the_others() -> None:
    rounds = make_rounds(RootKey(5))
    impatient, patient = (asyncio.create_task(rounds.certified()) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    assert (await patient).signature


async def test_equal_states_have_equal_certificates() -> None:
    first, second = [await make_rounds(RootKey(7)).certified() for _ in range(2)]
    assert first.certificate([(b"subnet",)]) == second.certificate([(b"subnet",)])


def test_time_never_stands_still_or_runs_back() -> None:
    wall = iter([10, 10, 5, 20, 20])
    clock = ChainClock(wall_ns=lambda: next(wall))
    assert [clock.now_ns() for _ in range(4)] == [10, 11, 12, 20]
    assert clock.advance(100) == 120
    clock = ChainClock(wall_ns=lambda: 1)
    clock.restore(last_ns=50, offset_ns=10)
    assert (clock.now_ns(), clock.offset_ns) == (51, 10)
