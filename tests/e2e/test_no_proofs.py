"""Every certificate is bad, or none comes, and calls get through: a stale state is refuted all the same."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import pytest

from chain.errors import ChainError
from chain.perun import shown_state
from protocol.types import ChannelId, Params, SignedState
from tests.e2e import clock_off
from tests.e2e.lookout import Lookout
from tests.e2e.town import ICP, LOOK_AGAIN_S, Town, within
from tests.e2e.watchtower import node_with, served, tower_in

CHALLENGE_S = 120
FOR_EVER = 1_000_000
IN_TIME_S = 60.0
"""Half of the period is more than enough."""

OFF = (sys.executable, "-P", clock_off.__file__, "--")


@pytest.fixture
async def lookouts() -> AsyncIterator[list[Lookout]]:
    """Those that a test starts; none is left."""
    started: list[Lookout] = []
    yield started
    for lookout in started:
        await lookout.kill()


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERUND_TOWER_MIN_CHALLENGE_S", "1")
    monkeypatch.setenv("PERUND_WIRE_RECONNECT_MAX_S", "1")


async def no_proofs(town: Town, fault: str = "wrong_signature", *, queries: str | None = None) -> None:
    """From now on no certificate passes, or none comes; `queries`: what becomes of queries."""
    seconds = 3_600 if fault in {"withheld", "slow"} else 0
    for endpoint in ("call", "read_state"):
        await town.order_fault(fault, endpoint, FOR_EVER, seconds)
    if queries is not None:
        await town.order_fault(queries, "query", FOR_EVER)


async def proofs_again(town: Town) -> None:
    """Every fault ends."""
    body = {"fault": "wrong_signature", "endpoint": "any", "count": 0}
    async with aiohttp.ClientSession() as http, http.post(f"{town.devnet.url}/_devnet/faults", json=body) as answer:
        assert answer.status == 200, await answer.text()


async def cheat(town: Town, params: Params, old: SignedState) -> float:
    """Register an old state, whatever the answer looks like; return when."""
    with suppress(ChainError):
        await town.perun.register_everywhere(params, old, 1.0)
    return time.monotonic()


async def shown(town: Town, channel: ChannelId) -> int | None:
    """Return the version that is shown, with or without a proof."""
    found = None
    try:
        found = (await town.perun.query_state_everywhere(channel, 3.0)).value
    except ChainError as error:
        found = shown_state(error, channel)
    if found is None:
        with suppress(ChainError, TimeoutError):
            async with asyncio.timeout(5):
                found = await town.perun.hint_state(channel)
    return found.state.version if found is not None else None


async def refuted(town: Town, channel: str, version: int, since: float) -> float:
    """Return how long it took until the canister had this version."""

    async def look() -> None:
        while await shown(town, ChannelId(bytes.fromhex(channel))) != version:  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(LOOK_AGAIN_S)

    await within(look(), f"version {version} registered", IN_TIME_S)
    took_s = time.monotonic() - since
    print(f"refuted without a proof after {took_s:.1f} s")
    return took_s


@pytest.mark.parametrize(
    "fault",
    [
        "wrong_signature",
        *(
            pytest.param(f, marks=pytest.mark.long)
            for f in ("wrong_key", "delegation_out_of_range", "stale_certificate")
        ),
    ],
)
async def test_a_node_that_runs(town: Town, fault: str) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50, challenge_s=CHALLENGE_S)
    old, params = town.newest(alice, channel), town.row(alice, channel).terms.params
    await town.pay(alice, channel, 20 * ICP)
    await alice.kill()
    await no_proofs(town, fault)
    if fault == "stale_certificate":
        await town.devnet.advance(1_000)
    since = await cheat(town, params, old)
    await refuted(town, channel, 1, since)
    assert (await town.event(bob, "watcher.refuting_unproven", channel)).data["shown"] == 0

    await proofs_again(town)
    await town.until(bob, channel, lambda c: c.registered is not None and c.registered.ours, "ours registered")
    await town.devnet.advance(CHALLENGE_S + 1)
    await alice.start()
    await refuted(town, channel, 1, since)  # this test's own clock is behind, until a certificate tells it
    await town.settles(channel, alice, bob)


async def test_a_node_whose_looks_are_kept_back(town: Town) -> None:
    """No call is answered at all, and no certificate comes: the queries show it."""
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50, challenge_s=CHALLENGE_S)
    old, params = town.newest(alice, channel), town.row(alice, channel).terms.params
    await town.pay(alice, channel, 20 * ICP)
    await alice.kill()
    await no_proofs(town, "withheld")
    since = await cheat(town, params, old)
    await refuted(town, channel, 1, since)
    await proofs_again(town)


@pytest.mark.parametrize(
    "wrapper", [(), pytest.param(OFF, marks=pytest.mark.long)], ids=["its own clock", "two days off"]
)
@pytest.mark.parametrize(
    "queries", [None, pytest.param("drop_before", marks=pytest.mark.long)], ids=["queries", "no queries"]
)
async def test_a_node_that_starts(town: Town, wrapper: tuple[str, ...], queries: str | None) -> None:
    """It knows no certified time, no node keys, no interface; its clock may be off, and queries may be silent too."""
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50, challenge_s=CHALLENGE_S)
    old, params = town.newest(alice, channel), town.row(alice, channel).terms.params
    await town.pay(alice, channel, 20 * ICP)
    await asyncio.gather(alice.kill(), bob.kill())
    await no_proofs(town, queries=queries)
    since = await cheat(town, params, old)
    bob.wrapper = wrapper
    starting = asyncio.ensure_future(bob.start())
    await refuted(town, channel, 1, since)
    await starting
    await proofs_again(town)
    await town.until(bob, channel, lambda c: c.registered is not None and c.registered.ours, "ours registered")


async def test_the_watcher_beside_a_node_that_is_down(town: Town, lookouts: list[Lookout]) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50, challenge_s=CHALLENGE_S)
    old, params = town.newest(alice, channel), town.row(alice, channel).terms.params
    await town.pay(alice, channel, 20 * ICP)
    await asyncio.gather(alice.kill(), bob.kill())
    await no_proofs(town)
    since = await cheat(town, params, old)
    lookouts.append(await Lookout(bob).start())
    await refuted(town, channel, 1, since)
    kinds = [alarm["event"] for alarm in await lookouts[0].rung()]
    assert "watcher.refuting_unproven" in kinds
    await proofs_again(town)
    await lookouts[0].until(lambda log: "watcher.sees" in log or "watcher.follows_log" in log)
    assert await lookouts[0].stop() == 0


@pytest.mark.long
async def test_one_round_of_it_from_cron(town: Town, lookouts: list[Lookout]) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50, challenge_s=CHALLENGE_S)
    old, params = town.newest(alice, channel), town.row(alice, channel).terms.params
    await town.pay(alice, channel, 20 * ICP)
    await asyncio.gather(alice.kill(), bob.kill())
    await no_proofs(town)
    since = await cheat(town, params, old)
    lookouts.append(await Lookout(bob).start("--once"))
    assert await lookouts[0].ended() == 1
    await refuted(town, channel, 1, since)
    await proofs_again(town)


async def test_a_watchtower_alone(town: Town) -> None:
    tower = await tower_in(town)
    alice, bob = await town.node("alice"), await node_with(town, "bob", tower.address)
    channel = await town.open(alice, bob, 50, challenge_s=CHALLENGE_S)
    old, params = town.newest(alice, channel), town.row(alice, channel).terms.params
    await town.pay(alice, channel, 20 * ICP)
    assert await served(town, bob, tower, channel) == 1
    await asyncio.gather(alice.kill(), bob.kill(), tower.kill())
    await no_proofs(town)
    since = await cheat(town, params, old)
    await tower.start()
    await refuted(town, channel, 1, since)
    assert "watcher.refuting_unproven" in tower.log.read_text()
    await proofs_again(town)
