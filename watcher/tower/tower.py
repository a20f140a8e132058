"""The watchtower: decides about states that clients bring, keeps the newest, promises, and has it refuted.

It only refutes; it never opens a dispute, for it has no business to end a channel. It learns states and no keys.
Slots belong to (client, channel), so nobody touches another's; the watching is per channel, with the newest
state over all clients.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from protocol.errors import PeerViolation, Undecodable
from protocol.hearing import Heard, Hearing
from protocol.messages import (
    TowerHeld,
    TowerList,
    TowerListRequest,
    TowerReceipt,
    TowerRefusal,
    TowerStanding,
    TowerState,
)
from protocol.signing import is_usable_key, verify_signed_state
from protocol.tower_digest import write_entries
from protocol.types import ChannelId, Nanos, Params, SignedState, State
from watcher.ports import CertifiedLook
from watcher.tower.policy import SLOTS_PROVEN_PER_CHANNEL, Refused, TowerPolicy
from watcher.tower.ports import Books, ChainClock, Guard
from watcher.tower.receipts import Notary
from watcher.tower.slots import Guarded, Slot, Slots

__all__ = ["Answer", "Tower", "read_state"]

log = structlog.get_logger()

Answer = Callable[[TowerReceipt | TowerRefusal], None]

STRANGERS_PER_S: Final = 100
"""States of strangers that are verified each second, in all: two signatures each. Others are told to come again."""


def read_state(message: TowerState) -> tuple[Params, SignedState]:
    """Return what a message says. Nothing is verified.

    Raises `PeerViolation` (`bad_params`) for what no channel can have.
    """
    try:
        params = Params(message.nonce, (message.participant_0, message.participant_1), message.challenge_duration_ns)
        state = State(params.channel_id, message.version, message.allocation, message.finalized)
        return params, SignedState(state, (message.signature_0, message.signature_1))
    except Undecodable as error:
        raise PeerViolation("bad_params", str(error)) from error


class Tower:
    """Implements `watcher.ports.States` and `watcher.ports.Reports` for the watcher that it guards with."""

    def __init__(self, policy: TowerPolicy, books: Books, notary: Notary, clock: ChainClock) -> None:
        self.policy = policy
        self.slots = Slots()
        self.guards_only = False
        """Set when a write has failed: nothing is taken, promised or written any more, and what is on the disk is
        still guarded (rule 8).
        """
        self.unproven: Callable[[Guarded], None] = lambda _: None
        """Told of every channel whose money is still to be seen, each time a state comes for it."""
        self.vouch: Callable[[Params, str], bool] = lambda *_: False
        """Whether a look showed money in a channel of whom there was no room for. Else it is found out meanwhile."""
        self._books = books
        self._notary = notary
        self._clock = clock
        self._guard: Guard
        self._strangers_left = float(STRANGERS_PER_S)
        self._counted_ns = clock.elapsed_ns()
        self.hearing = Hearing(
            notary.network, books.heard, lambda client: self.slots.count(client) > 0, self._keep_heard
        )
        """The lives of its clients: of two copies of one that both come here, both are told."""

    def _keep_heard(self, client: bytes, heard: Heard) -> None:
        if not self.guards_only:
            self._books.keep_heard(client, heard)

    def start(self, guard: Guard, unproven: Callable[[Guarded], None]) -> None:
        """Take up every slot of the books: channels with money are watched before anything else is done."""
        self._guard, self.unproven = guard, unproven
        for facts, slot in self._books.slots():
            guarded = self.slots.add(slot, facts.challenge_ns)
            guarded.settled_ns = facts.settled_ns
            if facts.settled_ns is None:
                self.slots.hold(slot, slot.version, slot.digest)
        for guarded in self.slots.channels.values():
            if guarded.settled_ns is None:
                self._guard_or_ask(guarded)

    def _guard_or_ask(self, guarded: Guarded) -> None:
        if guarded.proven:
            self._guard.watch(guarded.channel, guarded.challenge_ns)
        else:
            self.unproven(guarded)

    # --- clients -----------------------------------------------------------------------------------------

    def offer(self, client: bytes, message: TowerState, answer: Answer, origin: str = "") -> None:
        """Take a state of a client (33 bytes, its node key), or refuse it; `answer` is called once, at once or
        when the state is durable. `origin`: the address that it came from, as places are counted by it.

        Raises `PeerViolation` for what no channel can have.
        """
        refused = self.policy.refuses_client(client)
        params, signed = read_state(message)
        if refused is None and self.guards_only:
            refused = Refused("not_ready", "this tower cannot write to its disk")
        if refused is None and not self._clock.certified:
            refused = Refused("not_ready", "this tower does not know the chain time yet; it needs the network")
        if refused is None:
            refused = self._consider(client, params, signed, message, answer, origin)
        if refused is not None:
            answer(TowerRefusal(params.channel_id, message.version, refused.code, refused.text))

    def _consider(
        self, client: bytes, params: Params, signed: SignedState, message: TowerState, answer: Answer, origin: str
    ) -> Refused | None:
        channel, state = params.channel_id, signed.state
        guarded = self.slots.channels.get(channel)
        if guarded is not None and guarded.settled_ns is not None:
            return Refused("settled", "the canister has settled this channel; there is nothing left to refute")
        slot = guarded.slots.get(client) if guarded is not None else None
        if slot is not None and guarded is not None and not guarded.proven and slot.lapses_ns <= self._clock.chain_ns():
            return Refused("unfunded", "no money has appeared in this channel in time; the slot is about to go")
        if slot is not None and state.version <= slot.version:
            if state.version == slot.version and state.digest != slot.digest:
                return self._conflict(slot, params, signed, message)
            # An older state never replaces a newer one; who sends it learns what is held.
            self._renew(slot, answer)
            return None
        refused = self.policy.refuses_state(params, state)
        if refused is None and slot is None:
            refused = self._no_room(client, params, origin)
        if refused is None:
            refused = self._unsigned(params, signed)
        if refused is not None:
            return refused
        now_ns = self._clock.chain_ns()
        if slot is None:
            slot = Slot(client, channel, -1, b"", now_ns, Nanos(now_ns + self.policy.funding_ns), now_ns)
            guarded = self.slots.add(slot, params.challenge_duration_ns, origin)
            if self.slots.count(client) == 1:
                self.hearing.keep(client)
            if guarded.proven and self._spoken_for(guarded) < SLOTS_PROVEN_PER_CHANNEL:
                self.slots.prove(slot)
        assert guarded is not None
        self._compare_with_others(guarded, slot, state)
        self.slots.hold(slot, state.version, state.digest)
        self._promise(guarded, slot, now_ns)
        self._books.keep(slot, message, partial(self._kept, channel, self._receipt(slot, answer)))
        return None

    def _kept(self, channel: ChannelId, receipt: Callable[[], None]) -> None:
        """Go on when a newer state of the channel is durable."""
        receipt()
        guarded = self.slots.channels.get(channel)
        if guarded is None or guarded.settled_ns is not None:
            return
        if not guarded.proven:
            self.unproven(guarded)
        elif guarded.registered is not None and guarded.registered < guarded.version:
            self._guard.hurry(channel)  # it is in a dispute, and what we have just learnt decides it

    def _no_room(self, client: bytes, params: Params, origin: str) -> Refused | None:
        """Decide about room for one slot more, before anything costly is done for it. Strangers have room of their
        own, and none of what known clients have; one that has money shows it while it waits.
        """
        slots, policy = self.slots, self.policy
        if slots.count(client) >= policy.max_channels_per_client:
            return Refused("too_many_channels", f"it guards {policy.max_channels_per_client} channels for you already")
        if slots.unproven(client) >= policy.max_unfunded_per_client:
            return Refused(
                "too_many_unfunded", f"{policy.max_unfunded_per_client} channels of yours have not shown money yet"
            )
        if slots.known_clients >= policy.max_clients and not slots.is_known(client):
            return Refused("full", f"this tower serves {policy.max_clients} clients already")
        if slots.total - slots.of_strangers >= policy.max_channels:
            return Refused("full", f"this tower guards {policy.max_channels} channels already")
        if slots.is_known(client) or client in policy.clients:
            return None
        full = (
            slots.of_strangers >= min(policy.max_unfunded, policy.max_channels)
            or slots.of_strangers_at(origin or client.hex()) >= policy.max_unfunded_per_address
        )
        guarded = slots.channels.get(params.channel_id)
        # One channel's money speaks for few, or one key with money would let any number of others in.
        few = guarded is None or len(guarded.slots) < SLOTS_PROVEN_PER_CHANNEL
        if (full or not self._stranger_may()) and not (few and self.vouch(params, origin or client.hex())):
            if full:
                return Refused("full", "this tower has no room for clients without money in a channel; come again")
            return Refused("busy", "too many strangers at once; come again")
        return None

    def _stranger_may(self) -> bool:
        now_ns = self._clock.elapsed_ns()
        earned = (now_ns - self._counted_ns) / 1e9 * STRANGERS_PER_S
        self._strangers_left, self._counted_ns = min(STRANGERS_PER_S, self._strangers_left + earned), now_ns
        if self._strangers_left < 1:
            return False
        self._strangers_left -= 1
        return True

    @staticmethod
    def _unsigned(params: Params, signed: SignedState) -> Refused | None:
        if not all(is_usable_key(key) for key in params.participants):
            return Refused("bad_key", "the canister would refuse every signature by one of the participant keys")
        if not verify_signed_state(params, signed):
            return Refused("bad_signature", "the canister would refuse a signature on this state")
        return None

    def _conflict(self, slot: Slot, params: Params, signed: SignedState, message: TowerState) -> Refused:
        refused = self._unsigned(params, signed)
        if refused is not None:
            return refused
        now_ns = self._clock.chain_ns()
        if slot.proven:  # a stranger's own signatures prove nothing, and must not fill the disk
            self._books.conflict(slot, message, now_ns)
        self._alarm("tower.conflict", slot.channel, {"client": slot.client.hex(), "version": slot.version})
        return Refused("state_conflict", "this tower holds another state of the same version, signed by both")

    def _compare_with_others(self, guarded: Guarded, slot: Slot, state: State) -> None:
        for other in guarded.slots.values():
            if other is not slot and other.version == state.version and other.digest != state.digest:
                facts: dict[str, str | int | bool] = {
                    "client": slot.client.hex(), "other_client": other.client.hex(), "version": state.version,
                }  # fmt: skip
                self._alarm("tower.conflict", guarded.channel, facts)

    def _renew(self, slot: Slot, answer: Answer) -> None:
        """Promise again what is held; the disk is only asked when that makes a difference."""
        now_ns = self._clock.chain_ns()
        before_ns, guarded = slot.expires_ns, self.slots.channels[slot.channel]
        self._promise(guarded, slot, now_ns)
        gained_ns = slot.expires_ns - before_ns
        if gained_ns == 0 or 4 * gained_ns < slot.expires_ns - now_ns:
            slot.expires_ns = before_ns  # less than a quarter of it has gone: nobody writes for the asking
            # What it answers with may still be on its way to the disk; an empty write comes after it.
            self._books.change((), None, self._receipt(slot, answer))
        else:
            self._books.change((slot,), guarded.settled_ns, self._receipt(slot, answer))

    def _promise(self, guarded: Guarded, slot: Slot, now_ns: Nanos) -> None:
        if slot.proven:
            slot.expires_ns = Nanos(max(slot.expires_ns, now_ns + self.policy.receipt_ns))
            return
        if guarded.proven:  # real, but spoken for by others: it stays as long as its client asks
            slot.lapses_ns = Nanos(now_ns + self.policy.funding_ns)
        slot.expires_ns = slot.lapses_ns

    def _receipt(self, slot: Slot, answer: Answer) -> Callable[[], None]:
        """Return what signs and hands over the receipt for the slot as it is now, once it is durable."""
        return partial(self._sign, slot.client, slot.channel, slot.version, slot.digest, slot.expires_ns, answer)

    def _sign(
        self, client: bytes, channel: ChannelId, version: int, digest: bytes, expires_ns: Nanos, answer: Answer
    ) -> None:
        answer(self._notary.sign(client, channel, version, digest, self._clock.chain_ns(), expires_ns))

    def recall(self, client: bytes, channel: ChannelId) -> TowerHeld | TowerRefusal:
        """Return what is in a client's own slot: it may have lost it.

        Never anything of another client's slot: a state shows balances. It only reads, and promises nothing, so it
        needs neither money in the channel, nor the chain time, nor a disk that can be written to.
        """
        slot = self.slots.get(client, channel)
        signed = self._books.held(client, channel) if slot is not None else None
        if slot is None or signed is None:
            return TowerRefusal(channel, 0, "no_slot", "this tower holds nothing of yours for this channel")
        state, note = signed.state, log.info if slot.proven else log.debug  # strangers must not fill the log
        note("tower.recalled", client=client.hex()[:16], channel=channel.hex()[:16], version=state.version)
        return TowerHeld(channel, state.version, state.allocation, state.finalized, *signed.signatures)

    def standing(self, client: bytes, nonce: int, answer: Callable[[TowerStanding], None]) -> None:
        """Say which life of its store this is, and what it holds for a client, once all of that is on the disk.

        Nothing is said after a failed write: what is held then is not what is known here.
        """
        if not self.guards_only:
            count, buckets = self.slots.standing(client)
            self._books.change((), None, partial(self._stand, nonce, count, buckets, answer))

    def _stand(self, nonce: int, count: int, buckets: bytes, answer: Callable[[TowerStanding], None]) -> None:
        answer(TowerStanding(nonce, self._books.life, self._books.writes(), count, buckets))

    def listed(self, client: bytes, asked: TowerListRequest, answer: Callable[[TowerList], None]) -> None:
        """Say which states it holds for a client in one bucket, once they are on the disk."""
        if not self.guards_only:
            entries, complete = self.slots.listed(client, asked.bucket, asked.after)
            page = TowerList(asked.bucket, asked.after, write_entries(entries), complete)
            self._books.change((), None, partial(answer, page))

    def forget(self, client: bytes, channel: ChannelId) -> None:
        """Give a client's slot up: the client says that the channel is settled."""
        slot = self.slots.get(client, channel)
        if slot is not None and not self.guards_only:
            log.info("tower.forgotten", client=client.hex()[:16], channel=channel.hex()[:16])
            self._drop([slot])

    # --- keeping house -----------------------------------------------------------------------------------

    def proved(self, channel: ChannelId) -> None:
        """Take note that a certified look showed money: the channel is watched from now on."""
        guarded = self.slots.channels.get(channel)
        if guarded is None or guarded.settled_ns is not None:
            return
        changed = [slot for slot in guarded.slots.values() if not slot.proven]
        changed = changed[: SLOTS_PROVEN_PER_CHANNEL - self._spoken_for(guarded)]
        for slot in changed:
            self.slots.prove(slot)
        self._books.change(changed, None)
        self._guard.watch(channel, guarded.challenge_ns)
        log.info("tower.guarding", channel=channel.hex()[:16], version=guarded.version, slots=len(guarded.slots))

    def lapse(self, channel: ChannelId, before_ns: Nanos) -> None:
        """Take note that a look, asked after `before_ns`, showed no money: what lapsed by then goes."""
        guarded = self.slots.channels.get(channel)
        if guarded is not None and not guarded.proven:
            self._drop([slot for slot in guarded.slots.values() if slot.lapses_ns <= before_ns])

    def sweep(self) -> None:
        """Drop the slots of channels that were settled long enough ago, those that lapsed beside proven ones, and,
        when the room is needed, those whose client has not come back since its receipt expired.
        """
        if not self._clock.certified:
            return
        now_ns, gone = self._clock.chain_ns(), list[Slot]()
        for guarded in self.slots.channels.values():
            if guarded.settled_ns is not None:
                if now_ns >= guarded.settled_ns + self.policy.grace_ns:
                    gone += guarded.slots.values()
            elif guarded.proven:
                gone += [slot for slot in guarded.slots.values() if not slot.proven and slot.lapses_ns <= now_ns]
        self._drop(gone)
        too_many = self.slots.total - self.policy.max_channels * 9 // 10
        if too_many > 0:
            expired = sorted((slot.expires_ns, slot.client, slot.channel, slot) for slot in self.slots
                             if slot.proven and slot.expires_ns <= now_ns)[:too_many]  # fmt: skip
            self._drop([slot for *_, slot in expired])

    def _drop(self, slots: list[Slot]) -> None:
        if not slots:
            return
        self._books.drop(slots)
        for slot in slots:
            self.slots.remove(slot)
            guarded = self.slots.channels.get(slot.channel)
            if guarded is None:
                self._guard.unwatch(slot.channel)
            elif not guarded.proven and guarded.settled_ns is None:
                # Its money speaks for those who remain.
                self.proved(slot.channel) if slot.proven else self.unproven(guarded)
        if any(slot.proven for slot in slots):  # strangers come and go without filling the log
            log.info("tower.dropped_slots", count=len(slots), left=self.slots.total)

    @staticmethod
    def _spoken_for(guarded: Guarded) -> int:
        return sum(slot.proven for slot in guarded.slots.values())

    def _alarm(self, kind: str, channel: ChannelId, facts: dict[str, str | int | bool]) -> None:
        guarded = self.slots.channels.get(channel)
        if guarded is not None and guarded.proven:  # what strangers sign with their own keys wakes nobody up
            times = guarded.alarms[kind] = guarded.alarms.get(kind, 0) + 1
            if times & (times - 1):
                return  # both participants can sign any number of conflicts: told at the 1st, 2nd, 4th, 8th …
            if times > 1:
                facts = {**facts, "times": times}
            log.error(kind, channel=channel.hex()[:16], alarm=True, **facts)
            self._note(kind, channel, {**facts, "alarm": True})

    # --- watcher.ports.States and Reports ----------------------------------------------------------------

    def newest(self, channel: ChannelId) -> tuple[Params, SignedState] | None:
        """Return the newest durable state over all clients: what the watcher refutes with."""
        return self._books.newest(channel)

    def looked(self, channel: ChannelId, look: CertifiedLook) -> None:
        """A certified look: when the channel is settled, its slots have done their work."""
        guarded = self.slots.channels.get(channel)
        if guarded is None or look.registered is None:
            return
        state, before = look.registered.state, guarded.registered
        guarded.registered = state.version
        ours = {slot.digest for slot in guarded.slots.values() if slot.version == state.version}
        if before != state.version and state.version == guarded.version and state.digest not in ours:
            # Equal versions cannot refute each other: only people can decide about this.
            self._alarm("tower.other_state_registered", channel, {"version": state.version})
        if guarded.settled_ns is not None or not look.registered.settled(look.chain_ns):
            return
        guarded.settled_ns = look.chain_ns
        for slot in guarded.slots.values():
            self.slots.hide(slot)
        self._guard.unwatch(channel)
        if not self.guards_only:
            self._books.change(guarded.slots.values(), guarded.settled_ns)
        if guarded.registered < guarded.version:
            facts: dict[str, str | int | bool] = {"settled": guarded.registered, "ours": guarded.version}
            self._alarm("tower.settled_below_ours", channel, facts)
        else:
            log.info("tower.settled", channel=channel.hex()[:16], version=guarded.registered)

    def look_failed(self, channel: ChannelId, error: str) -> None:
        """No certified answer came."""
        log.warning("watcher.look_failed", channel=channel.hex()[:16], error=error)

    def refuting(self, channel: ChannelId, registered: int, ours: int) -> None:
        """A version below ours is registered."""
        self._event("tower.refuting", channel, {"registered": registered, "ours": ours})

    def refuted(self, channel: ChannelId, ours: int) -> None:
        """A look shows a version at least ours."""
        self._event("tower.refuted", channel, {"version": ours})

    def _event(self, kind: str, channel: ChannelId, facts: dict[str, str | int | bool]) -> None:
        log.warning(kind, channel=channel.hex()[:16], **facts)
        self._note(kind, channel, facts)

    def _note(self, kind: str, channel: ChannelId, facts: dict[str, str | int | bool]) -> None:
        if not self.guards_only:  # it is in the log in any case
            self._books.note(kind, self._clock.chain_ns(), channel, facts)
