"""What a node believes, held beside the truth at every turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from perund.node.driver import ChannelDriver
from protocol.funding import IntentStatus
from tests.adversarial.inhabitant import Inhabitant

__all__ = ["believing_nothing_false", "check_beliefs"]

TURN_S: Final = 0.003


def check_beliefs(node: Inhabitant) -> None:
    """Fail if the node believes a holding, a registered state, a transfer or a payout that is not."""
    for driver in node.node.drivers.values():
        _check_channel(node, driver)
    ledger = node.house.ledger.ledger
    for number in range(1, node.services.store.read.highest("transfer") + 1):
        transfer = node.services.store.read.transfer(number)
        if transfer is not None and transfer.status in (IntentStatus.PAID, IntentStatus.CREDITED):
            assert transfer.block is not None
            block = ledger.block(transfer.block)
            assert block is not None, f"transfer {number} is believed to be in a block that is not"
            assert block.transaction.memo == transfer.memo, f"transfer {number} is believed to be in another's block"


def _check_channel(node: Inhabitant, driver: ChannelDriver) -> None:
    house, terms = node.house, driver.channel.terms
    truth = house.registered_version(terms.channel)
    if driver.channel.we_are_ready and truth is None:
        for index in (0, 1):
            held = house.holdings(terms.funding(0 if index == 0 else 1))
            assert held >= terms.allocation[index], f"ready, but {index} holds {held}"
    if driver.registered is not None:
        assert truth is not None, "a registered state is believed in where none is"
        assert driver.registered.state.version <= truth, "a newer state is believed in than is registered"
    for deposit in node.services.store.read.deposits(driver.number):
        if deposit.status is IntentStatus.CREDITED and truth is None:
            assert house.holdings(terms.funding(terms.our_index)) >= deposit.amount_e8s, "a credit that is not"
    for withdrawal in node.services.store.read.withdrawals(driver.number):
        if withdrawal.status == "paid":
            assert withdrawal.received_e8s in house.transfers(node.canister, node.wallet), "a payout that is not"
    deposits = house.transfers(node.wallet, node.canister)
    assert len(deposits) <= len(node.services.store.read.phase_counts()) * 2, f"paid too often: {deposits}"


@asynccontextmanager
async def believing_nothing_false(node: Inhabitant) -> AsyncIterator[None]:
    """Compare all the while, not only at the end: a false belief must not be held for a moment."""

    async def compare() -> None:
        while True:
            check_beliefs(node)
            await asyncio.sleep(TURN_S)

    comparing = asyncio.create_task(compare())
    try:
        yield
    finally:
        if not comparing.done():
            comparing.cancel()
        await asyncio.gather(comparing, return_exceptions=True)
    if not comparing.cancelled():
        comparing.result()
    check_beliefs(node)
