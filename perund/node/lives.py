"""The life of this node, and those of its peers: of two copies that run at once the older one stops signing.

What stops it is a signature of its own key on a life that it did not begin, so no peer can stop a node that runs
alone. A life that has stopped stays so over restarts, until its operator says that it is the one to go on
(`perund run --take-over`). docs/adr/0012-lives-of-a-node.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from perund.store.lives import forget_life, keep_life, record_heard, record_stop
from protocol.effects import EventRecord
from protocol.hearing import Heard, Hearing
from protocol.lives import outlives, sign_life, sign_stop, verify_life, verify_stop
from protocol.messages import FEATURE_LIVES, Life, LifeHeard, LifeMessage, LifeStopped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from perund.node.driver import ChannelDriver
    from perund.node.services import Services
    from protocol.types import ChannelId
    from wire.session import Session

__all__ = ["STOPPED_SIGNING", "Lives"]

log = structlog.get_logger()

STOPPED_SIGNING: Final = "node.stopped_signing"
"""The event that this life has stopped."""


class Lives:
    """Says which life this is, hears those of others, and stops this node when another copy of it runs."""

    def __init__(
        self, services: Services, drivers: Mapping[ChannelId, ChannelDriver], has_channels: Callable[[bytes], bool]
    ) -> None:
        """`drivers`: the node's channels, by reference; `has_channels`: whether there is one with a node."""
        self._services = services
        self._drivers = drivers
        self._key, self._network = services.keys.node_key, services.network_hash
        own = services.store.life
        self.life: Life = sign_life(self._key, self._network, own.number, own.nonce)
        self.stopped: LifeStopped | None = own.stopped
        """Our word that we sign nothing any more; it leaves when it is durable."""
        self.older: LifeStopped | None = None
        """The word of an older life that ran beside this one."""
        self.on_stop: Callable[[], None] = lambda: None
        """Called when this life stops: what else could sign stops with it."""
        self._durable = self.stopped is not None
        self._hearing = Hearing(self._network, services.store.read.heard_life, has_channels, self._keep)

    def _keep(self, node: bytes, heard: Heard) -> None:
        self._services.store.commit([record_heard(node, heard)])

    def reason_not_to_sign(self) -> str | None:
        """Return why nothing may be signed, for people, or None."""
        if self.stopped is None:
            return None
        return (
            f"another copy of this node runs (life {self.stopped.by_number}, this is life {self.stopped.number}): "
            "this one signs nothing, and only refutes. Stop the copy that you do not want; if this is the one to "
            "keep, start it with `perund run --take-over`"
        )

    # --- sessions ----------------------------------------------------------------------------------------

    def session_began(self, session: Session) -> bool:
        """Say which life this is. Returns whether anything else may be said: not when this life has stopped."""
        if not session.hello.features & FEATURE_LIVES:
            return True
        if self.stopped is None:
            session.send(self.life)
        elif self._durable:
            session.send(self.stopped)
        return self.stopped is None

    def session_ended(self, peer: bytes) -> None:
        """A session is over."""
        self._hearing.ended(peer)

    def has_said(self, session: Session) -> bool:
        """Whether a peer has said which life of it this is, or is one that says nothing about it."""
        return not session.hello.features & FEATURE_LIVES or self._hearing.has_heard(session.peer)

    def outlived(self, peer: bytes) -> bool:
        """Whether what talks to us as this peer is a life of it that another one has followed."""
        return self._hearing.outlived(peer)

    def has_channel(self, peer: bytes) -> None:
        """A channel with a peer is there: what was heard of it is worth a row."""
        self._hearing.keep(peer)

    def closed(self, peer: bytes, number: int, *, last: bool) -> None:
        """A channel with a peer is closed, perhaps the last one. `number`: its row.

        An older copy of the peer may well come when a newer life has settled what there was: it has other channels,
        and is told as long as money was here once.
        """
        self._services.store.commit([keep_life(peer, number), *([forget_life(peer)] if last else ())])

    def received(self, session: Session, message: LifeMessage) -> bool:
        """Take what a peer says of its life, or shows us of ours.

        Returns whether channels and openings may be talked about from now on: the peer has said which life it is, no
        other one has followed it, and this one goes on. What it is shown of its life leaves before anything of these.
        """
        match message:
            case Life():
                return self._announced(session, message)
            case LifeHeard():
                self._shown(session, message)
            case LifeStopped():
                self._stopped(session, message)
        return False

    def _announced(self, session: Session, life: Life) -> bool:
        again = self._hearing.has_heard(session.peer)
        answers = self._hearing.announced(session.peer, life)
        if answers is None:
            session.fail("bad_life", "a life that is not signed by its node key")
            return False
        for answer in answers:
            session.send(answer)
        if self._hearing.outlived(session.peer):
            log.warning("peer.outlived", peer=session.peer.hex(), life=life.number)
            return False
        return not again and self.stopped is None

    def _shown(self, session: Session, shown: LifeHeard) -> None:
        if self.stopped is not None or not outlives(shown, self.life):
            return
        if not verify_life(self._services.network.node_id, self._network, shown):
            session.fail("bad_life", "a life of this node that is not signed by its key")
            return
        self._stop(session.peer, shown)

    def _stopped(self, session: Session, stop: LifeStopped) -> None:
        ours = (stop.by_number, stop.by_nonce) == (self.life.number, self.life.nonce)
        if ours and self.older is not None:
            return
        if ours and verify_stop(self._services.network.node_id, self._network, stop):
            self._has_older(session.peer, stop)
            return
        if not self._hearing.stopped(session.peer, stop):
            session.fail("bad_life", "a life that has stopped, and is not signed by its node key")
            return
        # Its channels are those of the life that goes on, which shall not find its place taken.
        session.close("a life of the peer that has stopped")

    def _has_older(self, peer: bytes, stop: LifeStopped) -> None:
        if (stop.number, stop.nonce) == (self.life.number, self.life.nonce):
            return
        self.older = stop
        facts: dict[str, str | int | bool] = {
            "life": self.life.number, "other": stop.number, "peer": peer.hex(), "alarm": True,
            "do": "another copy of this node ran beside it, and has stopped: remove it, and look at `perun channels`",
        }  # fmt: skip
        self._services.store.commit([EventRecord("node.older_life", None, facts)])

    # --- stopping ----------------------------------------------------------------------------------------

    def _stop(self, peer: bytes, by: LifeHeard) -> None:
        """Sign nothing from this moment on, and make that durable; then say so.

        What was signed before and is not on the disk yet gets there, and does not leave any more: nobody else
        has it, and the other copy may have signed otherwise.
        """
        stop = self.stopped = sign_stop(self._key, self._network, self.life, by)
        store = self._services.store
        facts: dict[str, str | int | bool] = {
            "life": stop.number, "other": stop.by_number, "peer": peer.hex(), "alarm": True,
            "in_flight": sum(driver.writing for driver in self._drivers.values()),
        }  # fmt: skip
        self.on_stop()
        store.commit([record_stop(stop), EventRecord(STOPPED_SIGNING, None, facts)])
        for driver in list(self._drivers.values()):
            self.freeze(driver)
        store.commit((), self._say)

    def freeze(self, driver: ChannelDriver) -> None:
        """Have a channel sign nothing, if this life has stopped; it recovers (rule 7)."""
        if self.stopped is None:
            return
        text = f"life {self.stopped.by_number} of this node runs beside life {self.stopped.number}"
        driver.perform(driver.channel.outlive(text, self._services.time.now()))

    def _say(self) -> None:
        assert self.stopped is not None
        self._durable = True
        network = self._services.network
        for session in network.sessions():
            if session.hello.features & FEATURE_LIVES:
                session.send(self.stopped)
        for session in network.sessions():
            network.forget(session.peer)  # the other copy's sessions are not to be taken from it again and again
