"""Numbers of others that no column, clock or ledger has: they cost whoever says them, and nobody else."""

from __future__ import annotations

import time
from typing import Final

import msgpack
import pytest

from perund.control import schema
from perund.control.errors import RpcError
from perund.control.methods import WALLET_SEND
from perund.control.values import PaidE8s
from protocol.messages import PeerMessage, TowerMessage, TowerState
from protocol.types import Nanos
from tests.e2e.town import ICP, Town
from tests.e2e.watchtower import PlayedTower, lag_of, node_with
from watcher.tower.receipts import Notary, verify_receipt
from watcher.tower.tower import read_state
from wire.session import Session

YEAR_NS: Final = 365 * 86_400 * 10**9


class Timeless(PlayedTower):
    """A tower that signs correctly, and whose clock shows anything. It speaks in bytes: no encoder of ours would."""

    def __init__(self, town: Town, chain_time_ns: int, expires_ns: int) -> None:
        super().__init__(town)
        self._times = (Nanos(chain_time_ns), Nanos(expires_ns))

    def received(self, session: Session, message: PeerMessage) -> None:
        assert isinstance(message, TowerMessage)
        self.heard.append(message)
        if isinstance(message, TowerState):
            params, signed = read_state(message)
            receipt = Notary(self._key, self._network).sign(
                session.peer, params.channel_id, message.version, signed.state.digest, *self._times
            )
            assert verify_receipt(self.network.node_id, self._network, session.peer, receipt)
            row = [
                42, receipt.channel, receipt.version, receipt.state_hash, receipt.chain_time_ns, receipt.expires_ns,
                receipt.signature,
            ]  # fmt: skip
            session.link.send(msgpack.packb(row))


@pytest.mark.parametrize(
    ("chain_time_ns", "expires_ns"),
    [(2**63, 2**63 + 1), (2**64 - 2, 2**64 - 1), (1_700_000_000 * 10**9, 2**63)],
    ids=["after 2262", "the last", "only the end"],
)
async def test_a_receipt_of_another_age_ends_that_tower_and_the_node_starts_again(
    town: Town, chain_time_ns: int, expires_ns: int
) -> None:
    liar = await Timeless(town, chain_time_ns, expires_ns).open()
    alice, bob = await town.node("alice"), await node_with(town, "bob", liar.address)
    channel = await town.open(alice, bob, 50)
    dropped = await town.event(bob, "tower.dropped")
    assert dropped.data["tower"] == liar.network.node_id.hex()
    await town.pay(alice, channel, 1 * ICP)
    await town.restart(bob)
    await town.pay(alice, channel, 1 * ICP)
    assert (await town.view(bob, channel)).mine_e8s == 2 * ICP
    await town.close(bob, channel)
    await liar.network.close()


@pytest.mark.parametrize(
    ("ahead_ns", "for_ns"), [(100 * YEAR_NS, YEAR_NS), (0, 100 * YEAR_NS)], ids=["in the future", "for a century"]
)
async def test_a_promise_that_ends_after_everybody_is_none(town: Town, ahead_ns: int, for_ns: int) -> None:
    """It would never be asked for again, and so be believed for as long as the node lives."""
    now_ns = time.time_ns()
    liar = await Timeless(town, now_ns + ahead_ns, now_ns + ahead_ns + for_ns).open()
    alice, bob = await town.node("alice"), await node_with(town, "bob", liar.address)
    channel = await town.open(alice, bob, 50)
    for _ in range(2):
        await town.pay(alice, channel, 1 * ICP)
    lag = await lag_of(bob, liar.address)
    assert lag["channels_behind"] == 1
    assert "of another time than now" in lag["problem"]
    await liar.network.close()


async def test_more_than_a_column_holds_is_not_sent(town: Town) -> None:
    """On a network of one's own one can have it."""
    alice = await town.node("alice", icp=0)
    await town.devnet.mint(alice.info.account, 2**63 + 5 * ICP)
    params = schema.SendParams(to=alice.info.account, amount_e8s=PaidE8s(2**63 + 1), accept_loss=True)
    with pytest.raises(RpcError, match="2\\^63-1"):
        await alice.control.call(WALLET_SEND, params)
    sent = await alice.control.call(WALLET_SEND, replace_amount(params, 2 * ICP))
    assert sent.amount_e8s == 2 * ICP
    await town.restart(alice)


def replace_amount(params: schema.SendParams, e8s: int) -> schema.SendParams:
    return schema.SendParams(to=params.to, amount_e8s=PaidE8s(e8s), accept_loss=params.accept_loss)
