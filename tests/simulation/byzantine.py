"""A node that lies: the real one, with a liar between it and its peers, and with the canister at its own hands.

It has its own keys and nobody else's. It equivocates, replays, withholds, alters, lies about versions when it
resumes, offers what it does not have, and registers old states. Rules are checked on the others only.
"""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING, cast

from chain.errors import ChainError
from protocol.errors import Undecodable
from protocol.messages import (
    Ack,
    ChannelReady,
    CloseRequest,
    Confirm,
    Message,
    Offer,
    Resume,
    ResumePhase,
    SignedStateMessage,
    StateSignature,
    Update,
)
from protocol.payments import EMPTY, Batch, Payment
from protocol.signing import ChannelKey
from protocol.types import ChannelId, Params, SignedState, State
from tests.simulation.house import House
from wire.codec import encode

if TYPE_CHECKING:
    from protocol.terms import Terms
    from tests.simulation.sim_net import SimSession

__all__ = ["ByzantineHouse"]

KEPT = 200
FAR = 2**32
LIES = ("withhold", "replay", "alter", "invent", "feign", "hide")
"""Feign: it keeps an acknowledgement, says that it lost data, and shows the state later. Hide: from a node that was
restored it hides what it paid it, and has the end signed on shares from before.
"""
UPDATE_LIES = ("allocation", "version", "final", "unoffered", "empty", "total", "replayed")


