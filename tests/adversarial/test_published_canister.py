"""Beside the published canister: the node asks it for nothing that its code is known to lose."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chain.errors import OutcomeUnknown
from devnet.ledger.accounts import account_identifier
from devnet.ledger.ledger import TransferRequest
from devnet.perun import interface as words
from perund.node.job import ChannelJob
from protocol.signing import ChannelKey
from protocol.types import WithdrawalRequest
from tests.adversarial.axe import Axe
from tests.adversarial.house import FEE, ICP, House, house_of
from tests.adversarial.inhabitant import OURS, PEER_PRINCIPAL, THEIRS, Inhabitant
from tests.adversarial.published import PublishedCanister, published_network

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


def published(house: House) -> PublishedCanister:
    canister = house.perun
    assert isinstance(canister, PublishedCanister)
    return canister


def funding(node: Inhabitant) -> ChannelJob:
    return node.node.jobs[node.driver.channel.id].funding


def settlement(node: Inhabitant) -> ChannelJob:
    return node.node.jobs[node.driver.channel.id].settlement


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
    published(house).besieged = True  # whatever is refused now is lost
    node.start()
    await node.closed()
    assert house.transfers(node.canister, node.wallet) == [OURS - ICP]
    assert fees_sent(house, node) == [FEE - there]
    assert costs(node) == {"deposit fee": FEE, "canister fee": FEE - there, "transfer fee": FEE, "withdrawal fee": 0}
    assert house.balance(node.wallet) == 20 * ICP - ICP - sum(costs(node).values())
    assert published(house).asked == [OURS - ICP]
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


async def test_a_fee_that_others_use_up_is_lent_again_only_while_it_is_little(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perund.node.payout_pool.most_lent_e8s", lambda payout_e8s, fee_e8s: 3 * fee_e8s)
    node = await settling(house, tmp_path)
    leave_only(house, node, OURS - ICP)
    for lent in range(1, 4):
        axe = Axe(node, "transfer paid is durable")
        node.start(watching=False)
        await axe.fallen()
        assert fees_sent(house, node) == [FEE] * lent
        leave_only(house, node, OURS - ICP)  # somebody else's payout takes it
        node = await node.crash()
    node.start()
    await node.until(lambda: settlement(node).problem, "a problem")
    assert "its account on the ledger lacks 10000 e8s, and at most" in settlement(node).problem
    assert fees_sent(house, node) == [FEE] * 3
    assert published(house).asked == [], "no payout was asked for that would have been refused"
    assert costs(node) == {"deposit fee": FEE, "canister fee": FEE, "transfer fee": FEE}
    assert [cost.what for cost in node.services.store.read.costs(1)].count("transfer fee") == 3
    house.mint(node.canister, FEE)  # somebody is kind
    await node.closed()
    assert house.transfers(node.canister, node.wallet) == [OURS - ICP]
    assert house.balance(node.wallet) == 20 * ICP - ICP - FEE - 3 * 2 * FEE
    await node.stop()


async def test_a_pool_that_lacks_more_than_a_little_is_neither_filled_up_nor_asked(
    house: House, tmp_path: Path
) -> None:
    node = await settling(house, tmp_path)
    leave_only(house, node, OURS - 2 * ICP)
    published(house).besieged = True
    ours = node.start().driver.channel.terms.funding(0)
    await node.until(lambda: settlement(node).problem, "a problem")
    assert "its account on the ledger lacks 100010000 e8s" in settlement(node).problem
    assert settlement(node).problem_since_ns > 0
    assert (fees_sent(house, node), published(house).asked) == ([], [])
    assert house.holdings(ours) == OURS - ICP, "the money is where it was"
    house.mint(node.canister, 2 * ICP)
    await node.closed()
    assert house.transfers(node.canister, node.wallet) == [OURS - ICP]
    await node.stop()


async def test_a_lonely_channel_pays_both_sides_although_the_pool_lacks_two_fees(house: House, tmp_path: Path) -> None:
    """The first payout takes its fee out of what is left for the second, which lacks that and its own."""
    node = await settling(house, tmp_path)
    leave_only(house, node, OURS - ICP - FEE)
    node.start()
    await node.closed()
    assert fees_sent(house, node) == [2 * FEE]
    assert house.transfers(node.canister, node.wallet) == [OURS - ICP]
    await node.stop()


async def test_while_the_fee_is_another_no_payout_is_asked_for(house: House, tmp_path: Path) -> None:
    node = await settling(house, tmp_path)
    house.ledger.ledger.change_fee(2 * FEE)
    node.start()
    await node.until(lambda: settlement(node).problem, "a problem")
    assert settlement(node).problem.startswith(
        "the ledger takes a fee of 20000 e8s, and this canister pays out with 10000"
    )
    assert published(house).asked == []
    house.ledger.ledger.change_fee(FEE)
    await node.closed()
    assert house.transfers(node.canister, node.wallet) == [OURS - ICP]
    await node.stop()


async def test_while_the_fee_is_another_nothing_is_paid_in(house: House, tmp_path: Path) -> None:
    house.ledger.ledger.change_fee(2 * FEE)
    node = Inhabitant(house, tmp_path / "alice").start()
    house.mint(node.wallet, 20 * ICP)
    node.agree(theirs=0)
    await node.until(lambda: funding(node).problem, "a problem")
    assert "nothing is paid in" in funding(node).problem
    assert house.transfers(node.wallet, node.canister) == []
    house.ledger.ledger.change_fee(FEE)
    await node.until(lambda: node.driver.channel.we_are_ready, "our deposit")
    await node.stop()


async def test_nothing_is_paid_to_a_canister_that_reads_another_ledger(house: House, tmp_path: Path) -> None:
    published(house).blind = True
    node = Inhabitant(house, tmp_path / "alice").start()
    house.mint(node.wallet, 20 * ICP)
    node.agree(theirs=0)
    await node.until(lambda: funding(node).problem, "a problem")
    assert "it may be made for another ledger" in funding(node).problem
    assert house.transfers(node.wallet, node.canister) == []
    await node.stop()


async def test_a_deposit_that_anybody_made_up_is_none(house: House, tmp_path: Path) -> None:
    node = Inhabitant(house, tmp_path / "alice").start()
    house.mint(node.wallet, 20 * ICP)
    node.agree()
    theirs = node.driver.channel.terms.funding(1)
    published(house).deposit_mocked(words.Funding(theirs.channel, theirs.participant), THEIRS)
    await node.until(lambda: funding(node).waiting_for == "the peer's deposit", "waiting for money")
    assert not node.driver.channel.we_are_ready
    await house.deposit(PEER_PRINCIPAL, theirs, THEIRS)
    await node.until(lambda: node.driver.channel.we_are_ready, "both deposits")
    await node.stop()


async def test_a_payout_of_nothing_is_not_taken_for_ours(house: House, tmp_path: Path) -> None:
    """Whoever saw our withdrawal can send it: it pays us. Sent once more, it pays nothing, and the answer is Ok."""
    node = await settling(house, tmp_path)
    house.mint(node.canister, 10 * ICP)
    axe = Axe(node, "withdraw is to be sent")
    node.start(watching=False)
    await axe.fallen()
    terms = node.driver.channel.terms
    key = ChannelKey(node.keys.participant_seed(terms.our_share))
    request = WithdrawalRequest(terms.funding(0), node.services.wallet_principal)
    ours = words.Funding(terms.channel, terms.funding(0).participant)
    copied = words.WithdrawalRequest(ours, request.receiver)
    assert isinstance(await house.perun.withdraw(copied, key.sign_withdrawal(request), house.now_ns), int)
    node = (await node.crash()).start()
    await node.closed()
    assert house.transfers(node.canister, node.wallet) == [OURS - ICP, 0]
    paid = [w for w in node.services.store.read.withdrawals(1) if w.status == "paid"]
    assert [w.received_e8s for w in paid] == [OURS - ICP]
    assert costs(node)["withdrawal fee"] == 0
    await node.stop()


async def test_a_withdrawal_waits_while_a_deposit_of_ours_is_notified(house: House, tmp_path: Path) -> None:
    """What the ledger refuses then is lost: nothing of our own is under way when we ask."""
    node = await settling(house, tmp_path)
    async with node.node._guard.turn():
        node.start()
        await node.until(lambda: house.registered_version(node.driver.channel.id), "a settled channel")
        asked = house.ledger.ledger.chain_length
        await node.agent.synchronise(node.services.ledger_principal)
        assert (published(house).asked, house.ledger.ledger.chain_length) == ([], asked)
    await node.closed()
    assert published(house).asked == [OURS - ICP]
    await node.stop()


async def test_a_withdrawal_waits_for_a_notification_whose_answer_was_lost(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(block: int) -> None:
        raise OutcomeUnknown(bytes(32), f"no answer about block {block}")

    node = await settling(house, tmp_path)
    await node.agent.synchronise(node.services.ledger_principal)
    monkeypatch.setattr(node.services.perun, "transaction_notification", silent)
    with pytest.raises(OutcomeUnknown):
        await node.node._guard.notify(0)
    node.start()
    await node.until(lambda: "its answer was lost" in settlement(node).waiting_for, "waiting for the notification")
    assert published(house).asked == []
    house.advance(6 * 60)
    await node.closed()
    await node.stop()


async def test_a_trap_at_the_door_is_asked_again_at_once(house: House, tmp_path: Path) -> None:
    """The lock is somebody else's: nothing was done, the holdings show it, and nobody waits for the call to expire."""
    node = await settling(house, tmp_path)
    await house.order("reject_certified", method="withdraw", count=3)
    node.start()
    await node.closed()
    assert [w.status for w in node.services.store.read.withdrawals(1)] == ["void"] * 3 + ["paid"]
    await node.stop()


async def test_a_lost_reply_is_found_on_the_ledger_at_once(house: House, tmp_path: Path) -> None:
    """The pool is empty because we were paid: nothing is sent again, and nobody waits for the call to expire."""
    node = await settling(house, tmp_path)
    leave_only(house, node, OURS - ICP + FEE)
    axe = Axe(node, "withdraw is answered")
    node.start(watching=False)
    await axe.fallen()
    node = (await node.crash()).start()
    await node.closed()
    assert published(house).asked == [OURS - ICP]
    assert house.transfers(node.canister, node.wallet) == [OURS - ICP]
    assert fees_sent(house, node) == []
    await node.stop()
