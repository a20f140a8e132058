"""The lives of a tower's clients: kept as long as a slot is, and for good where there was money."""

from __future__ import annotations

from pathlib import Path

import pytest
from coincurve import PrivateKey

from protocol.lives import sign_life
from protocol.messages import Life, LifeHeard
from protocol.types import ChannelId
from tests.unit.tower.scene import NETWORK, message, post

CLIENT = PrivateKey(b"\x44" * 32)
NODE = CLIENT.public_key.format()


def life(number: int) -> Life:
    return sign_life(CLIENT, NETWORK, number, bytes(32))


@pytest.mark.parametrize("money", [True, False])
async def test_the_older_copy_is_told_when_the_newer_one_has_nothing_here_any_more(tmp_path: Path, money: bool) -> None:
    async with post(tmp_path) as tower:
        channel = await tower.coast.channel(1, money=1000 if money else 0)
        hearing = tower.tower.hearing
        assert hearing.announced(NODE, life(7)) == ()
        tower.tower.offer(NODE, message(channel, 3), lambda _: None)
        await tower.written()
        if money:
            await tower.proven(channel)
        tower.tower.forget(NODE, ChannelId(channel.id))
        await tower.written()
        hearing.ended(NODE)

        for _ in range(2):
            hearing = tower.tower.hearing
            shown = tower.tower.hearing.announced(NODE, life(5))
            assert shown == ((LifeHeard(7, bytes(32), life(7).signature),) if money else ())
            assert hearing.outlived(NODE) == money
            hearing.ended(NODE)
            await tower.restart()
