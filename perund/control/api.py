"""What the control server needs of the node: one method per call, and the reply of the hot one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from perund.control import schema

__all__ = ["EventFeed", "NodeApi", "PayReply"]


class PayReply(Protocol):
    """Where the answer to one `channel.pay` goes. Exactly one of the two is called, once, from the event loop.

    The caller may be gone by then: the answer is dropped and the payment stands.
    """

    def result(self, result: schema.PayResult) -> None:
        """Answer with a result."""
        ...

    def error(self, error: Exception) -> None:
        """Answer with an error, see `perund.control.errors.to_rpc_error`."""
        ...


@dataclass(frozen=True, slots=True)
class EventFeed:
    """Events for one subscriber. `cursor`: where they start (exclusive).

    `events` yields each stored event after the cursor, then waits for the next one. The server pulls as fast as
    the subscriber reads and closes it when the subscriber goes.
    """

    cursor: int
    events: AsyncGenerator[schema.Event, None]


class NodeApi(Protocol):
    """The node, as the control server calls it.

    Errors are raised: `CallerMistake` with a name of `perund.control.errors.ERRORS`, or `RpcError`. A caller
    that hangs up cancels nothing. Only a stopping server cancels a handler, and only one that still waits
    when its grace is over: what a handler promises must be durable before it waits.
    """

    async def node_info(self, params: schema.NoParams) -> schema.NodeInfo:
        """`node.info`"""
        ...

    async def node_health(self, params: schema.NoParams) -> schema.Health:
        """`node.health`"""
        ...

    async def node_stop(self, params: schema.NoParams) -> schema.Stopping:
        """`node.stop`"""
        ...

    async def wallet_balance(self, params: schema.NoParams) -> schema.WalletBalance:
        """`wallet.balance`"""
        ...

    async def wallet_send(self, params: schema.SendParams) -> schema.SendResult:
        """`wallet.send`"""
        ...

    async def peer_connect(self, params: schema.PeerConnectParams) -> schema.PeerAddress:
        """`peer.connect`"""
        ...

    async def peer_list(self, params: schema.NoParams) -> schema.PeerList:
        """`peer.list`"""
        ...

    async def channel_open(self, params: schema.ChannelOpenParams) -> schema.Channel:
        """`channel.open`"""
        ...

    async def channel_list(self, params: schema.ChannelListParams) -> schema.ChannelPage:
        """`channel.list`"""
        ...

    async def channel_get(self, params: schema.ChannelGetParams) -> schema.Channel:
        """`channel.get`"""
        ...

    async def channel_close(self, params: schema.ChannelCloseParams) -> schema.Channel:
        """`channel.close`"""
        ...

    async def channel_dispute(self, params: schema.ChannelDisputeParams) -> schema.Channel:
        """`channel.dispute`"""
        ...

    async def channel_withdraw(self, params: schema.ChannelWithdrawParams) -> schema.Channel:
        """`channel.withdraw`"""
        ...

    async def channel_recover(self, params: schema.ChannelRecoverParams) -> schema.Recovery:
        """`channel.recover`"""
        ...

    async def payment_list(self, params: schema.PaymentListParams) -> schema.PaymentPage:
        """`payment.list`"""
        ...

    async def payment_cancel(self, params: schema.PaymentCancelParams) -> schema.Payment:
        """`payment.cancel`"""
        ...

    async def event_subscribe(self, params: schema.SubscribeParams) -> EventFeed:
        """`event.subscribe`"""
        ...

    def channel_pay(self, params: schema.PayParams, reply: PayReply) -> None:
        """Queue a payment and return at once; answer through `reply`, now or later.

        Synchronous because it is called ten thousand times a second: no task, no future. Raising is the same as
        `reply.error`.
        """
        ...
