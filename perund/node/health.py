"""Whether the money is safe right now."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from perund.control import schema
from perund.log_sink import log_sink
from perund.node.late import Tell, late_channel, late_node
from perund.node.views import moment
from perund.node.way_out import way_out_text
from protocol.effects import Phase
from watcher.vitals import Condition, WatcherState

if TYPE_CHECKING:
    from perund.node.driver import ChannelDriver
    from perund.node.node import Node
    from perund.node.problems import Problems
    from perund.tower.link import TowerLink

__all__ = ["health_of", "watch_health"]

NS: Final = 1_000_000_000
CHANNEL_BYTES: Final = 64
CHANNELS_PER_TURN: Final = 200
"""Channels that are looked at in one turn of the loop."""
LOOK_EVERY_S: Final = 30.0
OFFER_PATIENCE_S: Final = 30
"""Participant 0 includes or declines an offer within this time (DESIGN, section 6)."""


class _Found:
    """The problems that were found, and since when they last."""

    def __init__(self, known: Problems) -> None:
        self.problems: list[schema.Problem] = []
        self._known = known
        self._undated: dict[tuple[str, str], int] = {}
        self._now_ns = time.time_ns()

    def __call__(
        self, code: str, message: str, subject: bytes = b"", at_ns: int | None = None, *, dated: bool = False
    ) -> None:
        """Take a problem, see `perund.node.late.Tell`."""
        since_ns = self._now_ns if at_ns is None else at_ns
        if not dated:
            known_ns = self._known.since(code, subject.hex())
            if known_ns is not None and since_ns > known_ns - NS:  # what is computed differs by a little each time
                since_ns = known_ns
            self._undated[code, subject.hex()] = since_ns
        channel = subject.hex() if len(subject) == CHANNEL_BYTES else None
        self.problems.append(schema.Problem(code=code, message=message, since=moment(since_ns), channel=channel))

    async def settle(self) -> None:
        """Remember what nothing else dates, and forget what has ended: what is told now is known after a restart."""
        await self._known.settle(self._undated)


async def watch_health(node: Node) -> None:
    """Find problems while nobody asks, so that they are known since they began."""
    while True:
        await health_of(node)
        await asyncio.sleep(LOOK_EVERY_S)


async def health_of(node: Node) -> schema.Health:
    """Return what needs an eye: looks that are old, disputes, frozen channels, jobs that fail, money that waits."""
    problem, margins = _Found(node.problems), list[float]()
    _say_node(node, problem)
    for count, driver in enumerate(list(node.drivers.values()), 1):
        _say_channel(node, driver, problem, margins)
        late_channel(node, driver, problem)
        if count % CHANNELS_PER_TURN == 0:
            await asyncio.sleep(0)
    _say_towers(node, problem)
    for alarm in node.services.alarms.current():
        channel = bytes.fromhex(alarm.channel) if alarm.channel else b""
        problem("alarm", alarm.text, channel, alarm.at_ns, dated=True)
    lag_ns = node.services.watcher.oldest_look_age_ns()
    seen = node.services.watcher.condition()
    if seen.state is WatcherState.BLIND:
        blind = "no certified answer for a third of the shortest challenge period: payments stop"
        problem("watcher_blind", blind, at_ns=time.time_ns() - seen.lag_ns if seen.lag_ns is not None else None)
    late_node(node, problem)
    await problem.settle()
    return schema.Health(
        ok=not problem.problems,
        problems=problem.problems,
        watcher=_watcher(seen),
        chain_lag_s=round(lag_ns / NS, 3) if lag_ns is not None else None,
        least_margin_s=round(min(margins), 3) if margins else None,
        towers=[_tower(link) for link in node.towers.links.values()],
    )


def _say_node(node: Node, problem: Tell) -> None:
    stopped = node.lives.reason_not_to_sign()
    if stopped is not None:
        problem("stopped_signing", stopped)
    if node.lives.older is not None:
        problem(
            "older_life",
            f"another copy of this node ran beside it (life {node.lives.older.number}) and has "
            "stopped: remove it, and compare `perun channels` with what you know",
        )
    not_now = node.services.reason_not_to_open()
    ledger = node.services.ledger_watch
    unusable = ledger.problem() if ledger is not None else ""
    if ledger is not None and unusable:
        problem("ledger_unusable", unusable, at_ns=ledger.since_ns)
    if not_now is not None and not_now != unusable:
        problem("canister_not_trusted", not_now)
    _say_backup(node, problem)
    sink = log_sink()
    unwritten = sink.problem() if sink is not None else None
    if sink is not None and unwritten is not None:
        problem("log_unwritable", f"the log cannot be written ({unwritten}): {sink.lost} lines are lost")


def _say_channel(node: Node, driver: ChannelDriver, problem: Tell, margins: list[float]) -> None:
    now = node.services.time.now()
    channel = driver.channel
    challenge_ns = channel.terms.params.challenge_duration_ns
    looked_ns = channel.looked_at_ns
    if looked_ns is None:
        problem("never_looked", "no certified look at this channel succeeded yet", channel.id)
    elif 3 * (now.elapsed_ns - looked_ns) >= challenge_ns:
        age_s = (now.elapsed_ns - looked_ns) / NS
        looked_at_ns = time.time_ns() - int(age_s * NS)
        problem("look_too_old", f"the newest look is {age_s:.0f} s old: payments stop", channel.id, looked_at_ns)
    if channel.frozen:
        told = way_out_text(channel, 0, "when the peer's time to close is over") or "its money is out"
        problem("channel_frozen", f"{channel.frozen}; way out: {told}", channel.id)
    registered = driver.registered
    if registered is not None and not registered.settled(now.chain_ns):
        left_s = (registered.timeout_ns - now.chain_ns) / NS
        if registered.state.version < channel.version:
            margins.append(left_s)
            problem(
                "stale_state_registered",
                f"version {registered.state.version} is registered, ours is {channel.version}; {left_s:.0f} s left",
                channel.id,
            )
    jobs = node.jobs.get(channel.id)
    for job in jobs.of() if jobs is not None else ():
        if job.problem:
            problem(f"{job.name}_stuck", job.problem, channel.id, job.problem_since_ns)
    offers = channel.ours == 1 and channel.committed_e8s > 0
    oldest_ms = (
        node.services.store.read.oldest_waiting_ms(driver.number, channel.ours, offered=True) if offers else None
    )
    if oldest_ms is not None and driver.online and time.time() - oldest_ms / 1000 > OFFER_PATIENCE_S:
        problem(
            "offer_stuck",
            f"the peer has neither included nor declined a payment for {OFFER_PATIENCE_S} s",
            channel.id,
            oldest_ms * 1_000_000,
            dated=True,
        )
    if channel.phase is Phase.FUNDING:
        margins.append((channel.terms.funding_deadline_ns - now.chain_ns) / NS)


def _say_towers(node: Node, problem: Tell) -> None:
    for link in node.towers.links.values():
        name = link.address.node_id.hex()[:16]
        tower = link.address.node_id
        if link.dropped is not None:
            problem("tower_dropped", f"the watchtower {name} is used no more: {link.dropped}", tower)
        elif (oldest_s := link.lag().oldest_s) is not None and oldest_s >= node.services.config.alarm.patience_s:
            why = link.problem or "it has not answered yet"
            since_ns = time.time_ns() - int(oldest_s * NS)
            problem(
                "tower_behind", f"the watchtower {name} lacks a state since {oldest_s:.0f} s: {why}", tower, since_ns
            )


def _say_backup(node: Node, problem: Tell) -> None:
    backup = node.services.backup
    if backup.problem is not None:
        problem("backup_unreadable", f"a restore would not have everything: {backup.problem}")
    if backup.left_out:
        problem("backup_incomplete", f"{len(backup.left_out)} rows of the store are not in it: {backup.left_out[0]}")
    for peer, why in node.services.store.read.unusable_addresses().items():
        if node.channels_with(peer) and not node.addresses.of(peer) and node.services.network.session(peer) is None:
            problem(
                "peer_address_unusable",
                f"nobody dials the peer {peer.hex()[:16]}: {why}; give its address with `perun connect`",
                peer,
            )


def _tower(link: TowerLink) -> schema.TowerHealth:
    lag = link.lag()
    return schema.TowerHealth(
        tower=link.address.node_id.hex(),
        address=str(link.address),
        connected=link.connected,
        channels_behind=lag.channels,
        oldest_undelivered_s=None if lag.oldest_s is None else round(lag.oldest_s, 3),
        problem=link.problem,
        dropped=link.dropped,
    )


def _watcher(seen: Condition) -> schema.WatcherHealth:
    return schema.WatcherHealth(
        state=seen.state.value,
        channels=seen.watched,
        chain_time_ns=str(seen.chain_ns) if seen.chain_ns is not None else None,
        lag_s=round(seen.lag_ns / NS, 3) if seen.lag_ns is not None else None,
        least_margin_s=round(seen.least_margin_ns / NS, 3) if seen.least_margin_ns is not None else None,
        by_log=seen.by_log,
        looks=seen.looks,
        looks_failed=seen.looks_failed,
        sweeps=seen.sweeps,
        restarts=seen.restarts,
    )
