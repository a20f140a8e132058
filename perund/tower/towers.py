"""The watchtowers of a node, all of them: each gets every new state, and none holds a payment up."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

from perund.tower.address import TowerAddress
from perund.tower.link import TowerLink
from perund.tower.receipt_rows import KeptReceipt, forget_receipts, record_receipt
from protocol.effects import EventRecord
from protocol.messages import ErrorMessage, TowerForget, TowerMessage, TowerReceipt, TowerState
from protocol.types import ChannelId, Nanos, Params, SignedState

if TYPE_CHECKING:
    from perund.node.driver import ChannelDriver
    from perund.node.services import Services
    from wire.session import Session

__all__ = ["Towers"]


class Towers:
    """The links, and what they need of the node. Implements `perund.tower.link.Household`."""

    def __init__(self, services: Services, drivers: dict[ChannelId, ChannelDriver]) -> None:
        """`drivers`: the node's channels, by reference."""
        self._services = services
        self._drivers = drivers
        self.links: dict[bytes, TowerLink] = {}
        self._marked: dict[ChannelId, int] = {}
        for text in services.config.watch.towers:
            address = TowerAddress.of(text)
            rows = services.store.read.tower_receipts(address.node_id)
            receipts = {ChannelId(row[0]): KeptReceipt(*row[1:]) for row in rows}
            self.links[address.node_id] = TowerLink(
                address, self, services.network_hash, services.network.node_id, receipts
            )

    def start(self, spawn: Callable[[Coroutine[None, None, None], str], object]) -> None:
        """Look which channels the towers are behind with, connect to them, and deliver."""
        for driver in self._drivers.values():
            self._marked[driver.channel.id] = driver.durable_newest.state.version
            for link in self.links.values():
                link.take_up(driver.channel.id, driver.durable_newest)
        for node_id, link in self.links.items():
            self._services.network.keep_connected(node_id, link.address.host, link.address.port)
            spawn(link.run(lambda: list(self._drivers)), f"tower {node_id.hex()[:16]}")

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

    def closed(self, driver: ChannelDriver) -> None:
        """A channel's money is out: the towers may forget it."""
        if not self.links:
            return
        self._marked.pop(driver.channel.id, None)
        for link in self.links.values():
            link.forget(driver.channel.id)
        self._services.store.commit([forget_receipts(driver.number)])

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

    def received(self, session: Session, message: TowerMessage) -> None:
        """Take what a tower says. What only a tower is asked for is answered with `not_a_tower`."""
        if isinstance(message, TowerState | TowerForget):
            channel = message.channel if isinstance(message, TowerForget) else b""
            session.send(ErrorMessage("not_a_tower", "this node guards no channels of others", channel))
            return
        link = self.links.get(session.peer)
        if link is None:
            text = f"a {type(message).__name__} came, and you are no tower of this node"
            session.send(ErrorMessage("unexpected", text, message.channel))
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

    def event(self, kind: str, channel: ChannelId | None, facts: dict[str, str | int | bool]) -> None:
        """Tell users."""
        self._services.store.commit([EventRecord(kind, channel, facts)])

    def dropped(self, tower: bytes) -> None:
        """Dial a tower no more."""
        self._services.network.forget(tower)
