"""What the watcher needs of others. `perund` plugs them in."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Protocol

from protocol.effects import Look
from protocol.types import ChannelId, Nanos, Params, RegisteredState, SignedState

__all__ = [
    "Canister",
    "CertifiedLook",
    "CertifiedPage",
    "Clock",
    "DisputeLog",
    "Hints",
    "LogEntry",
    "Notices",
    "Reports",
    "States",
]


@dataclass(frozen=True, slots=True)
class CertifiedLook:
    """A certified answer of `query_state`: what is registered, or nothing.

    `asked_ns`: local elapsed time when the request was signed; `chain_ns`: chain time then, as far as it was known.
    The answer may be as old as that, whatever its certificate's time is (rule 5).
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


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A channel with a registered state. `index`: the place of its newest registration in the log.

    `registered` is None for a channel of another kind than ours, with three participants, say.
    """

    index: int
    channel: bytes
    registered: RegisteredState | None


@dataclass(frozen=True, slots=True)
class CertifiedPage:
    """A certified page of the log of registrations. `head`: the log's next index; the rest as in `CertifiedLook`."""

    entries: tuple[LogEntry, ...]
    head: int
    asked_ns: int
    chain_ns: Nanos


class States(Protocol):
    """The newest fully signed states. There is no second copy to fall out of step."""

    def newest(self, channel: ChannelId) -> tuple[Params, SignedState] | None:
        """Return params and newest fully signed state that is durable, or None for an unknown channel."""
        ...


class Canister(Protocol):
    """The Perun canister, as far as the watcher goes: it can look and refute, and cannot withdraw."""

    def look(self, channel: ChannelId) -> Awaitable[CertifiedLook]:
        """Make a certified look by a new request (rule 5).

        Raises `PerundError` when nothing certified came, `OnlyShown` when an answer without a proof shows a state.
        """
        ...

    def look_everywhere(self, channel: ChannelId, within_s: float) -> Awaitable[CertifiedLook]:
        """Make a look by every server at once, one of which may be keeping the answer back. Raises as `look` does."""
        ...

    def refute(self, params: Params, signed: SignedState, within_s: float) -> Awaitable[str]:
        """Register a state and return what the canister answered, for the log. Only a look proves success.

        It waits for no proof, of the time neither, and every server gets it at once. Raises `PerundError` when no
        certified answer came in that time; the state may be registered all the same.
        """
        ...


class DisputeLog(Protocol):
    """The canister's log of registrations over all channels, if it keeps one."""

    def available(self) -> Awaitable[bool]:
        """Return whether it keeps one, certified. Raises `PerundError` when nothing certified came."""
        ...

    def page(self, cursor: int, limit: int) -> Awaitable[CertifiedPage]:
        """Return up to `limit` entries from index `cursor` on, by a new request. Raises as `look` does."""
        ...

    def hint_page(self, cursor: int, limit: int) -> Awaitable[tuple[LogEntry, ...]]:
        """Return the same on one node's word: it may start a look, never replace one. Raises `PerundError`.

        It is asked also while it is not known whether there is a log.
        """
        ...


class Hints(Protocol):
    """What one node says of one channel."""

    def hint(self, channel: ChannelId) -> Awaitable[RegisteredState | None]:
        """Return what is registered, on one node's word: it may start a look, never replace one.

        Raises `PerundError`.
        """
        ...


class Reports(Protocol):
    """Who hears of what the watcher sees. The calls return at once."""

    def looked(self, channel: ChannelId, look: CertifiedLook) -> None:
        """A certified look. Channels in which nothing is registered are also covered by `Watcher.horizon`."""
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


class Notices(Protocol):
    """Who hears of the watcher's own state. The calls return at once."""

    def noticed(self, kind: str, channel: ChannelId | None, facts: Mapping[str, str | int | bool]) -> None:
        """Something about the watching itself; `facts["alarm"]` is True for what somebody must hear of now."""
        ...


class Clock(Protocol):
    """The local clock: it only schedules (DESIGN, section 8)."""

    def monotonic_ns(self) -> int:
        """Return nanoseconds that never go back and go on while the machine sleeps."""
        ...
