"""Watchtowers as processes: they refute for nodes that are down, keep what they took, and are believed in nothing."""

from __future__ import annotations

import pytest

from tests.e2e.town import ICP, Town
from tests.e2e.watchtower import configure, served, tower_in


@pytest.fixture(autouse=True)
def _short_challenges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERUND_TOWER_MIN_CHALLENGE_S", "1")


async def test_the_tower_alone_is_up(town: Town) -> None:
    tower = await tower_in(town)
    alice, bob = await town.pair()
    await bob.stop()
    configure(bob, tower.address)
    await bob.start()
    channel = await town.open(alice, bob, 50, challenge_s=24)
    old = town.newest(alice, channel)
    await town.pay(alice, channel, 20 * ICP)
    assert await served(town, bob, tower, channel) == 1
    params = town.row(alice, channel).terms.params
    await bob.kill()
    await alice.kill()
    assert (await town.perun.dispute(params, old)).value is None
    import asyncio

    async def w():
        while await town.registered_version(channel) != 1:
            await asyncio.sleep(0.1)

    await asyncio.wait_for(w(), 20)
    print(tower.status())
