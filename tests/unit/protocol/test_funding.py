"""What to do next for a deposit: the decision table (DESIGN, section 5)."""

from __future__ import annotations

import pytest

from protocol.funding import (
    Abort,
    Complete,
    Credit,
    DepositIntent,
    FundingAction,
    IntentStatus,
    Pay,
    PayNew,
    Wait,
    next_funding_action,
)
from protocol.types import Nanos, ParticipantIndex

OPEN, PAID, CREDITED, VOID = IntentStatus
NOW, DEADLINE = Nanos(1000), Nanos(2000)


def intent(status: IntentStatus, amount_e8s: int = 70, number: int = 1) -> DepositIntent:
    block = 5 if status in (PAID, CREDITED) else None
    return DepositIntent(number, amount_e8s, 10, 99, Nanos(1), status, block)


def decide(
    ours: ParticipantIndex = 0,
    holdings: tuple[int, int] = (0, 0),
    intents: tuple[DepositIntent, ...] = (),
    *,
    shares: tuple[int, int] = (70, 30),
    registered: bool = False,
    aborting: bool = False,
    recovering: bool = False,
    chain_ns: Nanos = NOW,
) -> FundingAction:
    return next_funding_action(
        ours=ours, shares=shares, holdings=holdings, intents=intents, registered=registered, aborting=aborting,
        recovering=recovering, chain_ns=chain_ns, deadline_ns=DEADLINE,
    )  # fmt: skip


def test_the_proposer_pays_its_share_first() -> None:
    assert decide(0) == PayNew(70)
    assert isinstance(decide(1), Wait)
    assert isinstance(decide(1, (69, 0)), Wait)
    assert decide(1, (70, 0)) == PayNew(30)


def test_what_is_paid_is_what_is_missing() -> None:
    assert decide(0, (20, 0)) == PayNew(50)
    assert isinstance(decide(0, (70, 0)), Wait)
    assert isinstance(decide(0, (90, 0)), Wait)
    assert isinstance(decide(1, (70, 30 - 1), shares=(70, 29)), Complete)


def test_who_puts_nothing_in_pays_nothing() -> None:
    assert isinstance(decide(1, (0, 0), shares=(70, 0)), Wait)
    assert decide(1, (70, 0), shares=(70, 0)) == Complete()
    assert isinstance(decide(0, (0, 0), shares=(0, 30)), Wait)
    assert decide(1, (0, 0), shares=(0, 30)) == PayNew(30)


def test_an_open_intent_is_asked_for_again_and_no_other_is_made() -> None:
    assert decide(0, intents=(intent(OPEN),)) == Pay(intent(OPEN))
    assert decide(0, intents=(intent(OPEN, 40),)) == Pay(intent(OPEN, 40))
    assert decide(0, (70, 0), (intent(OPEN),)) == Pay(intent(OPEN))


def test_a_paid_intent_is_credited_before_anything_else() -> None:
    both = (intent(OPEN, number=1), intent(PAID, number=2))
    assert decide(0, intents=both) == Credit(both[1])


def test_a_void_intent_is_replaced() -> None:
    assert decide(0, intents=(intent(VOID),)) == PayNew(70)
    assert decide(0, intents=(intent(VOID), intent(OPEN, number=2))) == Pay(intent(OPEN, number=2))


def test_what_is_credited_and_not_yet_seen_is_not_paid_again() -> None:
    """Regression: with holdings from a look before the credit, the whole share was paid a second time."""
    assert isinstance(decide(0, (0, 0), (intent(CREDITED),)), Wait)
    assert isinstance(decide(0, (70, 0), (intent(CREDITED),)), Wait)
    assert decide(0, (40, 0), (intent(CREDITED, 40),)) == PayNew(30)


def test_complete_needs_each_share_not_the_sum() -> None:
    assert decide(0, (70, 30)) == Complete()
    assert decide(0, (71, 31)) == Complete()
    assert not isinstance(decide(0, (100, 0)), Complete)
    assert not isinstance(decide(0, (0, 100)), Complete)
    assert not isinstance(decide(1, (69, 31)), Complete)


def test_nothing_new_is_paid_after_the_deadline() -> None:
    assert decide(0, chain_ns=Nanos(DEADLINE - 1)) == PayNew(70)
    assert isinstance(decide(0, chain_ns=DEADLINE), Abort)
    assert isinstance(decide(0, (70, 0), chain_ns=DEADLINE), Abort)
    assert decide(0, (70, 30), chain_ns=DEADLINE) == Complete()


@pytest.mark.parametrize("holdings", [(0, 0), (70, 0), (70, 30)])
def test_nothing_new_is_paid_when_a_state_is_registered(holdings: tuple[int, int]) -> None:
    assert isinstance(decide(0, holdings, registered=True), Abort)
    assert isinstance(decide(1, holdings, registered=True), Abort)


def test_what_is_in_flight_is_finished_also_after_a_failure() -> None:
    for failed in ({"aborting": True}, {"registered": True}, {"chain_ns": DEADLINE}):
        assert decide(0, intents=(intent(PAID),), **failed) == Credit(intent(PAID))
        assert decide(0, intents=(intent(OPEN),), **failed) == Pay(intent(OPEN))


def test_after_a_failure_nothing_is_left_to_do_but_to_settle() -> None:
    assert isinstance(decide(0, aborting=True), Wait)
    assert isinstance(decide(0, (70, 30), aborting=True), Wait)
    assert isinstance(decide(0, (70, 0), (intent(CREDITED),), aborting=True, registered=True), Wait)


def test_who_may_have_lost_data_pays_nothing_and_gives_nothing_up() -> None:
    for holdings in ((0, 0), (70, 0)):
        for ours in (0, 1):
            assert isinstance(decide(ours, holdings, recovering=True), Wait)
    assert isinstance(decide(0, (70, 0), recovering=True, chain_ns=DEADLINE), Wait), "it may be open without us"
    assert isinstance(decide(0, (0, 0), recovering=True, chain_ns=DEADLINE), Abort), "nobody ever put anything in"
    assert isinstance(decide(0, (70, 30), recovering=True), Complete)
    assert isinstance(decide(0, (0, 0), (intent(PAID),), recovering=True), Credit), "what is in flight is credited"
