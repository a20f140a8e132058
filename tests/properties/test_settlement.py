"""A settlement ends, whatever the canister's clock, the peer and the ledger do in between."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol.effects import Phase
from protocol.settlement import (
    AwaitTimeout,
    Conclude,
    Dispute,
    Finished,
    FollowWithdrawal,
    ForceOut,
    WaitForPeer,
    Withdraw,
    next_settlement_action,
)
from protocol.types import ChannelId, Nanos, RegisteredState, State
from tests.unit.protocol.scene import sign_both

CHANNEL = ChannelId(b"\x07" * 64)
FEE, CHALLENGE = 10, 1000
STATES = [sign_both(State(CHANNEL, v, (60, 40), v == 4)) for v in range(5)]


@given(
    newest=st.integers(0, 4),
    peer_registers=st.lists(st.integers(0, 4), max_size=6),
    phase=st.sampled_from([Phase.CLOSING, Phase.LEAVING]),
    ours=st.integers(0, 60),
    lost_replies=st.integers(0, 3),
)
def test_the_money_comes_out_once(
    newest: int, peer_registers: list[int], phase: Phase, ours: int, lost_replies: int
) -> None:
    now, registered = 0, None
    held, got, withdrawing, paid_out = ours, 0, False, False
    attacks = iter(peer_registers)
    for _ in range(100):
        attack = next(attacks, None)
        settled = registered is not None and registered.settled(Nanos(now))
        if attack is not None and not settled and (registered is None or registered.state.version < attack):
            registered = RegisteredState(STATES[attack].state, Nanos(now + CHALLENGE))
        action = next_settlement_action(
            phase=phase, newest=STATES[newest], registered=registered, chain_ns=Nanos(now), holdings_e8s=held,
            owed_e8s=ours, paid_out=paid_out, anything_held=True, withdrawal_open=withdrawing, fee_e8s=FEE,
            force_at_ns=Nanos(500), recovering=False,
        )  # fmt: skip
        settled = registered is not None and registered.settled(Nanos(now))
        match action:
            case Conclude():
                assert not settled
                registered = RegisteredState(action.signed.state, Nanos(now))
            case Dispute():
                assert not settled
                assert registered is None or registered.state.version < newest, "never against the same or a newer one"
                registered = RegisteredState(action.signed.state, Nanos(now + CHALLENGE))
            case AwaitTimeout():
                assert registered is not None and registered.state.version >= newest
                now = action.timeout_ns
            case WaitForPeer():
                assert registered is None
                now = action.until_ns
            case ForceOut():
                phase = Phase.LEAVING
            case Withdraw():
                assert settled and not withdrawing, "one withdrawal at a time"
                assert action.holdings_e8s == held > FEE
                withdrawing = True
                got, held = got + held - FEE, 0
            case FollowWithdrawal():
                assert withdrawing
                lost_replies -= 1
                if lost_replies < 0:
                    withdrawing, paid_out = False, True
            case Finished():
                assert settled and not withdrawing and action.dust_e8s == held <= FEE
                assert got == (ours - FEE if ours > FEE else 0)
                return
        now += 1
    raise AssertionError("it does not end")
