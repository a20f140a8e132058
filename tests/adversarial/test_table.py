"""The adversarial table: what the node concludes from each fault of the line and each lie of a replica.

One row is one test. A row lives a channel's life with its fault at every step that touches the Internet Computer:
it funds, looks, refutes, withdraws, sends, and closes a second channel together. All the while what the node
believes is held beside the truth; and it goes on when the fault ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import pytest

from chain.errors import ChainError
from devnet.replica.faults import DELAYED, KINDS
from perund.node.transfers import Transfers
from protocol.effects import Phase
from protocol.funding import IntentStatus
from tests.adversarial.beliefs import believing_nothing_false
from tests.adversarial.house import FEE, ICP, House
from tests.adversarial.inhabitant import OURS, Inhabitant, Peer

FRIEND: Final = bytes.fromhex("1c7a48ba6a562aa9eaa2481a9049cdf0433b9738c992d698c31d8abf89cadc79")
ENOUGH: Final = 2
"""Hits after which a fault has had its chance at a step."""


@dataclass(frozen=True)
class Row:
    """`stops`: whether nothing can be concluded before the fault ends; `expires`: nor before the call has expired."""

    fault: str
    conclusion: str
    stops: bool = True
    expires: bool = False

    @property
    def name(self) -> str:
        return f"{self.fault}: {self.conclusion}"


TABLE: Final = (
    Row("slow", "the answer is taken when it comes", stops=False),
    Row("withheld", "the answer is as old as its question", stops=False),
    Row("drop", "nothing is known, the same request is sent again"),
    Row("drop_before", "nothing is known, the same request is sent again"),
    Row("http_500", "nothing is known, the same request is sent again"),
    Row("http_503", "nothing is known, the same request is sent again"),
    Row("http_429", "nothing is known, the same request is sent again"),
    Row("garbage", "no answer: it proves nothing"),
    Row("truncated", "no answer: it proves nothing"),
    Row("wrong_cbor", "no answer: it proves nothing"),
    Row("endless", "no answer: it is cut off"),
    Row("reject", "one node's word: it proves nothing"),
    Row("reject_executed", "one node's word, and a lie: it proves nothing"),
    Row("reject_certified", "what a rejected withdrawal did is shown by its expiry", expires=True),
    Row("stale_certificate", "absent so far is not absent for ever"),
    Row("replayed", "a certificate about another request is none"),
    Row("hidden_status", "a certificate that hides the request is none"),
    Row("wrong_signature", "a certificate that does not verify is none"),
    Row("wrong_key", "a certificate of another network is none"),
    Row("delegation_by_stranger", "a delegation that the root did not sign is none"),
    Row("delegation_of_other_subnet", "a delegation of another subnet is none"),
    Row("delegation_out_of_range", "a subnet speaks for its own canisters only"),
    Row("stale_query", "a query decides nothing", stops=False),
    Row("hidden_registration", "a query decides nothing", stops=False),
    Row("far_cursor", "a query moves no cursor", stops=False),
    Row("wrong_node", "a query decides nothing", stops=False),
)


def test_every_fault_of_the_devnet_has_its_row() -> None:
    assert sorted(row.fault for row in TABLE) == sorted(KINDS)


@dataclass
class Step:
    """One step of the life under a fault."""

    house: House
    alice: Inhabitant
    row: Row

    async def under_fault(
        self, what: str, begin: Callable[[], Awaitable[object]], done: Callable[[], object], method: str | None = None
    ) -> None:
        """Begin something while the fault is on; see that it ends as it must, with or without the fault."""
        before = await self.house.hits(self.row.fault)
        await self._order(method)
        await begin()
        if self.row.stops:
            await self.house.hit(self.row.fault, before + ENOUGH)
            assert not done(), f"{what}: concluded from {self.row.fault}"
        else:
            await self.alice.until(done, f"{what} under {self.row.fault}")
        await self.house.clear()
        if self.row.expires and method is not None:
            self.house.advance(300)  # a call that awaits the ledger may have paid before it was rejected
        await self.alice.until(done, f"{what} after {self.row.fault}")

    async def _order(self, method: str | None) -> None:
        """Have everything fail, or only a method and the reads that tell of it."""
        seconds = {"seconds": 0.02} if self.row.fault in DELAYED else {}
        endpoints = KINDS[self.row.fault]
        for endpoint in sorted(endpoints):
            only = {"method": method} if method is not None and endpoint != "read_state" else {}
            await self.house.order(self.row.fault, endpoint=endpoint, **seconds, **only)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
async def test_a_node_under(row: Row, house: House, alice: Inhabitant) -> None:
    step = Step(house, alice, row)
    async with believing_nothing_false(alice):
        peer = await _fund(step)
        await _look(step)
        await _refute(step, peer)
        await _withdraw(step)
        await _send(step)
        await _close_together(step)
    # What came in and what went out, to the e8: 5 less the 2 that were paid, and two fees for each channel.
    deposits = house.transfers(alice.wallet, alice.canister)
    assert deposits == [OURS, OURS]
    assert house.transfers(alice.canister, alice.wallet) == [OURS - 2 * ICP - FEE, OURS - FEE]
    assert house.transfers(alice.wallet, FRIEND) == [ICP]


async def _fund(step: Step) -> Peer:
    alice = step.alice
    step.house.mint(alice.wallet, 20 * ICP)
    peer: list[Peer] = []

    async def begin() -> None:
        peer.append(alice.agree())
        await alice.peer_pays()

    await step.under_fault("funding", begin, lambda: alice.driver.channel.we_are_ready)
    await alice.opened(peer[0])
    return peer[0]


async def _look(step: Step) -> None:
    seen: list[object] = []

    async def begin() -> None:
        step.alice.node.spawn(_look_until_seen(step.alice, seen), "look")

    await step.under_fault("looking", begin, lambda: seen)
    assert seen == [None]


async def _look_until_seen(alice: Inhabitant, seen: list[object]) -> None:
    """Note what a certified look shows as registered, once there is one."""
    while not seen:
        try:
            seen.append((await alice.services.watcher.look(alice.driver.channel.id)).registered)
        except ChainError:
            await asyncio.sleep(0.01)


async def _refute(step: Step, peer: Peer) -> None:
    alice = step.alice
    await alice.pay(ICP)
    await alice.pay(ICP)
    driver = alice.driver

    async def begin() -> None:
        step.house.dispute(driver.channel.terms.params, peer.signed[1])
        alice.services.watcher.hurry(driver.channel.id)

    def done() -> bool:
        return driver.registered is not None and driver.registered.state.version == 2

    await step.under_fault("refuting", begin, done)
    assert step.house.registered_version(driver.channel.id) == 2


async def _withdraw(step: Step) -> None:
    alice = step.alice
    driver = alice.driver

    async def begin() -> None:
        step.house.advance(61)
        alice.services.watcher.hurry(driver.channel.id)

    await step.under_fault("withdrawing", begin, lambda: driver.channel.phase is Phase.CLOSED, "withdraw")
    await alice.closed()


async def _send(step: Step) -> None:
    transfers, read = step.alice.services.transfers, step.alice.services.store.read
    intent = await transfers.plan(FRIEND, ICP, 0, None)

    async def begin() -> None:
        step.alice.node.spawn(_follow(transfers, intent.number), "send")

    def done() -> bool:
        found = read.transfer(intent.number)
        assert found is not None
        assert found.status is not IntentStatus.VOID
        return found.status is IntentStatus.PAID

    await step.under_fault("sending", begin, done)


async def _follow(transfers: Transfers, number: int) -> None:
    while (await transfers.drive(number)).status is IntentStatus.OPEN:  # noqa: ASYNC110  (each turn asks the ledger)
        await asyncio.sleep(0.01)


async def _close_together(step: Step) -> None:
    alice = step.alice
    peer = alice.agree(nonce=b"m")
    await alice.peer_pays()
    await alice.opened(peer)
    driver = alice.driver

    async def begin() -> None:
        driver.perform(driver.channel.close(alice.services.time.now(), "the test is over"))

    await step.under_fault("concluding", begin, lambda: driver.channel.phase is Phase.CLOSED)
    await alice.closed()
