"""The watchtowers of a node, all of them: each gets every new state, and none holds a payment up."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

import structlog

from perund.store.errors import StorageFailed
from perund.tower.inquiry import Inquiries
from perund.tower.link import TowerLink
from perund.tower.receipt_rows import KeptReceipt, forget_receipts, record_receipt, record_tower_life
from protocol.effects import EventRecord
from protocol.errors import InvariantBroken, PeerViolation, Undecodable
from protocol.messages import (
    ErrorMessage,
    StandingMessage,
    TowerForget,
    TowerHeld,
    TowerInquiry,
    TowerList,
    TowerListRequest,
    TowerMessage,
    TowerRecall,
    TowerReceipt,
    TowerStanding,
    TowerState,
)
from protocol.types import ChannelId, Nanos, Params, SignedState
from wire.address import NodeAddress
from wire.keeper import Target

if TYPE_CHECKING:
    from perund.node.driver import ChannelDriver
    from perund.node.noise import Noise
    from perund.node.services import Services
    from wire.session import Session

__all__ = ["Towers"]

log = structlog.get_logger()


class Towers:
    """The links, and what they need of the node. Implements `perund.tower.link.Household`."""

    def __init__(self, services: Services, drivers: dict[ChannelId, ChannelDriver], noise: Noise) -> None:
        """`drivers`: the node's channels, by reference; `noise`: bounds what towers make us tell."""
        self._noise = noise
        self._services = services
        self._drivers = drivers
        self.links: dict[bytes, TowerLink] = {}
        self._marked: dict[ChannelId, int] = {}
        self._inquiries = Inquiries()
        self._lives: dict[bytes, tuple[bytes, int]] = {}
        self._answers: dict[ChannelId, dict[bytes, int | None]] = {}
        for text in services.config.watch.towers:
            address = NodeAddress.of(text)
            rows = services.store.read.tower_receipts(address.node_id)
            life = services.store.read.tower_life(address.node_id)
            if life is not None:
                self._lives[address.node_id] = life
            kept = {ChannelId(row[0]): KeptReceipt(*row[1:]) for row in rows}
            now_ns = services.time.chain_ns()
            receipts = {channel: receipt for channel, receipt in kept.items() if receipt.believable(now_ns)}
            self.links[address.node_id] = TowerLink(
                address, self, services.network_hash, services.network.node_id, receipts
            )

    def start(self, spawn: Callable[[Coroutine[None, None, None], str], object]) -> None:
        """Look which channels the towers are behind with, connect to them, and deliver."""
        for driver in self._drivers.values():
            self._marked[driver.channel.id] = driver.durable_newest.state.version
            for link in self.links.values():
                link.take_up(driver.channel.id, driver.durable_newest)
            self._ask_about(driver)
        for node_id, link in self.links.items():
            self._services.network.keep_connected(node_id, [Target(link.address.place)])
            spawn(self._run(link), f"tower {node_id.hex()[:16]}")

    async def _run(self, link: TowerLink) -> None:
        """Deliver to one tower. A defect in what concerns it costs this tower, with an alarm, and nothing else."""
        try:
            await link.run(lambda: list(self._drivers))
        except (StorageFailed, InvariantBroken):
            raise
        except Exception as error:
            log.exception("tower.link_failed", tower=link.address.node_id.hex()[:16])
            link.give_up(f"internal error: {type(error).__name__}")

    # --- what the node says ------------------------------------------------------------------------------

    def changed(self, driver: ChannelDriver) -> None:
        """Note that a step of a channel is durable. In the way of payments: no more than a comparison."""
        if not self.links:
            return
        channel, version = driver.channel.id, driver.durable_newest.state.version
        if self._marked.get(channel) != version and channel in self._drivers:
            self._marked[channel] = version
            for link in self.links.values():
                link.mark(channel)
        if driver.channel.frozen:
            self._ask_about(driver)

    def _ask_about(self, driver: ChannelDriver) -> None:
        """Ask every tower, once, about a channel in which this node may have lost data (rule 7)."""
        channel = driver.channel
        if not channel.recovering or not channel.awaits_towers or channel.id in self._inquiries:
            return
        links = [link for link in self.links.values() if link.dropped is None]
        self._inquiries.begin(driver, {link.address.node_id for link in links})
        for link in links:
            link.want(channel.id)

    def close(self) -> None:
        """The node stops."""
        self._inquiries.close()

    def closed(self, driver: ChannelDriver) -> None:
        """A channel's money is out: the towers may forget it."""
        if not self.links:
            return
        self._marked.pop(driver.channel.id, None)
        self._inquiries.forget(driver.channel.id)
        self._answers.pop(driver.channel.id, None)
        for link in self.links.values():
            link.forget(driver.channel.id)
        self._services.store.commit([forget_receipts(driver.number)])

    def has(self, peer: bytes) -> bool:
        """Whether a peer is a tower of this node."""
        return peer in self.links

    def connected(self, session: Session) -> None:
        """A session began, perhaps with a tower."""
        link = self.links.get(session.peer)
        if link is not None:
            link.session_began(session)

    def disconnected(self, session: Session, reason: str) -> None:
        """A session ended."""
        link = self.links.get(session.peer)
        if link is not None:
            link.session_ended(session, reason)

    def received(self, session: Session, message: TowerMessage | StandingMessage) -> None:
        """Take what a tower says. What only a tower is asked for is answered with `not_a_tower`."""
        if isinstance(message, TowerState | TowerForget | TowerRecall | TowerInquiry | TowerListRequest):
            channel = message.channel if isinstance(message, TowerForget | TowerRecall) else b""
            session.send(ErrorMessage("not_a_tower", "this node guards no channels of others", channel))
            return
        link = self.links.get(session.peer)
        if link is None:
            text = f"a {type(message).__name__} came, and you are no tower of this node"
            channel = b"" if isinstance(message, TowerStanding | TowerList) else message.channel
            session.send(ErrorMessage("unexpected", text, channel))
            return
        link.received(session, message)

    def complained(self, session: Session, message: ErrorMessage) -> None:
        """A peer sent an error."""
        link = self.links.get(session.peer)
        if link is not None:
            link.complained(message.code, message.text)

    # --- Household ---------------------------------------------------------------------------------------

    def newest(self, channel: ChannelId) -> tuple[Params, SignedState] | None:
        """Return the newest durable state, or None for a channel that is closed."""
        driver = self._drivers.get(channel)
        return (driver.channel.terms.params, driver.durable_newest) if driver is not None else None

    def chain_ns(self) -> Nanos:
        """Return the chain time."""
        return self._services.time.chain_ns()

    def elapsed_ns(self) -> int:
        """Return local nanoseconds that never go back."""
        return self._services.time.elapsed_ns()

    def keep_receipt(self, tower: bytes, receipt: TowerReceipt) -> None:
        """Write a verified receipt down."""
        number = self._services.store.number(receipt.channel)
        self._services.store.commit([record_receipt(tower, number, receipt)])

    def tower_life(self, tower: bytes) -> tuple[bytes, int] | None:
        """Return which life of its store a tower named last, and its writes."""
        return self._lives.get(tower)

    def keep_tower_life(self, tower: bytes, life: bytes, writes: int) -> None:
        """Write down which life of its store a tower names."""
        self._lives[tower] = (life, writes)
        self._services.store.commit([record_tower_life(tower, life, writes)])

    def event(self, kind: str, channel: ChannelId | None, facts: dict[str, str | int | bool]) -> None:
        """Tell users."""
        told = self._noise.event(EventRecord(kind, channel, facts), self.elapsed_ns())
        if told is not None:
            self._services.store.commit([told])

    def dropped(self, tower: bytes) -> None:
        """Dial a tower no more."""
        self._services.network.forget(tower)
        self._inquiries.dropped(tower)

    def answers(self, channel: ChannelId) -> dict[bytes, int | None]:
        """Return the towers (node keys) that have answered for a channel that recovers: the version held, if any."""
        return self._answers.get(channel, {})

    # --- Recovery ----------------------------------------------------------------------------------------

    def recovering(self) -> list[ChannelId]:
        """Return the channels in which this node may have lost data."""
        return [channel for channel, driver in self._drivers.items() if driver.channel.recovering]

    def recalled(self, tower: bytes, held: TowerHeld) -> str | None:
        """Adopt what a tower holds if it is newer. Returns why it is nonsense, or None when it is none."""
        driver = self._drivers.get(held.channel)
        if driver is None:
            return None
        self._answers.setdefault(held.channel, {})[tower] = held.version
        had = driver.channel.version
        try:
            driver.recalled(held)
        except (PeerViolation, Undecodable) as error:
            return f"what it holds of a channel is no state of it: {error}"
        if driver.channel.version > had:
            log.warning("tower.gave_back", channel=driver.short, version=held.version, had=had)
        return None

    def answered(self, tower: bytes, channel: ChannelId) -> None:
        """Take note that a tower has given what it has of a channel, or cannot give anything."""
        if channel in self._drivers:
            self._answers.setdefault(channel, {}).setdefault(tower, None)
        self._inquiries.answered(tower, channel)
