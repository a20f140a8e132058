"""A node's side of a tower, with real sessions over loopback: the tower behind them is real, or lies as told."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from coincurve import PrivateKey

from perund.tower.link import TowerLink
from perund.tower.receipt_rows import KeptReceipt
from perund.tower.server import TowerServer, tower_limits
from protocol.messages import (
    FEATURE_RECALL,
    FEATURE_TOWER,
    ErrorMessage,
    Hello,
    PeerMessage,
    StandingMessage,
    TowerHeld,
    TowerList,
    TowerMessage,
    TowerRecall,
    TowerReceipt,
    TowerRefusal,
    TowerStanding,
    TowerState,
)
from protocol.signing import verify_signed_state
from protocol.types import ChannelId, Nanos, Params, SignedState, State
from tests.unit.devnet.scene import START_NS, Channel
from tests.unit.tower.scene import NETWORK, PATIENCE_S, TOWER_ID, TOWER_KEY, Post, message
from watcher.tower.receipts import Notary
from watcher.tower.tower import read_state
from wire.address import Address, NodeAddress
from wire.keeper import Target
from wire.limits import Timing
from wire.network import PeerNetwork
from wire.session import Session

NODE_KEY = PrivateKey(b"\x55" * 32)
NODE_ID = NODE_KEY.public_key.format()
NOTARY = Notary(TOWER_KEY, NETWORK)
QUICK = Timing(first_retry_s=0.01, longest_retry_s=0.05, farewell_s=0.2)


@dataclass
class Home:
    """Implements `perund.tower.link.Household` and the node's side of `PeerHandler`."""

    states: dict[ChannelId, tuple[Params, SignedState]] = field(default_factory=dict)
    kept: list[TowerReceipt] = field(default_factory=list)
    events: list[tuple[str, dict[str, str | int | bool]]] = field(default_factory=list)
    given_up: list[bytes] = field(default_factory=list)
    lost: set[ChannelId] = field(default_factory=set)
    """Channels that recover."""
    adopted: list[TowerHeld] = field(default_factory=list)
    asked: list[ChannelId] = field(default_factory=list)
    """Channels of which the tower has given what it has."""
    lives: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)
    ahead_ns: int = 0
    elapsed_ahead_ns: int = 0
    link: TowerLink = field(init=False)
    network: PeerNetwork = field(init=False)

    def newest(self, channel: ChannelId) -> tuple[Params, SignedState] | None:
        return self.states.get(channel)

    def elapsed_ns(self) -> int:
        return time.monotonic_ns() + self.elapsed_ahead_ns

    def chain_ns(self) -> Nanos:
        return Nanos(START_NS + time.monotonic_ns() + self.ahead_ns)

    def keep_receipt(self, tower: bytes, receipt: TowerReceipt) -> None:
        assert tower == TOWER_ID
        self.kept.append(receipt)

    def event(self, kind: str, channel: ChannelId | None, facts: dict[str, str | int | bool]) -> None:
        self.events.append((kind, facts))

    def tower_life(self, tower: bytes) -> tuple[bytes, int] | None:
        return self.lives.get(tower)

    def keep_tower_life(self, tower: bytes, life: bytes, writes: int) -> None:
        self.lives[tower] = (life, writes)

    def dropped(self, tower: bytes) -> None:
        self.given_up.append(tower)
        self.network.forget(tower)

    def recovering(self) -> list[ChannelId]:
        return list(self.lost)

    def recalled(self, tower: bytes, held: TowerHeld) -> str | None:
        params, signed = self.states[held.channel]
        if held.version <= signed.state.version:
            return None
        shown = SignedState(
            State(held.channel, held.version, held.allocation, held.finalized), (held.signature_0, held.signature_1)
        )
        if not verify_signed_state(params, shown):
            return "it is not signed by both"
        self.adopted.append(held)
        self.states[held.channel] = (params, shown)
        self.link.mark(held.channel)
        return None

    def answered(self, tower: bytes, channel: ChannelId) -> None:
        assert tower == TOWER_ID
        self.asked.append(channel)

    def agree(self, channel: Channel, version: int) -> ChannelId:
        """Both signed a newer state, and it is durable."""
        params, signed = read_state(message(channel, version))
        self.states[params.channel_id] = (params, signed)
        self.link.mark(params.channel_id)
        return params.channel_id

    # --- wire.handler.PeerHandler -------------------------------------------------------------------------

    def connected(self, session: Session) -> None:
        self.link.session_began(session)

    def disconnected(self, session: Session, reason: str) -> None:
        self.link.session_ended(session, reason)

    def received(self, session: Session, message: PeerMessage) -> None:
        assert isinstance(message, TowerReceipt | TowerRefusal | TowerHeld | TowerStanding | TowerList)
        self.link.received(session, message)

    def peer_error(self, session: Session, message: ErrorMessage) -> None:
        self.link.complained(message.code, message.text)

    def is_known(self, peer: bytes) -> bool:
        return True


