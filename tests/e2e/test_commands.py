"""Every command of `perun`, once for people and once for programs."""

import json
from typing import Any

from perund.demo.processes import NodeProcess
from tests.e2e.shell import Ran, perun
from tests.e2e.town import FEE, ICP, Town


class Both:
    """Runs a command for people, then for programs."""

    def __init__(self, node: NodeProcess) -> None:
        self.node = node

    async def run(self, *arguments: str) -> Ran:
        return await perun(*arguments, "--dir", str(self.node.dir))

    async def __call__(self, *arguments: str) -> tuple[str, Any]:
        people = await self.run(*arguments)
        assert people.code == 0, people
        assert people.err == ""
        return people.out, (await self.run(*arguments, "--json")).json


async def test_looking(town: Town) -> None:
    alice, bob = await town.pair()
    both = Both(alice)

    text, found = await both("info")
    assert f"node id         {alice.info.node_id}" in text
    assert found["node_id"] == alice.info.node_id
    text, found = await both("wallet", "address")
    assert text.strip() == alice.info.account
    assert found == {"account": alice.info.account, "principal": alice.info.principal}
    text, found = await both("wallet", "balance")
    assert "300 ICP" in text
    assert found == {"account": alice.info.account, "principal": alice.info.principal,
                     "balance_e8s": str(300 * ICP), "fee_e8s": str(FEE)}  # fmt: skip
    text, found = await both("peers")
    assert (text, found) == ("no peers\n", {"peers": []})
    text, found = await both("connect", bob.address)
    assert text == f"connected to {bob.info.node_id} at {bob.info.listen}\n"
    assert found == {"node_id": bob.info.node_id, "address": bob.info.listen}
    text, found = await both("peers")
    assert bob.info.node_id in text
    assert found["peers"][0]["connected"] is True
    text, found = await both("health")
    assert text.startswith("ok\n")
    assert found["ok"] is True
    text, found = await both("channels")
    assert (text, found) == ("no channels\n", {"channels": []})
    text, found = await both("call", "node.info")
    assert json.loads(text)["node_id"] == found["node_id"]


async def test_a_channel_from_open_to_dispute(town: Town) -> None:
    alice, bob = await town.pair()
    both = Both(alice)

    opened = (await both.run("open", bob.address, "--mine", "20 ICP", "--challenge", "12s", "--json")).json
    channel = opened["channel"]
    second = await both.run("open", bob.info.node_id, "--mine", "150000000 e8s", "--challenge", "1m", "--no-wait")
    assert second.code == 0, second
    assert "phase" in second.out
    text, found = await both("channels")
    assert channel[:16] in text
    assert len(found["channels"]) == 2
    text, found = await both("channel", channel[:10])
    assert f"channel    {channel}" in text
    assert found["channel"] == channel
    text, found = await both("pay", channel, "0.5", "--memo", "a coffee")
    assert text.startswith("0.5 ICP delivered")
    assert found["status"] == "delivered"
    text, found = await both("payments", "--channel", channel)
    assert text.count("a coffee") == 2
    assert [p["amount_e8s"] for p in found["payments"]] == ["50000000"] * 2

    await bob.kill()
    queued = (await both.run("pay", channel, "1", "--no-wait", "--json")).json
    assert queued["status"] in ("queued", "signed")
    another = (await both.run("pay", channel, "2", "--no-wait", "--json")).json
    cancelled = await both.run("cancel", channel, another["payment"])
    assert cancelled.out == f"payment {another['payment']} is cancelled\n", cancelled
    again = await both.run("cancel", channel, another["payment"], "--json")
    assert (again.code, again.error["name"]) == (3, "payment_not_queued")

    unsure = await both.run("dispute", channel)
    assert (unsure.code, unsure.err) == (2, "error: a dispute needs a yes; give --yes in scripts\n")
    text, found = await both("dispute", channel, "--yes")
    assert "leaving" in text
    assert found["phase"] == "leaving"
    await town.until(alice, channel, lambda c: c.registered is not None and c.registered.ours, "ours registered")
    early = await both.run("withdraw", channel, "--json")
    assert (early.code, early.error["name"]) == (3, "not_settled")
    await town.devnet.advance(13)
    text, found = await both("withdraw", channel)
    assert "closed" in text
    assert found["payout_e8s"] == str(19 * ICP - FEE)

    events = await both.run("events", "--after", "0", "--kind", "channel.open", "--count", "1", "--json")
    assert events.json["event"] == "channel.open"
    events = await both.run("events", "--after", "0", "--count", "2")
    assert len(events.out.splitlines()) == 2


async def test_sending_and_stopping(town: Town) -> None:
    alice, bob = await town.pair()
    both = Both(alice)

    sent = await both.run("wallet", "send", bob.info.account, "3")
    assert sent.out.startswith("sent 3 ICP in block ")
    sent = await both.run("wallet", "send", bob.info.principal, "1.25 ICP", "--json")
    assert sent.json["amount_e8s"] == "125000000"
    assert await town.balance(bob) == 300 * ICP + 425_000_000
    _, found = await both("wallet", "balance")
    assert found["balance_e8s"] == str(300 * ICP - 425_000_000 - 2 * FEE)
    stopped = await both.run("stop")
    assert stopped.out == "the node is stopping\n"
    assert await alice._wait() == 0
    stopped = await Both(bob).run("stop", "--json")
    assert stopped.json == {"stopping": True}
    assert await bob._wait() == 0
