"""One watchtower of a node: what it still has to get, what it promised, and whether it makes sense.

Deliveries run beside the payments and never before them: marking a channel is one entry in a dictionary, a task
brings the newest states over at a bounded rate, and what changed meanwhile is brought once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from perund.tower.recalling import NO_SLOT, Recall, Recovery
from perund.tower.receipt_rows import KeptReceipt
from perund.tower.standing import ASK_EVERY_S, Keeper, Standing
from protocol.messages import (
    FEATURE_TOWER,
    TowerForget,
    TowerHeld,
    TowerList,
    TowerReceipt,
    TowerRefusal,
    TowerStanding,
    TowerState,
)
from protocol.tower_digest import Entry, bucket_of
from protocol.types import ChannelId, Params, SignedState
from watcher.tower.receipts import verify_receipt
from wire.address import NodeAddress
from wire.session import Session

__all__ = ["Household", "Lag", "TowerLink"]

log = structlog.get_logger()

NS: Final = 1_000_000_000
WINDOW: Final = 64
"""States that a tower may leave unanswered."""
PAUSE_S: Final = 0.005
"""Between two states: at most 200 each second."""
REST_NS: Final = NS // 10
"""Between two states of one channel: a stream of payments makes ten deliveries each second, not a thousand."""
ANSWER_S: Final = 30
"""A tower that does not answer in this time gets a new session."""
FIRST_PAUSE_S: Final = 5
LONGEST_PAUSE_S: Final = 600
BROKEN_FOR_S: Final = 3_600
"""A broken promise counts for so long: each further one of a channel doubles the pause before it is brought again."""
RENEW_EVERY_S: Final = 5
"""How often receipts are checked for their age."""


class Household(Recovery, Keeper, Protocol):
    """What a link needs of the node."""

    def elapsed_ns(self) -> int:
        """Return local nanoseconds that never go back."""
        ...

    def keep_receipt(self, tower: bytes, receipt: TowerReceipt) -> None:
        """Write a verified receipt down."""
        ...

    def dropped(self, tower: bytes) -> None:
        """Dial a tower no more."""
        ...


@dataclass(frozen=True, slots=True)
class _Sent:
    version: int
    digest: bytes
    at_ns: int
    since_ns: int


@dataclass(frozen=True, slots=True)
class Lag:
    """How far behind a tower is. `oldest_s`: age of the oldest state that it has not promised to guard, or has not
    confirmed since: what it said in an earlier session does not count.
    """

    channels: int
    oldest_s: float | None


class TowerLink:
    """The node's side of one tower."""

    def __init__(
        self,
        address: NodeAddress,
        household: Household,
        network: bytes,
        our_id: bytes,
        receipts: dict[ChannelId, KeptReceipt],
    ) -> None:
        """`network`: 32 bytes, the network hash; `our_id`: 33 bytes, our node key; `receipts`: those on the disk."""
        self.address = address
        self.problem: str | None = "not connected yet"
        """Why it is not served now, for people; None when nothing is known to be wrong."""
        self.dropped: str | None = None
        """Why nothing is said to it any more."""
        self.recall = Recall(address.node_id, household)
        """What the tower is asked for when this node may have lost data."""
        self.standing = Standing(address.node_id, household, receipts, household.elapsed_ns())
        """What the tower confirms that it holds."""
        self._household = household
        self._network = network
        self._our_id = our_id
        self._receipts = receipts
        self._session: Session | None = None
        self._waiting: dict[ChannelId, int] = {}  # since when, in local time
        self._in_flight: dict[ChannelId, _Sent] = {}
        self._not_before: dict[ChannelId, int] = {}
        self._pauses: dict[ChannelId, float] = {}
        self._broken: dict[ChannelId, tuple[int, int]] = {}  # how often, and when last (local time)
        self._settled: set[ChannelId] = set()
        self._live: set[ChannelId] = set()
        self._renewed_ns = 0
        self._wake = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether states can be delivered now."""
        return self._session is not None

    def receipt(self, channel: ChannelId) -> KeptReceipt | None:
        """Return the newest receipt for a channel."""
        return self._receipts.get(channel)

    def lag(self) -> Lag:
        """Return how far behind the tower is."""
        since = [*self._waiting.values(), *(sent.since_ns for sent in self._in_flight.values())]
        undelivered = self._waiting.keys() | self._in_flight.keys()
        doubtful = self.standing.doubtful(c for c in self._live - self._settled if c not in undelivered)
        if doubtful:
            since.append(self.standing.doubted_ns)
        channels = len(undelivered) + doubtful
        return Lag(channels, (self._household.elapsed_ns() - min(since)) / NS if since else None)

    # --- what the node says ------------------------------------------------------------------------------

    def mark(self, channel: ChannelId) -> None:
        """Note that a channel has a newer state: O(1), nothing is sent in this call."""
        self._live.add(channel)
        if self.dropped is None and channel not in self._waiting and channel not in self._settled:
            self._waiting[channel] = self._household.elapsed_ns()
            self._wake.set()

    def take_up(self, channel: ChannelId, newest: SignedState) -> None:
        """Note a channel at the start of the node: it is to be delivered unless its receipt is for the newest state,
        and it is behind until the tower confirms that.
        """
        self._live.add(channel)
        if not self._is_promised(channel, newest):
            self.mark(channel)

    def want(self, channel: ChannelId) -> None:
        """Ask the tower what it holds of a channel: this node may have lost data."""
        if self.dropped is None:
            self.recall.want(channel)
            self._wake.set()

    def forget(self, channel: ChannelId) -> None:
        """A channel is closed. Said once: a tower that misses it finds out by itself."""
        known = channel in self._receipts or channel in self._in_flight
        self._waiting.pop(channel, None)
        self._in_flight.pop(channel, None)
        self._receipts.pop(channel, None)
        self._not_before.pop(channel, None)
        self._pauses.pop(channel, None)
        self._broken.pop(channel, None)
        self._settled.discard(channel)
        self._live.discard(channel)
        self.standing.forget(channel)
        self.recall.forget(channel)
        if self._session is not None and known:
            self._session.send(TowerForget(channel))

    def session_began(self, session: Session) -> None:
        """The tower is there."""
        if self.dropped is not None:
            return
        if not session.hello.features & FEATURE_TOWER:
            # A node that does not say that it is a tower gets no balances to see.
            self.problem = "the node there is no watchtower; correct watch.towers"
            self.recall.session_began(0)
            return
        self.problem = None
        self._session = session
        self.recall.session_began(session.hello.features)
        if not self.standing.session_began(session.hello.features):
            # It cannot say whether it has forgotten: it is brought everything, and its receipts say it.
            for channel in self._live:
                self.mark(channel)
        self._wake.set()

    def session_ended(self, session: Session, reason: str) -> None:
        """The session is over; what was not answered is to be delivered again."""
        if session.fault is not None:
            self._drop(f"it sent what is no message of the protocol ({session.fault})")
        if session is not self._session:
            return
        self._session = None
        self.standing.session_ended(self._household.elapsed_ns())
        self.problem = self.problem or f"not connected: {reason}"
        for channel, sent in self._in_flight.items():
            self._waiting[channel] = sent.since_ns
        self._in_flight.clear()
        self.recall.session_ended(self._household.elapsed_ns())

    def complained(self, code: str, text: str) -> None:
        """The tower sent an error."""
        self.problem = f"it answered {code}: {text}"

    # --- what the tower says -----------------------------------------------------------------------------

    def received(
        self, session: Session, message: TowerReceipt | TowerRefusal | TowerHeld | TowerStanding | TowerList
    ) -> None:
        """Take an answer of the tower."""
        if session is not self._session:
            return
        if isinstance(message, TowerStanding | TowerList):
            self._confirmed(session, message)
            return
        if isinstance(message, TowerHeld) or (isinstance(message, TowerRefusal) and message.code == NO_SLOT):
            nonsense = self.recall.received(message)
            if nonsense is not None:
                self._drop(nonsense)
            self._wake.set()
            return
        sent = self._in_flight.get(message.channel)
        if sent is None:
            if self._household.newest(message.channel) is not None:
                self._drop("it answered for a channel that it was not asked about")
            return  # closed meanwhile
        if isinstance(message, TowerRefusal):
            self._refused(message, sent)
            return
        nonsense = self._nonsense(message, sent)
        if nonsense is not None:
            self._drop(nonsense)
            return
        self._in_flight.pop(message.channel)
        self.standing.promised(Entry(message.channel, message.version, message.state_hash))
        if message.version > sent.version:
            # Only the state itself proves that our data is old (rule 7); a promise about it is a reason to ask for it.
            facts: dict[str, str | int | bool] = {
                "tower": self.address.node_id.hex(), "theirs": message.version, "ours": sent.version, "alarm": True,
            }  # fmt: skip
            self._household.event("tower.claims_newer", message.channel, facts)
            self.recall.want(message.channel)
            self._later(message.channel, sent, f"it says that it holds version {message.version}, ours is older")
        elif message.expires_ns <= self._household.chain_ns():
            self._later(message.channel, sent, "its receipts have expired when they come")
        elif not KeptReceipt.of(message).believable(self._household.chain_ns()):
            self._later(message.channel, sent, "its receipts are of another time than now, or for longer than a year")
        else:
            self._promised(message, sent)
        self._wake.set()

    def _confirmed(self, session: Session, message: TowerStanding | TowerList) -> None:
        """Take what the tower says of its store; what differs is delivered again."""
        nonsense, question = self.standing.received(message, self._household.elapsed_ns())
        if nonsense is not None:
            self._drop(nonsense)
            return
        if isinstance(message, TowerStanding):
            for channel in list(self._waiting):
                found = self._household.newest(channel)
                if found is None or self._covers(channel, found[1]):
                    del self._waiting[channel]
        if isinstance(message, TowerList):
            # After each page: from here on a missing state is known by nothing else, if the session ends now.
            for channel in [c for c in self._live if bucket_of(c) == message.bucket and c not in self._in_flight]:
                found = self._household.newest(channel)
                if found is not None and not self._covers(channel, found[1]):
                    self._bring_again(channel, found[1])
        if question is not None:
            session.send(question)
        self._wake.set()

    def _bring_again(self, channel: ChannelId, newest: SignedState) -> None:
        """Deliver what it has not. At once the first time that it had signed that it holds it; who forgets again and
        again, or says so, would else be brought everything for ever.
        """
        if channel not in self._waiting and self._is_promised(channel, newest):
            now_ns = self._household.elapsed_ns()
            times, last_ns = self._broken.get(channel, (0, now_ns))
            times = times + 1 if now_ns - last_ns < BROKEN_FOR_S * NS else 1
            self._broken[channel] = (times, now_ns)
            if times > 1:
                pause_s = min(ASK_EVERY_S << min(times - 2, 10), LONGEST_PAUSE_S)
                self._not_before[channel] = now_ns + pause_s * NS
                self.problem = "it forgets again and again what it has signed that it holds"
        self.mark(channel)

    def _nonsense(self, receipt: TowerReceipt, sent: _Sent) -> str | None:
        if not verify_receipt(self.address.node_id, self._network, self._our_id, receipt):
            return "a receipt of it is not signed by its node key"
        if receipt.version < sent.version:
            return f"it answered version {sent.version} with a receipt for version {receipt.version}"
        if receipt.version == sent.version and receipt.state_hash != sent.digest:
            return f"its receipt for version {receipt.version} is about another state"
        if receipt.expires_ns <= receipt.chain_time_ns:
            return "a receipt of it had expired when it was signed"
        return None

    def _promised(self, receipt: TowerReceipt, sent: _Sent) -> None:
        channel = receipt.channel
        self.problem = None
        self._receipts[channel] = KeptReceipt.of(receipt)
        self._household.keep_receipt(self.address.node_id, receipt)
        self._pauses.pop(channel, None)
        self._not_before[channel] = sent.at_ns + REST_NS

    def _refused(self, refusal: TowerRefusal, sent: _Sent) -> None:
        channel = refusal.channel
        self._in_flight.pop(channel)
        self._wake.set()
        if refusal.code == "settled":
            self._settled.add(channel)  # the canister has decided; the channel closes in a moment
            self._waiting.pop(channel, None)
            return
        if refusal.code == "state_conflict":
            facts: dict[str, str | int | bool] = {
                "tower": self.address.node_id.hex(), "version": refusal.version, "alarm": True,
            }  # fmt: skip
            self._household.event("tower.conflict", channel, facts)
        self._later(channel, sent, f"it refuses a channel: {refusal.code}: {refusal.text}")

    def _later(self, channel: ChannelId, sent: _Sent, problem: str) -> None:
        """Try again after a pause that doubles."""
        pause_s = self._pauses.get(channel, FIRST_PAUSE_S)
        self._pauses[channel] = min(pause_s * 2, LONGEST_PAUSE_S)
        self._not_before[channel] = self._household.elapsed_ns() + int(pause_s * NS)
        self._waiting[channel] = sent.since_ns
        if self.problem != problem:
            log.warning("tower.not_guarding", tower=self._short, channel=channel.hex()[:16], problem=problem)
        self.problem = problem

    def give_up(self, reason: str) -> None:
        """Use this tower no more, until the node starts again."""
        self._drop(reason)

    def _drop(self, reason: str) -> None:
        if self.dropped is not None:
            return
        self.dropped = reason
        self.recall.give_up()
        session, self._session = self._session, None
        log.error("tower.dropped", tower=self.address.node_id.hex(), reason=reason, alarm=True)
        facts: dict[str, str | int | bool] = {
            "tower": self.address.node_id.hex(), "reason": reason, "alarm": True,
        }  # fmt: skip
        self._household.event("tower.dropped", None, facts)
        self._household.dropped(self.address.node_id)
        if session is not None:
            session.close(f"dropped: {reason}")
        self._wake.set()

    @property
    def _short(self) -> str:
        return self.address.node_id.hex()[:16]

    # --- delivering --------------------------------------------------------------------------------------

    async def run(self, live: Callable[[], list[ChannelId]]) -> None:
        """Deliver what waits, for as long as the tower makes sense. `live`: the channels that are not closed."""
        while self.dropped is None:
            self._wake.clear()
            self._renew(live)
            self._end_silence()
            if self._recall_next() or self._ask_next() or self._send_next():
                await asyncio.sleep(PAUSE_S)
                continue
            try:
                async with asyncio.timeout(self._idle_s()):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _recall_next(self) -> bool:
        question = self.recall.next(self._household.elapsed_ns()) if self._session is not None else None
        if question is None or self._session is None:
            return False
        self._session.send(question)
        return True

    def _ask_next(self) -> bool:
        question = self.standing.next(self._household.elapsed_ns()) if self._session is not None else None
        if question is None or self._session is None:
            return False
        self._session.send(question)
        return True

    def _send_next(self) -> bool:
        session = self._session
        if session is None or len(self._in_flight) >= WINDOW:
            return False
        now_ns = self._household.elapsed_ns()
        for channel, since_ns in self._waiting.items():
            if channel in self._in_flight or self._not_before.get(channel, 0) > now_ns:
                continue
            if self.recall.busy(channel, now_ns):
                continue
            found = self._household.newest(channel)
            if found is not None and self._is_promised(channel, found[1]) and self.standing.is_asked(channel):
                continue  # it has signed that it holds this, and is about to say whether it still does
            del self._waiting[channel]
            if found is not None and not self._covers(channel, found[1]):
                self._send(session, *found, now_ns, since_ns)
            return True
        return False

    def _send(self, session: Session, params: Params, signed: SignedState, now_ns: int, since_ns: int) -> None:
        state = signed.state
        self._in_flight[state.channel] = _Sent(state.version, state.digest, now_ns, since_ns)
        session.send(
            TowerState(
                params.nonce,
                *params.participants,
                params.challenge_duration_ns,
                state.version,
                state.allocation,
                state.finalized,
                *signed.signatures,
            )
        )

    def _covers(self, channel: ChannelId, newest: SignedState) -> bool:
        """Whether the newest state is promised for a while, and the tower has said in this session that it has it."""
        state = newest.state
        return self._is_promised(channel, newest) and self.standing.confirms(channel, state.version, state.digest)

    def _is_promised(self, channel: ChannelId, newest: SignedState) -> bool:
        """Whether a receipt promises the newest state for a while."""
        receipt = self._receipts.get(channel)
        return (
            receipt is not None
            and receipt.version == newest.state.version
            and receipt.digest == newest.state.digest
            and self._household.chain_ns() < receipt.renew_at_ns()
        )

    def _renew(self, live: Callable[[], list[ChannelId]]) -> None:
        """Mark the channels whose receipts are old, now and then."""
        now_ns = self._household.elapsed_ns()
        if now_ns - self._renewed_ns < RENEW_EVERY_S * NS:
            return
        self._renewed_ns = now_ns
        chain_ns = self._household.chain_ns()
        for channel in live():
            receipt = self._receipts.get(channel)
            if (receipt is None or chain_ns >= receipt.renew_at_ns()) and channel not in self._in_flight:
                self.mark(channel)

    def _end_silence(self) -> None:
        limit_ns = self._household.elapsed_ns() - ANSWER_S * NS
        asked_ns = self.recall.silent_since_ns()
        silent = any(sent.at_ns < limit_ns for sent in self._in_flight.values())
        if self._session is not None and (silent or (asked_ns is not None and asked_ns < limit_ns)):
            self.problem = f"it did not answer within {ANSWER_S} s"
            self._session.close(self.problem)

    def _idle_s(self) -> float:
        """Return when there may be something to do again, in seconds."""
        if self._session is None or not self._waiting:
            return RENEW_EVERY_S
        now_ns = self._household.elapsed_ns()
        next_ns = min(self._not_before.get(channel, 0) for channel in self._waiting)
        if next_ns <= now_ns:  # it waits for an answer, which wakes
            return RENEW_EVERY_S
        return min(RENEW_EVERY_S, (next_ns - now_ns) / NS)
