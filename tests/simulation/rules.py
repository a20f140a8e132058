"""The safety rules (DESIGN, section 3), checked from outside while everything happens.

Nothing here trusts what a node thinks of itself: signatures are counted when they leave, what is said is compared
with what is on the disk at that moment, ages of looks are computed anew, and money is counted on the ledger.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chain.clock import Certified
from chain.ledger import TransferArgs
from chain.perun import DisputePage
from chain.request import SignedCall
from protocol.effects import Delivered, Effect, PaymentsEnded, Received
from protocol.messages import (
    Ack,
    ChannelAccept,
    ChannelProposal,
    ChannelReady,
    Confirm,
    Decline,
    Message,
    Offer,
    Resume,
    SignedStateMessage,
    StateSignature,
    Update,
)
from protocol.payments import Payment
from protocol.signing import verify_signed_state
from protocol.types import ChannelId, Funding, RegisteredState, SignedState, State
from tests.simulation.sim_chain import FEE_E8S, SimChain
from tests.simulation.sim_published import PublishedContract
from wire.codec import encode

if TYPE_CHECKING:
    from tests.simulation.power import Life

__all__ = ["Rules"]

ID = 16
FAR = 2**32
DISK_LAGS_S = 10.0
"""No write of the simulated disk takes longer."""


@dataclass(frozen=True)
class _Look:
    asked_ns: int
    version: int | None


NEVER = _Look(0, None)


@dataclass
class _Left:
    """What left of one participant in one channel."""

    versions: dict[int, bytes] = field(default_factory=dict)
    final: State | None = None


class Rules:
    """Watches every honest node of a world."""

    def __init__(self, chain: SimChain) -> None:
        self._chain = chain
        self.broken: list[str] = []
        self._totals: dict[ChannelId, int] = {}
        self._unpaid: dict[int, int] = {}
        """E8s that may still be paid in, by the funding's memo."""
        self._made: dict[bytes, State] = {}
        self._left: dict[tuple[ChannelId, bytes], _Left] = {}
        self._looks: dict[tuple[str, int, ChannelId], _Look] = {}
        self._shown_at_s: dict[tuple[str, int, ChannelId], float] = {}
        """When a registration was first shown."""
        self._swept: dict[tuple[str, int], int] = {}
        self._told: Counter[tuple[str, int, str, bytes]] = Counter()
        self._blind: set[tuple[str, int, Funding]] = set()
        self._pool: dict[tuple[str, int], int] = {}
        """What each life last saw in the account that a published canister pays from."""
        self._length = 0

    def fail(self, text: str) -> None:
        self.broken.append(text)

    def _need(self, condition: object, text: str) -> None:
        if not condition:
            self.fail(text)

    # --- rule 1 and 4: signatures ------------------------------------------------------------------------

    def signed(self, life: Life, state: State, signature: bytes) -> None:
        """A key made a signature."""
        self._made[signature] = state
        if not life.house.honest:
            return
        self._need(
            not life.house.is_double,
            f"rule 1: an old copy of {life.house.name}, which runs beside it, signs version {state.version}",
        )
        total = self._totals.setdefault(state.channel, state.total)
        self._need(state.total == total, f"rule 6: version {state.version} allocates {state.total} of {total} e8s")
        if state.channel in life.house.lost:
            self._need(
                state.finalized and state.version % FAR == 0,
                f"rule 7: {life.house.name} lost its disk, and signs version {state.version} of an old channel",
            )
            self._need(
                life.house.may_end_loss(state),
                f"rule 7: {life.house.name} lost its disk, and signs shares that nothing shows to be the newest",
            )
        if state.finalized or state.version == 0:
            return
        fresh, look = self._fresh(life, state.channel)
        self._need(fresh, f"rule 4: {life.house.name} signed version {state.version} on the look {look}")

    def _fresh(self, life: Life, channel: ChannelId) -> tuple[bool, _Look | None]:
        """Return whether the newest look is clean and young, and that look."""
        look = self._looks.get((life.house.name, life.number, channel))
        challenge_ns = life.house.challenge_ns(channel)
        swept_ns = self._swept.get((life.house.name, life.number))
        asked = [ns for ns in (look.asked_ns if look else None, swept_ns) if ns is not None]
        clean = look is None or look.version is None
        young = bool(asked) and 3 * (life.house.clock.monotonic_ns() - max(asked)) < challenge_ns
        return clean and young, look

    def looked(self, life: Life, channel: ChannelId, answer: Certified[RegisteredState | None]) -> None:
        """A look came back."""
        key = (life.house.name, life.number, channel)
        before = self._looks.get(key)
        if answer.value is None and self._chain.registered(channel) is not None:
            began_ns = self._chain.first_registered_ns[channel]
            asked_ns = self._chain.loop.elapsed_ns() - life.house.clock.monotonic_ns() + answer.signed_at_mono_ns
            fresh = began_ns >= asked_ns
            self._need(fresh, f"rule 5: {life.house.name} takes an old answer for a look at what is registered")
        if before is None or before.asked_ns <= answer.signed_at_mono_ns:
            registered = answer.value
            version = registered.state.version if registered is not None else None
            if version is not None and (before is None or before.version is None):
                self._shown_at_s[key] = self._chain.loop.time()
            self._looks[key] = _Look(answer.signed_at_mono_ns, version)

    def swept(self, life: Life, limit: int, answer: Certified[DisputePage]) -> None:
        """A page of the log of registrations came back: without more of it, all others are quiet."""
        page, asked_ns = answer.value, answer.signed_at_mono_ns
        for entry in page.entries:
            if entry.registered is not None:
                self.looked(life, ChannelId(entry.channel), answer.with_value(entry.registered))
        if len(page.entries) < limit:
            self._saw_all(life, asked_ns)
            key = (life.house.name, life.number)
            self._swept[key] = max(self._swept.get(key, 0), asked_ns)

    def _saw_all(self, life: Life, asked_ns: int) -> None:
        """A sweep calls all channels quiet: none of them had a state registered that this life was not shown."""
        house = life.house
        asked_ns += self._chain.loop.elapsed_ns() - house.clock.monotonic_ns()
        for channel in house.watched():
            unseen = self._looks.get((house.name, life.number, channel), NEVER).version is None
            if unseen and self._chain.first_registered_ns.get(channel, asked_ns) < asked_ns:
                self.fail(f"DESIGN 8: {house.name} reads the log on beyond a registration that it was not shown")

    def _signature_leaves(self, life: Life, signature: bytes) -> None:
        state = self._made.get(signature)
        if state is None:
            return  # the peer's, shown to it again
        disk = life.house.disk
        self._need(
            disk.one("SELECT 1 FROM opening WHERE signature = ?", signature)
            or disk.one("SELECT 1 FROM channel WHERE ? IN (signature_0, signature_1)", signature)
            if state.version == 0
            else disk.one(
                "SELECT 1 FROM channel_state s JOIN channel c USING (number) WHERE c.channel = ? AND "
                "(s.signed_version > ? OR (s.signed_version = ? AND s.signed_digest = ?) "
                "OR ? IN (s.signature_0, s.signature_1))",  # the newest state, which was shown to it after a loss
                state.channel, state.version, state.version, state.digest, signature,
            ),
            f"rule 2: the signature of {life.house.name} on version {state.version} left before it was durable",
        )  # fmt: skip
        left = self._left.setdefault((state.channel, life.house.participant(state.channel, signature)), _Left())
        # Where both have lost everything, or one feigns it, nobody can know what was signed: they may close twice.
        forgotten = (
            state.finalized
            and state.channel in life.house.lost
            and all(
                state.channel in house.lost or state.channel in house.feigned
                for house in life.house.neighbours
                if house.knows(state.channel)
            )
        )
        if state.version not in left.versions:  # what left before may be shown again
            # Who lost its final state with its disk ends the loss with another one, of the same allocation.
            again = (
                left.final is None
                or (state.finalized and state.channel in life.house.lost and state.allocation == left.final.allocation)
                or forgotten
            )
            self._need(again, f"rule 1: {life.house.name} signed after a final state")
        earlier = left.versions.setdefault(state.version, state.digest)
        self._need(
            earlier == state.digest or forgotten,
            f"rule 1: {life.house.name} let two states of version {state.version} go",
        )
        if state.finalized:
            left.final = state

    # --- rule 2: what leaves -----------------------------------------------------------------------------

    def leaves(self, life: Life, message: Message) -> None:
        """A message leaves an honest node: what it commits to is on the disk."""
        if not life.house.honest:
            return
        disk, name = life.house.disk, life.house.name
        what = f"rule 2: {name} sent {type(message).__name__} before it was durable"
        match message:
            case ChannelProposal() | ChannelAccept():
                self._need(disk.one("SELECT 1 FROM opening WHERE proposal_id = ?", message.proposal_id), what)
            case StateSignature():
                self._signature_leaves(life, message.signature)
                share = disk.one("SELECT share_0 FROM opening WHERE signature = ?", message.signature) or disk.one(
                    "SELECT our_share FROM channel WHERE ? IN (signature_0, signature_1)", message.signature
                )
                over = disk.one(
                    "SELECT 1 FROM channel c JOIN channel_state s USING (number) "
                    "WHERE ? IN (c.signature_0, c.signature_1) AND s.phase = 'closed'", message.signature
                )  # fmt: skip
                saved = over or (share is not None and share[0] in life.house.saved_shares)
                self._need(saved, f"DESIGN 11: the signature of {name} on a state 0 left before the backup was durable")
            case Update():
                self._signature_leaves(life, message.signature)
                row = disk.one(
                    "SELECT s.version, o.message FROM channel c JOIN channel_state s USING (number) "
                    "LEFT JOIN outstanding o USING (number) WHERE c.channel = ?", message.channel
                )  # fmt: skip
                self._need(row and (row[0] >= message.version or row[1] == encode(message)), what)
            case Ack():
                self._signature_leaves(life, message.signature)
                self._holds(life, message.channel, message.version, what)
            case SignedStateMessage():
                self._signature_leaves(life, message.signature_0)
                self._signature_leaves(life, message.signature_1)
                self._holds(life, message.channel, message.version, what)
            case Confirm() | Resume():
                self._holds(life, message.channel, message.version, what)
            case ChannelReady():
                self._holds(life, message.channel, 0, what)
            case Offer():
                self._need(
                    message.channel not in life.house.lost, f"rule 7: {name} lost its disk, and offers payments again"
                )
                for payment in message.payments:
                    self._need(self._status(life, message.channel, payment.id) not in (None, "queued"), what)
            case Decline():
                for start in range(0, len(message.ids), ID):
                    self._need(self._status(life, message.channel, message.ids[start : start + ID]) == "declined", what)
            case _:
                pass

    def _holds(self, life: Life, channel: ChannelId, version: int, what: str) -> None:
        row = life.house.disk.one(
            "SELECT s.version FROM channel c JOIN channel_state s USING (number) WHERE c.channel = ?", channel
        )
        self._need(row is not None and row[0] >= version, what)

    def _status(self, life: Life, channel: ChannelId, payment_id: bytes) -> object:
        row = life.house.disk.one(
            "SELECT coalesce(p.status, 'included') FROM payment p JOIN channel c USING (number) "
            "WHERE c.channel = ? AND p.id = ?", channel, payment_id
        )  # fmt: skip
        return row[0] if row else None

    # --- rule 3 and 6: money -----------------------------------------------------------------------------

    def transfers(self, life: Life, call: SignedCall, args: TransferArgs) -> None:
        """A transfer is about to be asked for."""
        if not life.house.honest:
            return
        told = life.house.is_double and life.house.node.lives.stopped is not None
        self._need(not told, f"rule 7: an old copy of {life.house.name}, which was told, pays {args.amount_e8s} e8s")
        disk = life.house.disk
        row = disk.one(
            "SELECT number, memo FROM transfer WHERE created_at_ns = ? AND amount = ? AND last_expiry_ns >= ?",
            args.created_at_time_ns, args.amount_e8s, call.ingress_expiry_ns,
        )  # fmt: skip
        if row is None:
            self.fail(f"rule 2: {life.house.name} pays {args.amount_e8s} e8s before the intent is durable")
        if args.to != self._chain.account:
            return
        assert row is not None
        if row[0] is None:
            self._need(not self._chain.keeps_log, "our own canister needs no money lent")
            lent = disk.one("SELECT sum(amount) FROM transfer WHERE status != 'void' AND memo = ?", row[1])
            self._need(lent is not None and lent[0] <= 10 * FEE_E8S, f"{life.house.name} lends {lent} e8s")
            return
        for channel in disk.read.live_channels():
            funding = channel.terms.funding(channel.terms.our_index)
            if funding.memo != args.memo:
                continue
            lost = channel.terms.channel in life.house.lost
            self._need(not lost, f"rule 7: {life.house.name} lost its disk, and pays into an old channel")
            self._unpaid.setdefault(args.memo, channel.terms.allocation[channel.terms.our_index])
            state_0 = channel.terms.state_0()
            found = disk.one("SELECT signature_0, signature_1 FROM channel WHERE number = ?", channel.number)
            assert found is not None
            signed = SignedState(state_0, found)
            self._need(verify_signed_state(channel.terms.params, signed), "rule 3: state 0 is not fully signed")
            self._need(channel.terms.channel in life.house.watched(), "rule 3: paid into a channel nobody watches")
            return
        self.fail(f"rule 3: {life.house.name} pays into a channel whose state 0 is not on its disk")

    def saw_balance(self, life: Life, account: bytes, e8s: int) -> None:
        """A look at an account came back."""
        if account == self._chain.account:
            self._pool[life.house.name, life.number] = e8s

    def withdraws(self, life: Life, call: SignedCall) -> None:
        """A withdrawal is about to be asked for."""
        row = life.house.disk.one("SELECT 1 FROM withdrawal WHERE envelope = ?", call.to_bytes())
        if life.house.honest and row is None and call.signed_at_mono_ns > 0:
            self.fail(f"rule 2: {life.house.name} withdraws before the call is durable")
        asked = life.house.disk.one("SELECT holdings FROM withdrawal WHERE envelope = ?", call.to_bytes())
        if life.house.honest and asked is not None and not self._chain.keeps_log:
            seen = self._pool.get((life.house.name, life.number), 0)
            text = f"{life.house.name} asks a pool of {seen} e8s for {asked[0]}: what is refused may be lost"
            self._need(seen >= asked[0] + FEE_E8S, f"ADR 0015: {text}")

    def saw_holdings(self, life: Life, funding: Funding) -> None:
        """A look at holdings came back."""
        self._blind.discard((life.house.name, life.number, funding))

    def signed_withdrawal(self, life: Life, funding: Funding) -> None:
        """A new withdrawal is made: between two of them is a look at what is there to withdraw."""
        key = (life.house.name, life.number, funding)
        blind = key in self._blind and life.house.honest
        self._need(not blind, f"DESIGN 7: {life.house.name} withdraws once more without a look")
        self._blind.add(key)

    def settles(self, life: Life, signed: SignedState) -> None:
        """A state is about to be registered or concluded with."""
        if life.house.honest:
            state, house = signed.state, life.house
            opens = self._chain.registered(state.channel) is None and not state.finalized
            recovers = state.channel in house.lost and state.channel not in house.risked
            self._need(not (opens and recovers), f"rule 7: {house.name} lost its disk, and opens a dispute")
            self._holds(life, state.channel, state.version, "rule 2: registers a state that is not on its disk")

    def money(self) -> None:
        """Nothing appears and nothing disappears: after every turn in which the ledger changed."""
        ledger = self._chain.ledger
        if ledger.chain_length == self._length or self._chain.executing:
            return
        for block in self._chain.blocks(self._length, ledger.chain_length - self._length):
            operation = block.operation
            if getattr(operation, "to", b"") == self._chain.account and block.memo in self._unpaid:
                self._unpaid[block.memo] -= operation.amount_e8s  # type: ignore[union-attr]  # it has an account
                self._need(self._unpaid[block.memo] >= 0, "rule 6: more than the share is paid in")
        self._length = ledger.chain_length
        held = ledger.balance(self._chain.account)
        perun = self._chain.perun
        gone = perun.fees_e8s if isinstance(perun, PublishedContract) else 0  # its payouts cost everybody
        self._need(held + gone >= perun.owed_e8s, f"rule 6: the canister owes more than its {held} e8s")

    # --- payments ----------------------------------------------------------------------------------------

    def told(self, life: Life, effects: tuple[Effect, ...], channel: ChannelId) -> None:
        """Users are told of payments: of each once in a life (who waits for one does not survive a crash)."""
        if not life.house.honest:
            return
        for effect in effects:
            match effect:
                case Delivered() | Received():
                    kind = "received" if isinstance(effect, Received) else "sent"
                    if kind == "sent":
                        self._is_delivered(life, channel, effect.version)
                    else:
                        self._is_received(life, channel, effect.version)
                    for payment in effect.payments:
                        self._once(life, kind, payment)
                case PaymentsEnded():
                    for start in range(0, len(effect.ids), ID):
                        self._once(life, "sent", Payment(effect.ids[start : start + ID], 0))
                case _:
                    pass

    def _is_received(self, life: Life, channel: ChannelId, version: int) -> None:
        """Who is told that he was paid has a fresh clean look, or the canister's word."""
        row = life.house.disk.one(
            "SELECT s.settled_version FROM channel c JOIN channel_state s USING (number) WHERE c.channel = ?", channel
        )
        settled = row is not None and row[0] is not None and row[0] >= version
        fresh, look = self._fresh(life, channel)
        # What was decided under a clean look is told when it is durable: a registration may be shown between.
        shown_s = self._shown_at_s.get((life.house.name, life.number, channel))
        fresh = fresh or (shown_s is not None and self._chain.loop.time() - shown_s < DISK_LAGS_S)
        self._need(settled or fresh, f"rule 4: {life.house.name} counts version {version} on the look {look}")

    def _is_delivered(self, life: Life, channel: ChannelId, version: int) -> None:
        """Who is told that a payment is delivered can rely on it: its receiver has it on its disk."""
        for other in life.house.neighbours:
            if other is not life.house and other.honest and channel not in other.lost:
                row = other.disk.one(
                    "SELECT s.version, s.settled_version FROM channel c JOIN channel_state s USING (number) "
                    "WHERE c.channel = ?", channel
                )  # fmt: skip
                if row is not None and max(row[0], row[1] or 0) < version:
                    self.fail(f"{life.house.name} calls version {version} delivered; {other.name} has {row[0]}")

    def _once(self, life: Life, kind: str, payment: Payment) -> None:
        key = (life.house.name, life.number, kind, payment.id)
        self._told[key] += 1
        self._need(self._told[key] == 1, f"payment {payment.id.hex()} is counted twice as {kind} by {life.house.name}")
