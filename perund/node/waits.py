"""What a channel waits for, and since when: the same words for lists, for calls that end by time and for health."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from perund.node.views import moment
from protocol.effects import Phase
from protocol.payments import PAYMENT_ID_BYTES

if TYPE_CHECKING:
    from perund.node.driver import ChannelDriver
    from perund.node.job import ChannelJob
    from perund.node.node import Node
    from perund.store.rows import ChannelRow

__all__ = ["Wait", "closing_wait", "oldest_payment_ns", "opening_wait", "wait_of"]

SHORT = 16


@dataclass(frozen=True, slots=True)
class Wait:
    """`what` is waited for, and by it by whom; `since_ns`: nanoseconds since 1970, None where nobody can tell."""

    what: str
    since_ns: int | None = None

    def __str__(self) -> str:
        return self.what if self.since_ns is None else f"{self.what}, since {moment(self.since_ns)}"


def wait_of(node: Node, driver: ChannelDriver, row: ChannelRow | None = None) -> Wait | None:
    """Return what a channel waits for; None when it is open and has nothing to do, or is closed."""
    channel = driver.channel
    row = row or node.services.store.read.channel(driver.number)
    assert row is not None
    jobs = node.jobs.get(channel.id)
    match channel.phase:
        case Phase.FUNDING:
            return _of_job(node, driver, jobs.of() if jobs else (), "the first look at its deposits", row.opened_ns)
        case Phase.CLOSING | Phase.LEAVING:
            # The deposit in flight is waited for by the settlement, which says so: its own words come first.
            ordered = jobs.of()[::-1] if jobs else ()
            return _of_job(node, driver, ordered, "the next look at the canister", row.since_ns)
        case Phase.OPEN:
            return _of_open(node, driver)
        case Phase.CLOSED:
            return None
        case _:
            assert_never(channel.phase)


def closing_wait(node: Node, driver: ChannelDriver) -> str:
    """Return how a channel stands that is to be closed, for a caller whose time is over."""
    return f"channel {driver.short} is not closed yet: it waits for {wait_of(node, driver) or 'this node'}"


def _of_job(node: Node, driver: ChannelDriver, jobs: tuple[ChannelJob, ...], otherwise: str, since_ns: int) -> Wait:
    what = next((job.waiting_for for job in jobs if job.waiting_for), otherwise)
    away_ns = node.away_since(driver.channel.terms.peer)
    return Wait(what if away_ns is None else f"{what} ({_away(driver)} since {moment(away_ns)})", since_ns)


def _of_open(node: Node, driver: ChannelDriver) -> Wait | None:
    channel = driver.channel
    if channel.recovering:
        return Wait("what the peer and the watchtowers hold: this node may have lost data (`perun recover`)")
    if channel.frozen:
        return Wait("its operator: it takes no payments any more (`way_out`)")
    away_ns = node.away_since(channel.terms.peer)
    if away_ns is not None:
        return Wait(_away(driver), away_ns)
    if not channel.connected:
        return Wait("the peer to say where the channel stands")
    if not channel.may_update(node.services.time.now()):
        seen = channel.look is not None and channel.look.version is not None
        return Wait("the canister, where a state of it is registered" if seen else "a fresh look at the canister")
    if not channel.committed_e8s:
        return None
    return Wait("the peer to take our payments", oldest_payment_ns(node, driver))


def oldest_payment_ns(node: Node, driver: ChannelDriver) -> int | None:
    """Return since when the oldest of our payments waits, in ns since 1970 of the machine's clock; None for none."""
    channel, read = driver.channel, node.services.store.read
    if not channel.committed_e8s:
        return None
    found = [read.oldest_waiting_ms(driver.number, channel.ours)]
    pending = channel.pending
    if pending is not None and channel.ours == 0 and len(pending.from_0):
        row = read.payment(driver.number, 0, pending.from_0.ids[:PAYMENT_ID_BYTES])
        found.append(row.recorded_ms if row is not None else None)
    known = [ms for ms in found if ms is not None]
    return min(known) * 1_000_000 if known else None


def _away(driver: ChannelDriver) -> str:
    return f"the peer {driver.channel.terms.peer.hex()[:SHORT]}, which is away"


def opening_wait(node: Node, proposal_id: bytes) -> str:
    """Return how an opening of ours stands, for a caller whose time is over."""
    number = node.services.store.read.channel_of_proposal(proposal_id)
    row = node.services.store.read.channel(number) if number is not None else None
    if row is not None:
        driver = node.drivers.get(row.terms.channel)
        wait = wait_of(node, driver, row) if driver is not None else None
        return f"channel {row.terms.channel.hex()[:SHORT]} is not open yet: it waits for {wait or 'nothing more'}"
    peer = node.openings.peer_of(proposal_id)
    if peer is None:
        return "the channel is not agreed yet: it waits for this node's disk"
    away_ns = node.away_since(peer)
    away = f", which is away since {moment(away_ns)}" if away_ns is not None else ""
    return f"the channel is not agreed yet: it waits for the answer of the peer {peer.hex()[:SHORT]}{away}"
