"""One flipped bit in the root key that a node was told: nothing is believed, and nothing is paid."""

import re
from pathlib import Path

import pytest

from perund.control import schema
from perund.control.errors import RpcError
from perund.control.methods import CHANNEL_OPEN
from perund.control.values import E8s, Seconds
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

    alice = await town.node("alice", "--root-key", flipped(town.devnet.root_key))

    assert alice.info.chain_time is None, "no time is believed either"
    order = schema.ChannelOpenParams(bob.address, E8s(50 * ICP), E8s(0), Seconds(60))
    with pytest.raises(RpcError) as refused:
        await alice.control.call(CHANNEL_OPEN, order)
    assert refused.value.name in {"canister_not_allowed", "untrusted_answer", "wrong_network"}
    for method, params in (
        ("wallet.balance", {}),
        ("wallet.send", {"to": bob.info.account, "amount_e8s": "100000000"}),
    ):
        with pytest.raises(RpcError) as refused:
            await alice.control.call(method, params)
        assert refused.value.name == "untrusted_answer", refused.value
        assert "root" in f"{refused.value} {refused.value.hint}"
    with pytest.raises(RpcError) as refused:  # its peers see another network, and say so
        await alice.control.call("peer.connect", {"peer": bob.address})
    assert refused.value.name == "wrong_network"
    health = await alice.control.call("node.health")
    assert health["ok"] is False
    assert await town.balance(alice) == 300 * ICP
    assert await town.balance(bob) == 300 * ICP


@pytest.mark.parametrize("moment", ["funding", "closing"])
async def test_a_node_with_channels_refuses_to_start_under_another_key(town: Town, moment: str) -> None:
    alice, bob = await town.pair("--contribute-max", "50")
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
