"""Keeping sessions with chosen peers: dial, wait for the end, dial again with growing pauses."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from wire.address import Address
from wire.errors import DialFailed
from wire.limits import Timing
from wire.nearness import Nearness
from wire.session import Session

__all__ = ["Dialer", "Keeper", "Target"]

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)

UNPROVEN_AT_ONCE: Final = 8
UNPROVEN_EVERY_S: Final = 60.0
"""Dials to addresses at which a peer did not prove to be, for each peer: so many at once, then one each minute."""
ALL_UNPROVEN_AT_ONCE: Final = 64
ALL_UNPROVEN_EVERY_S: Final = 1.0
"""The same for all peers together."""
SOON_EVERY_S: Final = 30.0
"""That one peer is there again ends the pauses of all others, so often at most."""
SHORT_S: Final = 5.0
"""A session that ends sooner was none worth having."""
CLOCKS_EVERY_S: Final = 5.0
SLEPT_S: Final = 10.0
"""When the time of day runs ahead of the clock of the loop by so much, the machine slept, and may be elsewhere now."""


class Dialer(Protocol):
    """Who can make sessions."""

    async def dial(self, peer: bytes, host: str, port: int, nearest: Nearness | None = None) -> Session:
        """Return the session with this peer. Raises `DialFailed`."""
        ...

    async def prove(self, peer: bytes, place: Address, nearest: Nearness | None = None) -> None:
        """Return when this peer proved to be there, whatever sessions there are. Raises `DialFailed`."""
        ...

    def session(self, peer: bytes) -> Session | None:
        """Return the session with this peer, if there is one."""
        ...

    def has_money_with(self, peer: bytes) -> bool:
        """Whether it matters that this peer is found soon."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """An address to dial a peer at. `proven`: whether it answered there once, or our operator says so.

    `nearest`: for an address that the peer itself told, how near a place it may lead to (`wire.nearness`).
    """

    address: Address
    proven: bool = True
    nearest: Nearness | None = None


class Budget:
    """So many at once, then one each so many seconds."""

    def __init__(self, at_once: int, every_s: float) -> None:
        self._most, self._every_s = float(at_once), every_s
        self._left, self._at_s = self._most, float("-inf")

    def has(self, now_s: float) -> bool:
        """Whether one can be taken now."""
        self._left = min(self._most, self._left + (now_s - self._at_s) / self._every_s)
        self._at_s = now_s
        return self._left >= 1

    def take(self) -> None:
        """Take one."""
        self._left -= 1


@dataclass(slots=True)
class _Kept:
    targets: tuple[Target, ...]
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    soon: bool = False
    """Whether the next pause is to be the first one again."""
    unproven: Budget = field(default_factory=lambda: Budget(UNPROVEN_AT_ONCE, UNPROVEN_EVERY_S))
    tried_s: dict[Address, float] = field(default_factory=dict)
    """When each unproven address was tried last."""
    short: Address | None = None
    """Where a session was begun that ended at once."""
    task: asyncio.Task[None] | None = None

    def hurry(self) -> None:
        self.soon = True
        self.wake.set()


class Keeper:
    """One task for each kept peer, which tries its addresses in turn.

    Pauses double from `first_retry_s` to `longest_retry_s`, each spread over a half to the whole of it so that
    the peers of a node that comes back do not dial all at once; where money waits they stay below
    `longest_retry_with_money_s`. A session of `stable_after_s` starts afresh, and so do new addresses, and a machine
    that slept. That another peer is there again ends the pause that there is.

    Addresses that are not proven are tried last, and rarely: whose they are, nobody knows. While there is a session
    each of them is tried once by a handshake that ends in no other session: what the peer says of itself is best
    found out before it is needed.
    """

    def __init__(
        self,
        dialer: Dialer,
        dials: int,
        timing: Timing,
        rng: random.Random,
        proven: Callable[[bytes, Address], None] = lambda _peer, _address: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`proven`: told where a peer proved to be beside the session that there is; `wall`: the time of day, in
        seconds, which goes on while a machine sleeps.
        """
        self._dialer = dialer
        self._slots = asyncio.Semaphore(dials)
        self._timing = timing
        self._rng = rng
        self._proven = proven
        self._wall = wall
        self._kept: dict[bytes, _Kept] = {}
        self._unproven = Budget(ALL_UNPROVEN_AT_ONCE, ALL_UNPROVEN_EVERY_S)
        self._hurried_s = float("-inf")
        self._clocks: asyncio.Task[None] | None = None

    def keep(self, peer: bytes, targets: Sequence[Target]) -> None:
        """Keep this peer, at these addresses, in this order; earlier ones are forgotten."""
        loop = asyncio.get_running_loop()
        if self._clocks is None:
            self._clocks = loop.create_task(self._compare_clocks(), name="keeper clocks")
        kept = self._kept.get(peer)
        if kept is None:
            kept = self._kept[peer] = _Kept(tuple(targets))
            kept.task = loop.create_task(self._keep(peer, kept), name=f"keep {peer.hex()[:16]}")
        elif kept.targets != tuple(targets):
            kept.targets = tuple(targets)
            here = {target.address for target in targets}
            kept.tried_s = {address: at_s for address, at_s in kept.tried_s.items() if address in here}
            kept.hurry()

    def forget(self, peer: bytes) -> None:
        """Stop keeping this peer."""
        kept = self._kept.pop(peer, None)
        if kept is not None and kept.task is not None:
            kept.task.cancel()

    def keeps(self, peer: bytes) -> bool:
        """Whether this peer is kept."""
        return peer in self._kept

    def arrived(self, peer: bytes) -> None:
        """Take note of a session with this peer, whoever dialed: its pause is over, and the network works."""
        kept = self._kept.get(peer)
        if kept is None:
            return
        kept.wake.set()
        now_s = asyncio.get_running_loop().time()
        if now_s - self._hurried_s >= SOON_EVERY_S:
            self._hurried_s = now_s
            for other in self._kept.values():
                other.wake.set()  # one try; the pauses after it go on as they were

    async def close(self) -> None:
        """Stop keeping anybody."""
        tasks = [kept.task for kept in self._kept.values() if kept.task is not None]
        for peer in list(self._kept):
            self.forget(peer)
        if self._clocks is not None:
            self._clocks.cancel()
            tasks.append(self._clocks)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _compare_clocks(self) -> None:
        clock = asyncio.get_running_loop().time
        ahead_s = self._wall() - clock()
        while True:
            await asyncio.sleep(CLOCKS_EVERY_S)
            now_ahead_s = self._wall() - clock()
            if now_ahead_s - ahead_s >= SLEPT_S:
                log.info("network.slept", seconds=round(now_ahead_s - ahead_s))
                for kept in self._kept.values():
                    kept.hurry()
            ahead_s = now_ahead_s

    async def _keep(self, peer: bytes, kept: _Kept) -> None:
        timing = self._timing
        pause_s = timing.first_retry_s
        clock = asyncio.get_running_loop().time
        while True:
            kept.soon = False
            longest_s = timing.longest_retry_s
            if self._dialer.has_money_with(peer):
                longest_s = min(longest_s, timing.longest_retry_with_money_s)
            pause_s = min(pause_s, longest_s)
            session = await self._round(peer, kept, pause_s)
            if session is not None:
                finding_out = asyncio.ensure_future(self._find_out(peer, kept))
                try:
                    await session.closed()
                finally:
                    finding_out.cancel()
                lasted_s = clock() - session.since_s
                kept.short = session.dialed_at if lasted_s < SHORT_S else None
                if lasted_s >= timing.stable_after_s:
                    pause_s = timing.first_retry_s
                kept.soon = False  # whatever happened meanwhile, it was connected
            kept.wake.clear()
            if self._dialer.session(peer) is not None:
                continue  # the peer dialed, or replaced its session
            if not kept.soon:
                await self._pause(pause_s, kept.wake)
            pause_s = timing.first_retry_s if kept.soon else pause_s * 2

    async def _round(self, peer: bytes, kept: _Kept, pause_s: float) -> Session | None:
        """Try all addresses in turn. Returns the session, which another one may have begun meanwhile."""
        if (session := self._dialer.session(peer)) is not None:
            return session
        for target in self._due(kept):
            try:
                async with self._slots:
                    host, port = target.address.host, target.address.port
                    return await self._dialer.dial(peer, host, port, target.nearest)
            except DialFailed as error:
                log.info(
                    "peer.dial_failed",
                    peer=peer.hex(),
                    host=host,
                    port=port,
                    cause=type(error).__name__,
                    reason=str(error),
                    retry_within_s=pause_s,
                )
        return None

    async def _find_out(self, peer: bytes, kept: _Kept) -> None:
        """While there is a session: see whether the peer is where else it says that it is, once for each address."""
        while True:
            kept.wake.clear()
            for target in self._unproven_due(kept, [t for t in kept.targets if t.address not in kept.tried_s]):
                try:
                    async with self._slots:
                        await self._dialer.prove(peer, target.address, target.nearest)
                except DialFailed as error:
                    facts = {"host": target.address.host, "port": target.address.port, "reason": str(error)}
                    log.debug("peer.address_not_proven", peer=peer.hex(), **facts)
                else:
                    self._proven(peer, target.address)
            await kept.wake.wait()

    def _due(self, kept: _Kept) -> Iterator[Target]:
        """Yield what is to be tried now: of the unproven what the budgets allow, the longest untried first. Where the
        last session ended at once (a copy of the peer that has stopped, perhaps) comes last.
        """
        proven = [target for target in kept.targets if target.proven]
        yield from [target for target in proven if target.address != kept.short]
        yield from self._unproven_due(kept, [target for target in kept.targets if target.address != kept.short])
        yield from [target for target in proven if target.address == kept.short]

    def _unproven_due(self, kept: _Kept, targets: Sequence[Target]) -> Iterator[Target]:
        clock = asyncio.get_running_loop().time
        unproven = [target for target in targets if not target.proven]
        for target in sorted(unproven, key=lambda target: kept.tried_s.get(target.address, float("-inf"))):
            now_s = clock()
            if not (kept.unproven.has(now_s) and self._unproven.has(now_s)):
                return
            kept.unproven.take()
            self._unproven.take()
            kept.tried_s[target.address] = now_s
            yield target

    async def _pause(self, pause_s: float, wake: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(pause_s * self._rng.uniform(0.5, 1)):
                await wake.wait()
        except TimeoutError:
            return
