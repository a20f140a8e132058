"""The node behind the control interface: implements `perund.control.api.NodeApi`."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import nullcontext, suppress

import msgspec
import structlog

from chain.errors import ChainError
from perund.control import schema
from perund.control.api import EventFeed, PayReply
from perund.control.errors import RpcError
from perund.control.methods import (
    CHANNEL_CLOSE,
    CHANNEL_DISPUTE,
    CHANNEL_OPEN,
    CHANNEL_RECOVER,
    CHANNEL_WITHDRAW,
    PAYMENT_CANCEL,
    PEER_CONNECT,
)
from perund.control.values import E8s
from perund.log_sink import lines_lost
from perund.node.about import about
from perund.node.addresses import announced_by
from perund.node.driver import ChannelDriver
from perund.node.health import health_of
from perund.node.idempotency import Idempotency, keyed
from perund.node.lives import STOPPED_SIGNING
from perund.node.node import Node
from perund.node.openings import Refusal
from perund.node.patience import answered, ended_within
from perund.node.paying import Paying
from perund.node.promises import Promise, Promises, WaitEnded
from perund.node.recovering import recovery_view
from perund.node.sending import Sending, chain_mistake
from perund.node.transfers import FeeTooHigh
from perund.node.views import address_view, channel_view, event_view, moment, payment_view
from perund.node.waits import closing_wait, opening_wait, wait_of
from perund.store.errors import StorageFailed
from perund.store.jobs import set_force_after
from perund.store.reading import UPDATED
from perund.store.rows import EventRow
from protocol.effects import NOTHING, Phase
from protocol.errors import CallerMistake
from protocol.opening import MAX_FUNDING_DEADLINE_NS, Dead
from protocol.types import MAX_CHALLENGE_NS, MAX_INT64, MIN_CHALLENGE_NS, ChannelId, Nanos
from wire.address import NodeAddress
from wire.errors import DialFailed, OtherNetwork
from wire.session import Session

__all__ = ["NodeService"]

log = structlog.get_logger()

NS = 1_000_000_000
DEFAULT_FUNDING_S = 3_600
EVENTS_PER_READ = 500
EVENTS_PER_LOOK = 2_000
"""Events that are looked through in one turn of the loop for those of a kind."""
MOST_KINDS = 64
"""Kinds in one subscription: each costs a look of its own."""
LAST_WRITE_S = 2.0
"""How long a stop waits for the end of the writes that were asked for: less than one of its steps."""
VIEWS_PER_TURN = 20
"""Channels that are shown in one turn of the loop: each costs ten reads."""


class NodeService:
    """Answers the calls of local clients."""

    def __init__(self, node: Node, stop: Callable[[], None], version: str) -> None:
        self._node = node
        self._services = node.services
        self._stop = stop
        self._version = version
        self._keys = Idempotency(node.services.store)
        self._promises = Promises(node.services.store, node.lives.reason_not_to_sign)
        self._paying = Paying(node, self._find, self._keys, self._promises)
        self._sending = Sending(node, self._keys, self._promises)
        self._wake: dict[asyncio.Event, frozenset[str] | None] = {}
        node.services.store.listen(self._tell_subscribers)

    # --- node --------------------------------------------------------------------------------------------

    async def node_info(self, params: schema.NoParams) -> schema.NodeInfo:
        """Tell who this node is and how it is."""
        del params
        services, certified = self._services, self._services.agent.chain_time_is_certified
        age = services.watcher.oldest_look_age_ns()
        return msgspec.structs.replace(
            about(services.data_dir, services.config, services.keys, self._version),
            state="running",
            listen=services.listening,
            announces=[str(place) for place in announced_by(services.config, services.listening)],
            chain_time_ns=str(services.time.chain_ns()) if certified else None,
            chain_time=moment(services.time.chain_ns()) if certified else None,
            clock_skew_ms=((time.time_ns() - services.time.chain_ns()) // 1_000_000 if certified else None),
            last_certified_s=round(age_ns / NS, 3)
            if (age_ns := services.agent.certified_age_ns()) is not None
            else None,
            last_look_age_s=round(age / NS, 3) if age is not None else None,
            channels=services.store.read.phase_counts(),
            peers=len(services.network.sessions()),
            log_lines_lost=lines_lost(),
        )

    async def node_health(self, params: schema.NoParams) -> schema.Health:
        """Tell whether the money is safe right now."""
        del params
        backup = self._services.backup
        if await asyncio.to_thread(backup.touched):
            await asyncio.to_thread(backup.check)
        return await health_of(self._node)

    async def node_stop(self, params: schema.NoParams) -> schema.Stopping:
        """Stop."""
        del params
        asyncio.get_running_loop().call_soon(self._stop)
        return schema.Stopping(stopping=True)

    # --- wallet ------------------------------------------------------------------------------------------

    async def wallet_balance(self, params: schema.NoParams) -> schema.WalletBalance:
        """Read the wallet's balance, certified."""
        del params
        node = self._node
        try:
            async with answered():
                balance = await node.refresh_balance()
                fee = (await self._services.ledger.fee()).value
        except ChainError as error:
            known = f"; it was {node.balance_e8s} e8s at {moment(node.balance_at_ns)}" if node.balance_at_ns else ""
            raise chain_mistake(error, f"the balance is not known now: {error}{known}") from error
        return schema.WalletBalance(
            account=self._services.wallet_account.hex(),
            principal=self._services.wallet_principal_text,
            balance_e8s=E8s(balance),
            fee_e8s=E8s(fee),
        )

    async def wallet_send(self, params: schema.SendParams) -> schema.SendResult:
        """Send ICP. Under one idempotency key it happens once."""
        return await self._sending.send(params)

    # --- peers -------------------------------------------------------------------------------------------

    async def peer_connect(self, params: schema.PeerConnectParams) -> schema.PeerAddress:
        """Connect to a peer, and remember where it is: an address that it did not prove replaces nothing."""
        what = f"keeping the address {params.peer}"
        with self._promises.of(PEER_CONNECT, None, what, then="is done") as promise:
            session, unproven = await self._session(params.peer, promise)
        if unproven is not None:
            raise CallerMistake(
                "peer_unreachable",
                f"{unproven}; the connection with that peer at {session.address} goes on, and nothing was changed",
            ) from unproven
        return schema.PeerAddress(node_id=session.peer.hex(), address=session.address)

    async def peer_list(self, params: schema.NoParams) -> schema.PeerList:
        """List every peer that is connected or has a channel."""
        del params
        sessions = {session.peer: session for session in self._services.network.sessions()}
        peers = []
        for peer in sorted({*sessions, *self._node.by_peer}):
            session = sessions.get(peer)
            known = self._node.addresses.of(peer)
            peers.append(
                schema.Peer(
                    node_id=peer.hex(),
                    address=session.address if session else (str(known[0].address) if known else None),
                    connected=session is not None,
                    away_since=moment(away) if (away := self._node.away_since(peer)) is not None else None,
                    agent=session.hello.agent if session else None,
                    channels=len(self._node.by_peer.get(peer, ())),
                    addresses=[address_view(row) for row in known],
                )
            )
        return schema.PeerList(peers=peers)

    async def _session(self, address: str, promise: Promise | None = None) -> tuple[Session, DialFailed | None]:
        """Return the session with a peer, NODEID or NODEID@host:port, and keep the address if it proved to be there.

        With a session that exists, the second is why it did not prove that: the address is not kept then. `promise`:
        of a call that is about the address.
        """
        node_id, _, place = address.partition("@")
        peer = bytes.fromhex(node_id)
        if peer == self._services.network.node_id:
            raise CallerMistake("peer_is_self", "that is this node's own id")
        session = self._services.network.session(peer)
        if not place:
            if session is None:
                raise CallerMistake("peer_not_connected", f"there is no connection with {node_id}")
            return session, None
        where = NodeAddress.of(address).place
        try:
            if session is None:
                session = await self._services.network.dial(peer, where.host, where.port)
        except OtherNetwork as error:
            raise CallerMistake("wrong_network", str(error)) from error
        except DialFailed as error:
            raise CallerMistake("peer_unreachable", str(error)) from error
        if self._node.addresses.is_where_given(peer, where):
            self._node.addresses.dial(peer)
            return session, None
        try:
            await self._services.network.prove(peer, where)  # the peer may have dialed us meanwhile
        except DialFailed as error:
            log.warning("peer.address_not_proven", peer=node_id, address=str(where), reason=str(error))
            return session, error
        with self._promises.asking(promise) if promise is not None else nullcontext():
            self._node.addresses.given(peer, where)
        await self._services.store.write(())  # what the answer says is kept when it is read
        return session, None

    # --- channels ----------------------------------------------------------------------------------------

    async def channel_open(self, params: schema.ChannelOpenParams) -> schema.Channel:
        """Open a channel."""
        params = keyed(params)
        what = f"the opening of a channel with {params.peer}"
        with self._promises.of(CHANNEL_OPEN, params.idempotency_key, what) as promise:
            return await self._opened(params, promise)

    async def _opened(self, params: schema.ChannelOpenParams, promise: Promise) -> schema.Channel:
        async with self._keys.once(params.idempotency_key, CHANNEL_OPEN.name, params) as earlier:
            if earlier is not None:
                promise.unit, proposal_id = 0, bytes.fromhex(earlier)
            else:
                proposal_id = await self._propose(params, promise)
        async with ended_within(params.timeout_s, lambda: opening_wait(self._node, proposal_id)):
            return await self._come_to(proposal_id, wait=params.wait)

    async def _come_to(self, proposal_id: bytes, *, wait: bool) -> schema.Channel:
        number = self._services.store.read.channel_of_proposal(proposal_id)
        if number is None:
            end = await self._opening_end(proposal_id)
            if isinstance(end, Refusal):
                raise CallerMistake(
                    "policy_refused" if end.code != "expired" else "opening_failed",
                    f"the peer refused the channel: {end.text} ({end.code})"
                    if end.code != "expired"
                    else f"the channel was not opened: {end.text}",
                )
            number = end.number
        row = self._services.store.read.channel(number)
        assert row is not None
        driver = self._node.drivers.get(row.terms.channel)
        if wait and driver is not None:
            await driver.until(lambda: driver.channel.phase is not Phase.FUNDING)
            if driver.channel.phase in (Phase.LEAVING, Phase.CLOSED) and driver.channel.version == 0:
                reason = self._services.store.read.channel(number)
                raise CallerMistake(
                    "opening_failed",
                    f"channel {row.terms.channel.hex()[:16]} was not funded: {reason.reason if reason else ''}; "
                    "what this node put in comes back",
                )
        return self._view(number)

    async def _opening_end(self, proposal_id: bytes) -> ChannelDriver | Refusal:
        """Return what became of an opening of ours, now or long ago."""
        phase = self._services.store.read.opening(proposal_id)
        if isinstance(phase, Dead):
            return Refusal(phase.code, phase.text)
        return await self._node.opening_end(proposal_id)

    async def _propose(self, params: schema.ChannelOpenParams, promise: Promise) -> bytes:
        services = self._services
        challenge_ns = int(params.challenge_s) * NS
        policy = services.config.policy
        if (
            not max(MIN_CHALLENGE_NS, policy.min_challenge_s * NS)
            <= challenge_ns
            <= min(MAX_CHALLENGE_NS, policy.max_challenge_s * NS)
        ):
            raise CallerMistake(
                "bad_duration",
                f"a challenge period of {int(params.challenge_s)} s is outside {policy.min_challenge_s} to "
                f"{policy.max_challenge_s} s, the bounds in perund.toml",
            )
        total = int(params.mine_e8s) + int(params.theirs_e8s)
        if total > MAX_INT64:
            raise CallerMistake("bad_amount", f"{total} e8s is more than the 2^63-1 that the store counts")
        timeout_ns = int(params.funding_timeout_s or DEFAULT_FUNDING_S) * NS
        if timeout_ns > MAX_FUNDING_DEADLINE_NS - 60 * NS:
            raise CallerMistake("bad_duration", "a funding timeout is at most 12 hours, less a minute for clocks")
        stopped = self._node.lives.reason_not_to_sign()
        if stopped is not None:
            raise CallerMistake("stopped_signing", stopped)
        not_now = services.reason_not_to_open()
        if not_now is not None:
            raise CallerMistake("canister_not_allowed", not_now)
        await self._session(params.peer)
        try:
            async with answered():
                await self._node.refresh_balance()
                fee = await services.transfers.fee()
        except FeeTooHigh as error:
            raise CallerMistake("fee_too_high", str(error)) from error
        except ChainError as error:
            raise chain_mistake(error) from error
        # Another session may have replaced the first meanwhile: what is said in an old one nobody hears, and what
        # was not yet proposed when the new one began is not said again in it.
        session, _ = await self._session(params.peer)  # what it did not prove is not kept, and the opening goes on
        balance, reserved = self._node.balance_e8s or 0, self._node.reserved_e8s()
        if int(params.mine_e8s) and balance - reserved < int(params.mine_e8s) + fee:
            raise CallerMistake(
                "insufficient_funds",
                f"the wallet holds {balance} e8s, {reserved} of them promised; {int(params.mine_e8s)} e8s and a fee "
                f"of {fee} e8s are needed: send ICP to {services.wallet_account.hex()}",
            )
        proposal_id = os.urandom(32)
        services.network.choose(session.peer)
        with self._promises.asking(promise):
            self._node.openings.propose(
                session.peer,
                session,
                (int(params.mine_e8s), int(params.theirs_e8s)),
                Nanos(challenge_ns),
                Nanos(services.time.chain_ns() + timeout_ns),
                self._keys.note(params.idempotency_key, CHANNEL_OPEN.name, params, proposal_id.hex()),
                proposal_id,
            )
        return proposal_id

    async def channel_list(self, params: schema.ChannelListParams) -> schema.ChannelPage:
        """List channels, oldest first."""
        after = _number(params.after)
        rows = self._services.store.read.channels_page(params.phase, after, params.limit + 1)
        page = rows[: params.limit]
        views = []
        for row in page:
            views.append(self._view(row.number))
            if len(views) % VIEWS_PER_TURN == 0:
                await asyncio.sleep(0)
        return schema.ChannelPage(
            channels=views,
            next=str(page[-1].number) if len(rows) > params.limit else None,
        )

    async def channel_get(self, params: schema.ChannelGetParams) -> schema.Channel:
        """Tell about one channel."""
        return self._view(self._services.store.number(self._find(params.channel)))

    async def channel_close(self, params: schema.ChannelCloseParams) -> schema.Channel:
        """Close together; alone when the peer does not take part in time."""
        channel = self._find(params.channel)
        number, key = self._services.store.number(channel), params.idempotency_key
        with self._promises.of(CHANNEL_CLOSE, key, f"the close of channel {channel.hex()[:16]}") as promise:
            async with self._keys.once(key, CHANNEL_CLOSE.name, params) as earlier:
                if earlier is not None:
                    promise.unit = 0
                else:
                    await self._services.time.refresh()  # from now on the peer has `force_after` by it
                    driver = self._living(channel)
                    records = self._keys.note(key, CHANNEL_CLOSE.name, params, channel.hex())
                    if params.force_after_s is not None:
                        records = (*records, set_force_after(number, int(params.force_after_s) * NS))
                    step = driver.channel.close(self._services.time.now(), "asked for by this node")
                    with self._promises.asking(promise):
                        driver.perform(step, records=records)
                    await driver.settle_writes()
            return await self._until_closed(channel, number, params.timeout_s, wait=params.wait)

    async def channel_dispute(self, params: schema.ChannelDisputeParams) -> schema.Channel:
        """Leave alone with the newest state."""
        channel = self._find(params.channel)
        number, key = self._services.store.number(channel), params.idempotency_key
        with self._promises.of(CHANNEL_DISPUTE, key, f"the dispute of channel {channel.hex()[:16]}") as promise:
            async with self._keys.once(key, CHANNEL_DISPUTE.name, params) as earlier:
                if earlier is not None:
                    return self._view(number)
                await self._services.time.refresh()
                driver = self._living(channel)
                now, machine = self._services.time.now(), driver.channel
                if machine.recovering and not params.accept_risk:
                    # Rule 7: with possibly old data, only refute and recover.
                    raise CallerMistake(
                        "channel_recovering",
                        f"this node may have lost data of the channel: version {machine.version} may be old, and it "
                        "opens no dispute with it unless the risk is accepted (`perun dispute --accept-risk`)",
                    )
                records = self._keys.note(key, CHANNEL_DISPUTE.name, params, channel.hex())
                step = machine.accept_risk(now) if machine.recovering else NOTHING
                with self._promises.asking(promise):
                    driver.perform(step + machine.leave(now, "asked for by this node"), records=records)
                await driver.settle_writes()
        return self._view(number)

    async def channel_recover(self, params: schema.ChannelRecoverParams) -> schema.Recovery:
        """Tell what is known after a loss of data, and end it on the version that the operator declares the newest."""
        channel = self._find(params.channel)
        driver, key = self._living(channel), params.idempotency_key
        what = f"the end of the loss of channel {channel.hex()[:16]}"
        with self._promises.of(CHANNEL_RECOVER, key, what) as promise:
            async with self._keys.once(key, CHANNEL_RECOVER.name, params) as earlier:
                if earlier is None and params.accept_version is not None:
                    step = driver.channel.declare_newest(params.accept_version, self._services.time.now())
                    records = self._keys.note(key, CHANNEL_RECOVER.name, params, channel.hex())
                    with self._promises.asking(promise):
                        driver.perform(step, records=records)
                    await driver.settle_writes()
        return recovery_view(self._node, driver, self._view(driver.number))

    async def channel_withdraw(self, params: schema.ChannelWithdrawParams) -> schema.Channel:
        """Try now to take out what is ours, and answer when it is out."""
        channel = self._find(params.channel)
        number = self._services.store.number(channel)
        driver = self._node.drivers.get(channel)
        if driver is not None:
            # Look first: the peer may have settled it while this node thought that it was open.
            try:
                async with answered():
                    look = await self._node.services.watcher.look(channel)
            except ChainError as error:
                raise chain_mistake(error) from error
            if look.registered is None and driver.channel.phase in (Phase.FUNDING, Phase.OPEN):
                raise CallerMistake("not_settled", "the channel is not settled: close it, or leave it with a dispute")
            if look.registered is None or not look.registered.settled(look.chain_ns):
                raise CallerMistake("not_settled", "the canister has not settled the channel yet")
        what = f"the payout of channel {channel.hex()[:16]}"  # asked for by the node itself, since it is closed
        with self._promises.of(CHANNEL_WITHDRAW, None, what) as promise:
            promise.unit = 0
            return await self._until_closed(channel, number, params.timeout_s, wait=True)

    async def _until_closed(
        self, channel: ChannelId, number: int, timeout_s: int | None, *, wait: bool
    ) -> schema.Channel:
        driver = self._node.drivers.get(channel)
        if driver is not None and wait:
            for job in self._node.jobs[channel].of():
                job.hurry()
            async with ended_within(timeout_s, lambda: closing_wait(self._node, driver)):
                await driver.until(lambda: driver.channel.phase is Phase.CLOSED)
        return self._view(number)

    # --- payments ----------------------------------------------------------------------------------------

    def channel_pay(self, params: schema.PayParams, reply: PayReply) -> None:
        """Pay the peer."""
        self._paying.pay(params, reply)

    async def end_waiting(self, why: str) -> None:
        """Answer every call that waits, by what is known of its write. `why`: what ends the wait."""
        with suppress(StorageFailed, TimeoutError):
            async with asyncio.timeout(LAST_WRITE_S):
                await self._services.store.write(())  # what was asked for until now has an end, if the disk answers
        self._let_go(why)
        await self._paying.answered()

    def _let_go(self, why: str) -> None:
        self._paying.end_waiting(why)
        self._node.end_waiting(WaitEnded(why))

    async def payment_list(self, params: schema.PaymentListParams) -> schema.PaymentPage:
        """List payments of both directions, by channel, sender and id."""
        number = self._services.store.number(self._find(params.channel)) if params.channel is not None else None
        after = _place(params.after)
        rows = self._services.store.read.payments(number, after, params.limit + 1)
        page = rows[: params.limit]
        last = page[-1][0] if len(rows) > params.limit else None
        return schema.PaymentPage(
            payments=[payment_view(row) for _, row in page],
            next=f"{last[0]}.{last[1]}.{last[2].hex()}" if last else None,
        )

    async def payment_cancel(self, params: schema.PaymentCancelParams) -> schema.Payment:
        """Take back a payment that the peer cannot have yet."""
        channel = self._find(params.channel)
        driver = self._node.drivers.get(channel)
        payment_id = bytes.fromhex(params.payment)
        if driver is not None:
            driver.flush()
            with self._promises.of(PAYMENT_CANCEL, None, f"the cancelling of payment {params.payment}") as promise:
                with self._promises.asking(promise):
                    driver.perform(driver.channel.cancel(payment_id))
                await driver.settle_writes()
        number = self._services.store.number(channel)
        row = self._services.store.read.channel(number)
        assert row is not None
        payment = self._services.store.read.payment(number, row.terms.our_index, payment_id)
        if payment is None:
            raise CallerMistake("unknown_payment", f"there is no payment {params.payment} of ours in this channel")
        if payment.status != "cancelled":
            raise CallerMistake("payment_not_queued", f"payment {params.payment} is {payment.status}")
        return payment_view(payment)

    # --- events ------------------------------------------------------------------------------------------

    async def event_subscribe(self, params: schema.SubscribeParams) -> EventFeed:
        """Follow the events, from a cursor on or from now on."""
        newest = self._services.store.read.highest("event")
        cursor = newest if params.after is None else params.after
        kinds = frozenset(params.kinds) if params.kinds is not None else None
        if kinds is not None and len(kinds) > MOST_KINDS:
            raise RpcError(
                "invalid_params", f"{len(kinds)} kinds are more than {MOST_KINDS}: leave `kinds` out for all"
            )
        return EventFeed(cursor, self._events(cursor, kinds))

    async def _events(self, cursor: int, kinds: frozenset[str] | None) -> AsyncGenerator[schema.Event, None]:
        wake = asyncio.Event()
        self._wake[wake] = kinds
        read = self._services.store.read
        try:
            while True:
                wake.clear()
                newest = read.highest("event")
                if cursor >= newest:
                    await wake.wait()
                    continue
                if kinds is None:
                    up_to, rows = newest, read.events(cursor, EVENTS_PER_READ)
                else:
                    up_to = min(newest, cursor + EVENTS_PER_LOOK) if UPDATED in kinds else newest
                    rows = read.events_of(kinds, cursor, up_to, EVENTS_PER_READ)
                for row in rows:
                    cursor = row.cursor
                    yield event_view(row)
                if len(rows) < EVENTS_PER_READ:
                    cursor = max(cursor, up_to)
                await asyncio.sleep(0)  # who looks through much of the history does not hold up the payments
        finally:
            del self._wake[wake]

    def _tell_subscribers(self, events: list[EventRow]) -> None:
        came = {event.kind for event in events}
        if STOPPED_SIGNING in came:
            self._let_go("another copy of this node runs")
        for wake, kinds in self._wake.items():
            if kinds is None or not kinds.isdisjoint(came):
                wake.set()

    # --- shared ------------------------------------------------------------------------------------------

    def _living(self, channel: ChannelId) -> ChannelDriver:
        driver = self._node.drivers.get(channel)
        if driver is None:
            raise CallerMistake("channel_closed", "the channel is closed already")
        driver.flush()
        return driver

    def _find(self, reference: str) -> ChannelId:
        """Return the channel of an id, or of the beginning of one."""
        whole = reference[: len(reference) // 2 * 2]
        half = int(reference[-1], 16) if len(reference) % 2 else None
        found = self._services.store.read.find_by_prefix(bytes.fromhex(whole), half)
        if not found:
            raise CallerMistake("unknown_channel", f"there is no channel {reference[:32]}")
        if len(found) > 1:
            raise CallerMistake("ambiguous_channel", f"more than one channel begins with {reference[:32]}")
        return ChannelId(found[0])

    def _view(self, number: int) -> schema.Channel:
        row = self._services.store.read.channel(number)
        assert row is not None
        driver = self._node.drivers.get(row.terms.channel)
        jobs = self._node.jobs.get(row.terms.channel)
        now = self._services.time.now()
        wait = wait_of(self._node, driver, row) if driver is not None else None
        away_ns = self._node.away_since(row.terms.peer) if driver is not None else None
        return channel_view(
            row,
            self._services.store.read,
            driver,
            jobs.of() if jobs else (),
            now.chain_ns,
            now.elapsed_ns,
            wait,
            away_ns,
        )


def _number(after: str | None) -> int:
    if after is None:
        return 0
    if not after.isdecimal() or len(after) > 18:
        raise RpcError("invalid_params", f"`after` is {after!r}: give `next` of the answer before")
    return int(after)


def _place(after: str | None) -> tuple[int, int, bytes]:
    if after is None:
        return (0, -1, b"")
    try:
        number, sender, payment_id = after.split(".")
        return (_number(number), ("0", "1").index(sender), bytes.fromhex(payment_id))
    except ValueError as error:
        raise RpcError("invalid_params", f"`after` is {after!r}: give `next` of the answer before") from error
