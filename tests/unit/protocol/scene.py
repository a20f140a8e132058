"""Two real channels, alice (participant 0) and bob (participant 1), with a disk each and a link between them.

Disks write in order and may lag; messages are in order and may be lost with their session, repeated, or late.
A side that crashes keeps its disk and nothing else. Time moves only when a test says so.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from protocol.channel import Channel
from protocol.effects import Effect, Look, LookNow, Moment, Phase, Send, SignatureRecord, Step
from protocol.following import Follower
from protocol.messages import ChannelMessage as AnyChannelMessage
from protocol.messages import ErrorMessage, Message, Update
from protocol.ordering import Orderer
from protocol.payments import EMPTY, Batch, Payment
from protocol.signer import StateSigner
from protocol.signing import ChannelKey
from protocol.terms import Terms
from protocol.types import Nanos, Params, ParticipantIndex, RegisteredState, SignedState, State, channel_nonce
from tests.unit.protocol.disk import Disk
from tests.unit.protocol.rules import Rules

CHALLENGE_NS = Nanos(3600 * 10**9)
FRESH_NS = CHALLENGE_NS // 3
"""A look of this age, or older, allows nothing (rule 4)."""
CHAIN_START_NS = 1_800_000_000 * 10**9
KEYS = (ChannelKey(b"\x01" * 32), ChannelKey(b"\x02" * 32))
NAMES = ("alice", "bob")
SIDES: dict[str, ParticipantIndex] = {"alice": 0, "bob": 1}


class Crashed(Exception):
    """The power of one side went."""


def make_terms(ours: ParticipantIndex, allocation: tuple[int, int]) -> Terms:
    shares = (b"\x0a" * 32, b"\x0b" * 32)
    params = Params(channel_nonce(*shares), (KEYS[0].public, KEYS[1].public), CHALLENGE_NS)
    return Terms(
        b"\x0c" * 32, bytes([2 + ours]) * 33, ours, params, allocation, Nanos(CHAIN_START_NS), shares[ours],
        shares[1 - ours],
    )  # fmt: skip


def sign_both(state: State) -> SignedState:
    return SignedState(state, (KEYS[0].sign_state(state), KEYS[1].sign_state(state)))


@dataclass
class Side:
    """One side: its disk, the machine that runs on it, and what it did."""

    name: str
    terms: Terms
    disk: Disk
    rules: Rules
    channel: Channel
    unwritten: deque[tuple[Step, int]] = field(default_factory=deque)
    alive: bool = True
    fuse: int | None = None
    """How many more things it does (a transaction, an effect) before its power goes."""
    sent: list[Message] = field(default_factory=list)
    told: list[Effect] = field(default_factory=list)
    wants_look: bool = False
    errors: list[ErrorMessage] = field(default_factory=list)
    """What the peer complained about."""

    def burn(self) -> None:
        if self.fuse is not None:
            if self.fuse == 0:
                self.fuse = None
                raise Crashed(self.name)
            self.fuse -= 1


MakeChannel = Callable[[Terms, Disk], Channel]


def real_channel(terms: Terms, disk: Disk) -> Channel:
    kind = Orderer if terms.our_index == 0 else Follower
    memory = disk.memory()
    return kind(terms, StateSigner(KEYS[terms.our_index], memory.last_signature), disk, memory)


class Scene:
    """A channel in which things go wrong as told."""

    def __init__(
        self,
        alice_e8s: int = 1000,
        bob_e8s: int = 1000,
        *,
        phase: Phase = Phase.OPEN,
        lagging_disks: bool = False,
        make: MakeChannel = real_channel,
    ) -> None:
        self.elapsed_ns = 10**12
        self.registered: RegisteredState | None = None
        self.lagging_disks = lagging_disks
        """Whether disks write only when told, as under load: machines are then ahead of them."""
        self.session = 0
        self.up = False
        self.wire: tuple[deque[Message], deque[Message]] = (deque(), deque())
        """What is on its way to alice, and to bob."""
        self._faults: deque[tuple[type[Message], str]] = deque()
        self._make = make
        self._payments = 0
        self.broken = False
        """Whether a rule was broken: nothing that happens after it means anything."""
        self.paid: dict[tuple[int, bytes], Payment] = {}
        self.sides = (self._side(0, (alice_e8s, bob_e8s), phase), self._side(1, (alice_e8s, bob_e8s), phase))
        self.alice, self.bob = self.sides

    def _side(self, ours: ParticipantIndex, allocation: tuple[int, int], phase: Phase) -> Side:
        terms = make_terms(ours, allocation)
        state = terms.state_0()
        record = SignatureRecord(state.channel, 0, state.digest, finalized=False)
        disk = Disk(terms, sign_both(state), record, phase)
        return Side(NAMES[ours], terms, disk, Rules(terms), self._make(terms, disk))

    # --- time and the canister ---------------------------------------------------------------------------

    @property
    def now(self) -> Moment:
        return Moment(self.elapsed_ns, Nanos(CHAIN_START_NS + self.elapsed_ns))

    def pass_time(self, ns: int) -> None:
        self.elapsed_ns += ns

    def look(self, *names: str, asked_ns: int | None = None) -> None:
        """Each of these sides (all, when none is named) gets a look."""
        for name in names or NAMES:
            side = self[name]
            if not side.alive:
                continue
            registered, now = self.registered, self.now
            look = Look(
                asked_ns=self.elapsed_ns if asked_ns is None else asked_ns,
                chain_ns=now.chain_ns,
                version=registered.state.version if registered else None,
                digest=registered.state.digest if registered else b"",
                settled=registered.settled(now.chain_ns) if registered else False,
            )
            side.wants_look = False
            self.do(side, lambda s=side, k=look: s.channel.looked(k, self.now))  # type: ignore[misc]

    def register(self, signed: SignedState) -> None:
        """Somebody disputes with a state."""
        self.registered = RegisteredState(signed.state, Nanos(self.now.chain_ns + CHALLENGE_NS))

    def settle(self, state: State, *names: str) -> None:
        """The canister settled on a state, and these sides learn of it."""
        for name in names or NAMES:
            side = self[name]
            side.disk.settled_version = state.version
            self.do(side, lambda s=side: s.channel.settled(state.version, state.digest))  # type: ignore[misc]

    # --- the machines ------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Side:
        return self.sides[SIDES[name]]

    def do(self, side: Side, action: Callable[[], Step]) -> None:
        """Give a machine an input: its step waits for the disk, in order."""
        if not side.alive:
            return
        try:
            step = action()
            side.rules.decided(
                step.durable, step.outgoing, _newest_look(side.channel), self.now, side.disk.settled_version
            )
        except AssertionError:
            self.broken = True
            raise
        side.unwritten.append((step, self.session if self.up else -1))
        if not self.lagging_disks:
            self.write(side)

    def write(self, side: Side, count: int | None = None) -> None:
        """The disk of a side catches up, and what waited for it happens."""
        try:
            while side.unwritten and count != 0:
                step, session = side.unwritten.popleft()
                if step.durable:
                    side.burn()
                    side.disk.commit(step.durable)
                for effect in step.outgoing:
                    side.burn()
                    self._perform(side, effect, session)
                if step.durable:
                    side.rules.books(side.disk)
                count = count - 1 if count is not None else None
        except Crashed:
            self.crash(side.name)
        except AssertionError:
            self.broken = True
            raise

    def _perform(self, side: Side, effect: Effect, session: int) -> None:
        match effect:
            case Send():
                if self.up and session == self.session:
                    side.rules.sent(effect.message, side.disk)
                    side.sent.append(effect.message)
                    self._transmit(side, effect.message)
            case LookNow():
                side.wants_look = True
            case _:
                side.rules.told_user(effect)
                side.told.append(effect)

    # --- the link ----------------------------------------------------------------------------------------

    def lose(self, kind: type[Message]) -> None:
        """The next message of that kind is lost, and its session with it."""
        self._faults.append((kind, "lose"))

    def repeat(self, kind: type[Message]) -> None:
        """The next message of that kind arrives twice."""
        self._faults.append((kind, "repeat"))

    def _transmit(self, side: Side, message: Message) -> None:
        queue = self.wire[1 - side.terms.our_index]
        queue.append(message)
        if self._faults and isinstance(message, self._faults[0][0]):
            _, fault = self._faults.popleft()
            if fault == "repeat":
                queue.append(message)
            else:
                queue.pop()
                self.drain()
                self.cut()

    def deliver(self, name: str, count: int = 1) -> int:
        """The next messages for a side arrive. Returns how many did."""
        side, done = self[name], 0
        queue = self.wire[side.terms.our_index]
        while queue and done < count and side.alive and self.up:
            message = queue.popleft()
            done += 1
            if isinstance(message, ErrorMessage):
                side.errors.append(message)
            else:
                self.receive(name, message)  # type: ignore[arg-type]
        return done

    def receive(self, name: str, message: AnyChannelMessage) -> None:
        """A side gets this message, whoever wrote it."""
        side = self[name]
        self.do(side, lambda: side.channel.receive(message, self.now))

    def drain(self) -> None:
        """What is on its way arrives; answers stay on the way."""
        for name in NAMES:
            self.deliver(name, len(self.wire[SIDES[name]]))

    def cut(self) -> None:
        """The session ends; what was on its way is lost."""
        self.up = False
        for side in self.sides:
            self.wire[side.terms.our_index].clear()
            if side.alive:
                side.channel.session_ended()

    def connect(self) -> None:
        """A session begins, in the place of the last one."""
        if self.up:
            self.cut()
        if not all(side.alive for side in self.sides):
            return
        self.session += 1
        self.up = True
        for side in self.sides:
            if self.up:
                self.do(side, lambda s=side: s.channel.session_began(1))  # type: ignore[misc]

    def mute(self) -> None:
        """What is on its way is lost, and the session goes on: one side is played by the test."""
        for queue in self.wire:
            queue.clear()

    def crash(self, name: str) -> None:
        """A side loses its power: what was not on its disk is gone."""
        side = self[name]
        if side.alive:
            side.alive = False
            side.unwritten.clear()
            self.cut()

    def restart(self, name: str) -> None:
        """A side starts again from its disk."""
        side = self[name]
        if side.alive:
            self.crash(name)
        side.channel = self._make(side.terms, side.disk)
        side.alive, side.fuse, side.wants_look = True, None, False

    def restore(self, name: str, copy: Disk) -> None:
        """A side starts from an old copy of its disk, which is a life of its own."""
        self.crash(name)
        side = self[name]
        side.disk, side.rules = copy, Rules(side.terms, complete=False, left=side.rules.left, final=side.rules.final)
        self.restart(name)

    def run(self, looks: int = 8) -> None:
        """Go on until nothing more happens. Looks that machines ask for are given, up to a number."""
        while True:
            for side in self.sides:
                self.write(side)
            moved = self.deliver("alice") + self.deliver("bob")
            if moved or any(side.unwritten for side in self.sides):
                continue
            wanting = [side.name for side in self.sides if side.alive and side.wants_look]
            if not wanting or looks == 0:
                return
            looks -= 1
            self.look(*wanting)

    def ready(self) -> Scene:
        """Look, connect and go on until nothing more happens."""
        self.look()
        self.connect()
        self.run()
        return self

    def heal(self) -> None:
        """Faults stop: both sides run, look and talk until nothing more happens."""
        self._faults.clear()
        for side in self.sides:
            side.fuse = None
            if not side.alive:
                self.restart(side.name)
            self.write(side)
        self.ready()

    # --- users -------------------------------------------------------------------------------------------

    def new_payment(self, name: str, amount_e8s: int, memo: bytes = b"") -> Payment:
        self._payments += 1
        noise = hashlib.sha256(f"{name}{self._payments}".encode()).digest()[:8]
        return Payment(self._payments.to_bytes(8, "big") + noise, amount_e8s, memo)

    def pay(self, name: str, *amounts_e8s: int, memo: bytes = b"") -> list[bytes]:
        """Queue payments, as a node does: asked for together, in one step. Returns their ids."""
        side = self[name]
        if not side.alive:
            return []
        payments = [self.new_payment(name, amount, memo) for amount in amounts_e8s]
        batch = Batch.of(payments)
        side.channel.check_payable(batch.total_e8s, min(batch.amounts_e8s))
        self.paid.update({(side.terms.our_index, p.id): p for p in payments})
        self.do(side, lambda: side.channel.pay(batch, self.now))
        return [p.id for p in payments]

    def cancel(self, name: str, payment_id: bytes) -> None:
        side = self[name]
        self.do(side, lambda: side.channel.cancel(payment_id))

    def fund_complete(self, *names: str) -> None:
        """These sides (both, when none is named) have seen both deposits."""
        for name in names or NAMES:
            side = self[name]
            self.do(side, lambda s=side: s.channel.fund_complete(self.now))  # type: ignore[misc]

    def close(self, name: str) -> None:
        side = self[name]
        self.do(side, lambda: side.channel.close(self.now, "the user asked for it"))

    def declare_newest(self, name: str) -> None:
        """Its operator declares the newest state that it knows the newest there is (rule 7)."""
        side = self[name]
        self.do(side, lambda: side.channel.declare_newest(side.channel.version, self.now))

    def leave(self, name: str) -> None:
        side = self[name]
        self.do(side, lambda: side.channel.leave(self.now, "the user asked for it"))

    # --- what can be seen --------------------------------------------------------------------------------

    def status(self, name: str, payment_id: bytes) -> str:
        """What this payment's sender, or its receiver, is told by the durable books of `name`."""
        for sender in (0, 1):
            if (sender, payment_id) in self.paid:
                return self[name].disk.status(sender, payment_id)
        raise KeyError(payment_id.hex())

    def statuses(self, payment_id: bytes) -> tuple[str, str]:
        """The payment in alice's books, and in bob's."""
        return self.status("alice", payment_id), self.status("bob", payment_id)

    @property
    def allocation(self) -> tuple[int, int]:
        """Both sides' newest allocation, which must be the same."""
        assert self.alice.disk.newest == self.bob.disk.newest
        return self.alice.disk.newest.state.allocation

    def sent(self, name: str, kind: type[Message]) -> list[Message]:
        return [m for m in self[name].sent if isinstance(m, kind)]

    def frozen(self, name: str) -> str:
        """The code for which a side is frozen, or empty."""
        return self[name].channel.frozen.partition(":")[0]

    def signed_update(
        self,
        from_0: Batch = EMPTY,
        from_1: Batch = EMPTY,
        *,
        version: int | None = None,
        allocation: tuple[int, int] | None = None,
        finalized: bool = False,
    ) -> Update:
        """An update as a dishonest alice could sign it, on bob's newest state."""
        old = self.bob.channel.newest.state
        moved = from_0.total_e8s - from_1.total_e8s
        state = State(
            old.channel,
            old.version + 1 if version is None else version,
            (old.allocation[0] - moved, old.allocation[1] + moved) if allocation is None else allocation,
            finalized,
        )
        return Update(
            state.channel, state.version, state.allocation, finalized, from_0, from_1, KEYS[0].sign_state(state)
        )

    def check_agreement(self) -> None:
        """After healing, both books say the same, and every payment has an end."""
        assert self.alice.disk.newest == self.bob.disk.newest
        for sender, payment_id in self.paid:
            mine, theirs = (self.sides[i].disk.status(sender, payment_id) for i in (sender, 1 - sender))
            assert mine in ("delivered", "declined", "failed", "cancelled", "unknown"), f"{mine}: no end"
            assert (mine == "delivered") == (theirs == "delivered"), f"sender {mine}, receiver {theirs}"


def _newest_look(channel: Channel) -> Look | None:
    """What a channel may rely on: its own newest look, or the horizon if that is newer and the channel is quiet."""
    look, swept_ns = channel.look, channel.horizon.asked_ns
    if look is None or look.version is not None or swept_ns is None or swept_ns <= look.asked_ns:
        return look
    return replace(look, asked_ns=swept_ns)
