"""What every message and every input does in every phase, for both roles: one row each, and none is missing.

An outcome names what happens: the new phase, what is sent, how payments end; `ignored` when nothing is written or
sent; the code of a violation (the channel is frozen) or of a mistake of our own user (nothing changes).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import get_args

import pytest

from protocol.channel import Channel
from protocol.effects import Delivered, Look, LookNow, PaymentsEnded, Phase, Received, Send, Step
from protocol.errors import CallerMistake
from protocol.messages import (
    Ack,
    ChannelMessage,
    ChannelReady,
    CloseRequest,
    Confirm,
    Decline,
    Offer,
    Resume,
    ResumePhase,
    SignedStateMessage,
)
from protocol.payments import Batch, Payment
from protocol.types import State
from tests.unit.protocol.scene import NAMES, Scene, Side, sign_both

PAYMENT = Batch.of([Payment(b"\xee" * 16, 5)])
PHASES = (*(phase.value for phase in Phase), "frozen", "not resumed")
"""The phases, and two things that a channel can be beside: its row is of an open channel then."""


def at(name: str, phase: str) -> tuple[Scene, Side]:
    """A side in that phase, in a session, with a fresh look, after one payment each way (none while funding)."""
    scene = Scene(phase=Phase.FUNDING if phase == "funding" else Phase.OPEN).ready()
    side = scene[name]
    if phase != "funding":
        scene.pay("alice", 10)
        scene.pay("bob", 3)
        scene.run()
    match phase:
        case "closing":
            scene.close(name)
            scene.mute()
        case "leaving":
            scene.leave(name)
        case "closed":
            scene.leave(name)
            scene.do(side, lambda: side.channel.closed(scene.now, "withdrawn"))
        case "frozen":
            scene.do(side, lambda: side.channel.freeze("test", "for this test", scene.now))
        case "not resumed":
            scene.cut()
            scene.session, scene.up = scene.session + 1, True
            scene.do(side, lambda: side.channel.session_began(1))
        case _:
            pass
    scene.mute()
    return scene, side


def message(kind: str, scene: Scene, side: Side) -> ChannelMessage:
    """A well-made message of that kind, as the peer could send it to an open channel."""
    channel, newest = side.channel.id, side.channel.newest
    match kind:
        case "ChannelReady":
            return ChannelReady(channel)
        case "Offer":
            return Offer(channel, PAYMENT)
        case "Decline":
            return Decline(channel, b"\xdd" * 16, "no")
        case "Update":
            return scene.signed_update(PAYMENT)
        case "Ack":
            return Ack(channel, newest.state.version, newest.signatures[1])
        case "Confirm":
            return Confirm(channel, newest.state.version)
        case "CloseRequest":
            return CloseRequest(channel)
        case "Resume":
            return Resume(
                channel, ResumePhase.OPEN, newest.state.version, newest.state.digest, 0, b"", recovering=False
            )
        case "SignedStateMessage":
            lost = sign_both(State(channel, newest.state.version + 1, newest.state.allocation, finalized=False))
            return SignedStateMessage(
                channel, lost.state.version, lost.state.allocation, False, lost.signatures[0], lost.signatures[1]
            )
        case _:
            raise NotImplementedError(f"say what a {kind} looks like, and add its rows")


def pay(scene: Scene, channel: Channel) -> Step:
    channel.check_payable(PAYMENT.total_e8s)
    return channel.pay(PAYMENT, scene.now)


def look(scene: Scene, *, registered: bool) -> Look:
    state = scene.alice.disk.newest.state
    version, digest = (state.version, state.digest) if registered else (None, b"")
    return Look(scene.elapsed_ns, scene.now.chain_ns, version, digest, settled=False)


INPUTS: dict[str, Callable[[Scene, Channel], Step]] = {
    "pay": pay,
    "cancel an unknown payment": lambda s, c: c.cancel(b"\xdd" * 16),
    "close": lambda s, c: c.close(s.now, "asked"),
    "leave": lambda s, c: c.leave(s.now, "asked"),
    "funding is complete": lambda s, c: c.fund_complete(s.now),
    "a look at nothing registered": lambda s, c: c.looked(look(s, registered=False), s.now),
    "a look at a registered state": lambda s, c: c.looked(look(s, registered=True), s.now),
    "settled on the newest state": lambda s, c: c.settled(c.version, c.newest.state.digest),
    "the money is out": lambda s, c: c.closed(s.now, "withdrawn"),
    "a session begins": lambda s, c: c.session_began(1),
}
KINDS = [t.__name__ for t in get_args(ChannelMessage)]


def outcome(name: str, phase: str, what: str) -> str:
    scene, side = at(name, phase)
    channel, before = side.channel, (side.channel.phase, side.channel.frozen)
    try:
        if what in INPUTS:
            step = INPUTS[what](scene, channel)
        else:
            step = channel.receive(message(what, scene, side), scene.now)
    except CallerMistake as mistake:
        assert (channel.phase, channel.frozen) == before
        return mistake.code
    if channel.frozen != before[1]:
        return "! " + channel.frozen.partition(":")[0]
    parts = [channel.phase.value] if channel.phase is not before[0] else []
    for effect in step.outgoing:
        match effect:
            case Send():
                parts.append(f"sends {type(effect.message).__name__}")
            case LookNow():
                parts.append("asks for a look")
            case Received() | Delivered() | PaymentsEnded():
                parts.append(type(effect).__name__.lower())
    if not parts and step.durable:
        parts.append("writes " + ", ".join(type(r).__name__.removesuffix("Record") for r in step.durable))
    return "; ".join(parts) or "ignored"


COLUMNS = ("funding", "open", "closing", "leaving", "closed", "frozen", "not resumed")
CELLS = """
alice | ChannelReady | ignored | = | = | = | = | = | ! not_resumed
alice | Offer | ignored | sends Update | ignored | = | = | = | ! not_resumed
alice | Decline | ! wrong_role | = | = | = | = | ignored | ! not_resumed
alice | Update | ! wrong_role | = | = | = | = | ignored | ! not_resumed
alice | Ack | ignored | = | = | = | = | = | ! not_resumed
alice | Confirm | ! wrong_role | = | = | = | = | ignored | ! not_resumed
alice | CloseRequest | ignored | closing; sends Update | ignored | = | = | = | ! not_resumed
alice | Resume | sends Confirm | = | sends Update | sends Confirm | = | ignored | sends Confirm
alice | SignedStateMessage | ! data_loss | = | = | = | = | writes Signature, State, LossEnd, Event | ! data_loss
alice | pay | channel_not_open | sends Update | channel_not_open | = | = | channel_frozen | writes PaymentsQueued
alice | cancel an unknown payment | payment_not_queued | = | = | = | = | = | =
alice | close | channel_not_open | closing; sends Update | ignored | channel_not_open | = | ignored | closing
alice | leave | leaving | = | = | ignored | channel_closed | leaving | =
alice | funding is complete | sends ChannelReady | ignored | = | = | = | = | =
alice | a look at nothing registered | ignored | = | = | = | = | = | =
alice | a look at a registered state | leaving | = | = | ignored | = | leaving | =
alice | settled on the newest state | ignored | = | = | = | = | = | =
alice | the money is out | closed | = | = | = | ignored | closed | =
alice | a session begins | sends Resume | = | = | = | = | = | =
bob | ChannelReady | ignored | = | = | = | = | = | ! not_resumed
bob | Offer | ! wrong_role | = | = | = | = | ignored | ! not_resumed
bob | Decline | ignored | = | = | = | = | = | ! not_resumed
bob | Update | ignored | sends Ack; received | = | ignored | = | = | ! not_resumed
bob | Ack | ! wrong_role | = | = | = | = | ignored | ! not_resumed
bob | Confirm | ignored | = | = | = | = | = | ! not_resumed
bob | CloseRequest | ! wrong_role | = | = | = | = | ignored | ! not_resumed
bob | Resume | ignored | = | sends CloseRequest | ignored | = | = | =
bob | SignedStateMessage | ! data_loss | = | = | = | = | writes Signature, State, LossEnd, Event | ! data_loss
bob | pay | channel_not_open | sends Offer | channel_not_open | = | = | channel_frozen | writes PaymentsQueued
bob | cancel an unknown payment | payment_not_queued | = | = | = | = | = | =
bob | close | channel_not_open | closing; sends CloseRequest | ignored | channel_not_open | = | ignored | closing
bob | leave | leaving | = | = | ignored | channel_closed | leaving | =
bob | funding is complete | sends ChannelReady | ignored | = | = | = | = | =
bob | a look at nothing registered | ignored | = | sends CloseRequest | ignored | = | = | =
bob | a look at a registered state | leaving | = | = | ignored | = | leaving | =
bob | settled on the newest state | ignored | = | = | = | = | = | =
bob | the money is out | closed | = | = | = | ignored | closed | =
bob | a session begins | sends Resume | = | = | = | = | = | =
"""
"""Side, message or input, and what happens in each of `COLUMNS`; `!` before a violation, `=` for the same as before."""


def rows() -> dict[tuple[str, str], dict[str, str]]:
    found: dict[tuple[str, str], dict[str, str]] = {}
    for line in CELLS.strip().splitlines():
        name, what, *cells = line.split(" | ")
        for place in range(1, len(cells)):
            if cells[place] == "=":
                cells[place] = cells[place - 1]
        found[(name, what)] = dict(zip(COLUMNS, cells, strict=True))
    return found


TABLE = rows()


def test_the_table_is_complete() -> None:
    assert set(COLUMNS) == set(PHASES)
    assert set(TABLE) == set(product(NAMES, [*KINDS, *INPUTS]))


@pytest.mark.parametrize(("name", "what"), TABLE, ids=lambda v: v.replace(" ", "-"))
def test_every_input_in_every_phase(name: str, what: str) -> None:
    assert {phase: outcome(name, phase, what) for phase in PHASES} == TABLE[(name, what)]
