"""Each number of each message at the edges of its width, signed where its sender can sign it, in real sessions.

From a peer with money, whose own channel may freeze over it, and from a stranger to a tower: nobody else pays for it,
and the next start reads what was stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Final

import msgpack
import pytest

from perund.demo.processes import PASSPHRASE
from protocol import messages as m
from protocol.errors import Undecodable
from protocol.payments import Batch
from protocol.signing import ChannelKey
from protocol.types import MAX_NAT64, ChannelId, Nanos, Params, State
from tests.e2e.peer import Line, Peer
from tests.e2e.shell import perund
from tests.e2e.town import ICP, Town
from tests.e2e.watchtower import network_of, node_with, tower_in
from tests.hostile.strangers import Place, Stranger, TurnedAway
from wire.errors import DialFailed

EDGES: Final = (0, 1, 2**32 - 1, 2**32, 2**63 - 1, 2**63, MAX_NAT64)
NOBODYS: Final = ChannelId(bytes(64))
AT_ONCE: Final = 20
"""Messages between two looks whether the process still runs."""


def rows(message: m.Message) -> Iterator[list[object]]:
    """Yield the message as it would be sent, with each of its numbers at each edge."""
    row: list[object] = [message.TYPE, *(_plain(getattr(message, field.name)) for field in fields(message))]
    for place in range(1, len(row)):
        for changed in _edges(row[place]):
            yield [*row[:place], changed, *row[place + 1 :]]


def _plain(value: object) -> object:
    return (value.ids, value.amounts_e8s, tuple(value.memos.items())) if isinstance(value, Batch) else value


def _edges(value: object) -> Iterator[object]:
    if isinstance(value, int) and not isinstance(value, bool):
        yield from EDGES
    elif isinstance(value, tuple):
        for place, part in enumerate(value):
            for changed in _edges(part):
                yield (*value[:place], changed, *value[place + 1 :])


def about(line: Line) -> list[m.Message]:
    """Every message about a channel, true but for what will be changed in it."""
    id_, state, signatures = line.id, line.newest.state, line.newest.signatures
    return [
        m.Offer(id_, Batch((7).to_bytes(16, "big"), (5,), {0: b"memo"})),
        line.update(line.payment(5)),
        m.Ack(id_, 1, bytes(64)),
        m.Confirm(id_, 1),
        replace(line.resume_message(), pending_version=1, pending_hash=bytes(32)),
        m.SignedStateMessage(id_, state.version, state.allocation, False, *signatures),
    ]


OF_SESSIONS: Final[tuple[m.Message, ...]] = (
    m.Hello(1, bytes(32), 0, "x", 1),
    m.Ping(1),
    m.Life(1, bytes(32), bytes(64)),
    m.LifeHeard(1, bytes(32), bytes(64)),
    m.LifeStopped(1, bytes(32), 2, bytes(32), bytes(64)),
    m.Addresses((("node.example", 1),)),
    Stranger.proposal(),
    m.TowerReceipt(NOBODYS, 1, bytes(32), Nanos(1), Nanos(2), bytes(64)),
    m.TowerRefusal(NOBODYS, 1, "no", "no"),
    m.TowerHeld(NOBODYS, 1, (1, 1), False, bytes(64), bytes(64)),
    m.TowerInquiry(1),
    m.TowerStanding(1, bytes(32), 1, 1, b""),
    m.TowerListRequest(1, b""),
)


def signed(line: Line, row: list[object]) -> list[object]:
    """Sign an update whatever its numbers are, if that can be signed."""
    if row[0] == m.Update.TYPE:
        version, allocation = row[2], row[3]
        assert isinstance(version, int)
        assert isinstance(allocation, tuple)
        with contextlib.suppress(Undecodable):
            row[-1] = line.key.sign_state(State(line.id, version, allocation, finalized=False))
    return row


async def test_from_a_peer_with_money(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    for which in range(7):
        peer = Peer(town.devnet)
        await town.mint(peer.account, 20 * ICP)
        await peer.dial(bob)
        line = await peer.open(10 * ICP)
        await line.pay(line.payment(1_000))
        messages = about(line)[which : which + 1] or list(OF_SESSIONS)
        for number, row in enumerate(row for message in messages for row in rows(message)):
            if not peer.session.is_open:
                with contextlib.suppress(DialFailed):
                    await peer.dial(bob)
                peer.say(line.resume_message())
            peer.session.link.send(msgpack.packb(signed(line, row)))
            await asyncio.sleep(0.004)
            assert number % AT_ONCE or bob.returncode is None, row
        await peer.close()
    await town.pay(alice, channel, ICP)
    assert "Traceback" not in bob.log.read_text()
    await town.restart(bob)
    await town.pay(alice, channel, ICP)
    ran = await perund("backup", "--dir", str(bob.dir), "--json", PERUND_PASSPHRASE=PASSPHRASE)
    assert ran.json["channels"] == 8
    assert (ran.json["left_out"], ran.json["ignored"]) == ([], [])


def states() -> Iterator[list[object]]:
    """Yield states for a tower, signed by both where that can be signed, each with one number at one edge."""
    keys = ChannelKey(os.urandom(32)), ChannelKey(os.urandom(32))
    honest = (60 * 10**9, 3, 5, 5)
    for place in range(len(honest)):
        for edge in EDGES:
            challenge_ns, version, mine, theirs = (edge if at == place else real for at, real in enumerate(honest))
            nonce, allocation, signatures = os.urandom(64), (mine, theirs), [bytes(64), bytes(64)]
            with contextlib.suppress(Undecodable):
                params = Params(nonce, (keys[0].public, keys[1].public), Nanos(challenge_ns))
                state = State(params.channel_id, version, allocation, finalized=False)
                signatures = [key.sign_state(state) for key in keys]
            yield [
                m.TowerState.TYPE, nonce, keys[0].public, keys[1].public, challenge_ns, version, allocation, False,
                *signatures,
            ]  # fmt: skip


async def test_from_a_stranger_to_a_tower(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERUND_TOWER_MIN_CHALLENGE_S", "1")
    tower = await tower_in(town)
    alice, bob = await node_with(town, "alice", tower.address), await town.node("bob")
    channel = await town.open(alice, bob, 50, challenge_s=60)
    stranger = Stranger(Place(tower.address, network_of(town)))
    await stranger.arrive("127.0.0.9")
    for number, row in enumerate([*states(), *(row for message in OF_SESSIONS for row in rows(message))]):
        if stranger.over is not None:
            stranger = Stranger(stranger.place)
            with contextlib.suppress(TurnedAway):
                await stranger.arrive(f"127.0.{number % 200}.9")
        stranger._link.send(msgpack.packb(row))
        await asyncio.sleep(0.004)
        assert number % AT_ONCE or tower.returncode is None, row
    for again in (False, True):
        if again:
            await town.restart(tower)
        await town.pay(alice, channel, ICP)
        await tower.until(
            lambda: town.newest(alice, channel).state.version in tower.versions(channel), "the newest version held"
        )
    assert "Traceback" not in tower.log.read_text()
