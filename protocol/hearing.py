"""What a node or a watchtower remembers of the lives of others, and what it tells them.

It keeps the newest life of each, and one more fact: a life that began from the same store, or the word of one that
stopped. So each of two that run at once hears of the other from whoever talks to both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from protocol.lives import outlives, same_life, verify_life, verify_stop
from protocol.messages import Life, LifeHeard, LifeStopped

__all__ = ["Heard", "Hearing"]


@dataclass(frozen=True, slots=True)
class Heard:
    """What is remembered of one node."""

    newest: Life
    rival: Life | None = None
    """Another life of the same number: both began from one store, and both stop."""
    stopped: LifeStopped | None = None
    """The word of an older life that ran beside the newest, and has stopped."""

    def told(self, life: Life) -> tuple[LifeHeard | LifeStopped, ...]:
        """Return what its node is to be shown when it says that this is its life."""
        if not same_life(life, self.newest):
            return (_shown(self.newest),)
        rival = (_shown(self.rival),) if self.rival is not None else ()
        return (*rival, self.stopped) if self.stopped is not None else rival

    def ends(self, life: Life) -> bool:
        """Whether that life signs nothing any more, or is not to be believed to."""
        return self.rival is not None or not same_life(life, self.newest)


def _shown(life: Life) -> LifeHeard:
    return LifeHeard(life.number, life.nonce, life.signature)


class Hearing:
    """The lives of everybody who is connected, and of those that are kept."""

    def __init__(
        self,
        network: bytes,
        recall: Callable[[bytes], Heard | None],
        keeps: Callable[[bytes], bool],
        write: Callable[[bytes, Heard], None],
    ) -> None:
        """`network`: 32 bytes, the network hash; `recall`: what is on the disk of a node key; `keeps`: whether a node
        is worth a row (nothing is kept of strangers, and who has a row keeps it); `write`: puts it there.
        """
        self._network = network
        self._heard: dict[bytes, Heard] = {}
        self._recall = recall
        self._keeps = keeps
        self._write = write
        self._spoke: set[bytes] = set()
        self._outlived: set[bytes] = set()

    def outlived(self, node: bytes) -> bool:
        """Whether what talks to us as this node is a life that another one has followed."""
        return node in self._outlived

    def has_heard(self, node: bytes) -> bool:
        """Whether a node has said its life in the session that there is with it."""
        return node in self._spoke

    def announced(self, node: bytes, life: Life) -> tuple[LifeHeard | LifeStopped, ...] | None:
        """Take what a node (33 bytes) says of its life, once in a session. Returns what to show it, or None when the
        signature is not its own.
        """
        if node in self._spoke:
            return ()
        self._spoke.add(node)
        if not verify_life(node, self._network, life):
            return None
        known = self._known(node)
        if known is None or life.number > known.newest.number:
            now = Heard(life)
        elif outlives(life, known.newest) and known.rival is None:
            now = replace(known, rival=life)
        else:
            now = known
        if now is not known:
            self._heard[node] = now
            self.keep(node)
        if now.ends(life):
            self._outlived.add(node)
        return now.told(life)

    def stopped(self, node: bytes, stop: LifeStopped) -> bool:
        """Take a node's word that it signs nothing any more. Returns whether it is its own."""
        if not verify_stop(node, self._network, stop):
            return False
        self._outlived.add(node)
        known = self._known(node)
        if (
            known is not None
            and known.stopped is None
            and (stop.by_number, stop.by_nonce) == (known.newest.number, known.newest.nonce)
        ):
            self._heard[node] = replace(known, stopped=stop)
            self.keep(node)
        return True

    def keep(self, node: bytes) -> None:
        """Write down what was heard of a node, if it is worth a row now."""
        known = self._heard.get(node)
        if known is not None and (self._keeps(node) or self._recall(node) is not None):
            self._write(node, known)

    def _known(self, node: bytes) -> Heard | None:
        if node not in self._heard and (kept := self._recall(node)) is not None:
            self._heard[node] = kept
        return self._heard.get(node)

    def ended(self, node: bytes) -> None:
        """The session with a node is over."""
        self._spoke.discard(node)
        self._outlived.discard(node)
        if not self._keeps(node):
            self._heard.pop(node, None)
