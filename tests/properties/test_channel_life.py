"""Both sides of a channel under everything that a bad link, slow disks and power cuts do to them.

After each step the rules hold (`tests.unit.protocol.rules` looks at every message, transaction and effect); when
the faults stop, both books say the same, and each payment that did not end otherwise is delivered exactly once.
A failure prints its steps; `--hypothesis-seed=N` repeats a run.
"""

from __future__ import annotations

from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protocol.effects import Phase
from protocol.errors import CallerMistake
from protocol.messages import Ack, Confirm, Message, Offer, Resume, Update
from protocol.types import SignedState
from tests.unit.protocol.scene import CHALLENGE_NS, FRESH_NS, NAMES, MakeChannel, Scene, real_channel

names = st.sampled_from(NAMES)
kinds: st.SearchStrategy[type[Message]] = st.sampled_from([Update, Ack, Offer, Confirm, Resume])


class ChannelLife(RuleBasedStateMachine):
    """Hypothesis plays the users, the link, the disks, the clock and the canister."""

    sides: ClassVar[dict[str, MakeChannel]] = {"make": real_channel}
    """What the sides are made of: the test of this test puts broken ones here."""
    scene: Scene
    cancelled: set[bytes]

    @initialize(lagging=st.booleans(), bob_e8s=st.sampled_from([0, 3, 1000]))
    def open(self, lagging: bool, bob_e8s: int) -> None:
        self.scene = Scene(1000, bob_e8s, lagging_disks=lagging, make=self.sides["make"])
        self.scene.look()
        self.scene.connect()
        self.cancelled = set()

    # --- users -------------------------------------------------------------------------------------------

    @rule(name=names, amounts=st.lists(st.integers(1, 400), min_size=1, max_size=4), memo=st.sampled_from([b"", b"m"]))
    def pay(self, name: str, amounts: list[int], memo: bytes) -> None:
        try:
            self.scene.pay(name, *amounts, memo=memo)
        except CallerMistake as refusal:
            assert refusal.code in ("insufficient_balance", "channel_not_open")  # noqa: PT017

    @rule(name=names, which=st.integers(0, 5))
    def cancel(self, name: str, which: int) -> None:
        waiting = list(self.scene[name].channel.queue.peek().each_id())
        if which < len(waiting) and self.scene[name].alive:
            self.scene.cancel(name, waiting[which])
            self.cancelled.add(waiting[which])

    @rule(name=names, really=st.integers(0, 7))
    def close(self, name: str, really: int) -> None:
        if really == 0:
            try:
                self.scene.close(name)
            except CallerMistake as refusal:
                assert refusal.code == "channel_not_open"  # noqa: PT017

    # --- the link ----------------------------------------------------------------------------------------

    @rule(name=names, count=st.integers(1, 5))
    def deliver(self, name: str, count: int) -> None:
        self.scene.deliver(name, count)

    @rule()
    def connect(self) -> None:
        self.scene.connect()

    @rule()
    def cut(self) -> None:
        self.scene.cut()

    @rule(kind=kinds)
    def lose(self, kind: type[Message]) -> None:
        self.scene.lose(kind)

    @rule(kind=kinds)
    def repeat(self, kind: type[Message]) -> None:
        self.scene.repeat(kind)

    # --- disks and power ---------------------------------------------------------------------------------

    @rule(name=names, count=st.integers(1, 3))
    def write(self, name: str, count: int) -> None:
        self.scene.write(self.scene[name], count)

    @rule(name=names, fuse=st.integers(0, 8))
    def power_will_go(self, name: str, fuse: int) -> None:
        self.scene[name].fuse = fuse

    @rule(name=names)
    def restart(self, name: str) -> None:
        self.scene.restart(name)

    # --- time and the canister ---------------------------------------------------------------------------

    @rule(name=names, age=st.sampled_from([0, 0, 0, FRESH_NS - 1, FRESH_NS]))
    def look(self, name: str, age: int) -> None:
        self.scene.look(name, asked_ns=self.scene.elapsed_ns - age)

    @rule(ns=st.sampled_from([1, FRESH_NS // 2, FRESH_NS]))
    def pass_time(self, ns: int) -> None:
        self.scene.pass_time(ns)

    @rule()
    def go_on(self) -> None:
        self.scene.run()

    @precondition(lambda self: self.scene.registered is None)
    @rule(name=names, really=st.integers(0, 9))
    def dispute(self, name: str, really: int) -> None:
        if really == 0:
            self.scene.register(self.scene[name].disk.newest)

    # --- what always holds -------------------------------------------------------------------------------

    @invariant()
    def nobody_is_accused(self) -> None:
        if not hasattr(self, "scene"):
            return
        for side in self.scene.sides:
            assert not side.channel.frozen, side.channel.frozen
            assert not side.errors
            assert side.disk.newest.state.total == side.terms.total
            assert 0 <= side.channel.committed_e8s <= side.channel.balance_e8s
        assert abs(self.scene.alice.disk.newest.state.version - self.scene.bob.disk.newest.state.version) <= 1

    def teardown(self) -> None:
        if not hasattr(self, "scene") or self.scene.broken:
            return
        scene = self.scene
        scene.heal()
        if scene.registered is not None:
            self._settle(self._refuted_with())
        elif Phase.CLOSING in (scene.alice.channel.phase, scene.bob.channel.phase):
            assert scene.alice.disk.newest.state.finalized
        self.nobody_is_accused()
        if scene.registered is None:
            scene.check_agreement()
        for sender, payment_id in scene.paid:
            status = scene.sides[sender].disk.status(sender, payment_id)
            theirs = scene.sides[1 - sender].disk.status(sender, payment_id)
            assert status != "declined", "an honest offer was declined"
            assert (status == "delivered") == (theirs == "delivered"), f"sender {status}, receiver {theirs}"
            # Not there at all: its side lost power before it was durable, and its user was promised nothing.
            assert status in ("delivered", "failed", "cancelled", "unknown")
            if status == "cancelled":
                assert payment_id in self.cancelled
            if status == "failed":
                assert scene.registered is not None or scene.alice.disk.newest.state.finalized

    def _refuted_with(self) -> SignedState:
        """Watchers refute with the newest state that anybody holds."""
        newest = max((side.disk.newest for side in self.scene.sides), key=lambda s: s.state.version)
        assert self.scene.registered is not None
        if newest.state.version > self.scene.registered.state.version:
            self.scene.register(newest)
        return newest

    def _settle(self, newest: SignedState) -> None:
        self.scene.pass_time(CHALLENGE_NS)
        self.scene.look()
        self.scene.settle(newest.state)
        self.scene.run()


TestChannelLife = ChannelLife.TestCase
TestChannelLife.settings = settings(
    max_examples=400,
    stateful_step_count=50,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
