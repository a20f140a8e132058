"""Strangers in numbers: each has a key that was made a moment ago, no money, and an address that a test chooses.

They speak through `wire.link`, so their handshakes and frames are real; what they say is up to the test. On
loopback every address of 127.0.0.0/8 may be a source: `addresses(n)` are so many different ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Final, Self, TypeVar

from coincurve import PrivateKey

from protocol.messages import (
    ChannelAccept,
    ChannelProposal,
    ChannelReject,
    ErrorMessage,
    Hello,
    Message,
    Ping,
    Pong,
    StateSignature,
)
from protocol.signing import ChannelKey
from protocol.types import Nanos, Params, State, channel_nonce
from wire.codec import decode, encode
from wire.errors import WireError
from wire.limits import Allowance
from wire.link import Link
from wire.noise import Initiator

__all__ = ["Flood", "Place", "Stranger", "TurnedAway", "addresses", "half_open"]

M = TypeVar("M", bound=Message)
PLENTY: Final = Allowance(1e9, 1e12, 2**30)
INBOX: Final = 1_000
"""Messages that a stranger keeps; of a flood nobody wants to read all."""
S: Final = 1_000_000_000
KNOCK: Final = 2**64 - 1
"""The number of the ping that waits for the session."""


class TurnedAway(Exception):
    """The node has no session for this stranger. The text: its complaint, or how the connection ended."""


class Place:
    """Where a node is reached. `network`: 32 bytes, the network hash of its `Hello`."""

    def __init__(self, address: str, network: bytes) -> None:
        """`address`: NODEID@host:port."""
        node_id, _, place = address.partition("@")
        self.host, _, port = place.rpartition(":")
        self.node_id, self.port, self.network = bytes.fromhex(node_id), int(port), network


def addresses(count: int) -> list[str]:
    """Return so many addresses of this machine, none of them 127.0.0.1."""
    return [f"127.{1 + number // 64_000}.{number // 250 % 256}.{1 + number % 250}" for number in range(count)]


class Stranger:
    """One connection with a fresh key, or with the one given. Implements `wire.link.LinkOwner`."""

    def __init__(self, place: Place, key: PrivateKey | None = None) -> None:
        self.place = place
        self.key = key or PrivateKey()
        self.inbox: deque[Message] = deque(maxlen=INBOX)
        self.heard = 0
        """Messages that came, also those that the inbox has forgotten."""
        self.on_message: Callable[[Message], None] = lambda _: None
        self.admitted = False
        """Whether the node has answered in the session; its `Hello` comes before it decides about a place."""
        self._arrived = asyncio.Event()
        self._over: str | None = None
        self._link: Link

    @property
    def node_id(self) -> bytes:
        """Its node key, 33 bytes."""
        return self.key.public_key.format()

    @property
    def over(self) -> str | None:
        """How the connection ended, or None while it stands."""
        return self._over

    async def arrive(self, source: str | None = None, patience_s: float = 15) -> Stranger:
        """Connect from an address, say hello, and return when the node answers in the session.

        Raises `TurnedAway` when there is none.
        """
        await self.secure(source, patience_s)
        self.say(Hello(1, self.place.network, 0, "a stranger", 1), Ping(KNOCK))
        await self._until(lambda: self.admitted, patience_s, "the session")
        return self

    async def secure(self, source: str | None = None, patience_s: float = 15) -> Stranger:
        """Complete the handshake, and say no hello."""
        loop = asyncio.get_running_loop()
        self._link = Link(Initiator(self.key, self.place.node_id), PLENTY, loop)
        self._link.owner = self
        self._secured = False
        local = (source, 0) if source is not None else None
        try:
            await loop.create_connection(lambda: self._link, self.place.host, self.place.port, local_addr=local)
        except OSError as error:
            raise TurnedAway(f"no connection: {error}") from error
        await self._until(lambda: self._secured, patience_s, "the handshake")
        return self

    def say(self, *messages: Message) -> None:
        """Send; nothing happens when the connection has ended."""
        for message in messages:
            self._link.send(encode(message))

    async def hear(self, kind: type[M], patience_s: float = 15) -> M:
        """Return the next message of a kind, and forget those before it. Raises `TurnedAway` if none can come."""
        found: list[M] = []

        def look() -> bool:
            while self.inbox and not found:
                message = self.inbox.popleft()
                if isinstance(message, kind):
                    found.append(message)
            return bool(found)

        await self._until(look, patience_s, kind.__name__)
        return found[0]

    async def answer(self, patience_s: float = 15) -> Message:
        """Return the next message, whatever it is. Raises `TurnedAway` if none can come."""
        await self._until(lambda: bool(self.inbox), patience_s, "an answer")
        return self.inbox.popleft()

    async def gone(self, patience_s: float = 15) -> str:
        """Wait for the end of the connection, and return how it ended."""
        with contextlib.suppress(TurnedAway):
            await self._until(lambda: False, patience_s, "the end")
        assert self._over is not None, "the connection still stands"
        return self._over

    def leave(self) -> None:
        """Hang up."""
        self._link.abort()
        self._end("it hung up")

    async def _until(self, holds: Callable[[], bool], patience_s: float, what: str) -> None:
        try:
            async with asyncio.timeout(patience_s):
                while not holds():
                    if self._over is not None:
                        raise TurnedAway(self._over)
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise TurnedAway(f"{what} did not come within {patience_s:g} s") from None

    def _end(self, how: str) -> None:
        self._over = self._over or how
        self._arrived.set()

    # --- proposals ---------------------------------------------------------------------------------------

    @staticmethod
    def proposal(
        mine_e8s: int = 100_000_000,
        theirs_e8s: int = 0,
        *,
        key: ChannelKey | None = None,
        challenge_s: int = 3_600,
        deadline_s: float = 12 * 3_600 - 60,
    ) -> ChannelProposal:
        """Return a proposal that keeps to every rule, on a devnet whose time was not moved."""
        return ChannelProposal(
            proposal_id=os.urandom(32),
            nonce_share=os.urandom(32),
            participant=(key or ChannelKey(os.urandom(32))).public,
            allocation=(mine_e8s, theirs_e8s),
            challenge_duration_ns=Nanos(challenge_s * S),
            funding_deadline_ns=Nanos(time.time_ns() + int(deadline_s * S)),
        )

    async def sign(self, mine_e8s: int = 100_000_000) -> tuple[Params, State]:
        """Propose a channel and sign its state 0, without a thought of paying. Raises `TurnedAway` if refused."""
        key = ChannelKey(os.urandom(32))
        proposal = self.proposal(mine_e8s, key=key)
        self.say(proposal)
        answer = await self.answer()
        while not isinstance(answer, ChannelAccept | ChannelReject | ErrorMessage):
            answer = await self.answer()  # about an earlier channel
        if not isinstance(answer, ChannelAccept):
            raise TurnedAway(f"the proposal was answered by {answer}")
        params = Params(
            channel_nonce(proposal.nonce_share, answer.nonce_share),
            (key.public, answer.participant),
            proposal.challenge_duration_ns,
        )
        state = State(params.channel_id, 0, proposal.allocation, finalized=False)
        self.say(StateSignature(proposal.proposal_id, key.sign_state(state)))
        await self.hear(StateSignature)
        return params, state

    # --- wire.link.LinkOwner -----------------------------------------------------------------------------

    def link_secured(self, peer: bytes) -> None:
        """The node there is the one that was meant."""
        assert peer == self.place.node_id
        self._secured = True
        self._arrived.set()

    def link_message(self, data: bytes) -> None:
        """Keep what is said."""
        message = decode(data)
        if message is None:
            return
        self.heard += 1
        if message == Pong(KNOCK):
            self.admitted = True
        elif not isinstance(message, Hello):
            self.inbox.append(message)
            if isinstance(message, ErrorMessage) and not message.channel and not self.admitted:
                self._end(f"{message.code}: {message.text}")
        self.on_message(message)
        self._arrived.set()

    def link_lost(self, error: WireError) -> None:
        """The connection ended."""
        self._end(str(error))

    def link_throttled(self) -> Allowance:
        """Nobody is slowed down here."""
        return PLENTY


async def half_open(place: Place, source: str | None = None) -> asyncio.StreamWriter:
    """Connect and say nothing."""
    local = (source, 0) if source is not None else None
    _, writer = await asyncio.open_connection(place.host, place.port, local_addr=local)
    return writer


class Flood:
    """Does one thing again and again, from one address after the other, until it is left. Use with `async with`.

    `act` is started `per_second` times each second, at most `at_once` at the same time; what it raises is counted
    by its text, and nothing else. It keeps whatever it opens; `act` is cancelled at the end.
    """

    def __init__(
        self,
        act: Callable[[str], Coroutine[None, None, None]],
        sources: Sequence[str],
        *,
        per_second: float,
        at_once: int = 2_000,
    ) -> None:
        self.started = 0
        self.done = 0
        self.failed: dict[str, int] = {}
        """How often an act ended with an error, by its text."""
        self._act = act
        self._sources = sources
        self._every_s = 1 / per_second
        self._at_once = at_once
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Begin."""
        self._runner = asyncio.get_running_loop().create_task(self._run(), name="flood")
        return self

    async def __aexit__(self, *_: object) -> None:
        """End, with everything that is under way."""
        tasks = [self._runner, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def reached(self, count: int, patience_s: float = 30) -> None:
        """Wait until so many acts have ended, well or badly."""
        async with asyncio.timeout(patience_s):
            while self.done + sum(self.failed.values()) < count:  # noqa: ASYNC110  (tasks of a flood end all the time)
                await asyncio.sleep(0.02)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while True:
            due = int((loop.time() - began_s) / self._every_s) - self.started
            for _ in range(min(due, 50, self._at_once - len(self._tasks))):
                task = loop.create_task(self._once(self._sources[self.started % len(self._sources)]))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                self.started += 1
            await asyncio.sleep(min(self._every_s, 0.01))

    async def _once(self, source: str) -> None:
        try:
            await self._act(source)
        except (TurnedAway, OSError) as error:
            text = str(error)[:100]
            self.failed[text] = self.failed.get(text, 0) + 1
        else:
            self.done += 1
