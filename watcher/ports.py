"""What the watcher needs of others. `perund` plugs them in."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from protocol.effects import Look
from protocol.types import ChannelId, Nanos, Params, RegisteredState, SignedState

__all__ = ["Canister", "CertifiedLook", "Clock", "Reports", "States"]


@dataclass(frozen=True, slots=True)
class CertifiedLook:
    """A certified answer of `query_state`: what is registered, or nothing.

    `asked_ns`: local elapsed time when the request was signed; `chain_ns`: the certificate's time.
    """

    registered: RegisteredState | None
    asked_ns: int
    chain_ns: Nanos

    def brief(self) -> Look:
        """Return what the channel's machine needs of it."""
        state = self.registered
        if state is None:
            return Look(self.asked_ns, self.chain_ns, None, b"", settled=False)
        return Look(
            self.asked_ns, self.chain_ns, state.state.version, state.state.digest, settled=state.settled(self.chain_ns)
        )


class States(Protocol):
    """The newest fully signed states. There is no second copy to fall out of step."""

    def newest(self, channel: ChannelId) -> tuple[Params, SignedState] | None:
        """Return params and newest fully signed state that is durable, or None for an unknown channel."""
        ...


class Canister(Protocol):
    """The Perun canister, as far as the watcher goes: it can look and refute, and cannot withdraw."""

    def look(self, channel: ChannelId) -> Awaitable[CertifiedLook]:
        """Make a certified look by a new request (rule 5). Raises `PerundError` when nothing certified came."""
        ...

    def refute(self, params: Params, signed: SignedState) -> Awaitable[str]:
        """Register a state and return what the canister answered, for the log. Only a look proves success.

        Raises `PerundError` when no certified answer came.
        """
        ...


class Reports(Protocol):
    """Who hears of what the watcher sees. The calls return at once."""

    def looked(self, channel: ChannelId, look: CertifiedLook) -> None:
        """A certified look."""
        ...

    def look_failed(self, channel: ChannelId, error: str) -> None:
        """No certified answer came: unknown, not 'nothing registered'."""
        ...

    def refuting(self, channel: ChannelId, registered: int, ours: int) -> None:
        """A version below ours is registered; it is being refuted."""
        ...

    def refuted(self, channel: ChannelId, ours: int) -> None:
        """A look shows a version at least ours."""
        ...


class Clock(Protocol):
    """The local clock: it only schedules (DESIGN, section 8)."""

    def monotonic_ns(self) -> int:
        """Return nanoseconds that never go back and go on while the machine sleeps."""
        ...
