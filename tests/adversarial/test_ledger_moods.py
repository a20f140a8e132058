"""What the ledger may answer to a transfer, and what of it proves anything: one payment, whatever it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from devnet.ledger.ledger import BadFee, InsufficientFunds, Refusal, TransferRequest, TxCreatedInFuture, TxTooOld
from perund.control.schema import Channel
from perund.node.views import channel_view
from protocol.funding import IntentStatus
from tests.adversarial.axe import Axe
from tests.adversarial.beliefs import check_beliefs
from tests.adversarial.house import FEE, ICP, House, house_of
from tests.adversarial.inhabitant import OURS, Inhabitant
from tests.adversarial.moody import MoodyLedger, moody_network

DEARER = 2 * FEE
REFUSALS = [
    BadFee(DEARER),
    TxTooOld(24 * 3600 * 10**9),
    TxCreatedInFuture(1),
    InsufficientFunds(0),
]


@dataclass
class Scene:
    """`node` funds a channel that is all its own."""

    house: House
    ledger: MoodyLedger
    node: Inhabitant

    def begin(self) -> None:
        self.node.agree(theirs=0)

    async def die_and_come_back(self) -> None:
        self.node = (await self.node.crash()).start()

    async def funded(self) -> None:
        await self.node.until(lambda: self.node.driver.channel.we_are_ready, "our look at the deposit")

    async def waits(self, what: str) -> None:
        jobs = self.node.node.jobs
        await self.node.until(lambda: any(what in j.waiting_for for js in jobs.values() for j in js.of()), what)

    @property
    def deposits(self) -> list[int]:
        return self.house.transfers(self.node.wallet, self.node.canister)

    def statuses(self) -> list[IntentStatus]:
        return [intent.status for intent in self.node.services.store.read.deposits(1)]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    ledger, network = moody_network()
    async with house_of(network) as house:
        scene = Scene(house, ledger, Inhabitant(house, tmp_path / "alice"))
        house.mint(scene.node.wallet, 20 * ICP)
        scene.node.start()
        yield scene
        check_beliefs(scene.node)
        await scene.node.stop()


def change_the_fee(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("ledger", "binding"):
        monkeypatch.setattr(f"devnet.ledger.{module}.TRANSFER_FEE_E8S", DEARER)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda r: type(r).__name__)
async def test_a_first_request_that_is_refused_is_void_and_another_transfer_is_made(
    scene: Scene, refusal: Refusal
) -> None:
    scene.ledger.will(execute=False, say=refusal)
    scene.begin()
    await scene.funded()
    assert scene.statuses() == [IntentStatus.VOID, IntentStatus.CREDITED]
    assert scene.deposits == [OURS]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda r: type(r).__name__)
async def test_a_refusal_after_a_lost_reply_proves_nothing_about_the_transfer(scene: Scene, refusal: Refusal) -> None:
    axe = Axe(scene.node, "transfer is answered")  # it was made, and nobody heard of it
    scene.begin()
    await axe.fallen()
    for _ in range(3):
        scene.ledger.will(execute=False, say=refusal)
    await scene.die_and_come_back()
    await scene.funded()  # the ledger recovers: the same transfer again is a duplicate
    assert scene.statuses() == [IntentStatus.CREDITED]
    assert scene.deposits == [OURS]


@pytest.mark.parametrize("executed", [True, False], ids=["made", "not made"])
async def test_a_fee_that_changes_after_a_lost_reply_leaves_it_to_the_blocks(
    scene: Scene, executed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    axe = Axe(scene.node, "transfer is answered" if executed else "transfer is to be sent")
    scene.begin()
    await axe.fallen()
    change_the_fee(monkeypatch)
    asked = scene.ledger.asked
    await scene.die_and_come_back()
    await scene.node.until(lambda: scene.ledger.asked >= asked + 3, "asking for the same transfer again")
    assert scene.statuses() == [IntentStatus.OPEN], "BadFee says nothing about the request whose reply was lost"
    scene.house.advance(300)  # every request has expired: now the blocks tell
    await scene.funded()
    assert scene.deposits == [OURS]
    assert scene.statuses() == ([] if executed else [IntentStatus.VOID]) + [IntentStatus.CREDITED]
    paid = FEE if executed else DEARER
    assert scene.house.balance(scene.node.wallet) == 20 * ICP - OURS - paid


async def test_a_wallet_that_is_emptied_meanwhile_pays_when_it_is_filled_again(scene: Scene) -> None:
    axe = Axe(scene.node, "the intent is durable")
    scene.begin()
    await axe.fallen()
    everything = TransferRequest(scene.node.canister, 20 * ICP - FEE, FEE)  # to where nobody counts it as ours
    emptied = scene.ledger.ledger.transfer(scene.node.services.wallet_principal, everything, scene.house.now_ns)
    assert isinstance(emptied, int)
    await scene.die_and_come_back()
    await scene.waits("the wallet holds 0 e8s")
    assert scene.statuses() == [IntentStatus.VOID]
    scene.house.mint(scene.node.wallet, 10 * ICP)
    await scene.funded()
    assert scene.statuses() == [IntentStatus.VOID, IntentStatus.CREDITED]
    assert scene.deposits == [20 * ICP - FEE, OURS]


async def test_a_ledger_that_answers_late_is_asked_again_and_pays_once(scene: Scene) -> None:
    scene.ledger.held = asyncio.Event()
    scene.begin()
    await scene.node.until(lambda: scene.ledger.asked == 1, "a request that waits")
    await scene.die_and_come_back()
    await scene.node.until(lambda: scene.ledger.asked == 2, "a second request that waits beside it")
    scene.ledger.held.set()
    await scene.funded()
    assert scene.deposits == [OURS]


async def test_nothing_more_is_paid_while_a_deposit_is_paid_and_not_credited(scene: Scene) -> None:
    await scene.house.order("reject_certified", method="transaction_notification")
    scene.begin()
    await scene.house.hit("reject_certified", 5)
    assert scene.statuses() == [IntentStatus.PAID]
    assert scene.house.holdings(scene.node.driver.channel.terms.funding(0)) == 0
    assert scene.deposits == [OURS]
    await scene.house.clear()
    await scene.funded()
    assert scene.deposits == [OURS]


@pytest.mark.parametrize("gift", [ICP, OURS, OURS + ICP], ids=["a part", "all of it", "more than that"])
async def test_what_somebody_else_paid_under_our_memo_counts_and_is_shown(scene: Scene, gift: int) -> None:
    await scene.house.order("drop_before", endpoint="any")
    scene.begin()
    terms = scene.node.driver.channel.terms
    await scene.house.deposit(b"friend".ljust(28, b".") + b"\x02", terms.funding(0), gift)
    await scene.house.clear()
    await scene.funded()
    assert scene.deposits == ([OURS - gift] if gift < OURS else [])
    await scene.node.until(lambda: "channel.paid_by_others" in scene.node.events(), "the news")
    view = _view(scene.node)
    assert view.credits is not None
    assert [(c.what, int(c.e8s)) for c in view.credits] == [("paid by others", gift)]
    assert view.holdings_e8s is not None
    assert int(view.holdings_e8s[0]) == max(OURS, gift)


def _view(node: Inhabitant) -> Channel:
    row = node.services.store.read.channel(1)
    assert row is not None
    jobs = node.node.jobs[node.driver.channel.id].of()
    return channel_view(row, node.services.store.read, node.driver, jobs, node.house.now_ns, 0)