class Liar:
    """A tower that answers what it is told to. It keeps what it is sent."""

    def __init__(
        self,
        answer: Callable[[Session, TowerState], None] | None = None,
        give_back: Callable[[Session, TowerRecall], None] | None = None,
    ) -> None:
        self.heard: list[TowerMessage | StandingMessage] = []
        self.session: Session | None = None
        self.answer = answer
        self.give_back = give_back

    def states(self) -> list[TowerState]:
        return [m for m in self.heard if isinstance(m, TowerState)]

    def recalls(self) -> list[ChannelId]:
        return [m.channel for m in self.heard if isinstance(m, TowerRecall)]

    def connected(self, session: Session) -> None:
        self.session = session

    def disconnected(self, session: Session, reason: str) -> None: ...

    def received(self, session: Session, message: PeerMessage) -> None:
        assert isinstance(message, TowerMessage | StandingMessage)
        self.heard.append(message)
        if self.answer is not None and isinstance(message, TowerState):
            self.answer(session, message)
        if self.give_back is not None and isinstance(message, TowerRecall):
            self.give_back(session, message)

    def peer_error(self, session: Session, message: ErrorMessage) -> None: ...

    def is_known(self, peer: bytes) -> bool:
        return True


def receipt_for(state: TowerState, **changes: object) -> TowerReceipt:
    """An honest receipt, signed after these changes."""
    params, signed = read_state(state)
    now_ns = START_NS + time.monotonic_ns()
    facts: dict[str, object] = {
        "client": NODE_ID, "channel": params.channel_id, "version": state.version, "digest": signed.state.digest,
        "now_ns": Nanos(now_ns), "expires_ns": Nanos(now_ns + 10**15),
    }  # fmt: skip
    return NOTARY.sign(**(facts | changes))  # type: ignore[arg-type]


def honest(session: Session, state: TowerState) -> None:
    session.send(receipt_for(state))


class Street:
    """The node's home, and the place where the tower is, which is not always there."""

    def __init__(self) -> None:
        self.home = Home()
        self.port = 0
        self.tower: PeerNetwork | None = None
        self._run: asyncio.Task[None]

    async def begin(self, receipts: dict[ChannelId, KeptReceipt] | None = None) -> None:
        home = self.home
        probe = PeerNetwork(TOWER_KEY, Hello(1, NETWORK, 0, "probe", 1), Liar())
        _, self.port = await probe.listen("127.0.0.1", 0)
        await probe.close()
        address = NodeAddress(TOWER_ID, "127.0.0.1", self.port)
        home.link = TowerLink(address, home, NETWORK, NODE_ID, receipts or {})
        home.network = PeerNetwork(NODE_KEY, Hello(1, NETWORK, 0, "a node", 1), home, timing=QUICK)
        home.network.keep_connected(TOWER_ID, [Target(Address("127.0.0.1", self.port))])
        self._run = asyncio.get_running_loop().create_task(home.link.run(lambda: list(home.states)))

    async def end(self) -> None:
        self._run.cancel()
        await asyncio.gather(self._run, return_exceptions=True)
        await self.home.network.close()
        await self.tower_goes()

    async def tower_comes(self, handler: Liar | Post, features: int = FEATURE_TOWER | FEATURE_RECALL) -> None:
        served = TowerServer(handler.tower) if isinstance(handler, Post) else handler
        hello = Hello(1, NETWORK, features, "a tower", 1)
        self.tower = PeerNetwork(TOWER_KEY, hello, served, tower_limits(10), timing=QUICK)
        await self.tower.listen("127.0.0.1", self.port)

    async def tower_goes(self) -> None:
        if self.tower is not None:
            await self.tower.close()
            self.tower = None

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not condition():  # noqa: ASYNC110  (much of it happens in sockets)
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise AssertionError(f"not in {PATIENCE_S:g} s: {what}; {self.home}") from None


@contextlib.asynccontextmanager
async def street(receipts: dict[ChannelId, KeptReceipt] | None = None) -> AsyncIterator[Street]:
    """Live on a street until the block ends."""
    made = Street()
    await made.begin(receipts)
    try:
        yield made
    finally:
        await made.end()
