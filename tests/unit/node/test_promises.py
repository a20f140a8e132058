"""Every call that writes or waits is answered by what is known of its write; and that is so after the restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chain.principal import account_identifier
from perund.control import schema
from perund.control.errors import RpcError
from perund.control.methods import (
    CHANNEL_CLOSE,
    CHANNEL_DISPUTE,
    CHANNEL_OPEN,
    CHANNEL_PAY,
    METHODS,
    PAYMENT_CANCEL,
    PAYMENT_LIST,
    PEER_CONNECT,
    WALLET_SEND,
    Method,
)
from perund.control.values import E8s, PaidE8s, Seconds
from perund.node.daemon import STORE_NAME
from perund.node.promises import STOPS, Promise, Promises
from perund.store.errors import End, StorageFailed
from perund.store.store import connect
from perund.store.writer import Statement
from protocol.effects import EventRecord
from tests.unit.node.net import ICP, Fault, Net
from tests.unit.node.street import Street, insisting, soon
from tests.unit.store.books import Books

THERE = account_identifier(b"\x09")
DISK = "a write to the store failed"


@pytest.fixture
async def street(net: Net) -> AsyncIterator[Street]:
    async with Street.inhabited(net) as inhabited:
        yield inhabited


async def told(call: Any) -> RpcError:
    """Return what a caller is told whose call does not come to its end."""
    with pytest.raises(RpcError) as caught:
        await soon(call)
    return caught.value


async def test_what_is_told_by_the_end_of_the_write(tmp_path: Path) -> None:
    """The whole table, on a store of which one transaction failed before its COMMIT."""
    books = Books(tmp_path)
    written = books.store.commit([EventRecord("test.happened", None, {})])
    await books.store.write(())
    not_written = books.store.commit([Statement("INSERT INTO no_such_table VALUES (1)")])
    with pytest.raises(StorageFailed):
        await books.store.write(())
    assert [books.store.end_of(unit) for unit in (written, not_written)] == [End.WRITTEN, End.NOT_WRITTEN]
    alone, beside_another = Promises(books.store, lambda: None), Promises(books.store, lambda: "another copy runs")

    def say(unit: int | None, why: str = DISK, promises: Promises = alone, key: str | None = "k", **more: Any) -> Any:
        error = promises.broken(Promise(WALLET_SEND, key, "the transfer", unit, **more), why)
        return error.name, error.retryable, error.idempotency_key

    assert say(None) == ("storage_failed", True, None)
    assert say(None, STOPS) == ("node_stopping", True, None)
    assert say(None, "another copy runs", beside_another) == ("stopped_signing", False, None)
    assert say(not_written) == ("storage_failed", True, None)
    assert say(written) == say(0) == ("wait_ended", True, "k")
    assert say(written, key=None) == ("wait_ended", False, None), "asked again it would be done twice"
    assert say(written, others_decide=True) == ("outcome_unknown", True, "k")
    assert say(written, STOPS, beside_another) == ("outcome_unknown", True, "k")
    books.store.close()


async def test_what_may_be_written_is_told_to_be_unknown(tmp_path: Path) -> None:
    books = Books(tmp_path)
    on_its_way = books.store.commit([EventRecord("test.happened", None, {})])
    promises = Promises(books.store, lambda: None)
    error = promises.broken(Promise(CHANNEL_CLOSE, None, "the close", on_its_way), STOPS)
    assert (error.name, error.retryable) == ("outcome_unknown", True)
    assert "channel.get" in error.hint
    books.store.close()


def test_whatever_changes_something_says_what_to_ask() -> None:
    reads = {"node.info", "node.health", "node.stop", "wallet.balance", "peer.list", "channel.list", "channel.get",
             "payment.list", "event.subscribe", "rpc.discover"}  # fmt: skip
    assert {name for name, method in METHODS.items() if not method.ask} == reads
    for name in METHODS.keys() - reads:
        assert {"storage_failed", "outcome_unknown"} <= set(METHODS[name].errors), name


async def test_on_a_store_that_cannot_be_written_nothing_of_any_call_happens(street: Street) -> None:
    alice, bob = street.alice, street.bob
    channel = await street.open(10)
    await bob.stop()
    queued = await soon(alice.control.call(CHANNEL_PAY, schema.PayParams(channel, PaidE8s(7), wait=False)))
    await bob.start()  # at another port: alice does not find it by itself
    vandal = connect(alice.directory / STORE_NAME)
    vandal.execute("DELETE FROM event WHERE cursor = 1")
    vandal.close()
    opening = street.params(5)
    calls: list[tuple[Method[Any, Any], schema.Params]] = [
        (CHANNEL_PAY, schema.PayParams(channel, PaidE8s(1))),
        (CHANNEL_CLOSE, schema.ChannelCloseParams(channel)),
        (CHANNEL_DISPUTE, schema.ChannelDisputeParams(channel, "key")),
        (PAYMENT_CANCEL, schema.PaymentCancelParams(channel, str(queued.payment))),
        (WALLET_SEND, schema.SendParams(THERE.hex(), PaidE8s(ICP))),
        (CHANNEL_OPEN, opening),
        (PEER_CONNECT, schema.PeerConnectParams(bob.address)),
    ]
    for error in await asyncio.gather(*(told(alice.control.call(method, params)) for method, params in calls)):
        assert error.retryable
        if error.name != "peer_unreachable":  # who had to dial first is told that before it comes to a write
            assert error.name in ("storage_failed", "node_stopping")
            assert "nothing of" in error.message
    assert await alice.stop() == 1
    await bob.stop()  # with any status: both are in one loop, where errors of alice's may end him too

    await alice.start()
    assert (await alice.channel(channel)).phase == "open"
    page = await alice.control.call(PAYMENT_LIST, schema.PaymentListParams(channel))
    assert [(p.payment, p.status) for p in page.payments] == [(queued.payment, "queued")]
    assert street.net.ledger.balance(THERE) == 0
    assert list(await names(street)) == [channel]


async def names(street: Street) -> list[str]:
    page = await street.alice.control.call("channel.list", {})
    return [view["channel"] for view in page["channels"]]


async def test_an_opening_goes_on_after_a_stop_and_the_key_that_was_told_finds_it(street: Street) -> None:
    alice = street.alice
    held = street.net.disturb("transfer", Fault.HELD)
    order = schema.ChannelOpenParams(street.bob.address, E8s(10 * ICP), E8s(0), Seconds(600))
    waiting = asyncio.ensure_future(told(alice.control.call(CHANNEL_OPEN, order)))
    await soon(held.wait())
    assert await alice.stop() == 0
    error = await waiting
    assert error.name == "wait_ended"
    assert error.idempotency_key is not None

    street.net.calm()
    await alice.start()
    again = msgspec.structs.replace(order, idempotency_key=error.idempotency_key)
    opened = await insisting(lambda: alice.control.call(CHANNEL_OPEN, again))
    assert opened.phase == "open"
    assert await names(street) == [opened.channel], "one channel"
