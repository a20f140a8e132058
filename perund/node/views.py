"""What the node shows of its channels, payments and events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from perund.control import schema
from perund.control.values import E8s
from perund.node.driver import ChannelDriver
from perund.node.job import ChannelJob
from perund.node.way_out import way_out_text
from perund.store.reading import Reader
from perund.store.rows import ChannelRow, EventRow, PaymentRow, PeerAddress
from protocol.effects import Phase
from protocol.types import MAX_E8S, RegisteredState

if TYPE_CHECKING:
    from perund.node.waits import Wait

__all__ = ["address_view", "channel_view", "event_view", "moment", "payment_view"]


def moment(ns: int) -> str:
    """Return nanoseconds since 1970 as RFC 3339, to the millisecond."""
    at = datetime.fromtimestamp(ns // 1_000_000_000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{ns // 1_000_000 % 1000:03d}Z"


def address_view(row: PeerAddress) -> schema.PeerPlace:
    """Return where a peer can be dialed, for users."""
    return schema.PeerPlace(
        address=str(row.address),
        source="given" if row.given else "announced",
        proven=row.proven_ms is not None,
        last_success=moment(row.proven_ms * 1_000_000) if row.proven_ms else None,
    )


def channel_view(
    row: ChannelRow,
    read: Reader,
    driver: ChannelDriver | None,
    jobs: tuple[ChannelJob, ...],
    chain_ns: int,
    elapsed_ns: int,
    wait: Wait | None = None,
    away_ns: int | None = None,
) -> schema.Channel:
    """Return a channel as its row has it and, while it lives, as its driver has it.

    `wait`: what it waits for; `away_ns`: since when its peer is away.
    """
    terms, memory = row.terms, row.memory
    channel = driver.channel if driver is not None else None
    newest = channel.newest.state if channel is not None else memory.newest.state
    phase = channel.phase if channel is not None else memory.phase
    registered = driver.registered if driver is not None else row.registered
    # The money follows what settled: a state that we proposed and never saw acknowledged, or one below our newest.
    state = registered.state if row.settled_version is not None and registered is not None else newest
    withdrawals = [w for w in read.withdrawals(row.number) if w.status == "paid"]
    queued = channel.committed_e8s if channel is not None else 0
    holdings = next((h for job in jobs if (h := getattr(job, "holdings", None)) is not None), None)
    return schema.Channel(
        channel=terms.channel.hex(),
        peer=terms.peer.hex(),
        index=terms.our_index,
        phase=phase.value,
        version=state.version,
        mine_e8s=E8s(state.allocation[terms.our_index]),
        theirs_e8s=E8s(state.allocation[terms.peer_index]),
        total_e8s=E8s(terms.total),
        sendable_e8s=E8s(max(0, channel.sendable_e8s) if channel is not None else 0),
        queued=schema.Queued(count=read.waiting_count(row.number, terms.our_index), e8s=E8s(queued)),
        challenge_s=terms.params.challenge_duration_ns // 1_000_000_000,
        created_at=moment(row.opened_ns),
        waiting_for=wait.what if wait is not None else None,
        waiting_since=moment(wait.since_ns) if wait is not None and wait.since_ns is not None else None,
        peer_away_since=moment(away_ns) if away_ns is not None else None,
        funding_deadline=moment(terms.funding_deadline_ns) if phase is Phase.FUNDING else None,
        # A canister's amounts have no bound; ours have, and one of them must not hide every channel from its reader.
        holdings_e8s=(E8s(min(holdings[0], MAX_E8S)), E8s(min(holdings[1], MAX_E8S))) if holdings is not None else None,
        registered=_registered(registered, newest.version, chain_ns),
        frozen=(channel.frozen if channel is not None else memory.frozen) or None,
        recovering=True if memory.frozen.startswith("data_loss") else None,
        way_out=(
            way_out_text(channel, row.force_after_ns, f"at {moment(row.since_ns + row.force_after_ns)}")
            if channel is not None
            else None
        ),
        close_reason=(row.reason or None) if phase in (Phase.CLOSING, Phase.LEAVING, Phase.CLOSED) else None,
        last_look_age_s=(
            round((elapsed_ns - channel.looked_at_ns) / 1e9, 3)
            if channel is not None and channel.looked_at_ns is not None
            else None
        ),
        costs=[schema.Cost(what=cost.what, e8s=E8s(cost.amount_e8s)) for cost in read.costs(row.number)],
        credits=[schema.Cost(what=c.what, e8s=E8s(c.amount_e8s)) for c in read.credits(row.number)] or None,
        payout_e8s=E8s(sum(w.received_e8s or 0 for w in withdrawals)) if withdrawals else None,
        payout_block=withdrawals[-1].block if withdrawals else None,
    )


def _registered(registered: RegisteredState | None, ours: int, chain_ns: int) -> schema.Registered | None:
    if registered is None:
        return None
    return schema.Registered(
        version=registered.state.version,
        finalized=registered.state.finalized,
        settled=registered.settled(chain_ns),
        timeout=moment(registered.timeout_ns),
        ours=registered.state.version == ours,
    )


def payment_view(row: PaymentRow) -> schema.Payment:
    """Return a payment."""
    memo = row.payment.memo
    try:
        text, raw = memo.decode() or None, None
    except UnicodeDecodeError:
        text, raw = None, memo.hex()
    return schema.Payment(
        payment=row.payment.id.hex(),
        channel=row.channel.hex(),
        direction="sent" if row.ours else "received",
        amount_e8s=E8s(row.payment.amount_e8s),
        memo=text,
        memo_hex=raw,
        status=row.status,  # type: ignore[arg-type]  # the store's words are those of the schema
        code=row.code or None,
        version=row.version,
        created_at=moment(row.recorded_ms * 1_000_000),
    )


def event_view(row: EventRow) -> schema.Event:
    """Return an event."""
    data: dict[str, str | int | float | bool | None] = dict(row.data)
    if row.channel is not None:
        data = {"channel": row.channel.hex(), **data}
    return schema.Event(cursor=row.cursor, at=moment(row.at_ms * 1_000_000), event=row.kind, data=data)
