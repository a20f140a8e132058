"""The node behind its control socket: what each method does, and each error that it documents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from chain.errors import NotInTime
from chain.principal import account_identifier
from perund.config import Policy
from perund.control import schema
from perund.control.client import ControlClient
from perund.control.errors import NodeUnreachable, RpcError
from perund.control.methods import (
    CHANNEL_CLOSE,
    CHANNEL_DISPUTE,
    CHANNEL_GET,
    CHANNEL_LIST,
    CHANNEL_OPEN,
    CHANNEL_PAY,
    CHANNEL_WITHDRAW,
    NODE_HEALTH,
    NODE_INFO,
    PAYMENT_CANCEL,
    PAYMENT_LIST,
    PEER_CONNECT,
    PEER_LIST,
    WALLET_BALANCE,
    WALLET_SEND,
)
from perund.control.values import E8s, PaidColumn, PaidE8s, Seconds
from perund.node.chain_time import ChainTime
from perund.node.daemon import STORE_NAME
from perund.store.reading import open_reader
from perund.store.store import connect
from tests.unit.node.net import FEE, ICP, Fault, Net
from tests.unit.node.street import Street, insisting, refused, soon
from watcher.watch import Watcher
from wire.address import Address

NOTHING = schema.NoParams()


@pytest.fixture
async def street(net: Net) -> AsyncIterator[Street]:
    async with Street.inhabited(net) as inhabited:
        yield inhabited


def pay(channel: str, amount: int = 1, **more: object) -> schema.PayParams:
    return schema.PayParams(channel=channel, amount_e8s=PaidE8s(amount), **more)  # type: ignore[arg-type]


async def statuses(control: ControlClient, channel: str) -> list[str]:
    page = await control.call(PAYMENT_LIST, schema.PaymentListParams(channel=channel))
    return [p.status for p in page.payments]


async def test_who_a_node_is_and_what_its_wallet_has(street: Street) -> None:
    alice = street.alice.control
    info = await alice.call(NODE_INFO, NOTHING)
    assert info.node_id == street.alice.keys.node_id
    assert (info.network, info.channels, info.peers) == ("local", {}, 0)
    assert info.chain_time_ns is not None
    health = await alice.call(NODE_HEALTH, NOTHING)
    assert (health.ok, health.problems) == (True, [])
    balance = await alice.call(WALLET_BALANCE, NOTHING)
    assert (balance.balance_e8s, balance.fee_e8s, balance.account) == (100 * ICP, FEE, info.account)


async def test_peers(street: Street) -> None:
    alice, bob = street.alice, street.bob
    connected = await soon(alice.control.call(PEER_CONNECT, schema.PeerConnectParams(bob.address)))
    assert connected.node_id == bob.info.node_id
    again = await soon(alice.control.call(PEER_CONNECT, schema.PeerConnectParams(bob.address)))
    assert again.node_id == bob.info.node_id
    peers = (await alice.control.call(PEER_LIST, NOTHING)).peers
    assert [(p.node_id, p.connected, p.channels) for p in peers] == [(bob.info.node_id, True, 0)]

    me = f"{alice.info.node_id}@{alice.info.listen}"
    nobody = f"{bob.info.node_id[:-2]}aa@{bob.info.listen}"
    dead_end = f"{'02' + '79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'}@127.0.0.1:1"
    assert await refused(alice.control.call(PEER_CONNECT, schema.PeerConnectParams(me))) == "peer_is_self"
    for wrong in (nobody, dead_end):
        assert await refused(alice.control.call(PEER_CONNECT, schema.PeerConnectParams(wrong))) == "peer_unreachable"


async def test_an_address_that_the_peer_did_not_prove_replaces_nothing(street: Street) -> None:
    """While it is connected, too: what is stored is where it is dialed after the next restart."""
    alice, bob = street.alice, street.bob
    nobody = f"{bob.info.node_id}@127.0.0.1:1"
    myself = f"{bob.info.node_id}@{alice.info.listen}"
    reader = open_reader(alice.directory / STORE_NAME)

    def stored() -> dict[bytes, Address]:
        return {peer: row.address for peer, rows in reader.addresses().items() for row in rows if row.given}

    here = {bytes.fromhex(bob.info.node_id): Address.of(bob.info.listen or "")}

    await soon(bob.control.call(PEER_CONNECT, schema.PeerConnectParams(f"{alice.info.node_id}@{alice.info.listen}")))
    for unproven in (nobody, myself):
        assert await refused(alice.control.call(PEER_CONNECT, schema.PeerConnectParams(unproven))) == "peer_unreachable"
        assert stored() == {}, "bob dialed: the session says nothing about an address"
    await soon(alice.control.call(PEER_CONNECT, schema.PeerConnectParams(bob.address)))
    assert stored() == here
    for unproven in (nobody, myself):
        assert await refused(alice.control.call(PEER_CONNECT, schema.PeerConnectParams(unproven))) == "peer_unreachable"
        await street.open(5, peer=unproven)  # the session that there is will do; its address is not kept
        assert stored() == here
    (peer,) = (await alice.control.call(PEER_LIST, NOTHING)).peers
    assert (peer.connected, peer.channels) == (True, 2), "the session was not touched"

    await alice.stop()
    await alice.start()
    async with asyncio.timeout(10):
        while not (await alice.control.call(PEER_LIST, NOTHING)).peers[0].connected:  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "place", ["127.0.0.1:99999", "127.0.0.1:0", "::1:9735", "a b:1", "[::1:1", "-x:1", "x" * 256 + ":1"]
)
async def test_what_is_no_address_is_refused_before_anything_else(street: Street, place: str) -> None:
    call = street.alice.control.call
    for method, params in (
        ("peer.connect", {"peer": f"{street.bob.info.node_id}@{place}"}),
        (
            "channel.open",
            {"peer": f"{street.bob.info.node_id}@{place}", "mine_e8s": "1", "theirs_e8s": "0", "challenge_s": 600},
        ),
    ):
        assert await refused(call(method, params)) == "invalid_params"
    assert open_reader(street.alice.directory / STORE_NAME).addresses() == {}


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("event.subscribe", {"after": 2**63}),
        ("event.subscribe", {"after": 10**30}),
        ("channel.list", {"after": "9" * 30}),
        ("payment.list", {"after": f"1.{'9' * 30}.00"}),
        ("payment.list", {"after": f"{'9' * 30}.0.00"}),
    ],
)
async def test_a_place_that_no_store_counts_to_is_refused(
    street: Street, method: str, params: dict[str, object]
) -> None:
    assert await refused(street.alice.control.call(method, params)) == "invalid_params"


async def test_what_keeps_a_channel_from_being_opened(net: Net) -> None:
    policy = Policy(min_challenge_s=1, max_total_e8s=20 * ICP)
    async with Street.inhabited(net, policy) as street:
        call = street.alice.control.call
        cases = [
            (street.params(peer="02" + "ab" * 32), "peer_not_connected"),
            (street.params(challenge_s=Seconds(8 * 86_400)), "bad_duration"),
            (street.params(funding_timeout_s=Seconds(12 * 3_600)), "bad_duration"),
            (street.params(mine_e8s=E8s(2**63 - 1), theirs_e8s=E8s(1)), "bad_amount"),
            (street.params(100), "insufficient_funds"),  # the fee comes on top
            (street.params(21), "policy_refused"),
            (street.params(10, 1), "policy_refused"),
        ]
        for params, expected in cases:
            assert await refused(call(CHANNEL_OPEN, params)) == expected, params
        listed = await call(CHANNEL_LIST, schema.ChannelListParams())
        assert listed.channels == []
        assert (await call(WALLET_BALANCE, NOTHING)).balance_e8s == 100 * ICP

        # The same key again is the same refusal, at once and after a restart; it is not waited for.
        params = street.params(21, idempotency_key="key")
        assert await refused(call(CHANNEL_OPEN, params)) == "policy_refused"
        assert await refused(call(CHANNEL_OPEN, params)) == "policy_refused"
        assert await refused(call(CHANNEL_OPEN, street.params(22, idempotency_key="key"))) == "idempotency_conflict"
        await street.alice.stop()
        await street.alice.start()
        assert await refused(street.alice.control.call(CHANNEL_OPEN, params)) == "policy_refused"


async def test_a_channel_is_opened_found_and_listed(street: Street) -> None:
    alice, bob = street.alice.control, street.bob.control
    params = street.params(10, 5, idempotency_key="open")
    opened = await soon(alice.call(CHANNEL_OPEN, params))
    assert (opened.phase, opened.version, opened.index) == ("open", 0, 0)
    assert (opened.mine_e8s, opened.theirs_e8s, opened.total_e8s) == (10 * ICP, 5 * ICP, 15 * ICP)
    assert opened.sendable_e8s == 10 * ICP
    assert [(c.what, c.e8s) for c in opened.costs] == [("deposit fee", FEE)]
    again = await soon(alice.call(CHANNEL_OPEN, params))
    assert again.channel == opened.channel
    assert (await alice.call(WALLET_BALANCE, NOTHING)).balance_e8s == 90 * ICP - FEE

    whole = opened.channel
    for digits in (8, 9, 63, 127, 128):
        assert (await street.alice.channel(whole[:digits])).channel == whole
        assert (await street.bob.channel(whole[:digits])).index == 1
    assert await refused(alice.call(CHANNEL_GET, schema.ChannelGetParams("00" * 64))) == "unknown_channel"
    other = await soon(alice.call(CHANNEL_OPEN, street.params(1)))
    first = await alice.call(CHANNEL_LIST, schema.ChannelListParams(limit=1))
    assert [c.channel for c in first.channels] == [whole]
    rest = await alice.call(CHANNEL_LIST, schema.ChannelListParams(after=first.next, limit=1))
    assert ([c.channel for c in rest.channels], rest.next) == ([other.channel], None)
    assert (await bob.call(CHANNEL_LIST, schema.ChannelListParams(phase="closed"))).channels == []
    assert await refused(alice.call(CHANNEL_LIST, schema.ChannelListParams(after="x"))) == "invalid_params"
    assert (await alice.call(NODE_INFO, NOTHING)).channels == {"open": 2}
    health = await alice.call(NODE_HEALTH, NOTHING)
    assert health.ok, health.problems


async def test_a_proposal_goes_to_the_session_that_there_is_when_it_is_made(street: Street) -> None:
    await soon(street.alice.control.call(PEER_CONNECT, schema.PeerConnectParams(street.bob.address)))
    asked = street.net.disturb("account_balance", Fault.REPLY_LATE)
    opening = asyncio.ensure_future(street.open(10))
    await soon(asked.wait())
    await street.bob.stop()
    await street.bob.start()
    await soon(street.bob.control.call(PEER_CONNECT, schema.PeerConnectParams(street.alice.address)))
    street.net.calm()
    await soon(opening)


async def test_payments_and_every_reason_against_one(street: Street) -> None:
    alice, bob = street.alice.control, street.bob.control
    channel = await street.open(10)

    one = await soon(alice.call(CHANNEL_PAY, pay(channel, ICP, memo="rent ü")))
    assert (one.status, one.version) == ("delivered", 1)
    back = await soon(bob.call(CHANNEL_PAY, pay(channel, 5)))
    assert back.status == "delivered"
    many = await soon(alice.call(CHANNEL_PAY, schema.PayParams(channel=channel, amounts_e8s=PaidColumn([1] * 50))))
    assert (many.status, many.payments) == ("delivered", 50)
    listed = [schema.ToPay(PaidE8s(2)), schema.ToPay(PaidE8s(3), "m", "ab" * 16)]
    some = await soon(alice.call(CHANNEL_PAY, schema.PayParams(channel=channel, payments=listed)))
    assert (some.status, some.payments) == ("delivered", 2)
    queued = await soon(alice.call(CHANNEL_PAY, pay(channel, 7, wait=False)))
    assert queued.status in ("queued", "signed", "delivered")

    assert await refused(alice.call(CHANNEL_PAY, pay("00" * 64))) == "unknown_channel"
    assert await refused(alice.call(CHANNEL_PAY, pay(channel, 10 * ICP))) == "insufficient_balance"
    assert await refused(alice.call(CHANNEL_PAY, pay(channel, payment_id="ab" * 16))) == "payment_id_used"
    # A refused call gives its id back, and an id belongs to its channel.
    given = "cd" * 16
    assert await refused(alice.call(CHANNEL_PAY, pay(channel, 10 * ICP, payment_id=given))) == "insufficient_balance"
    answer = await soon(alice.call(CHANNEL_PAY, pay(channel, 1, payment_id=given)))
    assert (answer.status, answer.payment) == ("delivered", given)
    other = await street.open(1)
    assert (await soon(alice.call(CHANNEL_PAY, pay(other, 1, payment_id=given)))).status == "delivered"

    keyed = pay(channel, 9, idempotency_key="pay")
    first = await soon(alice.call(CHANNEL_PAY, keyed))
    assert await soon(alice.call(CHANNEL_PAY, keyed)) == first
    assert await refused(alice.call(CHANNEL_PAY, pay(channel, 8, idempotency_key="pay"))) == "idempotency_conflict"

    pages: list[schema.Payment] = []
    after: str | None = None
    while True:
        page = await alice.call(PAYMENT_LIST, schema.PaymentListParams(channel=channel, after=after, limit=20))
        pages += page.payments
        after = page.next
        if after is None:
            break
    assert len(pages) == len({(p.direction, p.payment) for p in pages}) == 1 + 1 + 50 + 2 + 1 + 1 + 1
    assert sum(p.amount_e8s for p in pages if p.direction == "sent") == ICP + 50 + 5 + 7 + 1 + 9
    assert [p.memo for p in pages if p.payment == one.payment] == ["rent ü"]
    everywhere = await alice.call(PAYMENT_LIST, schema.PaymentListParams(limit=1000))
    assert len(everywhere.payments) == len(pages) + 1
    for wrong in ("x", "1.0", "1.0.zz", "1.2.3.4"):
        assert await refused(alice.call(PAYMENT_LIST, schema.PaymentListParams(after=wrong))) == "invalid_params"
    view = await street.bob.channel(channel)
    assert view.mine_e8s == sum(p.amount_e8s for p in pages if p.direction == "sent") - 5


async def test_a_payment_to_a_peer_that_is_away(street: Street) -> None:
    alice = street.alice.control
    channel = await street.open(10)
    await street.bob.stop()
    queued = await soon(alice.call(CHANNEL_PAY, pay(channel, 5, wait=False)))
    kept = await soon(alice.call(CHANNEL_PAY, pay(channel, 6, wait=False, idempotency_key="kept")))
    assert (queued.status, kept.status) == ("queued", "queued")
    assert queued.payment is not None
    view = await street.alice.channel(channel)
    assert (view.queued.count, view.queued.e8s, view.sendable_e8s) == (2, 11, 10 * ICP - 11)

    cancelled = await soon(alice.call(PAYMENT_CANCEL, schema.PaymentCancelParams(channel, queued.payment)))
    assert cancelled.status == "cancelled"
    for payment in (queued.payment, "ee" * 16):
        again = alice.call(PAYMENT_CANCEL, schema.PaymentCancelParams(channel, payment))
        assert await refused(again) in ("payment_not_queued", "unknown_payment")
    assert await refused(alice.call(CHANNEL_PAY, pay(channel, payment_id=queued.payment))) == "payment_id_used"

    await street.alice.stop()
    await street.bob.start()
    await street.alice.start()
    await soon(street.alice.control.call(PEER_CONNECT, schema.PeerConnectParams(street.bob.address)))
    done = await soon(street.alice.control.call(CHANNEL_PAY, pay(channel, 6, idempotency_key="kept")))
    assert (done.status, done.payment) == ("delivered", kept.payment)
    assert sorted(await statuses(street.alice.control, channel)) == ["cancelled", "delivered"]
    assert (await street.bob.channel(channel)).mine_e8s == 6


async def test_a_list_asked_for_again_is_answered_by_what_became_of_all_of_it(street: Street) -> None:
    channel = await street.open(10)
    await street.bob.stop()
    listed = [schema.ToPay(PaidE8s(2)), schema.ToPay(PaidE8s(3), None, "ab" * 16), schema.ToPay(PaidE8s(4))]
    given_first = [schema.ToPay(PaidE8s(5), None, "cd" * 16), schema.ToPay(PaidE8s(6))]
    cut = schema.PayParams(channel, idempotency_key="cut", wait=False, payments=listed)
    whole = schema.PayParams(channel, idempotency_key="whole", wait=False, payments=given_first)
    long = schema.PayParams(channel, idempotency_key="long", wait=False, amounts_e8s=PaidColumn([1] * 6_000))
    one = schema.PayParams(channel, idempotency_key="one", wait=False, amounts_e8s=PaidColumn([1]))
    calls = (cut, whole, long, one)
    alice = street.alice.control
    queued = [await soon(alice.call(CHANNEL_PAY, params)) for params in calls]
    assert [await soon(alice.call(CHANNEL_PAY, params)) for params in calls] == queued
    assert queued[1].first_payment == "cd" * 16
    await soon(alice.call(PAYMENT_CANCEL, schema.PaymentCancelParams(channel, "ab" * 16)))

    await street.alice.stop()
    await street.bob.start()
    await street.alice.start()
    alice = street.alice.control
    await soon(alice.call(PEER_CONNECT, schema.PeerConnectParams(street.bob.address)))
    # Longer than an update: it is not delivered when its first payment is.
    told = await soon(alice.call(CHANNEL_PAY, msgspec.structs.replace(long, wait=True)))
    assert (told.status, told.payments, told.first_payment) == ("delivered", 6_000, queued[2].first_payment)
    assert told.version == (await street.alice.channel(channel)).version
    assert (await street.bob.channel(channel)).mine_e8s == 2 + 4 + 5 + 6 + 6_000 + 1
    for params, first in ((whole, queued[1]), (one, queued[3])):
        again = await soon(alice.call(CHANNEL_PAY, msgspec.structs.replace(params, wait=True)))
        assert (again.status, again.payments) == ("delivered", first.payments)
        assert again.first_payment == first.first_payment
    with pytest.raises(RpcError, match="1 of 3 payments were not delivered: cancelled") as refusal:
        await soon(alice.call(CHANNEL_PAY, msgspec.structs.replace(cut, wait=True)))
    assert refusal.value.name == "payment_failed"


async def test_a_channel_is_closed_together(street: Street) -> None:
    alice, bob = street.alice.control, street.bob.control
    channel = await street.open(10)
    paid = pay(channel, 4 * ICP, idempotency_key="pay")
    first = await soon(alice.call(CHANNEL_PAY, paid))
    close = schema.ChannelCloseParams(channel, idempotency_key="close")
    closed = await soon(bob.call(CHANNEL_CLOSE, close))
    assert (closed.phase, closed.payout_e8s) == ("closed", 4 * ICP - FEE)
    assert closed.registered is not None
    assert (closed.registered.finalized, closed.registered.ours) == (True, True)
    await soon(alice.call(CHANNEL_WITHDRAW, schema.ChannelWithdrawParams(channel)))
    assert (await alice.call(WALLET_BALANCE, NOTHING)).balance_e8s == 96 * ICP - 2 * FEE

    assert (await soon(bob.call(CHANNEL_CLOSE, close))).phase == "closed"
    assert await refused(bob.call(CHANNEL_CLOSE, schema.ChannelCloseParams(channel))) == "channel_closed"
    assert await refused(bob.call(CHANNEL_DISPUTE, schema.ChannelDisputeParams(channel))) == "channel_closed"
    assert await refused(alice.call(CHANNEL_PAY, pay(channel))) == "channel_closed"
    # Who lost the answer to a payment asks again under its key, however late.
    assert await soon(alice.call(CHANNEL_PAY, paid)) == first
    assert (await alice.call(NODE_INFO, NOTHING)).channels == {"closed": 1}


async def test_a_channel_is_left_alone(street: Street) -> None:
    alice = street.alice.control
    channel = await street.open(10)
    await soon(alice.call(CHANNEL_PAY, pay(channel, ICP)))
    withdraw = schema.ChannelWithdrawParams(channel)
    assert await refused(alice.call(CHANNEL_WITHDRAW, withdraw)) == "not_settled"
    dispute = schema.ChannelDisputeParams(channel, "key")
    assert (await soon(alice.call(CHANNEL_DISPUTE, dispute))).phase == "leaving"
    assert (await soon(alice.call(CHANNEL_DISPUTE, dispute))).phase == "leaving"
    assert await refused(alice.call(CHANNEL_WITHDRAW, withdraw)) == "not_settled"
    assert await refused(alice.call(CHANNEL_PAY, pay(channel))) == "channel_not_open"
    assert await refused(alice.call(CHANNEL_CLOSE, schema.ChannelCloseParams(channel))) == "channel_not_open"
    async for event in alice.events(after=0, kinds=["channel.updated"]):
        assert event.data["channel"] == channel
        break
    while (await street.alice.channel(channel)).registered is None:
        assert await refused(alice.call(CHANNEL_WITHDRAW, withdraw)) == "not_settled"  # each asks for a look
    street.net.advance(601)
    out = await insisting(lambda: alice.call(CHANNEL_WITHDRAW, withdraw))
    assert (out.phase, out.payout_e8s) == ("closed", 9 * ICP - FEE)
    assert (await insisting(lambda: alice.call(WALLET_BALANCE, NOTHING))).balance_e8s == 99 * ICP - 2 * FEE


async def test_sending_from_the_wallet(street: Street) -> None:
    alice, net = street.alice.control, street.net
    there = account_identifier(b"\x09")
    params = schema.SendParams(there.hex(), PaidE8s(ICP), "key")
    net.disturb("transfer", Fault.REPLY_LOST)
    sent = await soon(alice.call(WALLET_SEND, params))
    assert await soon(alice.call(WALLET_SEND, params)) == sent
    assert net.ledger.balance(there) == ICP
    to_bob = schema.SendParams(street.bob.info.principal, PaidE8s(5))
    await soon(alice.call(WALLET_SEND, to_bob))
    await soon(alice.call(WALLET_SEND, to_bob))  # without a key each call is a transfer
    assert net.ledger.balance(bytes.fromhex(street.bob.info.account)) == 100 * ICP + 10

    for wrong in ("00" * 32, "aaaaa-ab", "zzzzzzzz"):
        assert await refused(alice.call(WALLET_SEND, schema.SendParams(wrong, PaidE8s(1)))) == "bad_account"
    assert await refused(alice.call(WALLET_SEND, schema.SendParams(there.hex(), PaidE8s(99 * ICP)))) == "insufficient_funds"  # noqa: E501  # fmt: skip
    conflict = schema.SendParams(there.hex(), PaidE8s(2), "key")
    assert await refused(alice.call(WALLET_SEND, conflict)) == "idempotency_conflict"


async def test_events_from_a_cursor_on(street: Street) -> None:
    alice = street.alice.control
    channel = await street.open(2)
    await soon(alice.call(CHANNEL_PAY, pay(channel, 1)))
    seen: list[schema.Event] = []
    async for event in alice.events(after=0):
        seen.append(event)
        if event.event == "channel.updated":
            break
    kinds = [e.event for e in seen]
    assert kinds == ["channel.signed", "channel.depositing", "channel.deposited", "channel.open", "channel.updated"]
    assert [e.cursor for e in seen] == sorted(e.cursor for e in seen)
    assert seen[-1].data["mine_e8s"] == str(2 * ICP - 1)
    async for event in alice.events(after=seen[2].cursor, kinds=["channel.updated", "channel.open"]):
        assert event == seen[3]
        break


async def test_a_node_that_cannot_write_ends_and_says_so(street: Street) -> None:
    """Rule 8: it signs nothing more and exits non-zero. After a restart it believes what the store says."""
    alice = street.alice
    channel = await street.open(10)
    await soon(alice.control.call(CHANNEL_PAY, pay(channel, 1)))
    vandal = connect(alice.directory / STORE_NAME)
    vandal.execute("ALTER TABLE outstanding RENAME TO gone")
    calls = [
        pay(channel, 2),
        pay(channel, 2, wait=False),
        pay(channel, 2, idempotency_key="waits"),
        pay(channel, 2, idempotency_key="does not", wait=False),
    ]
    ends = await soon(asyncio.gather(*(alice.control.call(CHANNEL_PAY, c) for c in calls), return_exceptions=True))
    for end in ends:
        assert isinstance(end, RpcError)
        assert (end.name, end.retryable) == ("storage_failed", True)
        assert "nothing of" in end.message
    assert await alice.stop() == 1
    vandal.execute("ALTER TABLE gone RENAME TO outstanding")
    vandal.close()
    await alice.start()
    assert (await alice.channel(channel)).version == 1
    assert (await street.bob.channel(channel)).version == 1
    assert await statuses(alice.control, channel) == ["delivered"], "nothing happened, as was said"
    await soon(alice.control.call(PEER_CONNECT, schema.PeerConnectParams(street.bob.address)))
    await soon(asyncio.gather(*(alice.control.call(CHANNEL_PAY, call) for call in calls)))  # the same again
    await soon(alice.control.call(CHANNEL_PAY, pay(channel, 3)))
    assert await statuses(alice.control, channel) == ["delivered"] * 6


async def test_a_node_whose_watcher_ends_does_not_go_on_unwatched(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble = asyncio.Event()

    async def run(watcher: Watcher) -> None:
        await trouble.wait()
        raise RuntimeError("a defect")

    await street.alice.stop()
    monkeypatch.setattr(Watcher, "run", run)
    await street.alice.start()
    trouble.set()
    assert await street.alice.end() == 1


async def test_a_call_that_waits_is_answered_when_the_node_stops(street: Street) -> None:
    alice = street.alice
    channel = await street.open(10)
    await street.bob.stop()
    keyed = pay(channel, 2, idempotency_key="key", wait=False)
    assert (await soon(alice.control.call(CHANNEL_PAY, keyed))).status == "queued"
    waiting = [
        asyncio.ensure_future(refused(call))
        for call in (
            alice.control.call(CHANNEL_PAY, pay(channel)),
            alice.control.call(CHANNEL_PAY, pay(channel, 2, idempotency_key="key")),
            alice.control.call(CHANNEL_CLOSE, schema.ChannelCloseParams(channel)),
        )
    ]
    async for _ in alice.control.events(after=0, kinds=["channel.closing"]):
        break
    started = asyncio.get_running_loop().time()
    assert await alice.stop() == 0
    assert asyncio.get_running_loop().time() - started < 4  # it does not wait for those who wait
    assert await soon(asyncio.gather(*waiting)) == ["wait_ended"] * 3


async def test_a_transfer_that_the_ledger_has_not_answered_when_the_node_stops_is_told_with_its_key(
    street: Street,
) -> None:
    """Without a key of the caller, too: it is the one by which it can ask."""
    alice, there = street.alice, account_identifier(b"\x09")
    held = street.net.disturb("transfer", Fault.REPLY_HELD)
    order = schema.SendParams(there.hex(), PaidE8s(ICP))
    waiting = asyncio.ensure_future(alice.control.call(WALLET_SEND, order))
    await soon(held.wait())
    assert await alice.stop() == 0
    with pytest.raises(RpcError) as told:
        await soon(waiting)
    assert (told.value.name, told.value.retryable) == ("outcome_unknown", True)
    key = told.value.idempotency_key
    assert key is not None
    assert key in told.value.hint

    await alice.start()
    again = msgspec.structs.replace(order, idempotency_key=key)
    sent = await insisting(lambda: alice.control.call(WALLET_SEND, again))
    assert await soon(alice.control.call(WALLET_SEND, again)) == sent
    assert street.net.ledger.balance(there) == ICP, "once"


async def test_a_transfer_that_is_durable_is_made_also_when_the_network_cannot_be_asked_at_that_moment(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told to be `chain_unreachable`, as if nothing had happened, and was made at the next start."""
    alice, there, ensure = street.alice.control, account_identifier(b"\x09"), ChainTime.ensure

    async def cannot(_: ChainTime) -> None:
        monkeypatch.setattr(ChainTime, "ensure", ensure)
        await asyncio.sleep(0)
        raise NotInTime(7)

    monkeypatch.setattr(ChainTime, "ensure", cannot)
    with pytest.raises(RpcError, match="no certified answer") as told:
        await soon(alice.call(WALLET_SEND, schema.SendParams(there.hex(), PaidE8s(ICP))))
    assert told.value.name == "outcome_unknown"
    again = schema.SendParams(there.hex(), PaidE8s(ICP), told.value.idempotency_key)
    await insisting(lambda: alice.call(WALLET_SEND, again))
    assert street.net.ledger.balance(there) == ICP


