"""One flipped bit in the root key that a node was told: nothing is believed, and nothing is paid."""

import asyncio
import re
from pathlib import Path

import pytest

from perund.control.errors import RpcError
from perund.demo.processes import NodeProcess, ProcessFailed
from tests.e2e.town import ICP, Town


def flipped(key: str) -> str:
    """Return a key in hex with its last bit flipped."""
    return key[:-1] + f"{int(key[-1], 16) ^ 1:x}"


def flip_a_bit(node: NodeProcess) -> str:
    """Flip the lowest bit of the key in perund.toml; return the key that was there."""
    path: Path = node.dir / "perund.toml"
    text = path.read_text()
    found = re.search(r'root_key = "([0-9a-f]{266})"', text)
    assert found is not None
    right = found[1]
    path.write_text(text.replace(right, flipped(right)))
    return right


async def test_a_node_that_is_told_a_wrong_key_opens_nothing(town: Town) -> None:
    bob = await town.node("bob")

    alice = await town.node("alice", root_key=flipped(town.devnet.root_key))

    assert alice.info.chain_time is None, "no time is believed either"
    orders: list[tuple[str, dict[str, object]]] = [
        ("channel.open", {"peer": bob.address, "mine_e8s": str(50 * ICP), "theirs_e8s": "0", "challenge_s": 60}),
        ("wallet.balance", {}),
        ("wallet.send", {"to": bob.info.account, "amount_e8s": "100000000"}),
    ]
    answers = await asyncio.gather(*(alice.control.call(*order) for order in orders), return_exceptions=True)
    for answer, name in zip(answers, ("canister_not_allowed", "untrusted_answer", "untrusted_answer"), strict=True):
        assert isinstance(answer, RpcError), answer
        assert answer.name == name
        assert "root key" in str(answer), "it says what may be wrong"
    with pytest.raises(RpcError) as refused:  # its peers see another network, and say so
        await alice.control.call("peer.connect", {"peer": bob.address})
    assert refused.value.name == "wrong_network"
    health = await alice.control.call("node.health")
    assert health["ok"] is False
    assert "the configured root key" in health["problems"][0]["message"]
    assert await town.balance(alice) == 300 * ICP
    assert await town.balance(bob) == 300 * ICP


@pytest.mark.parametrize("moment", ["funding", "closing"])
async def test_a_node_with_channels_refuses_to_start_under_another_key(town: Town, moment: str) -> None:
    alice, bob = await town.pair(contributes=50)
    channel = await town.propose(alice, bob, 50, 50)
    if moment == "funding":
        await bob.kill()
    else:
        await town.until(bob, channel, lambda c: c.phase == "open", "open")
        await bob.kill()
        await town.event(alice, "channel.open", channel)
        await alice.control.call("channel.close", {"channel": channel, "wait": False})
    before = await town.balance(bob)
    right = flip_a_bit(bob)

    with pytest.raises(ProcessFailed, match="network"):
        await bob.start()

    assert bob.returncode == 1
    assert await town.balance(bob) == before
    path = bob.dir / "perund.toml"
    path.write_text(re.sub(r'root_key = "[0-9a-f]{266}"', f'root_key = "{right}"', path.read_text()))
    await bob.start()  # with the right key it goes on where it was
    await town.until(bob, channel, lambda c: c.phase == {"funding": "open"}.get(moment, "closed"), "going on")
