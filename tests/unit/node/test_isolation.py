"""A defect in what concerns one tower, or one part beside the channels, stops that one: the channels go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import msgspec
import pytest

from perund.config import Watch
from perund.control import schema
from perund.control.methods import CHANNEL_PAY, NODE_HEALTH
from perund.control.values import PaidE8s
from perund.node import node as node_module
from perund.node.openings import Openings
from perund.node.trust import CanisterTrust
from perund.tower.link import TowerLink
from protocol.types import ChannelId
from tests.unit.node.net import Net
from tests.unit.node.street import House, Street, soon


@dataclass
class Defect:
    """Something nobody thought of, so many times."""

    times: int
    met: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def strike(self) -> None:
        if self.times:
            self.times -= 1
            self.met.set()
            raise KeyError("nobody thought of this")
        self.over.set()


@pytest.fixture
async def street(net: Net) -> AsyncIterator[Street]:
    async with Street.inhabited(net) as inhabited:
        yield inhabited


async def pays(street: Street, channel: str) -> None:
    params = schema.PayParams(channel=channel, amount_e8s=PaidE8s(5))
    assert (await soon(street.alice.control.call(CHANNEL_PAY, params))).status == "delivered"


async def health(house: House) -> schema.Health:
    return await house.control.call(NODE_HEALTH, schema.NoParams())


async def test_the_link_to_one_tower_fails(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    channel = await street.open()
    alice = street.alice
    assert await alice.stop() == 0
    towers = tuple(f"02{number:064x}@127.0.0.1:9" for number in (1, 2))
    alice.config = msgspec.structs.replace(alice.config, watch=Watch(towers=towers))
    real, defect = TowerLink.run, Defect(1)

    async def run(self: TowerLink, live: Callable[[], list[ChannelId]]) -> None:
        if str(self.address) == towers[0]:
            defect.strike()
        await real(self, live)

    monkeypatch.setattr(TowerLink, "run", run)
    await alice.start()
    await soon(defect.met.wait())
    found = {tower.address: tower.dropped for tower in (await health(alice)).towers}
    assert found == {towers[0]: "internal error: KeyError", towers[1]: None}
    await pays(street, channel)


@pytest.mark.parametrize("part", ["tick", "canister trust"])
async def test_a_part_beside_the_channels_fails_and_starts_again(
    street: Street, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr(node_module, "RESTART_JOB_S", 0.01)
    channel = await street.open()
    alice = street.alice
    assert await alice.stop() == 0
    defect = Defect(1)
    if part == "tick":
        expire = Openings.expire

        def struck(self: Openings) -> None:
            if self._keys is alice.keys:
                defect.strike()
            expire(self)

        monkeypatch.setattr(Openings, "expire", struck)
    else:
        watch = CanisterTrust.watch

        async def struck_watch(self: CanisterTrust) -> None:
            defect.strike()
            await watch(self)

        monkeypatch.setattr(CanisterTrust, "watch", struck_watch)
    await alice.start()
    await soon(defect.met.wait())
    await soon(defect.over.wait())
    said = [problem.message for problem in (await health(alice)).problems if problem.code == "alarm"]
    assert any("node.part_failed" in text and part in text for text in said)
    await pays(street, channel)