async def test_who_loses_the_node_while_it_waits_is_told_what_to_ask(street: Street) -> None:
    alice = street.alice
    channel = await street.open(10)
    await street.bob.stop()
    calls = {
        "payment.list": alice.control.call(CHANNEL_PAY, pay(channel)),
        "'tea'": alice.control.call(CHANNEL_PAY, pay(channel, idempotency_key="tea")),
        "channel.get": alice.control.call(CHANNEL_CLOSE, schema.ChannelCloseParams(channel)),
        "its log": alice.control.call("event.subscribe", {"after": 10**15}),
    }
    waiting = {ask: asyncio.ensure_future(call) for ask, call in calls.items()}
    async for _ in alice.control.events(after=0, kinds=["channel.closing"]):
        break
    await waiting.pop("its log")
    alice.control.connection_lost(None)  # what a client sees of a node that was killed
    for ask, call in waiting.items():
        with pytest.raises(NodeUnreachable, match="is not known") as told:
            await soon(call)
        assert told.value.sent
        assert ask in told.value.hint
    with pytest.raises(NodeUnreachable) as refusal:
        await alice.control.call(CHANNEL_PAY, pay(channel))
    assert not refusal.value.sent, "this one never left"
    await alice.control.close()
    alice.control = await ControlClient.connect(alice.directory)
    assert await alice.stop() == 0


async def test_money_does_not_go_where_it_is_lost_without_a_word_to_that(street: Street) -> None:
    alice, info, net = street.alice.control, street.alice.info, street.net
    lost = (info.account, info.principal, info.perun_canister, info.icp_ledger, "2vxsx-fae")
    for to in lost:
        order = schema.SendParams(to, PaidE8s(ICP), f"to {to}")
        with pytest.raises(RpcError, match=r"account|wallet") as refusal:
            await soon(alice.call(WALLET_SEND, order))
        assert refusal.value.name == "loses_money"
    assert net.ledger.balance(bytes.fromhex(info.account)) == 100 * ICP
    for to in lost:
        order = schema.SendParams(to, PaidE8s(ICP), f"to {to}", accept_loss=True)
        await soon(alice.call(WALLET_SEND, order))
    assert net.ledger.balance(bytes.fromhex(info.account)) == 97 * ICP - 5 * FEE
