"""Who gives way at the door, and whose handshake begins: one address takes little from the others."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import cast

import pytest

from wire.door import Door
from wire.limits import Limits
from wire.link import Link

LIMITS = Limits(handshakes=20, handshakes_per_address=20, handshakes_per_s=10)


@dataclass(eq=False)
class Knock:
    """A connection, as far as a door looks at it."""

    origin: str
    began: asyncio.Event = field(default_factory=asyncio.Event)

    def go_on(self) -> None:
        self.began.set()


def link(knock: Knock) -> Link:
    return cast("Link", knock)


@pytest.mark.parametrize("known", [True, False], ids=["known addresses", "others"])
async def test_an_address_that_fills_the_room_gives_way_to_itself(known: bool) -> None:
    dropped: list[str] = []
    door = Door(LIMITS, lambda _: known, lambda gone: dropped.append(gone.origin), random.Random(1))
    for origin in ["peer", *["crowd"] * 1_000]:
        door.link_came(link(Knock(origin)))
    assert (len(door), set(dropped)) == (20, {"crowd"})


@pytest.mark.parametrize("known", [True, False], ids=["known addresses", "others"])
async def test_addresses_take_turns_to_begin(known: bool) -> None:
    door = Door(LIMITS, lambda _: known, lambda _: None, random.Random(1))

    def knocks(origin: str) -> Knock:
        knock = Knock(origin)
        door.link_came(link(knock))
        if door.may_begin(link(knock)):
            knock.go_on()
        return knock

    for _ in range(15):  # more than a second's worth
        knocks("crowd")
    peer = knocks("peer")
    crowd = [knocks("crowd") for _ in range(3)]
    try:
        async with asyncio.timeout(2):
            await peer.began.wait()
        assert not all(knock.began.is_set() for knock in crowd)
    finally:
        door.close()
