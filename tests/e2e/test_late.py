"""What makes money wait is a problem of `perun health` with its real beginning, also after a restart, until it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from perund.control import schema
from perund.control.methods import CHANNEL_DISPUTE, CHANNEL_PAY, NODE_HEALTH
from perund.control.values import PaidE8s
from perund.demo.processes import NodeProcess
from tests.e2e.shell import perun
from tests.e2e.town import ICP, PATIENCE_S, Town, within


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second is long here, and ten are very long."""
    monkeypatch.setenv("PERUND_ALARM_PATIENCE_S", "1")


def at(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def now() -> float:
    return datetime.now(UTC).timestamp()


async def health(
    node: NodeProcess, condition: Callable[[dict[str, schema.Problem]], bool], what: str, patience_s: float = PATIENCE_S
) -> dict[str, schema.Problem]:
    """Return the problems of a node by their codes, as soon as `condition` holds."""
    found: dict[str, schema.Problem] = {}

    async def look() -> None:
        nonlocal found
        while True:
            answer = await node.control.call(NODE_HEALTH, schema.NoParams())
            found = {problem.code: problem for problem in answer.problems}
            assert answer.ok is not bool(found)
            if condition(found):
                return
            await asyncio.sleep(0.2)

    try:
        await within(look(), what, patience_s)
    except AssertionError as error:
        raise AssertionError(f"{error}; {found}") from None
    return found


async def test_a_peer_that_is_gone_and_payments_that_wait_for_it(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 20, challenge_s=3_600)
    await bob.kill()
    gone = now()
    await town.until(alice, channel, lambda c: c.peer_away_since is not None, "the peer away")
    await alice.control.call(CHANNEL_PAY, schema.PayParams(channel, PaidE8s(ICP), wait=False))
    asked = now()
    found = await health(alice, lambda f: {"payments_wait", "peer_away"} <= f.keys(), "both problems")
    assert abs(at(found["peer_away"].since) - gone) < 3
    assert abs(at(found["payments_wait"].since) - asked) < 3
    assert found["payments_wait"].channel == channel
    assert f"the peer {bob.info.node_id[:16]}, which is away, since 20" in found["payments_wait"].message

    await town.restart(alice)
    again = await health(alice, lambda f: {"payments_wait", "peer_away"} <= f.keys(), "both again", 5)
    for code in ("payments_wait", "peer_away"):
        assert again[code].since == found[code].since
    assert (await town.view(alice, channel)).peer_away_since == found["peer_away"].since
    shown = await perun("--dir", str(alice.dir), "health")
    assert shown.code == 1
    assert f"(since {found['peer_away'].since})" in shown.out

    await bob.start()
    await health(alice, lambda f: not f and not town.reader(alice).problems(), "nothing left of it, also on the disk")


async def test_a_close_that_waits_and_a_withdrawal_that_cannot_be_made(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 20, challenge_s=60)
    await town.pay(alice, channel, ICP)
    await bob.kill()
    closing = await perun("--dir", str(alice.dir), "close", channel, "--force-after", "5d", "--no-wait", "--json")
    since = closing.json["waiting_since"]
    await town.devnet.advance(15)
    found = await health(alice, lambda f: "close_waits" in f, "a close that waits")
    assert found["close_waits"].since == since
    assert "the peer to sign the final state" in found["close_waits"].message

    await town.order_fault("drop_before", "call", 100_000, method="withdraw")
    await alice.control.call(CHANNEL_DISPUTE, schema.ChannelDisputeParams(channel))
    view = await town.until(alice, channel, lambda c: c.registered is not None, "registered")
    assert view.registered is not None
    await health(alice, lambda f: "close_waits" not in f, "the challenge period is no problem")
    await town.devnet.advance(80)
    found = await health(alice, lambda f: "withdrawal_waits" in f, "a withdrawal that waits")
    assert found["withdrawal_waits"].since == view.registered.timeout
    await town.restart(alice)
    again = await health(alice, lambda f: "withdrawal_waits" in f, "a withdrawal that still waits")
    assert again["withdrawal_waits"].since == view.registered.timeout

    await town.order_fault("drop_before", "call", 0)
    await town.closed(alice, channel)
    await health(alice, lambda f: not f, "nothing left of it")


@pytest.mark.timeout(300)
@pytest.mark.long
async def test_an_internet_computer_that_is_silent(town: Town) -> None:
    alice, bob = await town.pair()
    await town.open(alice, bob, 20, challenge_s=86_400)
    await health(alice, lambda f: not f, "no problem")
    await town.order_fault("drop_before", "any", 1_000_000)
    silent = now()
    found = await health(alice, lambda f: "chain_unreachable" in f, "the silence", 100)
    assert -70 < at(found["chain_unreachable"].since) - silent < 3
    await town.restart(alice)
    again = await health(alice, lambda f: "chain_unreachable" in f, "the silence, still", 10)
    assert again["chain_unreachable"].since == found["chain_unreachable"].since
    await town.order_fault("drop_before", "any", 0)
    await health(alice, lambda f: "chain_unreachable" not in f, "an answer", 100)
