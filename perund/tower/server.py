"""A watchtower's side of the sessions with its clients. Implements `wire.handler.PeerHandler`."""

from __future__ import annotations

from functools import partial
from typing import Final

import structlog

from protocol.errors import PeerViolation
from protocol.messages import (
    ErrorMessage,
    Life,
    LifeHeard,
    LifeStopped,
    PeerMessage,
    TowerForget,
    TowerHeld,
    TowerInquiry,
    TowerList,
    TowerListRequest,
    TowerRecall,
    TowerReceipt,
    TowerRefusal,
    TowerStanding,
    TowerState,
)
from watcher.tower.tower import Tower
from wire.limits import Allowance, Limits
from wire.session import Session

__all__ = ["TowerServer", "tower_limits"]

log = structlog.get_logger()

KIB: Final = 1024
STRANGER: Final = Allowance(messages_per_s=20, bytes_per_s=16 * KIB, unread_bytes=64 * KIB)
STRANGERS: Final = Allowance(messages_per_s=400, bytes_per_s=256 * KIB, unread_bytes=64 * KIB)
"""All clients together that have not shown money, and those of one address: many come through one."""
KNOWN: Final = Allowance(messages_per_s=100, bytes_per_s=64 * KIB, unread_bytes=1024 * KIB)
"""A state takes about 350 bytes, and a third of a millisecond to verify and promise: no client may take more than a
thirtieth of the processor, which has others to guard.
"""


def tower_limits(connections: int) -> Limits:
    """Return what clients may use of a tower: a state now and then, nothing like the traffic of payments."""
    return Limits(
        connections=connections,
        stranger=STRANGER,
        strangers_together=STRANGERS,
        strangers_of_address=STRANGERS,
        known=KNOWN,
    )


class TowerServer:
    """Brings messages to the tower and its answers back."""

    def __init__(self, tower: Tower) -> None:
        self._tower = tower

    def connected(self, session: Session) -> None:
        """Say why, if this node is not served: it learns it before it sends a state."""
        refused = self._tower.policy.refuses_client(session.peer)
        if refused is not None:
            session.fail("refused", refused.text)

    def disconnected(self, session: Session, reason: str) -> None:  # noqa: ARG002
        """What is on its way to the disk is kept, and the receipt asked for again."""
        self._tower.hearing.ended(session.peer)

    def received(self, session: Session, message: PeerMessage) -> None:
        """Take a state, give one back, or give up a slot; a tower has no channels of its own."""
        match message:
            case TowerState():
                try:
                    self._tower.offer(session.peer, message, partial(self._answer, session), session.origin)
                except PeerViolation as error:
                    session.fail(error.code, str(error))
            case TowerForget():
                self._tower.forget(session.peer, message.channel)
            case TowerRecall():
                session.send(self._tower.recall(session.peer, message.channel))
            case TowerInquiry():
                self._tower.standing(session.peer, message.nonce, session.send)
            case TowerListRequest():
                self._tower.listed(session.peer, message, session.send)
            case Life():
                self._announced(session, message)
            case LifeStopped():
                if not self._tower.hearing.stopped(session.peer, message):
                    session.fail("bad_life", "a life that has stopped, and is not signed by its node key")
            case LifeHeard():
                pass  # a tower has no channels, and no life that anybody could outlive
            case TowerReceipt() | TowerRefusal() | TowerHeld() | TowerStanding() | TowerList():
                session.fail("unexpected", f"a {type(message).__name__} came from a client")
            case _:
                channel = getattr(message, "channel", b"")
                text = "this is a watchtower: it guards channels and has none"
                session.send(ErrorMessage("only_a_tower", text, channel))

    def peer_error(self, session: Session, message: ErrorMessage) -> None:
        """A client complains: shown, not trusted."""
        log.warning("peer.complained", peer=session.peer.hex(), code=message.code, text=message.text)

    def is_known(self, peer: bytes) -> bool:
        """Whether a client has shown money, or is one that the operator named."""
        return self._tower.slots.is_known(peer) or peer in self._tower.policy.clients

    def _announced(self, session: Session, life: Life) -> None:
        """Hear which life of a client this is, and tell it of another one. Its states are taken all the same: a tower
        only refutes, with the newest.
        """
        answers = self._tower.hearing.announced(session.peer, life)
        if answers is None:
            session.fail("bad_life", "a life that is not signed by its node key")
            return
        for answer in answers:
            session.send(answer)

    def _answer(self, session: Session, answer: TowerReceipt | TowerRefusal) -> None:
        if isinstance(answer, TowerRefusal):
            note = log.info if self.is_known(session.peer) else log.debug  # strangers must not fill the log
            note(
                "tower.refused",
                client=session.peer.hex()[:16],
                channel=answer.channel.hex()[:16],
                version=answer.version,
                code=answer.code,
            )
        session.send(answer)
