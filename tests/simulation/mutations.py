"""Deliberate bugs, each of which the simulation has to catch: the proof that it can fail.

A mutation replaces a piece of the source of one function, or of two, for as long as it is switched on. When the
source has changed so that the piece is not there any more, the mutation says so and has to be written anew.
"""

# ruff: noqa: E501  (pieces of source stand as they stand there)
from __future__ import annotations
import __future__

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Final
from unittest.mock import patch

from chain import agent
from devnet.perun import canister as contract
from perund.node import (
    canister,
    driver,
    funding_job,
    idempotency,
    lives,
    lost_deposits,
    node,
    openings,
    payout_pool,
    settlement_job,
    transfers,
)
from perund.recovery import copying, taking_up
from perund.store import reading
from protocol import channel, following, hearing, opening, ordering, signer
from watcher import doubts, log_follower, refuting, suspicion

__all__ = ["CAUGHT_BY", "MUTATIONS", "Edit", "Mutation"]


@dataclass(frozen=True)
class Edit:
    """Replace `old` by `new` in the function `name` of a class or a module."""

    owner: type | ModuleType
    name: str
    old: str
    new: str

    def apply(self, source: str) -> str:
        """Return the source with the bug."""
        assert self.old in source, f"{self.owner.__name__}.{self.name} has changed: {self.old!r} is not in it"
        return source.replace(self.old, self.new)


@dataclass(frozen=True)
class Mutation:
    """One bug. `rule`: what it breaks."""

    name: str
    rule: str
    edits: tuple[Edit, ...]
    slow: bool = False
    """Whether it takes more seeds than fit into every test."""

    @contextmanager
    def switched_on(self) -> Iterator[None]:
        """Have the bug."""
        with ExitStack() as stack:
            for owner, name in dict.fromkeys((edit.owner, edit.name) for edit in self.edits):
                function = inspect.getattr_static(owner, name)
                assert isinstance(function, FunctionType)
                source = textwrap.dedent(inspect.getsource(function))
                for edit in self.edits:
                    if (edit.owner, edit.name) == (owner, name):
                        source = edit.apply(source)
                code = compile(source, inspect.getfile(function), "exec", __future__.annotations.compiler_flag)
                made: dict[str, object] = {}
                exec(code, function.__globals__, made)  # the source of this repository, with the bug
                stack.enter_context(patch.object(owner, name, made[name]))
            yield


def _bug(name: str, rule: str, *edits: tuple[type | ModuleType, str, str, str]) -> Mutation:
    return Mutation(name, rule, tuple(Edit(*edit) for edit in edits), slow=name in SLOW)


CAUGHT_BY: Final = {
    "ack before persist": 1,
    "version reused after a cut": 9,
    "version reused after a restart": 9,
    "offer counted twice": 145,
    "state adopted without its signatures": 32,
    "forgotten final": 16,
    "ack during a dispute": 9,
    "nothing is refuted": 28,
    "reused read id": 1,
    "registration after pruning": 2,
    "registration refuted above ours": 1,
    "final with payments": 47,
    "deposit paid twice after restart": 12,
    "deposit before state 0 is signed": 1,
    "a lost reply taken as a refusal": 24,
    "withdrawal sent before it is durable": 1,
    "a pool that is not looked at": 5,
    "fee not booked": 1,
    "queued payment lost by restart": 9,
    "resume without the update": 9,
    "resume without the acknowledgement": 23,
    "resume without the offers": 9,
    "resume without the channel": 9,
    "delivered before confirm": 5,
    "counted whatever the look shows": 9,
    "sign after restore": 17,
    "effects of an old session in a new one": 38,
    "a loss ended on the peer's word": 17,
    "update given up that the peer has": 39,
    "re-offer after restore": 91,
    "dispute after restore": 3,
    "the proposer's signature leaves before it is backed up": 2,
    "the acceptor's signature leaves before it is backed up": 1,
    "old store overwrites the backup": 17,
    "older life goes on": 15,
    "older life is not told": 15,
    "idempotency key not recorded": 16,
    "funding after restore": 25,
    "money leaves before the peer is there": 1775,
    "a payout that only its record shows": 122,
    "empty holdings taken as paid": 210,
    "withdrawal retried without a look": 228,
}
"""Seeds that caught them: tried first. When the simulation has changed so that one does not, the others are."""

