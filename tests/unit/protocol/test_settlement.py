"""What to do next to get the money out: the decision table (DESIGN, sections 7 and 8)."""

from __future__ import annotations

import pytest

from protocol.effects import Phase
from protocol.settlement import (
    AwaitTimeout,
    Conclude,
    Dispute,
    Finished,
    FollowWithdrawal,
    ForceOut,
    SettlementAction,
    WaitForPeer,
    Withdraw,
    next_settlement_action,
)
from protocol.types import ChannelId, Nanos, RegisteredState, SignedState, State
from tests.unit.protocol.scene import sign_both

CHANNEL = ChannelId(b"\x07" * 64)
NOW, FORCE_AT, TIMEOUT, FEE = Nanos(1000), Nanos(1500), Nanos(2000), 10


def state(version: int, *, final: bool = False) -> SignedState:
    return sign_both(State(CHANNEL, version, (60, 40), final))


def registered(version: int, *, final: bool = False, timeout_ns: Nanos = TIMEOUT) -> RegisteredState:
    return RegisteredState(state(version, final=final).state, timeout_ns)


def decide(
    newest: SignedState,
    on_canister: RegisteredState | None = None,
    *,
    phase: Phase = Phase.LEAVING,
    chain_ns: Nanos = NOW,
    holdings_e8s: int = 60,
    owed_e8s: int = 60,
    paid_out: bool = False,
    anything_held: bool = True,
    withdrawal_open: bool = False,
    recovering: bool = False,
) -> SettlementAction:
    return next_settlement_action(
        phase=phase, newest=newest, registered=on_canister, chain_ns=chain_ns, holdings_e8s=holdings_e8s,
        owed_e8s=owed_e8s, paid_out=paid_out, anything_held=anything_held, withdrawal_open=withdrawal_open,
        fee_e8s=FEE, force_at_ns=FORCE_AT, recovering=recovering,
    )  # fmt: skip


def test_closing_together_waits_for_the_final_state_and_then_concludes() -> None:
    assert decide(state(3), phase=Phase.CLOSING) == WaitForPeer(FORCE_AT)
    assert decide(state(3), phase=Phase.CLOSING, chain_ns=Nanos(FORCE_AT - 1)) == WaitForPeer(FORCE_AT)
    assert decide(state(3), phase=Phase.CLOSING, chain_ns=FORCE_AT) == ForceOut()
    assert decide(state(4, final=True), phase=Phase.CLOSING) == Conclude(state(4, final=True))


@pytest.mark.parametrize("phase", [Phase.CLOSING, Phase.LEAVING])
def test_a_final_state_concludes_whatever_is_registered(phase: Phase) -> None:
    final = state(4, final=True)
    for on_canister in (None, registered(0), registered(3)):
        assert decide(final, on_canister, phase=phase) == Conclude(final)


def test_alone_the_newest_state_is_disputed_and_an_older_one_refuted() -> None:
    assert decide(state(3)) == Dispute(state(3))
    assert decide(state(3), registered(2)) == Dispute(state(3))
    assert decide(state(3), registered(0)) == Dispute(state(3))
    assert decide(state(0)) == Dispute(state(0))


def test_ours_or_a_newer_one_is_waited_for() -> None:
    assert decide(state(3), registered(3)) == AwaitTimeout(TIMEOUT)
    assert decide(state(3), registered(9)) == AwaitTimeout(TIMEOUT)
    assert decide(state(3), registered(3), chain_ns=Nanos(TIMEOUT - 1)) == AwaitTimeout(TIMEOUT)


@pytest.mark.parametrize(
    "settled", [registered(3, timeout_ns=NOW), registered(4, final=True), registered(0, timeout_ns=NOW)]
)
def test_settled_is_withdrawn_one_withdrawal_at_a_time(settled: RegisteredState) -> None:
    assert decide(state(3), settled) == Withdraw(60)
    assert decide(state(3), settled, holdings_e8s=FEE + 1) == Withdraw(FEE + 1)
    for holdings in (60, FEE, 0):
        assert decide(state(3), settled, holdings_e8s=holdings, withdrawal_open=True) == FollowWithdrawal()


def test_empty_holdings_prove_nothing_until_a_payout_is_shown() -> None:
    settled = registered(4, final=True)
    assert decide(state(4, final=True), settled, holdings_e8s=0) == FollowWithdrawal()
    assert decide(state(4, final=True), settled, holdings_e8s=0, paid_out=True) == Finished(0)
    assert decide(state(4, final=True), settled, holdings_e8s=FEE, paid_out=True) == Finished(FEE)
    assert decide(state(4, final=True), settled, holdings_e8s=0, owed_e8s=FEE) == Finished(0)


def test_what_was_credited_late_is_withdrawn_too() -> None:
    assert decide(state(0), registered(0, timeout_ns=NOW), holdings_e8s=25, paid_out=True) == Withdraw(25)


def test_a_channel_that_nobody_funded_is_over() -> None:
    assert decide(state(0), anything_held=False, holdings_e8s=0) == Finished(0)
    assert decide(state(0), anything_held=True, holdings_e8s=0) == Dispute(state(0))


def test_closing_with_a_registered_state_does_not_wait_for_the_peer() -> None:
    assert decide(state(3), registered(2), phase=Phase.CLOSING) == Dispute(state(3))
    assert decide(state(3), registered(3), phase=Phase.CLOSING) == AwaitTimeout(TIMEOUT)
