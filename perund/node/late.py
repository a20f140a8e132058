"""What makes money wait longer than its usual time, channel by channel and peer by peer.

Most of it knows since when by itself: what the store or the canister dates lasts as long as they say, also after a
restart. How long is usual is `alarm.patience_s`, and ten times that for what waits for a person or for blocks.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

from perund.amounts import format_icp
from perund.node.waits import oldest_payment_ns, wait_of
from protocol.effects import Phase
from protocol.funding import IntentStatus

if TYPE_CHECKING:
    from perund.node.driver import ChannelDriver
    from perund.node.node import Node

__all__ = ["LONG", "Tell", "late_channel", "late_node"]

NS: Final = 1_000_000_000
LONG: Final = 10
"""How many times longer than a payment a peer may be away, and a deposit, a close or a withdrawal may take."""
CHECKED_S: Final = 60
"""The ledger is asked for its fee that often: certified answers are no older while the Internet Computer answers."""
SHORT: Final = 16


class Tell(Protocol):
    """Takes a problem."""

    def __call__(
        self, code: str, message: str, subject: bytes = b"", at_ns: int | None = None, *, dated: bool = False
    ) -> None:
        """`subject`: a channel, peer or tower, or nothing; `at_ns`: since when, ns since 1970.

        `dated`: that is known after a restart, too, and need not be remembered.
        """
        ...


def late_node(node: Node, problem: Tell) -> None:
    """Tell what waits for the Internet Computer or for a peer."""
    now_ns, patience_ns = time.time_ns(), node.services.config.alarm.patience_s * NS
    age_ns = node.services.agent.certified_age_ns()
    # Until something is certified in this life, the silence of the one before goes on.
    since_ns = node.problems.since("chain_unreachable", "") or node.started_ns
    silent_since_ns = since_ns if age_ns is None else now_ns - age_ns
    if node.services.ledger_watch is not None and now_ns - silent_since_ns >= patience_ns + CHECKED_S * NS:
        problem(
            "chain_unreachable",
            "the Internet Computer gives no certified answer: nothing is paid in or out, and payments stop when "
            "their channel's newest look is too old; check ic.urls and the network",
            at_ns=silent_since_ns,
        )
    for peer, channels in node.by_peer.items():
        away_ns = node.away_since(peer) if node.is_known(peer) else None
        waiting = [c for c in channels if node.drivers[c].channel.phase is not Phase.LEAVING]
        if away_ns is not None and waiting and now_ns - away_ns >= LONG * patience_ns:
            problem(
                "peer_away",
                f"no connection with the peer {peer.hex()[:SHORT]}: payments and closing together wait in "
                f"{len(waiting)} channels; `perun connect` with another address, or `perun close`",
                peer,
                away_ns,
            )
    for send in node.services.store.read.open_sends():
        if node.services.time.chain_ns() - send.created_at_ns >= LONG * patience_ns:
            problem(
                "transfer_waits",
                f"nobody knows yet whether the transfer of {format_icp(send.amount_e8s)} to {send.receiver.hex()} was "
                "made: the node finds out by itself",
                send.number.to_bytes(8, "big"),
                send.created_at_ns,
                dated=True,
            )


def late_channel(node: Node, driver: ChannelDriver, problem: Tell) -> None:
    """Tell what waits in a channel."""
    channel, patience_ns = driver.channel, node.services.config.alarm.patience_s * NS
    if channel.phase is Phase.OPEN:
        oldest_ns = oldest_payment_ns(node, driver)
        if oldest_ns is not None and time.time_ns() - oldest_ns >= patience_ns:
            problem(
                "payments_wait",
                f"{format_icp(channel.committed_e8s)} to the peer are not delivered: "
                f"they wait for {wait_of(node, driver) or 'the peer'}",
                channel.id,
                oldest_ns,
                dated=True,
            )
        return
    late = _late_on_chain(node, driver)
    if late is not None:
        code, what, since_ns = late
        if node.services.time.chain_ns() - since_ns >= LONG * patience_ns:
            problem(code, f"{what} waits for {wait_of(node, driver)}", channel.id, since_ns, dated=True)


def _late_on_chain(node: Node, driver: ChannelDriver) -> tuple[str, str, int] | None:
    """Return the code of what a channel waits for on its way in or out, its name, and since when, in chain time."""
    read, registered = node.services.store.read, driver.registered
    row = read.channel(driver.number)
    if row is None:
        return None
    match driver.channel.phase:
        case Phase.FUNDING:
            # What strangers propose and nobody paid into makes no money of ours wait.
            ours = any(deposit.status is not IntentStatus.VOID for deposit in read.deposits(driver.number))
            return ("funding_waits", "our deposit", row.opened_ns) if ours else None
        case Phase.CLOSING | Phase.LEAVING if registered is not None:
            if not registered.settled(node.services.time.chain_ns()):
                return None  # the challenge period is the usual time
            since_ns = row.since_ns if registered.state.finalized else max(row.since_ns, registered.timeout_ns)
            return "withdrawal_waits", "the withdrawal", since_ns
        case Phase.CLOSING:
            return "close_waits", "the close", row.since_ns
        case Phase.LEAVING:
            return "settlement_waits", "settling alone", row.since_ns
        case _:
            return None
