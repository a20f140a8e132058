"""Whatever the ledger and the canister do, a deposit is paid at most once, and the channel gets funded."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.funding import (
    Abort,
    Complete,
    Credit,
    DepositIntent,
    IntentStatus,
    Pay,
    PayNew,
    Wait,
    next_funding_action,
)
from protocol.types import Nanos, ParticipantIndex

statuses = st.sampled_from(IntentStatus)
amounts = st.integers(0, 100)


@given(
    ours=st.sampled_from([0, 1]),
    shares=st.tuples(amounts, amounts),
    holdings=st.tuples(st.integers(0, 150), st.integers(0, 150)),
    made=st.lists(st.tuples(st.integers(1, 100), statuses), max_size=4),
    registered=st.booleans(),
    aborting=st.booleans(),
    recovering=st.booleans(),
    late=st.booleans(),
)
def test_never_more_than_the_share(
    ours: ParticipantIndex,
    shares: tuple[int, int],
    holdings: tuple[int, int],
    made: list[tuple[int, IntentStatus]],
    registered: bool,
    aborting: bool,
    recovering: bool,
    late: bool,
) -> None:
    intents = tuple(DepositIntent(n, amount, 10, 99, Nanos(1), status, None) for n, (amount, status) in enumerate(made))
    action = next_funding_action(
        ours=ours, shares=shares, holdings=holdings, intents=intents, registered=registered, aborting=aborting,
        recovering=recovering, chain_ns=Nanos(2 if late else 1), deadline_ns=Nanos(2),
    )  # fmt: skip
    unfinished = [i for i in intents if i.status in (IntentStatus.OPEN, IntentStatus.PAID)]
    match action:
        case PayNew():
            assert not unfinished  # one thing at a time
            assert not (registered or aborting or recovering or late)
            assert 0 < action.amount_e8s <= shares[ours] - holdings[ours]
            assert ours == 0 or holdings[0] >= shares[0]
            credited = sum(i.amount_e8s for i in intents if i.status is IntentStatus.CREDITED)
            assert action.amount_e8s <= shares[ours] - credited
        case Pay():
            assert action.intent.status is IntentStatus.OPEN
            assert action.intent in intents
        case Credit():
            assert action.intent.status is IntentStatus.PAID
            assert action.intent in intents
        case Complete():
            assert holdings[0] >= shares[0] and holdings[1] >= shares[1] and not registered and not unfinished
        case Abort():
            assert registered or late
        case Wait():
            assert not unfinished


@settings(max_examples=200)
@given(share=st.integers(1, 100), choices=st.lists(st.integers(0, 5), max_size=30), lag=st.booleans())
def test_the_whole_way_with_lost_replies_and_old_looks(share: int, choices: list[int], lag: bool) -> None:
    """The ledger pays or refuses for good, replies get lost, looks are old: what was paid never exceeds the share."""
    intents: list[DepositIntent] = []
    on_ledger: dict[int, int] = {}
    held, looked = 0, 0
    todo = iter(choices)

    def act(choice: int) -> bool:
        nonlocal held, looked
        action = next_funding_action(
            ours=0, shares=(share, 0), holdings=(looked, 0), intents=tuple(intents), registered=False, aborting=False,
            recovering=False, chain_ns=Nanos(1), deadline_ns=Nanos(2),
        )  # fmt: skip
        match action:
            case PayNew():
                number = len(intents)
                intents.append(DepositIntent(number, action.amount_e8s, 10, 9, Nanos(1), IntentStatus.OPEN, None))
            case Pay():
                place, i = action.intent.number, action.intent
                if choice == 0 and place not in on_ledger:
                    intents[place] = replace(i, status=IntentStatus.VOID)  # refused, and proven so
                    return False
                on_ledger[place] = i.amount_e8s  # a duplicate is the same transfer
                if choice != 1:  # else the reply is lost
                    intents[place] = replace(i, status=IntentStatus.PAID, block=place)
            case Credit():
                held += on_ledger[action.intent.number]
                intents[action.intent.number] = replace(action.intent, status=IntentStatus.CREDITED)
            case Wait():
                looked = held
            case Complete():
                return True
            case Abort():
                raise AssertionError("nothing failed")
        if not lag or choice == 2:
            looked = held
        assert sum(on_ledger.values()) <= share, "paid more than the share"
        return False

    while not act(next(todo, 5)):
        assert len(intents) < 50
    assert held == sum(on_ledger.values()) == share
