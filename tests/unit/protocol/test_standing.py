"""No standing of a channel is a dead end: the money comes out without the peer, by itself or by the command it names.

Every standing is made and driven to its end with a canister and nobody else. Where `way_out` says that the node needs
nobody, nothing but time passes; where it names a command, that command is given first, as the operator would.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from perund.node.way_out import way_out_text
from protocol.channel import Channel
from protocol.effects import Look, Moment, Phase
from protocol.errors import CallerMistake
from protocol.funding import Abort, next_funding_action
from protocol.messages import TowerHeld
from protocol.settlement import (
    AwaitOperator,
    AwaitTimeout,
    Conclude,
    Dispute,
    Finished,
    ForceOut,
    WaitForPeer,
    Withdraw,
    next_settlement_action,
)
from protocol.standing import AUTOMATIC, WayOut, way_out
from protocol.types import Nanos, RegisteredState, SignedState, State
from tests.unit.protocol.scene import CHALLENGE_NS, NAMES, Scene, Side, sign_both

FREEZES = {
    "works": ("", None),
    "a violation": ("wrong_version: version 9 came after 1", None),
    "a copy": ("data_loss: this store is a copy", None),
    "proven": ("data_loss: version 1 came from the peer: this node had lost it", 1),
    "risk taken": ("risk_accepted: this store is a copy", None),
}
ON_CANISTER = ("nothing", "an older state", "the newest", "an unknown one")
FORCE_NS = 600 * 10**9


class Alone:
    """One side of a channel, a canister, and time."""

    def __init__(self, name: str, phase: Phase, freeze: str, *, final: bool) -> None:
        self.scene = Scene().ready()
        self.scene.pay("alice", 100)
        self.scene.run()
        if final:
            self.scene.close("alice")
            self.scene.run()
        self.scene.cut()
        self.side: Side = self.scene[name]
        disk = self.side.disk
        disk.phase, (disk.frozen, proven) = phase, FREEZES[freeze]
        disk.loss_end_version = None if proven is None else disk.newest.state.version
        if phase is Phase.FUNDING:
            disk.newest = sign_both(self.side.terms.state_0())
        self.scene.restart(name)
        self.registered: RegisteredState | None = None
        self.since_ns = self.scene.now.chain_ns
        self.holdings = {True: 500, False: 500}

    @property
    def channel(self) -> Channel:
        return self.side.channel

    @property
    def now(self) -> Moment:
        return self.scene.now

    def register(self, what: str) -> None:
        newest = self.channel.newest.state
        others = {
            "an older state": State(newest.channel, 0, (1000, 1000), finalized=False),
            "the newest": newest,
            "an unknown one": State(newest.channel, newest.version + 5, (700, 1300), finalized=False),
        }
        if what in others:
            self.registered = RegisteredState(others[what], Nanos(self.now.chain_ns + CHALLENGE_NS))

    def look(self) -> None:
        found, now = self.registered, self.now
        look = Look(
            now.elapsed_ns, now.chain_ns, found.state.version if found else None, found.state.digest if found else b"",
            settled=found.settled(now.chain_ns) if found else False,
        )  # fmt: skip
        before = self.channel.phase
        self.scene.do(self.side, lambda: self.channel.looked(look, now))
        if self.channel.phase is not before:
            self.since_ns = now.chain_ns

    def comes_out(self) -> bool:
        """Whether nothing but the canister and time brings the money out."""
        for _ in range(30):
            self.look()
            if self.channel.phase is Phase.CLOSED:
                return True
            if self.channel.phase is Phase.OPEN:
                return False  # nobody's job
            if not (self._funds() if self.channel.phase is Phase.FUNDING else self._settles()):
                return False
            self.scene.pass_time(60 * 10**9)
        return False

    def _funds(self) -> bool:
        self.scene.pass_time(3600 * 10**9)
        action = next_funding_action(
            ours=self.channel.ours, shares=(1000, 1000), holdings=(500, 500), intents=(),
            registered=self.registered is not None, aborting=False, recovering=self.channel.recovering,
            chain_ns=self.now.chain_ns, deadline_ns=self.side.terms.funding_deadline_ns,
        )  # fmt: skip
        if not isinstance(action, Abort):
            return False
        self.scene.do(self.side, lambda: self.channel.leave(self.now, action.reason))
        return True

    def _settles(self) -> bool:
        settled = self.registered is not None and self.registered.settled(self.now.chain_ns)
        held = 500 if self.holdings[True] else 0
        action = next_settlement_action(
            phase=self.channel.phase, newest=self.channel.newest, registered=self.registered,
            chain_ns=self.now.chain_ns, holdings_e8s=held, owed_e8s=500, paid_out=not held, anything_held=True,
            withdrawal_open=False, fee_e8s=10, force_at_ns=Nanos(self.since_ns + FORCE_NS),
            recovering=self.channel.recovering,
        )  # fmt: skip
        match action:
            case WaitForPeer() | AwaitTimeout():
                self.scene.pass_time(CHALLENGE_NS)
            case ForceOut():
                self.scene.do(self.side, lambda: self.channel.leave(self.now, "in time"))
            case Conclude(signed=signed):
                self.registered = RegisteredState(signed.state, self.now.chain_ns)
            case Dispute(signed=signed):
                self.registered = RegisteredState(signed.state, Nanos(self.now.chain_ns + CHALLENGE_NS))
            case Withdraw():
                assert settled
                self.holdings[True] = 0
            case Finished():
                self.scene.do(self.side, lambda: self.channel.closed(self.now, "withdrawn"))
            case AwaitOperator():
                return False
            case _:
                raise AssertionError(f"{action} was not to be expected")
        return True

    # --- the operator's commands ---------------------------------------------------------------------------

    def dispute(self, *, accept_risk: bool) -> None:
        """`perun dispute`."""
        channel = self.channel
        if channel.recovering:
            assert accept_risk, "the command that is named is refused"
            self.scene.do(self.side, lambda: channel.accept_risk(self.now) + channel.leave(self.now, "asked"))
        else:
            self.scene.do(self.side, lambda: channel.leave(self.now, "asked"))

    def close(self) -> None:
        """`perun close`."""
        self.scene.do(self.side, lambda: self.channel.close(self.now, "asked"))


@pytest.mark.parametrize("towers", [False, True], ids=["", "towers"])
@pytest.mark.parametrize("freeze", FREEZES)
@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("name", NAMES)
def test_the_money_comes_out_of_every_standing_without_the_peer(
    name: str, phase: Phase, freeze: str, towers: bool
) -> None:
    for on_canister, connected, claim in product(ON_CANISTER, (False, True), (False, True)):
        alone = Alone(name, phase, freeze, final=False)
        channel = alone.channel
        channel.awaits_towers = towers
        channel.connected, channel._claim_open, channel.peer_recovering = connected, claim, claim
        alone.register(on_canister)
        alone.look()
        where = (name, phase, freeze, towers, on_canister, connected, claim)

        found = way_out(channel)
        text = way_out_text(channel, FORCE_NS, "soon")
        if phase is Phase.CLOSED:
            assert (found, text) == (None, None), where
            continue
        assert found is not None and text, where
        if found is WayOut.TOWERS:
            alone.scene.do(alone.side, lambda a=alone: a.channel.towers_answered(a.now))  # type: ignore[misc]
            found = way_out(channel)
            assert found is not None and found is not WayOut.TOWERS, where
            text = way_out_text(channel, FORCE_NS, "soon")
            assert text, where
        if found in AUTOMATIC:
            assert "by itself" in text, where
        else:
            risky = "--accept-risk" in text
            assert risky or "perun close" in text, where
            assert not alone.comes_out(), (where, "the node opens a dispute that nobody asked for")
            alone.dispute(accept_risk=True) if risky else alone.close()
            after = way_out(channel)
            assert after in AUTOMATIC, (where, after)
        assert alone.comes_out(), (where, found, channel.phase, channel.frozen)


@pytest.mark.parametrize("freeze", FREEZES)
@pytest.mark.parametrize("name", NAMES)
def test_with_a_final_state_it_always_comes_out_by_itself(name: str, freeze: str) -> None:
    alone = Alone(name, Phase.CLOSING, freeze, final=True)
    assert alone.channel.final is not None
    assert way_out(alone.channel) is WayOut.SETTLES
    assert alone.comes_out()


@pytest.mark.parametrize("name", NAMES)
def test_what_was_frozen_before_this_rule_is_left_too(name: str) -> None:
    """A store of an older node has channels that are open and frozen, in which nobody acted."""
    alone = Alone(name, Phase.OPEN, "a violation", final=False)
    assert way_out(alone.channel) is WayOut.FORCED
    alone.look()
    assert alone.side.disk.phase is Phase.CLOSING
    assert alone.comes_out()


@pytest.mark.parametrize("name", NAMES)
def test_an_accepted_version_is_offered_only_where_it_leads_somewhere(name: str) -> None:
    """Where `--accept` is named, it is taken."""
    for phase in Phase:
        alone = Alone(name, phase, "a copy", final=False)
        alone.look()
        text = way_out_text(alone.channel, FORCE_NS, "soon") or ""
        version = alone.channel.version
        if "`--accept`" in text:
            alone.scene.do(alone.side, lambda a=alone, v=version: a.channel.declare_newest(v, a.now))  # type: ignore[misc]
            assert way_out(alone.channel) is WayOut.PROVEN
        else:
            with pytest.raises(CallerMistake):
                alone.channel.declare_newest(version, alone.now)


def test_a_newest_state_is_what_it_settles_on() -> None:
    """The dispute that is named registers the state that the text names."""
    alone = Alone("bob", Phase.CLOSING, "a copy", final=False)
    newest: SignedState = alone.channel.newest
    text = way_out_text(alone.channel, FORCE_NS, "soon")
    assert text is not None and f"version {newest.state.version}" in text
    alone.dispute(accept_risk=True)
    assert alone.comes_out()
    assert alone.registered is not None
    assert alone.registered.state == replace(newest.state)


@pytest.mark.parametrize("before", ["works", "a violation", "a copy", "proven"])
@pytest.mark.parametrize("phase", [Phase.FUNDING, Phase.OPEN, Phase.CLOSING, Phase.LEAVING])
@pytest.mark.parametrize("taken_over", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_life_that_is_over_has_a_way_out_whatever_froze_the_channel_before(
    name: str, taken_over: bool, phase: Phase, before: str
) -> None:
    """The other copy may have signed: no dispute is opened unasked, and the one that is asked for is opened."""
    alone = Alone(name, phase, before, final=False)
    alone.scene.do(alone.side, lambda: alone.channel.outlive("another life runs", alone.now))
    assert not alone.channel.loss_is_proven
    alone.scene.restart(name)
    if not taken_over:
        alone.scene.do(alone.side, lambda: alone.channel.outlive("another life runs", alone.now))
    assert alone.channel.recovering
    assert not alone.channel.loss_is_proven, "what was adopted before says nothing of what the other copy did"
    assert "--accept-risk" in (way_out_text(alone.channel, FORCE_NS, "soon") or "")
    assert not alone.comes_out(), "a dispute that nobody asked for, with a state that may be old"
    alone.dispute(accept_risk=True)
    assert way_out(alone.channel) is WayOut.SETTLES
    assert alone.comes_out()


@pytest.mark.parametrize("name", NAMES)
def test_what_a_stopped_life_adopts_is_no_proof_for_the_life_that_takes_over(name: str) -> None:
    """The other copy went on and may have been paid: who paid it hides that, and asks for the end on these shares."""
    alone = Alone(name, Phase.OPEN, "works", final=False)
    alone.look()
    alone.scene.do(alone.side, lambda: alone.channel.outlive("another life runs", alone.now))
    state = State(alone.channel.id, 4, (700, 1300), finalized=False)
    held = TowerHeld(state.channel, 4, state.allocation, False, *sign_both(state).signatures)
    alone.side.rules.complete = False
    alone.scene.do(alone.side, lambda: alone.channel.recalled(held, alone.now))
    assert alone.channel.version == 4
    alone.scene.restart(name)
    assert alone.channel.recovering
    assert not alone.channel.loss_is_proven
    assert way_out(alone.channel) is WayOut.UNPROVEN
