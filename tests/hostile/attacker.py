"""Attackers, as a process of their own: `python -m tests.hostile.attacker KIND`, with the town on its standard input.

First line in: where everybody is. Lines out: `{"node_id": …}` when a channel is to be opened to it, `{"ready": true}`
when it could begin. Then it floods until its standard input ends, and says how many messages it sent.
It is niced: it may use whatever processor time nobody else wants, as an attacker elsewhere would not take ours.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

import aiohttp

from perund.demo.processes import DevnetProcess
from perund.logs import configure_logs
from protocol.lives import sign_life
from protocol.messages import (
    Ack,
    ChannelAccept,
    ChannelProposal,
    ChannelReady,
    CloseRequest,
    Confirm,
    Decline,
    ErrorMessage,
    Message,
    Offer,
    PeerMessage,
    Ping,
    Resume,
    ResumePhase,
    SignedStateMessage,
    StateSignature,
    TowerRecall,
    TowerState,
    Update,
)
from protocol.payments import EMPTY, Batch
from protocol.signing import ChannelKey
from protocol.types import ChannelId, Nanos, Params, State, channel_nonce
from tests.e2e.peer import Line, Peer
from tests.e2e.town import FEE, ICP
from tests.hostile.strangers import Place, Stranger, TurnedAway, addresses
from wire.link import Link
from wire.session import Session

STRANGERS: Final = 60
OFFERS: Final = 2_600
"""Payments that fit into one message."""
MOST_UNSENT: Final = 1 << 20
TEXT: Final = "x" * 256


class Attack:
    """What every kind needs: where things are, and a count."""

    def __init__(self, town: dict[str, str]) -> None:
        self.town = town
        self.place = Place(town["address"], bytes.fromhex(town["network"]))
        self.sent = 0
        self.over = False

    def tell(self, **facts: object) -> None:
        print(json.dumps(facts), flush=True)

    async def pour(self, link: Link, messages: AsyncIterator[Message], send: Callable[[Message], None]) -> None:
        """Send as fast as the other side reads."""
        async for message in messages:
            if self.over or link.closing:
                return
            send(message)
            self.sent += 1
            await asyncio.sleep(0)
            while _unsent(link) > MOST_UNSENT:  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0.002)


def _unsent(link: Link) -> int:
    return link._transport.get_write_buffer_size() if link._transport is not None else 0


async def _again(make: Callable[[int], Message]) -> AsyncIterator[Message]:
    for number in itertools.count():
        yield make(number)


# --- strangers ------------------------------------------------------------------------------------------------


async def _strangers(attack: Attack, make: Callable[[int], Message]) -> None:
    async def one(source: str) -> None:
        while not attack.over:
            try:
                stranger = await Stranger(attack.place).arrive(source)
            except TurnedAway:
                await asyncio.sleep(0.2)
                continue
            await attack.pour(stranger._link, _again(make), stranger.say)
            await asyncio.sleep(0.05)

    attack.tell(ready=True)
    await asyncio.gather(*(one(source) for source in addresses(STRANGERS)))


async def complaints(attack: Attack) -> None:
    """Sixty strangers complain without end."""
    await _strangers(attack, lambda n: ErrorMessage("bad_message", f"{n} {TEXT}"[:256], b""))


async def proposals(attack: Attack) -> None:
    """Sixty strangers propose channels that want money of ours."""
    await _strangers(attack, lambda _: Stranger.proposal(5 * ICP, ICP))


async def recalls(attack: Attack) -> None:
    """Sixty strangers ask a tower for what it does not have."""
    await _strangers(attack, lambda _: TowerRecall(ChannelId(os.urandom(64))))


async def reconnects(attack: Attack) -> None:
    """Strangers come and go, each time with another key."""

    async def one(source: str) -> None:
        while not attack.over:
            try:
                (await Stranger(attack.place).arrive(source)).leave()
                attack.sent += 1
            except TurnedAway:
                attack.sent += 1
                await asyncio.sleep(0.01)

    attack.tell(ready=True)
    await asyncio.gather(*(one(source) for source in addresses(30)))


# --- peers with a channel -------------------------------------------------------------------------------------


class Dust(Peer):
    """A peer that has a channel with the node, and whatever it then does. It acknowledges updates."""

    def __init__(self, attack: Attack) -> None:
        town = attack.town
        devnet = DevnetProcess(Path())
        devnet.url, devnet.root_key = town["url"], town["root_key"]
        devnet.perun_canister, devnet.icp_ledger = town["perun_canister"], town["icp_ledger"]
        super().__init__(devnet)
        self.attack = attack
        self.key: ChannelKey | None = None
        self.acked = asyncio.Event()

    def received(self, session: Session, message: PeerMessage) -> None:
        """Acknowledge updates; keep a little of the rest."""
        if isinstance(message, Update) and self.key is not None:
            state = State(message.channel, message.version, message.allocation, message.finalized)
            session.send(Ack(message.channel, message.version, self.key.sign_state(state)))
            self.acked.set()
        super().received(session, message)
        del self.inbox[:-200]

    def peer_error(self, session: Session, message: ErrorMessage) -> None:
        """Keep a little."""
        super().peer_error(session, message)
        del self.inbox[:-200]

    async def come(self) -> None:
        """Connect."""
        place = self.attack.place
        self.session = await self.network.dial(place.node_id, place.host, place.port)

    async def accept(self) -> ChannelId:
        """Take the channel that the node proposes: the node is participant 0, and puts everything in."""
        await self.come()
        self.attack.tell(node_id=self.network.node_id.hex())
        proposal = await self.hear(ChannelProposal)
        self.key, share = ChannelKey(os.urandom(32)), os.urandom(32)
        self.say(ChannelAccept(proposal.proposal_id, share, self.key.public))
        params = Params(
            channel_nonce(proposal.nonce_share, share),
            (proposal.participant, self.key.public),
            proposal.challenge_duration_ns,
        )
        state = State(params.channel_id, 0, proposal.allocation, finalized=False)
        await self.hear(StateSignature)
        self.say(StateSignature(proposal.proposal_id, self.key.sign_state(state)))
        await self.hear(Resume)
        self.say(
            Resume(state.channel, ResumePhase.FUNDING, 0, state.digest, 0, b"", recovering=False),
            ChannelReady(state.channel),
        )
        await self.hear(ChannelReady)
        return state.channel

    async def opened(self) -> Line:
        """Open a channel of one ICP: the node is participant 1."""
        await self.come()
        async with aiohttp.ClientSession() as http:
            body = {"account": self.account, "e8s": ICP + 2 * FEE}
            async with http.post(f"{self.attack.town['url']}/_devnet/mint", json=body) as answer:
                assert answer.status == 200, await answer.text()
        return await self.open(ICP)

    async def pour(self, make: Callable[[int], Message]) -> None:
        """Send as fast as the node reads, over one session after the other."""
        self.attack.tell(ready=True)
        while not self.attack.over:
            session = self.session
            await self.attack.pour(session.link, _again(make), session.send)
            if not self.attack.over:
                await asyncio.sleep(0.05)
                await self.come()


def _ids(first: int, count: int) -> bytes:
    return b"".join((first + n).to_bytes(16, "big") for n in range(count))


def _offer(channel: ChannelId, first: int, count: int = OFFERS) -> Offer:
    return Offer(channel, Batch(_ids(first, count), (1,) * count))


async def declined(attack: Attack) -> None:
    """Offers that cannot be paid, each with ids of its own."""
    dust = Dust(attack)
    channel = await dust.accept()
    await dust.pour(lambda n: _offer(channel, 1 + n * OFFERS))


async def declined_again(attack: Attack) -> None:
    """The same offers that cannot be paid, again and again."""
    dust = Dust(attack)
    channel = await dust.accept()
    await dust.pour(lambda _: _offer(channel, 1))


async def waiting(attack: Attack) -> None:
    """Offers with memos that have to wait, because this peer does not acknowledge what is outstanding."""
    dust = Dust(attack)
    channel = await dust.accept()
    await asyncio.wait_for(dust.acked.wait(), 30)  # the node has paid it: now it has a balance
    dust.key = None
    await dust.pour(
        lambda n: Offer(
            channel, Batch(_ids(1 + n * 200, 200), (1,) * 200, {p: os.urandom(128) + bytes(128) for p in range(200)})
        )
    )


async def replayed(attack: Attack) -> None:
    """Payments that are in the channel already, offered again and again."""
    dust = Dust(attack)
    channel = await dust.accept()
    await asyncio.wait_for(dust.acked.wait(), 30)
    dust.acked.clear()
    dust.say(_offer(channel, 1, 500))
    await asyncio.wait_for(dust.acked.wait(), 30)
    await dust.pour(lambda _: _offer(channel, 1, 500))


async def resumes(attack: Attack) -> None:
    """Claims of a version that nobody has, and states that nobody signed are not even needed."""
    dust = Dust(attack)
    line = await dust.opened()
    lie = replace(line.resume_message(), version=9)
    await dust.pour(lambda n: replace(lie, version=9 + n % 1_000))


async def shown(attack: Attack) -> None:
    """The state that both have, shown again and again."""
    dust = Dust(attack)
    line = await dust.opened()
    state, signatures = line.newest.state, line.newest.signatures
    message = SignedStateMessage(line.id, 0, state.allocation, False, *signatures)
    await dust.pour(lambda _: message)


async def chatter(attack: Attack) -> None:
    """Pings, complaints about its channel, and messages for no channel, from a peer that has one."""
    dust = Dust(attack)
    line = await dust.opened()
    parts: list[Callable[[int], Message]] = [
        Ping,
        lambda n: ErrorMessage("bad_state", f"{n} {TEXT}"[:256], line.id),
        lambda n: ChannelReady(ChannelId(n.to_bytes(64, "big"))),
    ]
    await dust.pour(lambda n: parts[n % 3](n))


async def storm(attack: Attack) -> None:
    """A peer with a channel comes and goes, each time as another life of its node, and resumes."""
    dust = Dust(attack)
    line = await dust.opened()
    key, network = dust.network._key, attack.place.network
    attack.tell(ready=True)
    for number in itertools.count(1):
        if attack.over:
            return
        try:
            visitor = await Stranger(attack.place, key).arrive("127.7.7.7", patience_s=3)
        except TurnedAway:
            await asyncio.sleep(0.02)
            continue
        visitor.say(sign_life(key, network, number, os.urandom(32)), line.resume_message())
        attack.sent += 1
        await asyncio.sleep(0.005)
        visitor.leave()


async def unread(attack: Attack) -> None:
    """A peer with a channel asks, and never reads what it is answered."""
    dust = Dust(attack)
    line = await dust.opened()
    complaints: list[Callable[[int], Message]] = [
        Ping, lambda n: ChannelReady(ChannelId(n.to_bytes(64, "big"))), lambda _: line.resume_message()
    ]  # fmt: skip
    attack.tell(ready=True)
    while not attack.over:
        link = dust.session.link
        assert link._transport is not None
        link._transport.pause_reading()
        link._transport.resume_reading = lambda: None  # type: ignore[method-assign]
        await attack.pour(link, _again(lambda n: complaints[n % 3](n)), dust.session.send)
        if not attack.over:
            dust.session.close("again")
            await asyncio.sleep(0.05)
            await dust.come()


async def forgeries(attack: Attack) -> None:
    """What is signed wrongly, of versions that are not the next, and what only the other side may say, of a channel."""
    dust = Dust(attack)
    line = await dust.opened()
    id_, allocation = line.id, line.newest.state.allocation
    parts: list[Callable[[int], Message]] = [
        lambda n: Ack(id_, n, bytes(64)),
        lambda n: Confirm(id_, n),
        lambda n: Decline(id_, n.to_bytes(16, "big") * 2_000, "no"),
        lambda n: SignedStateMessage(id_, n, allocation, False, bytes(64), bytes(64)),
        lambda n: Update(id_, n, allocation, False, Batch(_ids(n, 500), (1,) * 500), EMPTY, bytes(64)),
        lambda n: StateSignature(n.to_bytes(32, "big"), bytes(64)),
        lambda _: CloseRequest(id_),
    ]
    await dust.pour(lambda n: parts[n % 7](n))


async def slots(attack: Attack) -> None:
    """Sixty strangers have a tower guard channels that nobody paid for, each signed by both."""
    keys = ChannelKey(os.urandom(32)), ChannelKey(os.urandom(32))

    def one(_: int) -> Message:
        params = Params(os.urandom(64), (keys[0].public, keys[1].public), Nanos(3_600 * 10**9))
        state = State(params.channel_id, 1, (ICP, ICP), finalized=False)
        signed = [key.sign_state(state) for key in keys]
        return TowerState(
            params.nonce, *params.participants, params.challenge_duration_ns, 1, state.allocation, False,
            signed[0], signed[1],
        )  # fmt: skip

    await _strangers(attack, one)


async def payments(attack: Attack) -> None:
    """Honest to the letter: one payment of the smallest amount after the other, as fast as it goes."""
    dust = Dust(attack)
    line = await dust.opened()
    attack.tell(ready=True)
    while not attack.over:
        await line.pay(line.payment(1))
        attack.sent += 1


KINDS: Final[dict[str, Callable[[Attack], Awaitable[None]]]] = {
    work.__name__: work
    for work in (
        complaints, proposals, recalls, reconnects, declined, declined_again, waiting, replayed, resumes, shown,
        chatter, storm, unread, forgeries, slots, payments,
    )
}  # fmt: skip


async def main(kind: str) -> None:
    """Attack until the standard input ends."""
    configure_logs("error")
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    attack = Attack(cast("dict[str, str]", json.loads(await lines.readline())))
    work = asyncio.ensure_future(KINDS[kind](attack))
    end = asyncio.ensure_future(lines.read())
    await asyncio.wait({work, end}, return_when=asyncio.FIRST_COMPLETED)
    attack.over = True
    attack.tell(sent=attack.sent)
    if work.done():
        work.result()
    os._exit(0)  # its sessions owe nobody a farewell


if __name__ == "__main__":
    os.nice(10)
    asyncio.run(main(sys.argv[1]))
