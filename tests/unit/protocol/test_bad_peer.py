"""A peer that holds its own key and says anything, in any order: what is listed as paid is what is paid out.

Its victim is either participant. It keeps acknowledgements and shows them late, feigns losses, claims versions,
registers old states, and shows what it can complete; the victim is restarted in between. Whatever the canister
settles on in the end, the victim's list says exactly what that state pays, and nobody is told of a payment twice.
"""

from __future__ import annotations

import contextlib
import random

import pytest

from protocol.effects import Phase
from protocol.errors import CallerMistake
from protocol.messages import (
    Ack,
    ChannelMessage,
    CloseRequest,
    Confirm,
    Decline,
    Offer,
    Resume,
    ResumePhase,
    SignedStateMessage,
    TowerHeld,
    Update,
)
from protocol.payments import EMPTY, Batch, Payment
from protocol.standing import way_out
from protocol.types import ChannelId, RegisteredState, SignedState, State
from tests.unit.protocol.scene import CHALLENGE_NS, KEYS, NAMES, Scene, sign_both

SEEDS = 150


def shown(signed: SignedState) -> tuple[ChannelId, int, tuple[int, int], bool, bytes, bytes]:
    state = signed.state
    return state.channel, state.version, state.allocation, state.finalized, *signed.signatures


