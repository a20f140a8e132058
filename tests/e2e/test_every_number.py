"""Each number of each message at the edges of its width, signed where its sender can sign it: from a stranger, from a
peer with money, to a tower and from one. It costs whoever says it a session, and nobody anything else.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, Final

import msgpack

from protocol import messages as m
from protocol.payments import Batch, Payment
from protocol.signing import ChannelKey
from protocol.types import ChannelId, Nanos, Params, ParticipantKey, SignedState, State
from tests.e2e.peer import Line, Peer
from tests.e2e.shell import perund
from tests.e2e.town import ICP, Town, within
from tests.e2e.watchtower import network_of, node_with, served, tower_in
from tests.hostile.strangers import Place, Stranger, TurnedAway
from perund.demo.processes import PASSPHRASE

EDGES: Final = (0, 1, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1)


def rows(message: m.Message) -> Iterator[list[Any]]:
    """Yield the message as it would be sent, with each of its numbers at each edge."""
    row = [message.TYPE, *(plain(getattr(message, field.name)) for field in fields(message))]
    for place in range(1, len(row)):
        for changed in edges(row[place]):
            yield [*row[:place], changed, *row[place + 1 :]]


def plain(value: Any) -> Any:
    if isinstance(value, Batch):
        return value.ids, value.amounts_e8s, tuple(sorted(value.memos.items()))
    return value


def edges(value: Any) -> Iterator[Any]:
    if isinstance(value, bool) or isinstance(value, bytes | str):
        return
    if isinstance(value, int):
        yield from EDGES
    if isinstance(value, tuple):
        for place, part in enumerate(value):
            for changed in edges(part):
                yield (*value[:place], changed, *value[place + 1 :])


def of_a_channel(line: Line) -> list[m.Message]:
    """Each message about a channel, true but for what will be changed in it."""
    id_, state, (s0, s1) = line.id, line.newest.state, line.newest.signatures
    batch = Batch((7).to_bytes(16, "big"), (5,), {0: b"memo"})
    return [
        m.Offer(id_, batch),
        m.Decline(id_, bytes(16), "no"),
        line.update(Payment((9).to_bytes(16, "big"), 5)),
        m.Ack(id_, 1, bytes(64)),
        m.Confirm(id_, 1),
        line.resume_message(),
        replace(line.resume_message(), pending_version=1, pending_hash=bytes(32)),
        m.SignedStateMessage(id_, state.version, state.allocation, False, s0, s1),
        m.ChannelReady(id_),
    ]


def of_a_session() -> list[m.Message]:
    return [
        m.Hello(1, bytes(32), 0, "x", 1),
        m.Ping(1),
        m.Pong(1),
        m.Life(1, bytes(32), bytes(64)),
        m.LifeHeard(1, bytes(32), bytes(64)),
        m.LifeStopped(1, bytes(32), 2, bytes(32), bytes(64)),
        Stranger.proposal(),
        m.TowerReceipt(ChannelId(bytes(64)), 1, bytes(32), Nanos(1), Nanos(2), bytes(64)),
        m.TowerRefusal(ChannelId(bytes(64)), 1, "no", "no"),
        m.TowerHeld(ChannelId(bytes(64)), 1, (1, 1), False, bytes(64), bytes(64)),
        m.TowerInquiry(1),
        m.TowerStanding(1, bytes(32), 1, 1, b""),
        m.TowerListRequest(1, b""),
        m.TowerList(1, b"", b"", False),
    ]


def signed_again(line: Line, row: list[Any]) -> list[Any]:
    """Sign what the sender can sign, whatever the numbers are."""
    if row[0] == m.Update.TYPE:
        try:
            state = State(line.id, row[2], tuple(row[3]), row[4])
            row[-1] = line.key.sign_state(state)
        except Exception:
            pass
    return row


async def test_from_a_peer_with_money(town: Town) -> None:
    alice, bob = await town.pair(contributes=10)
    channel = await town.open(alice, bob, 50)
    count = 0
    for k in range(11):
        peer = Peer(town.devnet)
        await town.mint(peer.account, 100 * ICP)
        await peer.dial(bob)
        line = await peer.open(10 * ICP)
        await line.pay(line.payment(1_000))
        alls = of_a_channel(line)
        messages = [alls[k]] if k < len(alls) else of_a_session()[k - len(alls)::2]
        for message in messages:
            for row in rows(message):
                row = signed_again(line, row)
                if not peer.session.is_open:
                    peer.inbox.clear()
                    for _ in range(50):
                        try:
                            await peer.dial(bob)
                            break
                        except Exception:
                            await asyncio.sleep(0.05)
                    if k not in (5,6):
                        peer.say(line.resume_message())
                peer.session.link.send(msgpack.packb(row))
                count += 1
                await asyncio.sleep(0.004)
                assert bob.returncode is None, (row, bob.log.read_text()[-3000:])
            print(type(message).__name__, count, peer.session.is_open)
        v = await town.view(bob, line.id.hex())
        print(k, v.phase, v.frozen if hasattr(v, "frozen") else v)
        await peer.close()
    await town.pay(alice, channel, 1 * ICP)
    assert "Traceback" not in bob.log.read_text(), bob.log.read_text()[-5000:]
    await town.restart(bob)
    await town.pay(alice, channel, 1 * ICP)
    ran = await perund("backup", "--dir", str(bob.dir), "--json", PERUND_PASSPHRASE=PASSPHRASE)
    print(ran)
    assert ran.code == 0
    print(await bob.control.call("node.health"))


async def test_to_a_tower(town: Town, monkeypatch) -> None:
    monkeypatch.setenv("PERUND_TOWER_MIN_CHALLENGE_S", "1")
    tower = await tower_in(town)
    alice = await node_with(town, "alice", tower.address)
    bob = await town.node("bob")
    channel = await town.open(alice, bob, 50, challenge_s=60)
    place = Place(tower.address, network_of(town))
    stranger = await Stranger(place).arrive("127.0.0.9")
    k0, k1 = ChannelKey(os.urandom(32)), ChannelKey(os.urandom(32))
    n = 0

    async def send(row):
        nonlocal stranger, n
        n += 1
        if stranger.over is not None:
            stranger = Stranger(place)
            for _ in range(200):
                try:
                    await stranger.arrive(f"127.0.{n % 200}.9")
                    break
                except TurnedAway:
                    await asyncio.sleep(0.05)
        stranger._link.send(msgpack.packb(row))
        await asyncio.sleep(0.003)
        assert tower.returncode is None, (row, tower.log.read_text()[-3000:])

    for message in of_a_session():
        for row in rows(message):
            await send(row)
    for which in ("challenge", "version", "a0", "a1"):
        for edge in EDGES:
            ch = edge if which == "challenge" else 60 * 10**9
            v = edge if which == "version" else 3
            al = (edge if which == "a0" else 5, edge if which == "a1" else 5)
            nonce, sigs = os.urandom(64), (bytes(64), bytes(64))
            try:
                params = Params(nonce, (k0.public, k1.public), Nanos(ch))
                state = State(params.channel_id, v, al, False)
                sigs = k0.sign_state(state), k1.sign_state(state)
            except Exception as e:
                print("cannot sign", which, edge, e)
            await send([40, nonce, k0.public, k1.public, ch, v, al, False, *sigs])
            await asyncio.sleep(0.3)
            print(which, edge, stranger.over, list(stranger.inbox)[-1:])
    print(tower.status())
    assert "Traceback" not in tower.log.read_text(), tower.log.read_text()[-5000:]
    await town.pay(alice, channel, 1 * ICP)
    await served(town, alice, tower, channel)
    await town.restart(tower)
    await town.pay(alice, channel, 1 * ICP)
    await served(town, alice, tower, channel)
