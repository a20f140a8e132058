"""The other side of `NodeApi`, in memory: two channels, a ledger balance, events, and errors on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from perund.control import schema
from perund.control.api import EventFeed, PayReply
from perund.control.values import E8s
from protocol.errors import CallerMistake

NODE_ID = "02" + "11" * 32
PEER_ID = "03" + "22" * 32
CHANNEL = "ab" * 64
WHEN = "2026-01-02T03:04:05Z"


def a_channel(**changes: object) -> schema.Channel:
    fields: dict[str, object] = {
        "channel": CHANNEL,
        "peer": PEER_ID,
        "index": 0,
        "phase": "open",
        "version": 7,
        "mine_e8s": E8s(242),
        "theirs_e8s": E8s(194),
        "total_e8s": E8s(436),
        "sendable_e8s": E8s(242),
        "queued": schema.Queued(count=0, e8s=E8s(0)),
        "challenge_s": 60,
        "created_at": WHEN,
        "costs": [schema.Cost(what="deposit_fee", e8s=E8s(10_000))],
    }
    return schema.Channel(**{**fields, **changes})  # type: ignore[arg-type]


RECOVERY = schema.Recovery(
    channel=CHANNEL,
    recovering=True,
    why="data_loss: this store is a copy",
    version=3,
    mine_e8s=E8s(10**8),
    theirs_e8s=E8s(5 * 10**7),
    proven=False,
    towers_asked=True,
    towers=[schema.TowerAnswer(tower=NODE_ID, answered=True, version=2)],
    peer_connected=True,
    peer_version=3,
    proposal=schema.ProposedEnd(version=2**32, mine_e8s=E8s(10**8), theirs_e8s=E8s(5 * 10**7), as_ours=True),
    at_risk_e8s=E8s(5 * 10**7),
    way_out="`perun recover` shows what is known",
)


class NodeDouble:
    """Answers at once, unless `hold` is set: then money calls wait for `release`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.error: Exception | None = None
        self.hold = False
        self.loses_money = False
        self.release = asyncio.Event()
        self.done: list[str] = []
        self.replies: list[tuple[schema.PayParams, PayReply]] = []
        self.feeds_open = 0
        self.news: asyncio.Queue[schema.Event] = asyncio.Queue()
        self.called = asyncio.Event()
        self.stopped = asyncio.Event()

    def _seen(self, name: str, params: object) -> None:
        self.calls.append((name, params))
        self.called.set()
        if self.error is not None:
            raise self.error

    async def _act(self, name: str, params: object) -> None:
        self._seen(name, params)
        if self.hold:
            await self.release.wait()
        self.done.append(name)

    async def node_info(self, params: schema.NoParams) -> schema.NodeInfo:
        self._seen("node.info", params)
        return schema.NodeInfo(
            node_id=NODE_ID,
            version="0.1.0",
            pid=1,
            data_dir="/data",
            listen="127.0.0.1:9735",
            announces=["alice.example:9735"],
            network="local",
            network_hash="00" * 32,
            root_key="30" * 133,
            perun_canister="aaaaa-aa",
            icp_ledger="aaaaa-aa",
            principal="aaaaa-aa",
            account="00" * 32,
            channels={"open": 1},
            peers=1,
            state="running",
        )

    async def node_health(self, params: schema.NoParams) -> schema.Health:
        self._seen("node.health", params)
        problem = schema.Problem(code="chain_lag", message="no certified answer for 70 s", since=WHEN)
        return schema.Health(ok=False, problems=[problem], chain_lag_s=70.0)

    async def node_stop(self, params: schema.NoParams) -> schema.Stopping:
        self._seen("node.stop", params)
        self.stopped.set()
        return schema.Stopping(stopping=True)

    async def wallet_balance(self, params: schema.NoParams) -> schema.WalletBalance:
        self._seen("wallet.balance", params)
        return schema.WalletBalance(
            account="00" * 32, principal="aaaaa-aa", balance_e8s=E8s(150_000_000), fee_e8s=E8s(10_000)
        )

    async def wallet_send(self, params: schema.SendParams) -> schema.SendResult:
        if self.loses_money and not params.accept_loss:
            self._seen("wallet.send", params)
            raise CallerMistake("loses_money", f"{params.to} is nobody's")
        await self._act("wallet.send", params)
        return schema.SendResult(block=12, amount_e8s=E8s(params.amount_e8s), fee_e8s=E8s(10_000))

    async def peer_connect(self, params: schema.PeerConnectParams) -> schema.PeerAddress:
        self._seen("peer.connect", params)
        node_id, _, address = params.peer.partition("@")
        return schema.PeerAddress(node_id=node_id, address=address)

    async def peer_list(self, params: schema.NoParams) -> schema.PeerList:
        self._seen("peer.list", params)
        return schema.PeerList(
            peers=[
                schema.Peer(
                    node_id=PEER_ID,
                    address="127.0.0.1:9736",
                    addresses=[
                        schema.PeerPlace(
                            address="127.0.0.1:9736",
                            source="given",
                            proven=True,
                            last_success="2026-01-01T00:00:00.000Z",
                        ),
                        schema.PeerPlace(address="bob.example:9735", source="announced", proven=False),
                    ],
                    connected=True,
                    agent="perund",
                    channels=1,
                )
            ]
        )

    async def channel_open(self, params: schema.ChannelOpenParams) -> schema.Channel:
        await self._act("channel.open", params)
        return a_channel(mine_e8s=params.mine_e8s, theirs_e8s=params.theirs_e8s)

    async def channel_list(self, params: schema.ChannelListParams) -> schema.ChannelPage:
        self._seen("channel.list", params)
        if params.after is None:
            return schema.ChannelPage(channels=[a_channel()], next="1")
        return schema.ChannelPage(channels=[a_channel(channel="cd" * 64, frozen="the peer broke the protocol")])

    async def channel_get(self, params: schema.ChannelGetParams) -> schema.Channel:
        self._seen("channel.get", params)
        return a_channel(waiting_for="nothing")

    def channel_pay(self, params: schema.PayParams, reply: PayReply) -> None:
        self._seen("channel.pay", params)
        if self.hold:
            self.replies.append((params, reply))
            return
        self.pay(params, reply)

    def pay(self, params: schema.PayParams, reply: PayReply) -> None:
        self.done.append("channel.pay")
        count = len(params.amounts_e8s or params.payments or [])
        if count:
            reply.result(schema.PayResult(status="delivered", version=8, payments=count, first_payment="01" * 16))
        else:
            reply.result(schema.PayResult(status="delivered", version=8, payment=params.payment_id or "0f" * 16))

    async def channel_close(self, params: schema.ChannelCloseParams) -> schema.Channel:
        await self._act("channel.close", params)
        return a_channel(phase="closed", payout_e8s=E8s(242))

    async def channel_dispute(self, params: schema.ChannelDisputeParams) -> schema.Channel:
        await self._act("channel.dispute", params)
        registered = schema.Registered(version=7, finalized=False, settled=False, timeout=WHEN, ours=True)
        return a_channel(phase="leaving", registered=registered)

    async def channel_recover(self, params: schema.ChannelRecoverParams) -> schema.Recovery:
        await self._act("channel.recover", params)
        return RECOVERY

    async def channel_withdraw(self, params: schema.ChannelWithdrawParams) -> schema.Channel:
        await self._act("channel.withdraw", params)
        return a_channel(phase="closed", payout_e8s=E8s(242), payout_block=99)

    async def payment_list(self, params: schema.PaymentListParams) -> schema.PaymentPage:
        self._seen("payment.list", params)
        return schema.PaymentPage(payments=[self._payment("delivered")])

    async def payment_cancel(self, params: schema.PaymentCancelParams) -> schema.Payment:
        self._seen("payment.cancel", params)
        if params.payment == "ff" * 16:
            raise CallerMistake("payment_not_queued", "the payment is signed; it cannot be cancelled")
        return self._payment("cancelled")

    async def event_subscribe(self, params: schema.SubscribeParams) -> EventFeed:
        self._seen("event.subscribe", params)
        return EventFeed(cursor=params.after or 0, events=self._events(params.after or 0))

    async def _events(self, after: int) -> AsyncGenerator[schema.Event, None]:
        self.feeds_open += 1
        try:
            for cursor in range(after + 1, 4):
                yield schema.Event(cursor=cursor, at=WHEN, event="channel.updated", data={"version": cursor})
            while True:
                yield await self.news.get()
        finally:
            self.feeds_open -= 1

    def _payment(self, status: schema.PaymentStatus) -> schema.Payment:
        return schema.Payment(
            payment="0f" * 16,
            channel=CHANNEL,
            direction="sent",
            amount_e8s=E8s(5),
            memo="tea",
            status=status,
            version=8,
            created_at=WHEN,
        )
