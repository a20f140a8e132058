"""What a look proves (rule 5): a replica may hold an answer back, and deliver it under a newer certificate."""

from __future__ import annotations

from typing import cast

from chain.clock import Certified
from chain.perun import PerunCanister
from perund.node.canister import WatchedCanister
from protocol.types import ChannelId, Nanos, RegisteredState, State

CHANNEL = ChannelId(b"\x07" * 64)
TIMEOUT = Nanos(1_000)


def registered(version: int, timeout_ns: Nanos) -> RegisteredState:
    return RegisteredState(State(CHANNEL, version, (1, 2), finalized=False), timeout_ns)


class Replica:
    """Answers `query_state` from a list: what was read, the certificate's time, and when it was asked for."""

    def __init__(self, *answers: tuple[RegisteredState | None, int, int]) -> None:
        self.answers = list(answers)

    async def query_state(self, channel: ChannelId) -> Certified[RegisteredState | None]:
        assert channel == CHANNEL
        value, certified_ns, asked_ns = self.answers.pop(0)
        return Certified(value, certified_ns, asked_ns, 5, bytes(32))


async def test_a_withheld_answer_settles_nothing() -> None:
    """Version 1 was read before its timeout and delivered after it; meanwhile version 2 has replaced it."""
    replica = Replica((registered(1, TIMEOUT), 1_500, 900), (registered(2, Nanos(2_000)), 1_600, 1_500))
    look = await WatchedCanister(cast("PerunCanister", replica)).look(CHANNEL)
    assert look.registered is not None
    assert look.registered.state.version == 2
    assert not look.brief().settled
    assert not replica.answers


async def test_what_was_over_when_it_was_asked_for_is_settled() -> None:
    replica = Replica((registered(1, TIMEOUT), 1_500, 1_200))
    look = await WatchedCanister(cast("PerunCanister", replica)).look(CHANNEL)
    assert look.brief().settled


async def test_the_second_answer_is_no_better_than_its_question() -> None:
    """Both answers are withheld: nothing is settled yet, and the next look will tell."""
    replica = Replica((registered(1, TIMEOUT), 1_500, 900), (registered(1, TIMEOUT), 1_600, 950))
    look = await WatchedCanister(cast("PerunCanister", replica)).look(CHANNEL)
    assert not look.brief().settled
