"""Who refutes, disputes or asks towers does it with states that are on the disk.

A state that is registered and then lost with the power would be one that this node signs against: after the restart its
newest is an older one, and what is registered shows it a loss of data (rules 2 and 7).
"""

from __future__ import annotations

from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import cast

from perund.node.node import Node
from perund.tower.towers import Towers
from protocol.effects import StateRecord, Step
from protocol.messages import ChannelMessage, Update
from protocol.payments import EMPTY
from protocol.types import SignedState
from tests.unit.node.desk import Desk
from tests.unit.node.net import ICP
from tests.unit.node.test_driver import Pair
from tests.unit.store.books import batch


async def test_a_state_is_shown_to_nobody_before_it_is_durable(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    for side in (pair.alice, pair.bob):
        await side.add()
    lines = pair.connect()
    await pair.run()
    alice, bob = pair.alice.driver, pair.bob.driver
    alice.pay(batch(1), None)
    alice.flush()
    await alice.settle_writes()
    (update,) = [message for message in lines[0].said if isinstance(message, Update)]
    channel = bob.channel.id
    holder = SimpleNamespace(drivers={channel: bob}, _drivers={channel: bob})

    def shown() -> list[SignedState]:
        """What the watcher refutes with, what the towers get, and what the driver says."""
        given = [Node.newest(cast("Node", holder), channel), Towers.newest(cast("Towers", holder), channel)]
        return [bob.durable_newest, *(found[1] for found in given if found is not None)]

    before = bob.channel.newest
    assert isinstance(update, ChannelMessage)
    bob.receive(lines[1], update)
    assert bob.channel.newest.state.version == 1  # signed by both, and on its way to the disk
    assert shown() == [before] * 3
    await bob.settle_writes()
    assert shown() == [bob.channel.newest] * 3
    for side in (pair.alice, pair.bob):
        side.store.close()


async def test_a_dispute_begins_with_what_is_on_the_disk(desk: Desk) -> None:
    terms = await desk.channel((3 * ICP, 2 * ICP))
    for index in (0, 1):
        await desk.net.pay_in(terms.funding(0 if index == 0 else 1), terms.allocation[index])
    await desk.agree(7, (4 * ICP, ICP))
    await desk.leave()
    disk = Event()

    def busy(_: object) -> None:
        assert disk.wait(60)

    desk.store.back_up_with(busy)  # the disk, from here on
    newest = desk.driver.channel.newest = desk.state(9, (ICP, 4 * ICP))
    desk.driver.perform(Step((StateRecord(newest, EMPTY, EMPTY),)), backed_up=(b"busy",))
    await desk.settlement.step()
    disk.set()
    found = (await desk.perun.query_state(terms.channel)).value
    assert found is not None
    assert found.state.version == 7
