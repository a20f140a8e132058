"""A call that waits says for what, ends when its time is over, and can be asked again without doing anything twice."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import time

from perund.demo.processes import NodeProcess
from tests.e2e.shell import Ran, executable, perun
from tests.e2e.town import FEE, ICP, Town, within


async def at(node: NodeProcess, *arguments: str) -> Ran:
    return await perun("--dir", str(node.dir), *arguments)


def key_in(text: str) -> str:
    found = re.search(r"--key (\S+) asks again", text)
    assert found is not None, text
    return found[1]


async def paid_once(town: Town, node: NodeProcess, channel: str) -> int:
    """Return how many payments of this node the other side has, after checking that it waits for no more."""
    await town.until(node, channel, lambda c: c.queued.count == 0 and c.waiting_for is None, "nothing to wait for")
    return len((await at(node, "payments", "--channel", channel, "--json")).json["payments"])


async def test_a_payment_to_a_peer_that_is_away_is_paid_once(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 20)
    await bob.kill()
    await town.until(alice, channel, lambda c: c.peer_away_since is not None, "the peer away")

    began = time.monotonic()
    ran = await at(alice, "pay", channel, "1.5", "--memo", "tea", "--timeout", "5s")
    assert time.monotonic() - began < 20
    assert ran.code == 6, ran
    assert ran.out == ""
    waiting, error = ran.err.splitlines()
    for line in (waiting, error):
        assert f"waits for the peer {bob.info.node_id[:16]}, which is away, since 20" in line
    assert waiting.startswith("waiting: payment ")
    assert error.startswith("error: not ended within 5s: payment ")
    key = key_in(error)

    shown = await at(alice, "channel", channel)
    assert f"the peer {bob.info.node_id[:16]}, which is away, since 20" in shown.out
    assert "peer away" in shown.out
    assert "which is away, since 20" in (await at(alice, "channels")).out
    assert "no, since 20" in (await at(alice, "peers")).out

    # Asked again while it still waits, for a program: one object, with the key.
    ran = await at(alice, "pay", channel, "1.5", "--memo", "tea", "--key", key, "--timeout", "1s", "--json")
    assert (ran.code, ran.error["name"], ran.error["idempotency_key"]) == (6, "wait_ended", key)
    other = await at(alice, "pay", channel, "2", "--key", key)
    assert other.code == 3
    assert "was used for another call" in other.err

    await bob.start()
    ran = await at(alice, "pay", channel, "1.5", "--memo", "tea", "--key", key, "--timeout", "40s")
    assert ran.code == 0, ran
    assert "1.5 ICP delivered" in ran.out
    assert await paid_once(town, alice, channel) == 1
    assert (await town.view(bob, channel)).mine_e8s == 150_000_000


async def paying_nobody(town: Town) -> tuple[NodeProcess, NodeProcess, str, asyncio.Task[Ran]]:
    """Return two nodes, of which the second does not run, their channel, and a payment of the first that waits."""
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 20)
    await bob.kill()
    paying = asyncio.create_task(at(alice, "pay", channel, "1"))
    await town.until(alice, channel, lambda c: c.queued.count == 1, "the payment queued")
    return alice, bob, channel, paying


async def test_a_payment_waits_as_long_as_it_takes(town: Town) -> None:
    alice, bob, channel, paying = await paying_nobody(town)
    await bob.start()
    ran = await within(paying, "the payment")
    assert ran.code == 0, ran
    assert "1 ICP delivered" in ran.out
    assert await paid_once(town, alice, channel) == 1


async def test_a_command_that_is_interrupted_tells_its_key(town: Town) -> None:
    alice, bob, channel, paying = await paying_nobody(town)
    await alice.kill()
    ran = await within(paying, "the payment")
    assert ran.code == 4, ran
    key = key_in(ran.err)
    await asyncio.gather(alice.start(), bob.start())
    ran = await at(alice, "pay", channel, "1", "--key", key, "--timeout", "40s")
    assert ran.code == 0, ran
    assert await paid_once(town, alice, channel) == 1


async def test_interrupting_a_wait_tells_how_to_ask_again(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 20)
    await bob.kill()
    process = await asyncio.create_subprocess_exec(
        executable("perun"), "--dir", str(alice.dir), "pay", channel, "1", stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    assert (await within(process.stderr.readline(), "a line")).startswith(b"waiting: payment ")
    process.send_signal(signal.SIGINT)
    said = (await within(process.stderr.read(), "the end")).decode()
    assert await process.wait() == 1
    key = key_in(said)
    await bob.start()
    ran = await at(alice, "pay", channel, "1", "--key", key, "--timeout", "40s")
    assert ran.code == 0, ran
    assert await paid_once(town, alice, channel) == 1


async def test_a_node_that_is_stuck_is_not_waited_for_in_silence(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 20)
    alice.signal(signal.SIGSTOP)
    try:
        info, paid = await asyncio.gather(
            at(alice, "info", "--timeout", "2s"), at(alice, "pay", channel, "1", "--timeout", "2s")
        )
        assert (info.code, paid.code) == (6, 6)
        assert "the node has not answered, or not to the end, within 2s" in info.err
        process = await asyncio.create_subprocess_exec(
            executable("perun"), "--dir", str(alice.dir), "pay", channel, "1", "--key", key_in(paid.err),
            stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None
        assert await within(process.stderr.readline(), "a line") == b"waiting: the node has not answered yet\n"
    finally:
        alice.signal(signal.SIGCONT)
    assert await within(process.wait(), "the payment") == 0
    assert await paid_once(town, alice, channel) == 1


async def test_an_opening_that_waits_for_the_peer_ends_by_time(town: Town) -> None:
    alice, bob = await town.pair(contributes=50)
    await town.order_fault("drop_before", "call", 100_000, method="transfer")  # no deposit gets through
    ran = await at(alice, "open", bob.address, "--mine", "20", "--theirs", "5", "--challenge", "12s", "--timeout", "6s")
    assert ran.code == 6, ran
    assert "is not open yet: it waits for" in ran.err
    key = key_in(ran.err)
    (channel,) = (await at(alice, "channels", "--json")).json["channels"]
    assert channel["waiting_for"]
    await town.order_fault("drop_before", "call", 0)
    ran = await at(alice, "open", bob.address, "--mine", "20", "--theirs", "5", "--challenge", "12s", "--key", key,
                   "--timeout", "50s", "--json")  # fmt: skip
    assert ran.json["channel"] == channel["channel"]
    assert ran.json["phase"] == "open"
    assert await town.balance(alice) == 280 * ICP - FEE


async def test_a_close_says_what_it_waits_for(town: Town) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 20)
    await bob.kill()
    ran = await at(alice, "close", channel, "--force-after", "1h", "--timeout", "4s")
    assert ran.code == 6, ran
    assert "is not closed yet: it waits for the peer to sign the final state (the peer" in ran.err
    assert "which is away since 20" in ran.err
    view = await town.view(alice, channel)
    assert (view.phase, view.waiting_for is not None, view.waiting_since is not None) == ("closing", True, True)
    await bob.start()
    ran = await at(alice, "close", channel, "--force-after", "1h", "--key", key_in(ran.err), "--timeout", "40s")
    assert ran.code == 0, ran
    await town.settles(channel, alice, bob)


async def test_without_the_internet_computer_every_question_ends(town: Town) -> None:
    alice, bob = await town.pair()
    assert (await at(alice, "wallet", "balance")).code == 0
    await town.devnet.kill()
    began = time.monotonic()
    balance, sent, opened = await asyncio.gather(
        at(alice, "wallet", "balance", "--json"),
        at(alice, "wallet", "send", bob.info.account, "1", "--json"),
        at(alice, "open", bob.address, "--mine", "5", "--json"),
    )
    assert time.monotonic() - began < 45
    for ran in (balance, sent, opened):
        assert (ran.code, ran.error["name"], ran.error["retryable"]) == (3, "chain_unreachable", True), ran
        assert "idempotency_key" not in ran.error, "nothing was taken up"
    assert "it was 300 ICP at 20" in balance.error["message"]