class BadPeer:
    """A victim, and whoever has the other key."""

    def __init__(self, seed: int, name: str) -> None:
        self.rng = random.Random(seed)
        self.scene = Scene().ready()
        self.victim = self.scene[name]
        self.ours = self.victim.terms.our_index
        self.other = 1 - self.ours
        self.scene.crash(NAMES[self.other])
        first = sign_both(self.victim.terms.state_0())
        self.complete: dict[bytes, SignedState] = {first.state.digest: first}
        """What the peer can complete: everything that the victim has signed."""
        self.offered: list[Payment] = []
        self.connected = False
        self.log: list[str] = []

    def watch(self) -> None:
        """Take what the victim says: every signature of it is one that can be completed."""
        for message in self.victim.sent:
            match message:
                case Update():
                    state = State(message.channel, message.version, message.allocation, message.finalized)
                    self.complete.setdefault(state.digest, sign_both(state))
                case Offer():
                    self.offered += [p for p in message.payments if p not in self.offered]
                case _:
                    pass
        if self.other == 0:
            newest = self.victim.channel.newest
            self.complete.setdefault(newest.state.digest, newest)
        self.victim.sent.clear()
        self.scene.mute()

    def say(self, message: ChannelMessage) -> None:
        self.log.append(f"say {type(message).__name__} {getattr(message, 'version', '')}")
        self.scene.receive(self.victim.name, message)
        self.watch()

    def some(self) -> SignedState:
        return self.rng.choice(list(self.complete.values()))

    def connect(self, *, honest: bool = False) -> None:
        scene = self.scene
        scene.up, scene.session = True, scene.session + 1
        scene.do(self.victim, lambda: self.victim.channel.session_began(1))
        self.watch()
        self.connected = True
        if honest or self.rng.random() < 0.8:
            self.resume(self.victim.channel.newest.state if honest else None)

    def resume(self, state: State | None = None) -> None:
        rng = self.rng
        state = state or (self.victim.channel.newest.state if rng.random() < 0.6 else self.some().state)
        version = state.version if rng.random() < 0.9 else rng.choice([0, 3, 2**32, 2**62])
        pending = (
            rng.choice([(0, b""), (version + 1, b"\7" * 32), (2**32, b"\7" * 32)]) if rng.random() < 0.3 else (0, b"")
        )
        phase = rng.choice([ResumePhase.OPEN, ResumePhase.CLOSING])
        self.say(Resume(state.channel, phase, version, state.digest, *pending, recovering=rng.random() < 0.2))

    def step(self) -> None:
        rng, scene, victim = self.rng, self.scene, self.victim
        channel, now = victim.channel, scene.now
        do = rng.choice(
            ["pay", "pay", "talk", "talk", "talk", "talk", "look", "look", "time", "connect", "restart", "register",
             "close", "show", "show", "tower", "leave"]
        )  # fmt: skip
        if do in ("register", "close", "leave") and rng.random() < 0.6:
            do = "talk"
        self.log.append(do)
        match do:
            case "pay":
                with contextlib.suppress(CallerMistake):
                    scene.pay(victim.name, rng.randint(1, 60))
            case "talk":
                if not self.connected:
                    self.connect(honest=True)
                self.talk()
            case "look":
                scene.look(victim.name)
                old, newest = scene.registered, channel.newest
                below = old is not None and old.state.version < newest.state.version
                if below and old is not None and not old.settled(now.chain_ns) and rng.random() < 0.5:
                    scene.register(newest)
            case "time":
                scene.pass_time(rng.choice([10**9, CHALLENGE_NS // 5, CHALLENGE_NS // 2]))
            case "connect":
                if self.connected:
                    channel.session_ended()
                    scene.up = self.connected = False
                else:
                    self.connect(honest=rng.random() < 0.7)
            case "restart":
                scene.restart(victim.name)
                scene.up = self.connected = False
            case "register":
                old, new = scene.registered, self.some()
                if old is None or (new.state.version > old.state.version and not old.settled(now.chain_ns)):
                    scene.register(new)
            case "close":
                with contextlib.suppress(CallerMistake):
                    scene.close(victim.name)
            case "leave":
                if channel.phase is not Phase.LEAVING and rng.random() < 0.3:
                    scene.leave(victim.name)
            case "show":
                if self.connected:
                    self.say(SignedStateMessage(*shown(self.some())))
            case "tower":
                held = TowerHeld(*shown(self.some()))
                scene.do(victim, lambda: channel.recalled(held, now))
        self.watch()

    def talk(self) -> None:
        rng, channel = self.rng, self.victim.channel
        id_ = channel.id
        if self.other == 1:
            choice = rng.choice(["offer", "ack", "ack", "ack", "ack old", "close", "resume"])
            match choice:
                case "offer":
                    payment = self.scene.new_payment("bob", rng.randint(1, 60))
                    self.scene.paid[(1, payment.id)] = payment
                    self.say(Offer(id_, Batch.of([payment])))
                case "ack":
                    update = channel.pending
                    if update is not None:
                        state = State(id_, update.version, update.allocation, update.finalized)
                        self.say(Ack(id_, update.version, KEYS[1].sign_state(state)))
                case "ack old":
                    signed = self.some()
                    self.say(Ack(id_, signed.state.version, signed.signatures[1]))
                case "close":
                    if rng.random() < 0.4:
                        self.say(CloseRequest(id_))
                case "resume":
                    self.resume()
            return
        choice = rng.choice(["update", "update", "update", "final", "confirm", "decline", "resume", "again"])
        old = channel.newest.state
        match choice:
            case "update":
                mine = Batch.of([self.scene.new_payment("alice", rng.randint(1, 60))]) if rng.random() < 0.7 else EMPTY
                theirs = Batch.of([self.offered.pop(0)]) if self.offered and rng.random() < 0.7 else EMPTY
                for payment in mine:
                    self.scene.paid[(0, payment.id)] = payment
                moved = mine.total_e8s - theirs.total_e8s
                allocation = (old.allocation[0] - moved, old.allocation[1] + moved)
                if (mine or theirs) and min(allocation) >= 0:
                    self.propose(State(id_, old.version + 1, allocation, finalized=False), mine, theirs)
            case "final" if rng.random() < 0.3:
                version = rng.choice([old.version + 1, 2**32])
                self.propose(State(id_, version, old.allocation, finalized=True), EMPTY, EMPTY)
            case "confirm":
                self.say(Confirm(id_, rng.randint(0, old.version)))
            case "decline" if self.offered:
                self.say(Decline(id_, self.offered.pop(0).id, "no"))
            case "resume":
                self.resume()
            case _:
                pass

    def propose(self, state: State, mine: Batch, theirs: Batch) -> None:
        signature = KEYS[0].sign_state(state)
        self.say(Update(state.channel, state.version, state.allocation, state.finalized, mine, theirs, signature))

    def settle(self) -> State:
        """The canister settles, on what the peer registered or on anything that it can complete."""
        registered = self.scene.registered
        state = registered.state if registered is not None else self.some().state
        self.scene.registered = RegisteredState(state, self.scene.now.chain_ns)
        self.log.append(f"settle {state.version}")
        self.scene.look(self.victim.name)
        self.scene.settle(state, self.victim.name)
        return state

    def listed(self) -> int:
        """What the victim's list says that the payments of both sides moved to it."""
        moved = 0
        for (sender, payment_id), row in self.victim.disk.rows.items():
            if self.victim.disk.status(sender, payment_id) == "delivered":
                moved += -row.payment.amount_e8s if sender == self.ours else row.payment.amount_e8s
        return moved


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_is_listed_as_paid_is_what_is_paid_out(seed: int, name: str) -> None:
    bad = BadPeer(seed, name)
    try:
        for _ in range(bad.rng.randint(5, 60)):
            bad.step()
            assert way_out(bad.victim.channel) is not None
        before = bad.victim.channel.frozen
        state = bad.settle()
        assert "data_loss" not in before + bad.victim.channel.frozen
        for again in range(2):
            assert bad.listed() == state.allocation[bad.ours] - bad.victim.terms.allocation[bad.ours], again
            own = [k for k, r in bad.victim.disk.rows.items()]
            open_ones = {
                k: s for k in own if (s := bad.victim.disk.status(*k)) in ("signed", "queued", "offered", "unknown")
            }
            assert not open_ones, again
            bad.scene.restart(name)
            bad.scene.up = bad.connected = False
            bad.scene.look(name)
            bad.scene.settle(state, name)
    except AssertionError as error:
        error.add_note("\n".join(bad.log[-40:]))
        raise
