"""What a watchtower needs of others. `perund` plugs them in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from protocol.hearing import Heard
from protocol.messages import TowerState
from protocol.types import ChannelId, Nanos, Params, SignedState
from watcher.tower.slots import Guarded, Slot

__all__ = ["Books", "ChainClock", "Guard", "Holdings"]

Facts = dict[str, str | int | bool]


class Books(Protocol):
    """What a tower must not forget. Writes are in order; `then` is called when one is on the disk."""

    life: bytes
    """32 bytes, random, made with the store: another store is another life."""

    def slots(self) -> Iterable[tuple[Guarded, Slot]]:
        """Return every slot that is on the disk, with facts about its channel."""
        ...

    def newest(self, channel: ChannelId) -> tuple[Params, SignedState] | None:
        """Return the newest durable state of a channel over all its clients."""
        ...

    def held(self, client: bytes, channel: ChannelId) -> SignedState | None:
        """Return the durable state in a client's own slot (33 bytes, its node key), or None."""
        ...

    def keep(self, slot: Slot, message: TowerState, then: Callable[[], None]) -> None:
        """Put this state into its slot, in the place of an older one."""
        ...

    def change(self, slots: Iterable[Slot], settled_ns: Nanos | None, then: Callable[[], None] | None = None) -> None:
        """Write what changed about slots but not their states: proof, promises; and their channel's settlement."""
        ...

    def drop(self, slots: Iterable[Slot]) -> None:
        """Forget slots and their states."""
        ...

    def conflict(self, slot: Slot, message: TowerState, at_ns: Nanos) -> None:
        """Keep the state in the slot and another one of the same version, both fully signed, as evidence."""
        ...

    def writes(self) -> int:
        """Return a number that rises with every start and every state that is kept, as it is on the disk."""
        ...

    def heard(self, client: bytes) -> Heard | None:
        """Return what was heard of the lives of a client (33 bytes, its node key), if it is kept."""
        ...

    def keep_heard(self, client: bytes, heard: Heard) -> None:
        """Remember what was heard of a client's lives. It goes with its last slot, unless one of them had money."""
        ...

    def note(self, kind: str, at_ns: Nanos, channel: ChannelId | None, facts: Facts) -> None:
        """Remember for the operator that something happened. Bounded: the oldest notes go."""
        ...


class Holdings(Protocol):
    """The Perun canister, as far as a tower asks whether a channel is real."""

    def funded(self, params: Params) -> Awaitable[bool]:
        """Whether certified looks, asked from now on, show money of either participant or a registered state.

        Raises `PerundError` when no certified answer came.
        """
        ...


class Guard(Protocol):
    """The watcher, as far as a tower tells it what to watch."""

    def watch(self, channel: ChannelId, challenge_ns: Nanos) -> None:
        """Watch a channel from now on."""
        ...

    def unwatch(self, channel: ChannelId) -> None:
        """Stop watching."""
        ...

    def hurry(self, channel: ChannelId) -> None:
        """Look as soon as possible."""
        ...


class ChainClock(Protocol):
    """Chain time and local time."""

    @property
    def certified(self) -> bool:
        """Whether any certificate told the chain time: nothing is promised before."""
        ...

    def chain_ns(self) -> Nanos:
        """Return the chain time."""
        ...

    def elapsed_ns(self) -> int:
        """Return local nanoseconds that never go back."""
        ...
