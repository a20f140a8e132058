"""What a caller is told whose node ends under it: over many tries, whatever was said is so after the restart."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import dataclass

from perund.control import schema
from perund.control.errors import NodeUnreachable, RpcError
from perund.control.methods import CHANNEL_PAY, WALLET_SEND
from perund.control.values import PaidE8s
from perund.demo.processes import NodeProcess
from tests.e2e.test_bad_disk import confined, ended
from tests.e2e.town import FEE, ICP, LOOK_AGAIN_S, Town, within

CRASHES = 5
ROOM_BYTES = 200_000
CALLERS = 4
"""Calls that wait at the moment at which the disk is full."""


@dataclass
class Said:
    """What the caller of one action was told. `action`: by what it is known; `name`: of the error, or "done"."""

    action: str
    name: str
    text: str = ""
    keyed: bool = False
    retryable: bool = True


async def fill(node: NodeProcess, crash: int) -> None:
    """Start a node on a disk that is full after some dozen transactions, each time in the midst of another page."""
    await node.stop()
    largest = max(path.stat().st_size for path in (node.log, *node.dir.iterdir()) if path.is_file())
    node.wrapper = confined(f"file-bytes={largest + ROOM_BYTES + crash * 1_357}")
    await node.start()


async def empty(node: NodeProcess) -> None:
    """Start a node, which has ended, where there is room."""
    assert await ended(node) == 1
    node.wrapper = ()
    await node.start()


async def test_what_is_said_of_a_payment_when_the_disk_is_full_is_so_after_the_restart(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    said: list[Said] = []

    def call(action: str, *, keyed: bool) -> schema.PayParams:
        return schema.PayParams(channel, PaidE8s(10_003), payment_id=action, idempotency_key=action if keyed else None)

    async def pay(*, keyed: bool) -> None:
        while True:
            action = os.urandom(16).hex()
            params = call(action, keyed=keyed)
            try:
                await alice.control.call(CHANNEL_PAY, params)
            except RpcError as error:
                said.append(Said(action, error.name, error.message, keyed, error.retryable))
                return
            except NodeUnreachable:  # it had hung up already: this call may be anything
                said.append(Said(action, "unreachable", keyed=keyed))
                return
            said.append(Said(action, "done"))

    names: Counter[str] = Counter()
    wanted: set[str] = set()
    for crash in range(CRASHES):
        await fill(alice, crash)
        said.clear()
        payers = [pay(keyed=number % 2 == 0) for number in range(CALLERS)]
        await within(asyncio.gather(*payers), "every caller is answered")
        await empty(alice)
        goes_on = {s.action for s in said if s.name in ("done", "wait_ended")}
        listed = await within(all_delivered(town, alice, channel, goes_on), "what goes on is delivered")
        for s in said:
            assert s.name in ("done", "wait_ended", "outcome_unknown", "storage_failed", "unreachable"), s
            assert s.name != "storage_failed" or s.action not in listed, f"nothing of it happened: {s}"
            assert s.retryable or not s.keyed
            if s.name in ("wait_ended", "outcome_unknown"):
                assert s.retryable == s.keyed, "without a key it would be paid twice"
                assert s.action in s.text, "it says what to look for"
            if s.keyed:  # the same again: it is paid now, whatever became of it
                paid = await within(alice.control.call(CHANNEL_PAY, call(s.action, keyed=True)), "paid in the end")
                assert (paid.status, paid.payment) == ("delivered", s.action)
                wanted.add(s.action)
        wanted |= listed
        names.update(s.name for s in said)
    assert names.total() - names["done"] == CRASHES * CALLERS
    paid_in_all = [p.payment for p in await town.payments(alice, channel)]
    assert sorted(paid_in_all) == sorted(wanted), "each once, and nothing else"
    await town.close(alice, channel)
    await town.settles(channel, alice, bob)


async def all_delivered(town: Town, node: NodeProcess, channel: str, wanted: set[str]) -> set[str]:
    """Return the ids of a node's payments as soon as these are there and none is on its way any more."""
    while True:
        listed = {p.payment: p.status for p in await town.payments(node, channel)}
        if wanted <= set(listed) and set(listed.values()) == {"delivered"}:
            return set(listed)
        await asyncio.sleep(LOOK_AGAIN_S)


async def test_what_is_said_of_a_transfer_when_the_disk_is_full_is_so_after_the_restart(town: Town) -> None:
    alice, bob = await town.pair()
    before = await town.balance(bob)
    sent = 0

    async def send() -> Said:
        nonlocal sent
        params = schema.SendParams(to=bob.info.account, amount_e8s=PaidE8s(ICP // 10))
        while True:
            try:
                await alice.control.call(WALLET_SEND, params)
            except RpcError as error:
                return Said(error.idempotency_key or "", error.name, error.message)
            except NodeUnreachable as error:  # it had refused all calls, and then hung up: nothing of this one happened
                return Said("", "node_stopping", str(error))
            sent += 1

    for crash in range(CRASHES // 2):
        await fill(alice, crash)
        told = await within(asyncio.gather(*(send() for _ in range(CALLERS))), "every caller is answered")
        await empty(alice)
        for said in told:
            assert said.name in ("outcome_unknown", "storage_failed", "node_stopping"), said
            assert bool(said.action) == (said.name == "outcome_unknown"), said
            if said.action:
                # What to ask: the same with the key that was told. It is done once, whether it was done before or not.
                params = schema.SendParams(bob.info.account, PaidE8s(ICP // 10), said.action)
                first = await within(alice.control.call(WALLET_SEND, params), "the end of a transfer")
                assert await within(alice.control.call(WALLET_SEND, params), "the same end") == first
                sent += 1
        assert await town.balance(bob) - before == sent * ICP // 10, "each once, and none that did not happen"
    assert await town.balance(alice) == 300 * ICP - sent * (ICP // 10 + FEE)
