"""Params and results of every method of the control interface.

Amounts are `E8s` (a decimal string on the wire), bytes are hex, moments are RFC 3339 in UTC. A result's
optional field is absent rather than null.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from perund.control.values import (
    ChannelIdHex,
    ChannelRef,
    E8s,
    IdempotencyKey,
    Memo,
    NodeIdHex,
    PaidColumn,
    PaidE8s,
    PaymentIdHex,
    Seconds,
)
from protocol.limits import MAX_INT64, MAX_MEMO_BYTES
from wire.address import MAX_NODE_ADDRESS, NODE_ID_PATTERN, BadAddress, NodeAddress

__all__ = [
    "Channel",
    "ChannelCloseParams",
    "ChannelDisputeParams",
    "ChannelGetParams",
    "ChannelListParams",
    "ChannelOpenParams",
    "ChannelPage",
    "ChannelRecoverParams",
    "ChannelWithdrawParams",
    "Cost",
    "Event",
    "Health",
    "NoParams",
    "NodeInfo",
    "PayParams",
    "PayResult",
    "Payment",
    "PaymentCancelParams",
    "PaymentListParams",
    "PaymentPage",
    "Peer",
    "PeerAddress",
    "PeerConnectParams",
    "PeerList",
    "Problem",
    "ProposedEnd",
    "Queued",
    "Recovery",
    "Registered",
    "SendParams",
    "SendResult",
    "Stopping",
    "SubscribeParams",
    "Subscription",
    "ToPay",
    "TowerAnswer",
    "TowerHealth",
    "WalletBalance",
    "WatcherHealth",
]

PageSize = Annotated[int, Meta(ge=1, le=1_000, description="Entries in the answer, 1 to 1000.")]
Page = Annotated[str, Meta(max_length=300, description="`next` of the answer before.")]
Moment = Annotated[str, Meta(description="RFC 3339, UTC.")]
TimeoutS = Annotated[
    Seconds, Meta(description="Answer with wait_ended when it has not ended by then, and say how it stands.")
]
Index = Annotated[int, Meta(ge=0, le=1, description="0: the proposer; 1: the peer.")]


class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Arguments of a call. In an array they stand in the order of the fields."""


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An answer. Only optional fields have defaults, all of them None."""


class NoParams(Params, frozen=True):
    """No arguments."""


# --- node -------------------------------------------------------------------------------------------------


class NodeInfo(Result, frozen=True, kw_only=True):
    """Who this node is and how it is."""

    node_id: NodeIdHex
    version: str
    pid: int
    data_dir: str
    listen: Annotated[str | None, Meta(description="host:port that peers dial.")] = None
    announces: Annotated[list[str], Meta(description="Addresses that peers are told.")]
    network: Literal["local", "ic"]
    network_hash: Annotated[str, Meta(description="What both nodes of a channel must agree on, 32 bytes.")]
    root_key: Annotated[str, Meta(description="Root key of the network, DER.")]
    perun_canister: str
    icp_ledger: str
    principal: Annotated[str, Meta(description="Principal of the wallet.")]
    account: Annotated[str, Meta(description="Ledger account of the wallet: send ICP here.")]
    chain_time_ns: Annotated[str | None, Meta(description="Newest chain time seen, ns since 1970.")] = None
    chain_time: Moment | None = None
    clock_skew_ms: Annotated[int | None, Meta(description="Local clock minus chain time.")] = None
    last_certified_s: Annotated[float | None, Meta(description="How long ago a certified answer last came.")] = None
    last_look_age_s: Annotated[float | None, Meta(description="Age of the oldest newest look of a channel.")] = None
    channels: Annotated[dict[str, int], Meta(description="Channels per phase.")]
    peers: Annotated[int, Meta(description="Peers connected now.")]
    state: Annotated[Literal["starting", "running"], Meta(description="A node that is starting answers little else.")]
    waits_for: Annotated[str | None, Meta(description="What the start waits for, for people.")] = None
    log_lines_lost: Annotated[int, Meta(description="Lines of the log that could not be written since the start.")] = 0


class Stopping(Result, frozen=True, kw_only=True):
    """The node stops: it finishes what it is writing and exits."""

    stopping: bool


class Problem(Result, frozen=True, kw_only=True):
    """Something that needs an eye. `code`: a stable word; `since`: when it was first seen."""

    code: str
    message: str
    since: Moment
    channel: ChannelIdHex | None = None


class TowerHealth(Result, frozen=True, kw_only=True):
    """A watchtower of this node, and how far behind it is."""

    tower: Annotated[str, Meta(description="Its node id.")]
    address: Annotated[str, Meta(description="NODEID@host:port, as configured.")]
    connected: bool
    channels_behind: Annotated[
        int, Meta(description="Channels whose newest state it has not promised to guard, or not confirmed since.")
    ]
    oldest_undelivered_s: Annotated[float | None, Meta(description="Age of the oldest of these states.")] = None
    problem: Annotated[str | None, Meta(description="What is wrong with it, as last seen.")] = None
    dropped: Annotated[str | None, Meta(description="Why it is used no more, until the node starts again.")] = None


class WatcherHealth(Result, frozen=True, kw_only=True):
    """How the watcher itself is. Counts are since the start."""

    state: Annotated[
        Literal["starting", "watching", "degraded", "blind"],
        Meta(description="blind: no certified answer for a third of the shortest challenge period; payments stop."),
    ]
    channels: Annotated[int, Meta(description="Channels that are watched.")]
    chain_time_ns: Annotated[str | None, Meta(description="Chain time last seen in a certificate, ns since 1970.")] = (
        None
    )
    lag_s: Annotated[float | None, Meta(description="Age of the newest certified answer.")] = None
    least_margin_s: Annotated[
        float | None, Meta(description="Time left for the most urgent refutation that is under way.")
    ] = None
    by_log: Annotated[bool, Meta(description="Whether quiet channels are seen in the canister's log.")]
    looks: int
    looks_failed: int
    sweeps: Annotated[int, Meta(description="Complete readings of the canister's log.")]
    restarts: Annotated[int, Meta(description="Parts of the watcher that had to be started again.")]


class Health(Result, frozen=True, kw_only=True):
    """Whether the money is safe right now. `ok` is false when anything of `problems` is urgent."""

    ok: bool
    problems: list[Problem]
    chain_lag_s: Annotated[float | None, Meta(description="Age of the newest certified answer.")] = None
    least_margin_s: Annotated[
        float | None, Meta(description="Time left until the nearest deadline that needs an action of ours.")
    ] = None
    watcher: WatcherHealth | None = None
    towers: Annotated[list[TowerHealth], Meta(description="The watchtowers of this node.")] = []


# --- wallet -----------------------------------------------------------------------------------------------


class WalletBalance(Result, frozen=True, kw_only=True):
    """The wallet on the ledger; money in channels is not part of it."""

    account: str
    principal: str
    balance_e8s: E8s
    fee_e8s: E8s


class SendParams(Params, frozen=True):
    """`to`: a ledger account (64 hex digits) or a principal, whose default account is meant."""

    to: Annotated[str, Meta(min_length=5, max_length=64)]
    amount_e8s: PaidE8s
    idempotency_key: IdempotencyKey | None = None
    accept_loss: Annotated[
        bool, Meta(description="Also to an account from which nobody sends it back, or to this wallet itself.")
    ] = False
    timeout_s: TimeoutS | None = None


class SendResult(Result, frozen=True, kw_only=True):
    """A transfer on the ledger."""

    block: int
    amount_e8s: E8s
    fee_e8s: E8s


# --- peers ------------------------------------------------------------------------------------------------


def _check_place(peer: str) -> None:
    """What this interface takes is what the store, the backup file and the network take."""
    try:
        NodeAddress.of(peer)
    except BadAddress as error:
        raise ValueError(str(error)) from error


class PeerConnectParams(Params, frozen=True):
    """`peer`: NODEID@host:port."""

    peer: Annotated[str, Meta(pattern=rf"^{NODE_ID_PATTERN}@\S+:[0-9]{{1,5}}$", max_length=MAX_NODE_ADDRESS)]

    def __post_init__(self) -> None:
        _check_place(self.peer)


class PeerAddress(Result, frozen=True, kw_only=True):
    """A peer that is connected now."""

    node_id: NodeIdHex
    address: str


class PeerPlace(Result, frozen=True, kw_only=True):
    """Where a peer can be dialed. `source`: our operator gave the address, or the peer announced it."""

    address: str
    source: Literal["given", "announced"]
    proven: Annotated[bool, Meta(description="Whether the peer proved by a handshake to be there.")]
    last_success: Annotated[str | None, Meta(description="When it did so last, to the hour, if that is known.")] = None


class Peer(Result, frozen=True, kw_only=True):
    """A node that this one knows."""

    node_id: NodeIdHex
    address: str | None = None
    addresses: Annotated[
        list[PeerPlace], Meta(description="Where it can be dialed, in the order in which that is tried.")
    ]
    connected: bool
    agent: Annotated[str | None, Meta(description="What the peer says it runs.")] = None
    away_since: Annotated[Moment | None, Meta(description="Since when a peer with channels is away.")] = None
    channels: int


class PeerList(Result, frozen=True, kw_only=True):
    """Every peer that is connected or has a channel."""

    peers: list[Peer]


# --- channels ---------------------------------------------------------------------------------------------


class ChannelOpenParams(Params, frozen=True):
    """Propose a channel. `peer`: NODEID, or NODEID@host:port when it is not connected yet."""

    peer: Annotated[str, Meta(pattern=rf"^{NODE_ID_PATTERN}(@\S+:[0-9]{{1,5}})?$", max_length=MAX_NODE_ADDRESS)]
    mine_e8s: E8s
    theirs_e8s: E8s
    challenge_s: Seconds
    funding_timeout_s: Annotated[
        Seconds | None, Meta(description="After it an unfunded channel is given up; at most 12 hours.")
    ] = None
    idempotency_key: IdempotencyKey | None = None
    wait: Annotated[bool, Meta(description="Answer when the channel is open, rather than when it is signed.")] = True
    timeout_s: TimeoutS | None = None

    def __post_init__(self) -> None:
        if "@" in self.peer:
            _check_place(self.peer)
        if self.mine_e8s + self.theirs_e8s == 0:
            raise ValueError("a channel of 0 e8s can pay nothing; put something in")


class Queued(Result, frozen=True, kw_only=True):
    """Our own payments that no signed state contains yet."""

    count: int
    e8s: E8s


class Registered(Result, frozen=True, kw_only=True):
    """What the canister has registered for a channel."""

    version: int
    finalized: bool
    settled: bool
    timeout: Annotated[Moment, Meta(description="When it can no longer be replaced.")]
    ours: Annotated[bool, Meta(description="Whether it is the newest state that we have.")]


class Cost(Result, frozen=True, kw_only=True):
    """Something that the channel cost this node, or brought it. `what`: a stable word."""

    what: str
    e8s: E8s


class Channel(Result, frozen=True, kw_only=True):
    """One channel, as this node sees it."""

    channel: ChannelIdHex
    peer: NodeIdHex
    index: Annotated[int, Meta(ge=0, le=1, description="Our place: 0 proposed the channel.")]
    phase: Annotated[str, Meta(description="funding, open, closing, leaving or closed.")]
    version: int
    mine_e8s: E8s
    theirs_e8s: E8s
    total_e8s: E8s
    sendable_e8s: Annotated[E8s, Meta(description="What can be paid now: ours, less what is queued.")]
    queued: Queued
    challenge_s: int
    created_at: Moment
    waiting_for: Annotated[str | None, Meta(description="What it waits for; absent when it has nothing to do.")] = None
    waiting_since: Annotated[Moment | None, Meta(description="Since when it waits, or is in this phase.")] = None
    peer_away_since: Annotated[
        Moment | None, Meta(description="Since when there is no connection with the peer; absent while there is one.")
    ] = None
    funding_deadline: Moment | None = None
    holdings_e8s: Annotated[
        tuple[E8s, E8s] | None, Meta(description="What the canister holds for participants 0 and 1.")
    ] = None
    registered: Registered | None = None
    frozen: Annotated[str | None, Meta(description="Why the channel no longer updates.")] = None
    recovering: Annotated[bool | None, Meta(description="This node may have lost data of the channel.")] = None
    way_out: Annotated[
        str | None, Meta(description="How the money comes out without the peer: by itself, or the command to give.")
    ] = None
    close_reason: Annotated[str | None, Meta(description="Who closed it, and why.")] = None
    last_look_age_s: float | None = None
    costs: list[Cost]
    credits: Annotated[list[Cost] | None, Meta(description="What arrived for us that this node did not pay for.")] = (
        None
    )
    payout_e8s: Annotated[E8s | None, Meta(description="What arrived in the wallet.")] = None
    payout_block: int | None = None


class ChannelListParams(Params, frozen=True):
    """Every channel, oldest first, or those of one phase."""

    phase: Annotated[str, Meta(max_length=20)] | None = None
    after: Page | None = None
    limit: PageSize = 100


class ChannelPage(Result, frozen=True, kw_only=True):
    """`next`: what to give as `after` for more; absent at the end."""

    channels: list[Channel]
    next: str | None = None


class ChannelGetParams(Params, frozen=True):
    """One channel."""

    channel: ChannelRef


class ToPay(Params, frozen=True):
    """One payment of a list."""

    amount_e8s: PaidE8s
    memo: Memo | None = None
    payment_id: PaymentIdHex | None = None

    def __post_init__(self) -> None:
        _check_memo(self.memo)


class PayParams(Params, frozen=True):
    """Pay the peer: one amount, or a list of payments, or a bare list of amounts.

    A list is queued whole or not at all. `memo` and `payment_id` belong to a single amount.
    """

    channel: ChannelRef
    amount_e8s: PaidE8s | None = None
    memo: Memo | None = None
    payment_id: PaymentIdHex | None = None
    idempotency_key: IdempotencyKey | None = None
    wait: Annotated[bool, Meta(description="Answer when the peer has it, rather than when it is queued.")] = True
    payments: Annotated[list[ToPay], Meta(min_length=1, max_length=20_000)] | None = None
    amounts_e8s: PaidColumn | None = None
    timeout_s: TimeoutS | None = None

    def __post_init__(self) -> None:
        if self.amount_e8s is not None:
            if self.payments is not None or self.amounts_e8s is not None:
                raise ValueError("give one of `amount_e8s`, `payments` and `amounts_e8s`")
            if self.memo is not None:
                _check_memo(self.memo)
        elif (self.payments is None) is (self.amounts_e8s is None):
            raise ValueError("give one of `amount_e8s`, `payments` and `amounts_e8s`")
        elif self.memo is not None or self.payment_id is not None:
            raise ValueError("`memo` and `payment_id` belong to a single `amount_e8s`")


PaymentStatus = Literal["queued", "offered", "signed", "delivered", "declined", "failed", "cancelled", "unknown"]


class PayResult(Result, frozen=True, kw_only=True):
    """How far a payment, or a list of them, has come.

    `payment`: id of a single payment; `payments` and `first_payment`: how many a list had, and its first id.
    """

    status: PaymentStatus
    version: Annotated[int, Meta(description="State that contains it, or the newest one while it is queued.")]
    payment: PaymentIdHex | None = None
    payments: int | None = None
    first_payment: PaymentIdHex | None = None


class ChannelCloseParams(Params, frozen=True):
    """Close together; if the peer does not, alone."""

    channel: ChannelRef
    force_after_s: Annotated[
        Seconds | None, Meta(description="How long the peer has; the configuration's when absent.")
    ] = None
    wait: Annotated[bool, Meta(description="Answer when the money has arrived.")] = True
    idempotency_key: IdempotencyKey | None = None
    timeout_s: TimeoutS | None = None


class ChannelDisputeParams(Params, frozen=True):
    """Register the newest state and leave alone."""

    channel: ChannelRef
    idempotency_key: IdempotencyKey | None = None
    accept_risk: Annotated[
        bool, Meta(description="Also when this node lost data: its state may be old, and the peer may refute it.")
    ] = False


class ChannelWithdrawParams(Params, frozen=True):
    """Take out what is ours in a settled channel. The node does it by itself; this makes it try now."""

    channel: ChannelRef
    timeout_s: TimeoutS | None = None


class ChannelRecoverParams(Params, frozen=True):
    """What is known of a channel in which this node may have lost data; `accept_version` declares that the newest.

    The node then signs, with the peer, one final state with the shares of that version, and nothing else. What was paid
    to this node in a later state, if there was one, is given up by that.
    """

    channel: ChannelRef
    accept_version: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_INT64)] | None,
        Meta(description="The newest version that the node showed: refused when another is the newest by now."),
    ] = None
    idempotency_key: IdempotencyKey | None = None


class TowerAnswer(Result, frozen=True, kw_only=True):
    """What a watchtower said when it was asked for the newest state."""

    tower: Annotated[str, Meta(description="Its node id.")]
    answered: bool
    version: Annotated[int | None, Meta(description="Of what it holds for this node; absent: nothing.")] = None


class ProposedEnd(Result, frozen=True, kw_only=True):
    """The final state that the peer proposes. It waits until the loss may be ended."""

    version: int
    mine_e8s: E8s
    theirs_e8s: E8s
    as_ours: Annotated[
        bool, Meta(description="Whether it has the shares of the newest state known here: no other is ever signed.")
    ]


class Recovery(Result, frozen=True, kw_only=True):
    """What is known of a channel in which this node may have lost data."""

    channel: ChannelIdHex
    recovering: Annotated[bool, Meta(description="Whether data may be lost at all.")]
    why: Annotated[str | None, Meta(description="Why the node thinks so, and where its newest state is from.")] = None
    version: Annotated[int, Meta(description="Of the newest fully signed state that is known here.")]
    mine_e8s: E8s
    theirs_e8s: E8s
    proven: Annotated[
        bool,
        Meta(description="Whether that state was adopted, or declared the newest: the loss is ended on its shares."),
    ]
    towers_asked: Annotated[bool, Meta(description="Whether every watchtower was asked, or there is none.")]
    towers: list[TowerAnswer]
    peer_connected: bool
    peer_version: Annotated[int | None, Meta(description="What the peer last called its newest version: a claim.")] = (
        None
    )
    proposal: ProposedEnd | None = None
    registered: Registered | None = None
    at_risk_e8s: Annotated[
        E8s, Meta(description="The most that a later state can have given this node: accepting may give it up.")
    ]
    way_out: Annotated[str | None, Meta(description="How the money comes out without the peer.")] = None


# --- payments ---------------------------------------------------------------------------------------------


class PaymentListParams(Params, frozen=True):
    """Payments in both directions, oldest first."""

    channel: ChannelRef | None = None
    after: Page | None = None
    limit: PageSize = 100


class Payment(Result, frozen=True, kw_only=True):
    """One payment."""

    payment: PaymentIdHex
    channel: ChannelIdHex
    direction: Literal["sent", "received"]
    amount_e8s: E8s
    memo: Annotated[str | None, Meta(description="The memo as text, when it is UTF-8.")] = None
    memo_hex: Annotated[str | None, Meta(description="The memo's bytes, when they are not UTF-8.")] = None
    status: PaymentStatus
    code: Annotated[str | None, Meta(description="Why it ended without being delivered.")] = None
    version: Annotated[int | None, Meta(description="State that contains it.")] = None
    created_at: Moment


class PaymentPage(Result, frozen=True, kw_only=True):
    """`next`: what to give as `after` for more; absent at the end."""

    payments: list[Payment]
    next: str | None = None


class PaymentCancelParams(Params, frozen=True):
    """Take back a payment that the peer cannot have yet."""

    channel: ChannelRef
    payment: PaymentIdHex


# --- events -----------------------------------------------------------------------------------------------


class SubscribeParams(Params, frozen=True):
    """Events after a cursor, or from now on; only some kinds, or all."""

    after: Annotated[int, Meta(ge=0, le=MAX_INT64, description="Cursor of the last event that was handled.")] | None = (
        None
    )
    kinds: Annotated[list[Annotated[str, Meta(max_length=60)]], Meta(min_length=1, max_length=100)] | None = None


class Subscription(Result, frozen=True, kw_only=True):
    """Notifications of method `event` with this `subscription` follow. `cursor`: where they start."""

    subscription: int
    cursor: int


class Event(Result, frozen=True, kw_only=True):
    """Something that happened. `cursor` grows by at least one; `event`: a stable name, noun.past-verb."""

    cursor: int
    at: Moment
    event: str
    data: dict[str, str | int | float | bool | None]


def _check_memo(memo: str | None) -> None:
    if memo is not None and len(memo.encode()) > MAX_MEMO_BYTES:
        raise ValueError(f"the memo has {len(memo.encode())} bytes; at most {MAX_MEMO_BYTES}")
