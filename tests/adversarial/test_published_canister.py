"""The published canister cannot pay when its pool lacks the ledger's fee: the node sends it the fee, once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from devnet.ledger.accounts import account_identifier
from devnet.ledger.ledger import TransferRequest
from tests.adversarial.axe import Axe
from tests.adversarial.house import FEE, ICP, House, house_of
from tests.adversarial.inhabitant import OURS, Inhabitant
from tests.adversarial.published import published_network

FEE_POINTS = (
    "the intent is durable",
    "the request is durable",
    "transfer is to be sent",
    "transfer is answered",
    "transfer paid is durable",
)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with house_of(published_network()) as opened:
        yield opened


async def settling(house: House, directory: Path) -> Inhabitant:
    """Return a node, not started, whose only channel is about to be concluded and withdrawn: 4 ICP are its own."""
    node = Inhabitant(house, directory / "alice").start()
    house.mint(node.wallet, 20 * ICP)
    peer = node.agree(theirs=0)
    await node.opened(peer)
    await node.pay(ICP)
    await house.order("drop_before", endpoint="any")
    driver = node.driver
    driver.perform(driver.channel.close(node.services.time.now(), "the test is over"))
    await node.until(lambda: driver.durable_newest.state.finalized, "a final state")
    node = await node.crash()
    await house.clear()
    return node


def leave_only(house: House, node: Inhabitant, e8s: int) -> None:
    """The peer's payout and other people's fees have left so much in the pool."""
    gone = house.balance(node.canister) - e8s - FEE
    away = TransferRequest(account_identifier(b"elsewhere"), gone, FEE)
    assert isinstance(house.ledger.ledger.transfer(node.services.perun_principal, away, house.now_ns), int)


def costs(node: Inhabitant) -> dict[str, int]:
    return {cost.what: cost.amount_e8s for cost in node.services.store.read.costs(1)}


def fees_sent(house: House, node: Inhabitant) -> list[int]:
    return [amount for amount in house.transfers(node.wallet, node.canister) if amount != OURS]


async def test_nothing_is_sent_while_the_pool_can_pay(house: House, tmp_path: Path) -> None:
    node = await settling(house, tmp_path)
    node.start()
    await node.closed()
    assert house.transfers(node.canister, node.wallet) == [OURS - ICP]
    assert fees_sent(house, node) == []
    assert "canister fee" not in costs(node)
    await node.stop()


@pytest.mark.parametrize("there", [0, 4_000], ids=["all of it", "a part of it"])
async def test_the_missing_fee_is_sent_and_the_withdrawal_succeeds(house: House, tmp_path: Path, there: int) -> None:
    node = await settling(house, tmp_path)
    leave_only(house, node, OURS - ICP + there)
    node.start()
    await node.closed()
    assert house.transfers(node.canister, node.wallet) == [OURS - ICP]
    assert fees_sent(house, node) == [FEE - there]
    assert costs(node) == {"deposit fee": FEE, "canister fee": FEE - there, "withdrawal fee": 0}
    assert "canister.fee_sent" in node.events()
    await node.stop()


@pytest.mark.parametrize("point", FEE_POINTS)
async def test_killed_while_it_sends_the_fee_it_has_sent_it_once(house: House, tmp_path: Path, point: str) -> None:
    node = await settling(house, tmp_path)
    leave_only(house, node, OURS - ICP)
    axe = Axe(node, point)
    node.start(watching=False)
    await axe.fallen()
    node = (await node.crash()).start()
    await node.closed()
    assert fees_sent(house, node) == [FEE]
    assert house.transfers(node.canister, node.wallet) == [OURS - ICP]
    assert costs(node)["canister fee"] == FEE
    await node.stop()


async def test_a_fee_that_others_use_up_is_not_sent_again(house: House, tmp_path: Path) -> None:
    node = await settling(house, tmp_path)
    leave_only(house, node, OURS - ICP)
    axe = Axe(node, "transfer paid is durable")
    node.start(watching=False)
    await axe.fallen()
    leave_only(house, node, OURS - ICP)  # somebody else's payout takes it
    node = (await node.crash()).start()
    refused = "the canister to pay out (LedgerError)"
    await node.until(lambda: any(j.waiting_for == refused for js in node.node.jobs.values() for j in js.of()), refused)
    before = house.ledger.ledger.chain_length
    await node.until(lambda: len(node.services.store.read.withdrawals(1)) >= 4, "asking again")
    assert house.ledger.ledger.chain_length == before
    assert fees_sent(house, node) == [FEE]
    await node.stop()


async def test_a_pool_that_lacks_more_than_a_fee_is_not_filled_up(house: House, tmp_path: Path) -> None:
    node = await settling(house, tmp_path)
    leave_only(house, node, OURS - 2 * ICP)
    node.start()
    await node.until(lambda: len(node.services.store.read.withdrawals(1)) >= 3, "asking again")
    assert fees_sent(house, node) == []
    await node.stop()
