"""Results for people: aligned lines and tables, amounts in ICP, ids short where they repeat."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from perund.amounts import format_icp
from perund.cli.failing import for_people
from perund.cli.output import plain, say
from perund.control import schema
from perund.durations import format_duration

__all__ = ["channel", "channels", "event", "health", "info", "paid", "payments", "peers", "recovery", "wallet"]

SHORT = 16
"""Digits of an id in a table: enough to be given back to a command."""
BETWEEN = "  "


def info(node: schema.NodeInfo) -> None:
    """Print who the node is."""
    counts = ", ".join(f"{count} {phase}" for phase, count in sorted(node.channels.items())) or "none"
    skew = "" if node.clock_skew_ms is None else f" (local clock {node.clock_skew_ms:+d} ms)"
    _lines(
        ("node id", node.node_id),
        ("version", node.version),
        ("listens on", node.listen or "nothing: it only dials"),
        ("announces", ", ".join(node.announces) or "no address"),
        ("network", node.network),
        ("root key", f"…{node.root_key[-32:]}"),
        ("Perun canister", node.perun_canister),
        ("ICP ledger", node.icp_ledger),
        ("principal", node.principal),
        ("account", node.account),
        ("chain time", f"{node.chain_time}{skew}" if node.chain_time else "not known yet"),
        ("certified", f"{node.last_certified_s} s ago" if node.last_certified_s is not None else "no answer yet"),
        ("channels", counts),
        ("peers", str(node.peers)),
        *([("log", f"{node.log_lines_lost} lines lost")] if node.log_lines_lost else []),
        ("state", f"starting: it waits for {node.waits_for}" if node.state == "starting" else node.state),
        ("data", f"{node.data_dir} (process {node.pid})"),
    )


def health(found: schema.Health) -> None:
    """Print what needs an eye."""
    say("ok" if found.ok else "not ok")
    if (watcher := found.watcher) is not None:
        lag = f", last certified answer {watcher.lag_s:.1f} s ago" if watcher.lag_s is not None else ""
        left = f", {watcher.least_margin_s:.0f} s left to refute" if watcher.least_margin_s is not None else ""
        say(f"watcher: {watcher.state}, {watcher.channels} channels{lag}{left}")
    for problem in found.problems:
        where = f" [{problem.channel[:SHORT]}]" if problem.channel else ""
        say(plain(f"  {problem.code}{where}: {for_people(problem.message)} (since {problem.since})"))
    for tower in found.towers:
        state = "dropped" if tower.dropped else "connected" if tower.connected else "not connected"
        age = "" if tower.oldest_undelivered_s is None else f", the oldest for {tower.oldest_undelivered_s:.0f} s"
        say(f"  watchtower {tower.tower[:SHORT]}: {state}, {tower.channels_behind} channels behind{age}")


def wallet(found: schema.WalletBalance) -> None:
    """Print the wallet."""
    _lines(
        ("account", found.account),
        ("principal", found.principal),
        ("balance", format_icp(found.balance_e8s)),
        ("fee", f"{format_icp(found.fee_e8s)} per transfer"),
    )


def peers(found: schema.PeerList) -> None:
    """Print a table of peers."""
    rows = [
        (
            peer.node_id,
            peer.address or "-",
            "yes" if peer.connected else f"no, since {peer.away_since}" if peer.away_since else "no",
            peer.agent or "-",
            str(peer.channels),
            ", ".join(map(_place, peer.addresses)) or "-",
        )
        for peer in found.peers
    ]
    _table(("node id", "address", "connected", "runs", "channels", "dialed at"), rows, "no peers")


def _place(place: schema.PeerPlace) -> str:
    """Show an address as it is known: given or announced, and whether the peer was ever there."""
    last = f"last there {place.last_success}" if place.last_success else "was there" if place.proven else "not proven"
    return f"{place.address} ({place.source}, {last})"


def channels(found: list[schema.Channel]) -> None:
    """Print a table of channels."""
    rows = [
        (
            one.channel[:SHORT],
            one.peer[:SHORT],
            f"{one.phase}{' (frozen)' if one.frozen else ''}",
            format_icp(one.mine_e8s),
            format_icp(one.theirs_e8s),
            str(one.version),
            _wait(one) or "",
        )
        for one in found
    ]
    _table(("channel", "peer", "phase", "mine", "theirs", "version", "waits for"), rows, "no channels")


def _wait(one: schema.Channel) -> str | None:
    if one.waiting_for is None or one.waiting_since is None:
        return one.waiting_for
    return f"{one.waiting_for}, since {one.waiting_since}"


def channel(one: schema.Channel) -> None:
    """Print everything about a channel."""
    registered = one.registered
    facts = [
        ("channel", one.channel),
        ("peer", one.peer),
        ("phase", one.phase),
        ("waits for", _wait(one)),
        ("peer away", f"since {one.peer_away_since}" if one.peer_away_since else None),
        ("frozen", one.frozen),
        ("recovering", "yes" if one.recovering else None),
        ("way out", one.way_out),
        ("closed because", one.close_reason),
        ("version", str(one.version)),
        ("mine", format_icp(one.mine_e8s)),
        ("theirs", format_icp(one.theirs_e8s)),
        ("sendable", format_icp(one.sendable_e8s)),
        ("queued", f"{one.queued.count} payments, {format_icp(one.queued.e8s)}" if one.queued.count else None),
        ("challenge", format_duration(one.challenge_s)),
        ("registered", f"version {registered.version} until {registered.timeout}" if registered else None),
        ("paid out", None if one.payout_e8s is None else format_icp(one.payout_e8s)),
        ("in block", None if one.payout_block is None else str(one.payout_block)),
        ("costs", ", ".join(f"{cost.what} {format_icp(cost.e8s)}" for cost in one.costs) or None),
        ("credits", ", ".join(f"{c.what} {format_icp(c.e8s)}" for c in one.credits or ()) or None),
    ]
    _lines(*((name, value) for name, value in facts if value is not None))


def recovery(found: schema.Recovery) -> None:
    """Print what is known of a channel after a loss of data."""
    proposal, registered = found.proposal, found.registered
    facts = [
        ("channel", found.channel),
        ("recovering", found.why if found.recovering else "no: as far as this node knows, no data is lost"),
        (
            "newest here",
            f"version {found.version}: {format_icp(found.mine_e8s)} mine, {format_icp(found.theirs_e8s)} theirs",
        ),
        (
            "loss ends",
            "with the peer, on these shares" if found.proven else "not yet: nothing shows that it is the newest",
        ),
        *(("tower", f"{tower.tower[:SHORT]} {_answer(tower)}") for tower in found.towers),
        ("towers", None if found.towers else "none is configured: nobody but the peer can show a newer state"),
        ("peer", "connected" if found.peer_connected else "not connected"),
        ("peer claims", None if found.peer_version is None else f"version {found.peer_version} as its newest"),
        (
            "proposes",
            f"{format_icp(proposal.mine_e8s)} mine, {format_icp(proposal.theirs_e8s)} theirs"
            f"{'' if proposal.as_ours else ': not the shares known here, it is not signed'}"
            if proposal
            else None,
        ),
        ("registered", f"version {registered.version} until {registered.timeout}" if registered else None),
        ("at risk", f"{format_icp(found.at_risk_e8s)}, if a later state gave you more" if found.recovering else None),
        ("way out", found.way_out),
    ]
    _lines(*((name, value) for name, value in facts if value is not None))


def _answer(tower: schema.TowerAnswer) -> str:
    if not tower.answered:
        return "has not answered"
    return "holds nothing" if tower.version is None else f"holds version {tower.version}"


def paid(amount_e8s: int, result: schema.PayResult) -> None:
    """Print what became of a payment."""
    say(f"{format_icp(amount_e8s)} {result.status} (payment {result.payment}, version {result.version})")


def payments(page: schema.PaymentPage) -> None:
    """Print a table of payments, and how to see more."""
    rows = [
        (
            one.created_at,
            one.channel[:SHORT],
            one.direction,
            format_icp(one.amount_e8s),
            f"{one.status}{f' ({one.code})' if one.code else ''}",
            one.payment,
            one.memo or one.memo_hex or "",
        )
        for one in page.payments
    ]
    _table(("when", "channel", "direction", "amount", "status", "payment", "memo"), rows, "no payments")
    if page.next is not None:
        say(f"more: --after {page.next}")


def event(one: schema.Event) -> None:
    """Print an event on a line."""
    facts = " ".join(f"{key}={value}" for key, value in one.data.items())
    say(plain(f"{one.cursor} {one.at} {one.event} {facts}".rstrip()))


def _lines(*facts: tuple[str, str]) -> None:
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        say(plain(f"{name:<{width}}  {value}"))


def _table(columns: tuple[str, ...], rows: Sequence[Sequence[str]], nothing: str) -> None:
    """Print columns while they fit on the terminal, and the rest below each row: a value is never cut or broken."""
    if not rows:
        say(nothing)
        return
    cells = [columns, *(tuple(plain(cell) for cell in row) for row in rows)]
    if not sys.stdout.isatty():
        # A pipe gets whole values with tabs between them, not a drawing for some width.
        for row in cells:
            say("\t".join(row))
        return
    import shutil

    widths = [max(len(row[place]) for row in cells) for place in range(len(columns))]
    room, beside = shutil.get_terminal_size().columns, len(columns)
    while beside > 1 and sum(widths[:beside]) + len(BETWEEN) * (beside - 1) > room:
        beside -= 1
    for number, row in enumerate(cells):
        say(BETWEEN.join(cell.ljust(width) for cell, width in zip(row[:beside], widths, strict=False)).rstrip())
        if number > 0:
            for name, cell in zip(columns[beside:], row[beside:], strict=True):
                if cell:
                    say(f"    {name}: {cell}")