class ByzantineHouse(House):
    """See above. `temper` of each kind of lie is drawn once: some lie always in one way, some in all."""

    honest = False

    def prepare(self) -> None:
        """Draw how bad it is."""
        rng = self.rng
        self.temper = {name: rng.choice((0.0, 0.05, 0.3)) for name in LIES}
        self.greed = rng.choice((0.0, 0.01, 0.04))
        """How likely it registers an old state, at each step."""
        self.quiet = False
        self.favourite = rng.choice(UPDATE_LIES)
        """The lie about updates that it tells most."""
        self.only_updates = rng.random() < 0.4
        """Whether it lies about nothing else: who lies all the time is soon not talked to any more."""
        if self.only_updates:
            self.temper = {name: 0.4 if name == "alter" else 0.0 for name in LIES}
        self.temper["feign"], self.temper["hide"] = rng.choice((0.0, 0.1, 0.5)), rng.choice((0.0, 0.5, 1.0))
        self.sincere_until = rng.choice((0, 1, 3))
        """The version before which it is honest."""
        self.late = random.Random(self.rng.getstate()[1][0])  # its own: seeds that showed something stay what they were
        self.holds_acks = self.late.choice((0.0, 0.3, 0.6))
        """How likely it keeps an acknowledgement, registers the state before it, and shows it much later."""
        self.states: dict[ChannelId, list[tuple[Params, SignedState]]] = {}
        self._sent: list[Message] = []

    def _likes(self, kind: str) -> bool:
        return not self.quiet and self._believed() and self.rng.random() < self.temper[kind]

    def _believed(self) -> bool:
        drivers = self.node.drivers.values()
        return not self.sincere_until or any(d.channel.version >= self.sincere_until for d in drivers)

    # --- what it says ------------------------------------------------------------------------------------

    def outgoing(self, message: Message) -> tuple[Message, ...]:
        said: list[Message] = []
        if isinstance(message, Ack) and self._likes("feign"):
            return self._feigned_loss(message)
        match message:
            case Resume() | SignedStateMessage() if self._is_restored(message.channel) and self._likes("hide"):
                return self._hidden(message)
            case _:
                pass
        if self._likes("withhold") and not isinstance(message, Resume):
            return ()
        if isinstance(message, Ack) and not self.quiet and self.late.random() < self.holds_acks:
            self._show_late(message)
            return ()
        if self._likes("replay") and self._sent:
            said.append(self.rng.choice(self._sent))
        if len(self._sent) < KEPT:
            self._sent.append(message)
        alters = self._likes("alter") and (isinstance(message, Update) or not self.only_updates)
        said.append(self._altered(message) if alters else message)
        if self._likes("invent"):
            channel = getattr(message, "channel", None)
            if channel:
                said += self._invented(channel)
        return tuple(said)

    # --- losses ------------------------------------------------------------------------------------------

    def note_received(self, message: Message) -> None:
        """Keep every state that it gets to have, for what it may be worth."""
        super().note_received(message)
        if isinstance(message, Update | Ack):
            self._remember(message.channel)

    def _remember(self, channel: ChannelId) -> None:
        driver = self.node.drivers.get(channel)
        if driver is not None:
            kept, newest = self.states.setdefault(channel, []), driver.channel.newest
            if all(signed != newest for _, signed in kept):
                kept.append((driver.channel.terms.params, newest))

    def _feigned_loss(self, ack: Ack) -> tuple[Message, ...]:
        """Keep the acknowledgement: what it is for was lost, as it seems. Show it when the other has given it up."""
        self._remember(ack.channel)
        kept = [signed for _, signed in self.states.get(ack.channel, [])]
        before = next((s.state for s in kept if s.state.version == ack.version - 1), None)
        signed = next((s for s in kept if s.state.version == ack.version), None)
        if before is None or signed is None:
            return (ack,)
        self.statistics.facts["losses feigned"] += 1
        self.feigned.add(ack.channel)
        claim = Resume(ack.channel, ResumePhase.CLOSING, before.version, before.digest, 0, b"", recovering=True)
        state = signed.state
        late: Message = self.rng.choice(
            (
                ack,
                SignedStateMessage(state.channel, state.version, state.allocation, state.finalized, *signed.signatures),
            )
        )
        return (claim, CloseRequest(ack.channel), late)

    def _is_restored(self, channel: ChannelId) -> bool:
        return any(house.honest and channel in house.lost for house in self.neighbours)

    def _hidden(self, message: Resume | SignedStateMessage) -> tuple[Message, ...]:
        """Play that an old state is the newest, and propose the end on it."""
        terms, kept = self._terms(message.channel), self.states.get(message.channel, [])
        if terms is None or not kept:
            return (message,)
        old = self.rng.choice((kept[0], self.rng.choice(kept)))[1].state
        self.statistics.facts["states hidden"] += 1
        claim = Resume(old.channel, ResumePhase.OPEN, old.version, old.digest, 0, b"", recovering=False)
        if terms.our_index == 1:
            return (claim, ChannelReady(old.channel), CloseRequest(old.channel))
        end = State(old.channel, FAR, old.allocation, finalized=True)
        signature = self._key(terms).sign_state(end)
        final = Update(end.channel, FAR, end.allocation, True, EMPTY, EMPTY, signature)
        return (claim, ChannelReady(old.channel), final)

    def _key(self, terms: Terms) -> ChannelKey:
        return ChannelKey(self.keys.participant_seed(terms.our_share))

    def _terms(self, channel: ChannelId) -> Terms | None:
        driver = self.node.drivers.get(channel)
        return driver.channel.terms if driver is not None else None

    def _show_late(self, ack: Ack) -> None:
        """Keep an acknowledgement until the state before it is registered, or even settled."""
        terms = self._terms(ack.channel)
        assert terms is not None
        before = [s for _, s in self.states.get(terms.channel, ()) if s.state.version < ack.version]
        if not before:
            return
        self.node.services.watcher.unwatch(terms.channel)  # its own watcher would put the newest in its place
        self.statistics.facts["acknowledgements held back"] += 1
        register_s = self.late.uniform(0.5, 10.0)
        self.loop.call_later(register_s, self._register, terms.params, before[-1])
        self.loop.call_later(register_s + self.late.uniform(1.0, 420.0), self._say_late, terms.peer, ack)

    def _say_late(self, peer: bytes, ack: Ack) -> None:
        session = cast("SimSession | None", self.node.services.network.session(peer)) if self.is_up else None
        if session is not None and session.is_open:
            self.statistics.facts["acknowledgements shown late"] += 1
            session.link.carry(session, encode(ack))

    def _altered(self, message: Message) -> Message:
        rng = self.rng
        match message:
            case Update():
                return self._other_update(message)
            case Ack():
                return dataclasses.replace(message, signature=rng.randbytes(64))
            case StateSignature():
                return dataclasses.replace(message, signature=rng.randbytes(64))
            case Confirm():
                return dataclasses.replace(message, version=message.version + rng.choice((1, 5)))
            case Resume():
                self.feigned.add(message.channel)
                version = max(0, message.version + rng.choice((-2, -1, 0, 1, 3, 2**32)))
                pending = rng.choice((0, version + 1, version, message.pending_version))
                return dataclasses.replace(
                    message,
                    version=version,
                    state_hash=rng.choice((message.state_hash, rng.randbytes(32))),
                    pending_version=pending,
                    pending_hash=rng.randbytes(32) if pending else b"",
                    recovering=rng.random() < 0.3,
                )
            case Offer():
                payments = list(message.payments)
                payments[0] = payments[0]._replace(amount_e8s=payments[0].amount_e8s + rng.choice((1, 10**7)))
                return Offer(message.channel, Batch.of(payments))
            case _:
                return message

    def _other_update(self, update: Update) -> Message:
        """Another content for a version, signed: an equivocation."""
        terms = self._terms(update.channel)
        if terms is None or terms.our_index != 0:
            return update
        rng, (a, b) = self.rng, update.allocation
        moved = rng.choice((1, -1, b, -a))
        kind = self.favourite if rng.random() < 0.5 else rng.choice(UPDATE_LIES)
        changes: dict[str, object] = {}
        if kind == "allocation":
            changes = {"allocation": (max(0, a + moved), max(0, b - moved))}
        elif kind == "version":
            changes = {"version": update.version + rng.choice((1, 2, -1))}
        elif kind == "final":
            changes = {"finalized": True}
        elif kind == "unoffered":
            taken = min(b, 1000)
            if taken:
                stolen = Batch.of([*update.from_1, Payment(rng.randbytes(16), taken)])
                changes = {"from_1": stolen, "allocation": (a + taken, b - taken)}
        elif kind == "empty":
            moved_back = update.from_0.total_e8s - update.from_1.total_e8s
            changes = {"from_0": EMPTY, "from_1": EMPTY, "allocation": (a + moved_back, b - moved_back)}
        elif kind == "total":
            changes = {"allocation": (a + 1000, b)}
        else:
            earlier = [
                m
                for m in self._sent
                if isinstance(m, Update) and m.channel == update.channel and m.version < update.version and m.from_0
            ]
            if earlier:
                again = rng.choice(earlier).from_0
                changes = {
                    "from_0": again,
                    "allocation": (
                        max(0, a + update.from_0.total_e8s - again.total_e8s),
                        max(0, b - update.from_0.total_e8s + again.total_e8s),
                    ),
                }
        try:
            other = dataclasses.replace(update, **changes)  # type: ignore[arg-type]  # fields of an update
            state = State(other.channel, other.version, other.allocation, other.finalized)
        except Undecodable:
            return update
        return dataclasses.replace(other, signature=self._key(terms).sign_state(state))

    def _invented(self, channel: ChannelId) -> list[Message]:
        """Something that nothing led to."""
        rng, terms = self.rng, self._terms(channel)
        if terms is None:
            return []
        amount = rng.choice((1, terms.total, 10**9))
        choices: list[Message] = [
            Offer(channel, Batch.of([Payment(rng.randbytes(16), amount)])),
            ChannelReady(channel),
            CloseRequest(channel),
            Confirm(channel, rng.randint(0, 5)),
            Ack(channel, rng.randint(0, 5), rng.randbytes(64)),
            self._fake_state(terms, rng.choice((1, 3, 2**33))),
        ]
        return [rng.choice(choices)]

    def _fake_state(self, terms: Terms, ahead: int) -> Message:
        """A newer state with all the money on its side, signed by itself alone."""
        allocation = (terms.total, 0) if terms.our_index == 0 else (0, terms.total)
        version = self.node.drivers[terms.channel].channel.version + ahead
        state = State(terms.channel, version, allocation, finalized=False)
        mine, other = self._key(terms).sign_state(state), self.rng.randbytes(64)
        signatures = (mine, other) if terms.our_index == 0 else (other, mine)
        return SignedStateMessage(terms.channel, version, allocation, False, *signatures)

    # --- what it does at the canister --------------------------------------------------------------------

    def remember_states(self) -> None:
        """Keep every fully signed state that it ever has."""
        for row in self.disk.read.live_channels():
            kept = self.states.setdefault(row.terms.channel, [])
            if not kept or kept[-1][1] != row.memory.newest:
                kept.append((row.terms.params, row.memory.newest))

    def register_an_old_state(self) -> None:
        """Register one of them, and hope."""
        channels = [kept for kept in self.states.values() if kept]
        if self.quiet or not channels:
            return
        self._register(*self.rng.choice(self.rng.choice(channels)))

    def _register(self, params: Params, signed: SignedState) -> None:
        async def register() -> object:
            try:
                return await self.chain.dispute(params, signed)
            except ChainError as error:
                return error

        self.statistics.facts["old states registered"] += 1
        self.chain.execute(0.01, register)
