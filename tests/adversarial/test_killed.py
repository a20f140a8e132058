"""Killed at every point between intent, transfer, notification, deposit and the certified look: one payment each.

The points are those that the node's own work passes, in order; a test holds the lists below to that. A kill drops
everything in memory: what goes on is a new node on what the disk had at that moment.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import pytest

from protocol.effects import Phase
from protocol.funding import IntentStatus
from tests.adversarial.axe import Axe
from tests.adversarial.beliefs import check_beliefs
from tests.adversarial.house import FEE, HOUR_S, ICP, House
from tests.adversarial.inhabitant import OURS, Inhabitant

FRIEND: Final = bytes.fromhex("1c7a48ba6a562aa9eaa2481a9049cdf0433b9738c992d698c31d8abf89cadc79")

FUNDING: Final = (
    "query_holdings is answered",
    "query_holdings is answered (2)",
    "query_state is answered",
    "transfer_fee is answered",
    "account_balance is answered",
    "query_blocks is answered",
    "the intent is durable",
    "the request is durable",
    "transfer is to be sent",
    "transfer is answered",
    "transfer paid is durable",
    "query_holdings is answered (3)",
    "query_holdings is answered (4)",
    "transaction_notification is to be sent",
    "transaction_notification is answered",
    "deposit is to be sent",
    "deposit is answered",
    "transfer credited is durable",
    "query_holdings is answered (5)",
    "query_holdings is answered (6)",
    "query_state is answered (2)",
)
WITHDRAWING: Final = (
    "query_state is answered",
    "query_holdings is answered",
    "query_holdings is answered (2)",
    "transfer_fee is answered",
    "conclude is to be sent",
    "conclude is answered",
    "query_state is answered (2)",
    "query_holdings is answered (3)",
    "query_holdings is answered (4)",
    "transfer_fee is answered (2)",
    "query_blocks is answered",
    "the withdrawal is durable",
    "withdraw is to be sent",
    "withdraw is answered",
    "query_blocks is answered (2)",
    "withdrawal paid is durable",
    "query_state is answered (3)",
    "query_holdings is answered (5)",
    "query_holdings is answered (6)",
    "transfer_fee is answered (3)",
)
SENDING: Final = (
    "the request is durable",
    "transfer is to be sent",
    "transfer is answered",
    "transfer paid is durable",
)
ASKED_FOR: Final = FUNDING[FUNDING.index("the intent is durable") : FUNDING.index("transfer paid is durable") + 1]
"""From the intent to the proof."""


class Lives:
    """A node that dies and comes back. `node`: the one of now."""

    def __init__(self, house: House, directory: Path) -> None:
        self.house = house
        self.node = Inhabitant(house, directory / "alice")
        house.mint(self.node.wallet, 20 * ICP)

    async def killed_at(self, point: str, begin: Callable[[], object]) -> None:
        """Let the node work until that point, kill it there, and have the next one ready."""
        axe = Axe(self.node, point)
        self.node.start(watching=False)
        begin()
        await axe.fallen()
        await self.die()

    async def die(self) -> None:
        self.node = await self.node.crash()

    def agree(self) -> None:
        self.peer = self.node.agree(theirs=0)

    async def ready_to_withdraw(self) -> None:
        """Die with the final state on the disk, and nobody told of it."""
        self.node.start()
        self.agree()
        await self.node.opened(self.peer)
        await self.node.pay(ICP)
        await self.house.order("drop_before", endpoint="any")
        driver = self.node.driver
        driver.perform(driver.channel.close(self.node.services.time.now(), "the test is over"))
        await self.node.until(lambda: driver.durable_newest.state.finalized, "a final state")
        await self.die()
        await self.house.clear()

    async def plan(self) -> int:
        intent = await self.node.services.transfers.plan(FRIEND, ICP, 0, None)
        return intent.number

    def sent(self, number: int) -> IntentStatus:
        intent = self.node.services.store.read.transfer(number)
        assert intent is not None
        return intent.status

    @property
    def deposits(self) -> list[int]:
        return self.house.transfers(self.node.wallet, self.node.canister)

    @property
    def payouts(self) -> list[int]:
        return self.house.transfers(self.node.canister, self.node.wallet)


@pytest.fixture
async def lives(house: House, tmp_path: Path) -> AsyncIterator[Lives]:
    lives = Lives(house, tmp_path)
    yield lives
    check_beliefs(lives.node)
    await lives.node.stop()


async def test_these_are_all_the_points_of_paying_in(lives: Lives) -> None:
    axe = Axe(lives.node)
    lives.node.start(watching=False)
    lives.agree()
    await lives.node.until(lambda: lives.node.driver.channel.we_are_ready, "our look at the deposit")
    assert tuple(axe.points) == FUNDING, "a new point of funding needs its test: put it into the list"


async def test_these_are_all_the_points_of_paying_out(lives: Lives) -> None:
    await lives.ready_to_withdraw()
    axe = Axe(lives.node)
    lives.node.start(watching=False)
    await lives.node.closed()
    assert tuple(axe.points) == WITHDRAWING, "a new point of settling needs its test: put it into the list"


async def test_these_are_all_the_points_of_sending(lives: Lives) -> None:
    number = await lives.plan()
    axe = Axe(lives.node)
    lives.node.start(watching=False)
    await lives.node.until(lambda: tuple(axe.points[-1:]) == SENDING[-1:], "the end of the transfer")
    assert tuple(axe.points) == SENDING, "a new point of sending needs its test: put it into the list"
    assert lives.sent(number) is IntentStatus.PAID


@pytest.mark.parametrize("point", FUNDING)
async def test_killed_while_paying_in_it_has_paid_once(lives: Lives, point: str) -> None:
    await lives.killed_at(point, lives.agree)
    lives.node.start()
    await lives.node.until(lambda: lives.node.driver.channel.we_are_ready, "our look at the deposit")
    assert lives.deposits == [OURS]
    assert lives.house.holdings(lives.node.driver.channel.terms.funding(0)) == OURS
    assert lives.house.balance(lives.node.wallet) == 20 * ICP - OURS - FEE


@pytest.mark.parametrize("point", WITHDRAWING)
async def test_killed_while_paying_out_it_is_paid_once(lives: Lives, point: str) -> None:
    await lives.ready_to_withdraw()
    await lives.killed_at(point, lambda: None)
    lives.node.start()
    await lives.node.closed()
    assert lives.payouts == [OURS - ICP - FEE]
    booked = [w.received_e8s for w in lives.node.services.store.read.withdrawals(1) if w.status == "paid"]
    assert booked == [OURS - ICP - FEE]
    assert [(c.what, c.amount_e8s) for c in lives.node.services.store.read.costs(1)] == [
        ("deposit fee", FEE),
        ("withdrawal fee", FEE),
    ]


@pytest.mark.parametrize("point", SENDING)
async def test_killed_while_sending_it_has_sent_once(lives: Lives, point: str) -> None:
    number = await lives.plan()
    await lives.killed_at(point, lambda: None)
    lives.node.start()
    await lives.node.until(lambda: lives.sent(number) is not IntentStatus.OPEN, "the end of the transfer")
    assert lives.house.transfers(lives.node.wallet, FRIEND) == [ICP]


@pytest.mark.parametrize("point", SENDING)
async def test_twenty_five_hours_later_the_blocks_decide_what_was_sent(lives: Lives, point: str) -> None:
    number = await lives.plan()
    await lives.killed_at(point, lambda: None)
    done = lives.house.transfers(lives.node.wallet, FRIEND)
    lives.house.advance(25 * HOUR_S)
    lives.node.start()
    await lives.node.until(lambda: lives.sent(number) is not IntentStatus.OPEN, "the end of the transfer")
    assert lives.house.transfers(lives.node.wallet, FRIEND) == done, "the ledger has forgotten it: sent once more"
    assert lives.sent(number) is (IntentStatus.PAID if done else IntentStatus.VOID)


@pytest.mark.parametrize("point", ASKED_FOR)
async def test_twenty_five_hours_later_a_deposit_that_was_made_comes_back_whole(lives: Lives, point: str) -> None:
    await lives.killed_at(point, lives.agree)
    done = lives.deposits
    lives.house.advance(25 * HOUR_S)
    lives.node.start()
    await lives.node.until(lambda: not lives.node.node.drivers or _leaves(lives.node), "giving up the channel")
    lives.house.advance(61)  # the dispute that gets the deposit back has its challenge period
    await lives.node.closed()
    assert lives.deposits == done, "the ledger has forgotten it: paid once more"
    assert lives.payouts == [amount - FEE for amount in done]
    assert lives.house.balance(lives.node.wallet) == 20 * ICP - 2 * FEE * len(done)


def _leaves(node: Inhabitant) -> bool:
    jobs = [job for jobs in node.node.jobs.values() for job in jobs.of()]
    waits = any(job.waiting_for == "the challenge period to end" for job in jobs)
    return waits and node.driver.channel.phase is Phase.LEAVING
