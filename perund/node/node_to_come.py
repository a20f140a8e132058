"""Stands for the node while the parts that it is made of are made: the watcher and the network report to it."""

# ruff: noqa: D102  (each method is that of `Node`)
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from protocol.messages import ErrorMessage, PeerMessage
from protocol.types import ChannelId, Params, SignedState
from watcher.ports import CertifiedLook
from wire.session import Session

if TYPE_CHECKING:
    from perund.node.node import Node
    from wire.address import Address

__all__ = ["NodeToCome"]


class NodeToCome:
    """Hands everything on to `node`, which is set before anything can happen. Implements what `Node` implements."""

    node: Node

    def newest(self, channel: ChannelId) -> tuple[Params, SignedState] | None:
        return self.node.newest(channel)

    def looked(self, channel: ChannelId, look: CertifiedLook) -> None:
        self.node.looked(channel, look)

    def look_failed(self, channel: ChannelId, error: str) -> None:
        self.node.look_failed(channel, error)

    def refuting(self, channel: ChannelId, registered: int, ours: int) -> None:
        self.node.refuting(channel, registered, ours)

    def refuted(self, channel: ChannelId, ours: int) -> None:
        self.node.refuted(channel, ours)

    def noticed(self, kind: str, channel: ChannelId | None, facts: Mapping[str, str | int | bool]) -> None:
        self.node.noticed(kind, channel, facts)

    def connected(self, session: Session) -> None:
        self.node.connected(session)

    def received(self, session: Session, message: PeerMessage) -> None:
        self.node.received(session, message)

    def disconnected(self, session: Session, reason: str) -> None:
        self.node.disconnected(session, reason)

    def peer_error(self, session: Session, message: ErrorMessage) -> None:
        self.node.peer_error(session, message)

    def is_known(self, peer: bytes) -> bool:
        return self.node.is_known(peer)

    def stake_e8s(self, peer: bytes) -> int:
        return self.node.stakes.of(peer)

    def proven(self, peer: bytes, address: Address) -> None:
        self.node.addresses.proved(peer, address)