SLOW: Final = frozenset(
    {
        "own offers not checked",
        "payment taken twice",
        "acknowledgement not verified",
        "pay again on BadFee",
        "restored node does not look for its deposit",
        "deposit forgotten while it is credited",
        "update during a dispute",
        "allocation not checked",
        "job that wakes itself",
        "look age from the certificate's time",
        "cursor from a query",
        "a freeze that nobody ends",
        "own signature taken for a loss",
        "what was given up forgotten by a restart",
        "final after a lost final",
        "money leaves before the peer is there",
        "a payout that only its record shows",
        "resume without the channel",
    }
)
"""Those that it takes hundreds of seeds to catch."""


Driver, Follower, Orderer, Channel = driver.ChannelDriver, following.Follower, ordering.Orderer, channel.Channel
Settlement, Funding, Transfers = settlement_job.SettlementJob, funding_job.FundingJob, transfers.Transfers

MUTATIONS: Final = (
    _bug(
        "ack before persist",
        "rule 2: effects leave before their records are durable",
        (Driver, "perform", "self._unwritten += 1", "self._unwritten += 1; self._do(step.outgoing, self._session)"),
    ),
    _bug(
        "version reused after a restart",
        "rule 1: the outstanding update is forgotten, and its version used again",
        (reading.Reader, "_outstanding", "if row is None:", "if True:"),
        (signer.StateSigner, "sign", "if state.version <= self._version:", "if False:"),
    ),
    _bug(
        "version reused after a cut",
        "rule 1: the outstanding update ends with its session, and its version is used again",
        (Orderer, "_say_again", "self._ack_comes = False", "self._pending = None; self._ack_comes = False"),
        (signer.StateSigner, "sign", "if state.version <= self._version:", "if False:"),
    ),
    _bug(
        "offer counted twice",
        "an offer that is in an update already is included once more",
        (Orderer, "_offer", "known = self._new_ids(fresh)", "known = {}"),
        (Orderer, "_offer", "if p.id not in outstanding", "if True"),
    ),
    _bug(
        "own offers not checked",
        "an update takes payments of ours that we never offered",
        (Follower, "_check", "if self._offered.get(payment.id) != payment:", "if False:"),
        (Follower, "_update", "self._offered.pop(payment_id).amount_e8s", "getattr(self._offered.pop(payment_id, None), 'amount_e8s', 0)"),
    ),
    _bug(
        "allocation not checked",
        "an update moves more than its payments say",
        (Follower, "_check", "if update.allocation != expected or min(expected) < 0:", "if False:"),
    ),
    _bug(
        "payment taken twice",
        "a payment that is in the channel already is taken once more",
        (Follower, "_check", "if known:", "if False:"),
    ),
    _bug(
        "state adopted without its signatures",
        "rule 4: a newer state is believed because the peer says so",
        (Channel, "_adopt", "or not verify_signed_state(self.terms.params, signed)", ""),
    ),
    _bug(
        "acknowledgement not verified",
        "rule 4: a state counts as fully signed on any 64 bytes",
        (Orderer, "_ack", "if not verify(self.terms.params.participants[1], state.encoded, message.signature):", "if False:"),
    ),
    _bug(
        "forgotten final",
        "what cannot be delivered any more does not end when the final state is signed",
        (Orderer, "_ack", 'return step + self._end_undelivered("channel_closed")', "return step"),
        (Channel, "settled", "return step + self._end_undelivered(code, status) + self._forget_pending()", "return step + self._forget_pending()"),
    ),
    _bug(
        "final with payments",
        "the final state carries payments: the peer can withhold its acknowledgement for their worth",
        (Orderer, "advance", "True, EMPTY, EMPTY", "True, self.queue.take(UPDATE_ROOM), EMPTY"),
    ),
    _bug(
        "ack during a dispute",
        "rule 4: updates go on without a fresh look that shows nothing registered",
        (Follower, "_update", "not self.may_update(now)", "False"),
    ),
    _bug(
        "update during a dispute",
        "rule 4: the same on the other side",
        (Orderer, "advance", "if not self.may_update(now):", "if False:"),
    ),
    _bug(
        "look age from the certificate's time",
        "rule 5: a withheld answer passes as a fresh look",
        (
            canister.WatchedCanister, "_look",
            "answer.signed_at_mono_ns", "answer.signed_at_mono_ns + 10**9 * 3600",
        ),
    ),
    _bug(
        "nothing is refuted",
        "a stale registration stands",
        (refuting.Refuter, "_start_if_below", "if known is None or", "if True or"),
        (doubts.Doubts, "_ours_above", "if known is None:", "if True:"),
        (settlement_job, "next_settlement_action", "if registered.state.version < newest.state.version:", "if False:"),
    ),
    _bug(
        "cursor from a query",
        "DESIGN 8: where one node says that the log ends is where it is read on",
        (
            suspicion.Suspicion, "ask_log",
            "for hinted in entries:",
            "self._sweep.cursor = max([entry.index + 1 for entry in entries], default=cursor)\n        for hinted in entries:",
        ),
        (log_follower.LogFollower, "suspect", "await suspicion", "suspicion._sweep = self._sweep\n    await suspicion"),
    ),
    _bug(
        "reused read id",
        "rule 5: a look asks again with an old request, and gets its old answer",
        (agent.Agent, "_sign_call", "expiry_ns = now_ns + INGRESS_TTL_NS", "expiry_ns = (now_ns // 10**11 + 2) * 10**11"),
        (agent.Agent, "_sign_call", "nonce = secrets.token_bytes(NONCE_BYTES)", "nonce = bytes(NONCE_BYTES)"),
    ),
    _bug(
        "registration after pruning",
        "the canister forgets a channel that is settled and emptied: its id can be registered again",
        (contract.PerunCanister, "_shrink_if_emptied", "phase = self._channels[channel]", "phase = self._channels.pop(channel)"),
        (contract.PerunCanister, "_shrink_if_emptied", "if phase.total_e8s", "if phase.total_e8s > self._payouts.fee_e8s or open_payout: self._channels[channel] = phase\n    if phase.total_e8s"),
    ),
    _bug(
        "registration refuted above ours",
        "DESIGN 8: a version above ours is fought",
        (refuting.Refuter, "_start_if_below", "registered.state.version >= known[1].state.version", "False"),
    ),
    _bug(
        "pay again on BadFee",
        "DESIGN 5: BadFee is checked before duplicates and proves nothing about an earlier request",
        (
            Transfers, "_ask",
            'log.warning("transfer.refused", **facts, answer=str(answer))',
            "await self._end(intent, IntentStatus.VOID, None)",
        ),
    ),
    _bug(
        "a lost reply taken as a refusal",
        "rule 5: unknown is taken as no, and the deposit is paid again",
        (
            Transfers, "_ask",
            'log.warning("transfer.unknown", **facts, error=str(error))',
            "await self._end(intent, IntentStatus.VOID, None)",
        ),
    ),
    _bug(
        "deposit paid twice after restart",
        "rule 6: an open intent is not followed to its end",
        (funding_job, "next_funding_action", "if i.status is IntentStatus.OPEN]", "if False]"),
    ),
    _bug(
        "deposit before state 0 is signed",
        "rule 3: money leaves on one signature",
        (
            opening, "_proposed",
            "Signing(phase.peer, proposal, message, signature),\n",
            "Opened(terms, SignedState(terms.state_0(), (signature, bytes(64))), None),\n",
        ),
    ),
    _bug(
        "deposit forgotten while it is credited",
        "rule 6: a channel is closed on holdings that were read before its deposit came in",
        (Settlement, "step", "or not deposits_settled,", "or not self._deposits_settled(),"),
    ),
    _bug(
        "empty holdings taken as paid",
        "DESIGN 7: a withdrawal is done only when a reply or a block shows it",
        (settlement_job, "next_settlement_action", "if owed_e8s > fee_e8s and not paid_out:", "if False:"),
        (settlement_job, "next_settlement_action", "if withdrawal_open:", "if False:"),
    ),
    _bug(
        "withdrawal retried without a look",
        "DESIGN 7: what became of the first is not known, and the second is asked for",
        (
            Settlement, "_submit",
            'return Progress.wait("to learn what became of the withdrawal")',
            "return await self._withdraw(intent.holdings_e8s)",
        ),
    ),
    _bug(
        "withdrawal sent before it is durable",
        "rule 2: after a crash nobody knows that it was asked for",
        (Settlement, "_withdraw", "await self._store.write(", "self._store.commit("),
    ),
    _bug(
        "a pool that is not looked at",
        "ADR 0015: a published canister is asked for what it cannot pay, and may lose it",
        (payout_pool.PayoutPool, "obstacle", "if pool < needed else None", "if False else None"),
    ),
    _bug(
        "a payout that only its record shows",
        "ADR 0015: what a life whose records are lost was paid is looked for ever after",
        (Settlement, "_search", "else self._owed(registered)", "else -1"),
    ),
    _bug(
        "money leaves before the peer is there",
        "ADR 0012: an old copy pays a deposit before it can have been told, and the life that goes on has no record of it",
        (Funding, "step", "case PayNew() if not self.driver.peer_resumed:", "case PayNew() if False:"),
        (Funding, "_may_pay", "and self.driver.peer_resumed", ""),
    ),
    _bug(
        "fee not booked",
        "rule 6: every e8 is in holdings, in a payout or in a recorded cost",
        (Transfers, "_end", "records.append(book_cost(intent.channel_number, what, intent.fee_e8s))", "pass"),
    ),
    _bug(
        "queued payment lost by restart",
        "DESIGN 6: queued is durable",
        (reading.Reader, "_waiting", "return Batch.of([Payment(*row) for row in rows])", "return Batch.of([])"),
    ),
    _bug(
        "resume without the update",
        "DESIGN 6: a lost update is sent again",
        (Orderer, "_resumed", "return Step(outgoing=(Send(pending),))", "return NOTHING"),
    ),
    _bug(
        "resume without the acknowledgement",
        "DESIGN 6: a lost acknowledgement is sent again",
        (Follower, "_ack_again", "if self.outlived:", "if True:"),
    ),
    _bug(
        "resume without the offers",
        "DESIGN 6: offers are sent again",
        (Follower, "_resumed", "if self.phase is Phase.OPEN and self._offered and not self.frozen:", "if False:"),
    ),
    _bug(
        "resume without the channel",
        "a proposer that lost the signature on state 0 gets it again, but not the resume that it missed",
        (node.Node, "signed_again", "if driver is None:", "if True:"),
    ),
    _bug(
        "counted whatever the look shows",
        "rule 4: an acknowledgement that comes late counts as money",
        (Channel, "_agree", "counts = not self._settling and (not received or self.may_update(now)) and not self._uncounted", "counts = True"),
    ),
    _bug(
        "delivered before confirm",
        "DESIGN 6: a payment is delivered when participant 0 has shown that it holds the state",
        (Follower, "_update", "    if not state.finalized:\n", "    step += self._confirmed(self.version)\n    if not state.finalized:\n"),
    ),
    _bug(
        "effects of an old session in a new one",
        "DESIGN 9: what was decided before a session must not overtake its resume",
        (Driver, "_do", "if session is not None and session is self._session:", "session = self._session\n                if session is not None:"),
    ),
    _bug(
        "sign after restore",
        "rule 7: who may have lost data closes at the next version, which it may have signed already",
        (Channel, "_final_version", "if self.recovering or self.peer_recovering", "if False"),
        (Follower, "_check", "(far,) if self.recovering else", "()  if False else"),
    ),
    _bug(
        "own signature taken for a loss",
        "rule 7: what our own store shows that we signed is no loss, also after we gave it up",
        (Channel, "signed_here", "self._given_up.get(version)", "None"),
        (Orderer, "_receive_updating", "case Ack() if message.version in self._given_up:", "case Ack() if False:"),
    ),
    _bug(
        "what was given up forgotten by a restart",
        "rule 7: the same after a restart",
        (Orderer, "_give_up_pending", "Step((GivenUpRecord(update),))", "Step()"),
        (Orderer, "_give_up_pending", "self._given_up[update.version] = update", "pass"),
    ),
    _bug(
        "a loss ended on the peer's word",
        "rule 7: a recovering node signs the end on shares that nothing shows to be the newest",
        (Orderer, "advance", "if self._stopped:", "if self._stopped and not (self.recovering and not self.awaits_towers):"),
        (Follower, "_update", "if self._stopped:", "if self._stopped and not (self.recovering and not self.awaits_towers):"),
    ),
    _bug(
        "a freeze that nobody ends",
        "DESIGN 3: what a violation froze is left, or the money stays for ever",
        (Channel, "_end_frozen", "if not self.frozen or self.recovering:", "if True:"),
        (Channel, "looked", "self._end_frozen(now)", "NOTHING"),
    ),
    _bug(
        "update given up that the peer has",
        "rule 7: a loss is ended on the state before one that both have signed",
        (Orderer, "advance", "(lost and not self._ack_comes)", "lost"),
        (Channel, "signed_here", "self._given_up.get(version)", "None"),
        (Orderer, "_receive_updating", "case Ack() if message.version in self._given_up:", "case Ack() if False:"),
    ),
    _bug(
        "job that wakes itself",
        "a job looks at each of its steps, and takes each look of a settled channel for news",
        (Driver, "looked", "not self._seen_settled", "True"),
    ),
    _bug(
        "final after a lost final",
        "rule 1: a final state that comes back after a loss is followed by another one",
        (signer.StateSigner, "adopted", "if self._finalized", "return ()\n    if self._finalized"),
        (Orderer, "advance", "self.final is not None", "False"),
    ),
    _bug(
        "re-offer after restore",
        "rule 7: what was under way on an old copy is sent again",
        (copying, "mark_as_copy", "WHERE version IS NULL AND status", "WHERE 0 AND status"),
        (
            Follower, "_say_again",
            "return Step(outgoing=self._ready_again())",
            "return Step(outgoing=(*self._ready_again(), *(Send(Offer(self.id, p)) for p in _frames(Batch.of(list(self._offered.values()))))))",
        ),
    ),
    _bug(
        "funding after restore",
        "rule 7: who lost its records of a deposit makes another one",
        (funding_job, "next_funding_action", "if recovering and", "if False and"),
        (Funding, "_may_pay", "and not channel.recovering", ""),
    ),
    _bug(
        "dispute after restore",
        "rule 7: a state that may be old is registered",
        (settlement_job, "next_settlement_action", "if recovering else", "if False else"),
    ),
    _bug(
        "restored node does not look for its deposit",
        "rule 6: what was on its way to the canister when the disk was lost stays there",
        (lost_deposits.LostDeposits, "search", "terms = self._terms", "self.done = True; return"),
    ),
    _bug(
        "the proposer's signature leaves before it is backed up",
        "DESIGN 11: the backup is durable before our signature on a state 0 leaves",
        (openings.Openings, "_commit", "isinstance(phase, Signing) else", "False else"),
    ),
    _bug(
        "the acceptor's signature leaves before it is backed up",
        "DESIGN 11: the backup is durable before our signature on a state 0 leaves",
        (node.Node, "open_channel", "(*records, *rows), (saved,)", "(*records, *rows), ()"),
    ),
    _bug(
        "old store overwrites the backup",
        "DESIGN 11: the channels that an old copy of the store lacks are gone with the file that had them",
        (taking_up, "take_up_missing", "if not missing:", "if True:"),
    ),
    _bug(
        "older life goes on",
        "ADR 0012: a copy that was shown a newer life of itself signs on, with peers that heard of both",
        (hearing.Heard, "ends", "return self.rival is not None or not same_life(life, self.newest)", "return False"),
        (lives.Lives, "_shown", "self._stop(session.peer, shown)", "return"),
    ),
    _bug(
        "older life is not told",
        "ADR 0012: a peer talks to whoever has the key, and tells nobody of the other",
        (hearing.Hearing, "announced", "now = known", "return ()"),
    ),
    _bug(
        "idempotency key not recorded",
        "DESIGN 12: the same key twice is one action",
        (idempotency.Idempotency, "note", "if key is None:", "if True:"),
    ),
)  # fmt: skip
