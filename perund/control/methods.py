"""The methods of the control interface: one table for the server, the client and the documentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Generic, TypeVar

import msgspec

from perund.control import schema
from perund.control.errors import BY_NAME
from perund.control.values import decode_value

__all__ = [
    "CHANNEL_CLOSE",
    "CHANNEL_DISPUTE",
    "CHANNEL_GET",
    "CHANNEL_LIST",
    "CHANNEL_OPEN",
    "CHANNEL_PAY",
    "CHANNEL_RECOVER",
    "CHANNEL_WITHDRAW",
    "EVENT_SUBSCRIBE",
    "METHODS",
    "NODE_HEALTH",
    "NODE_INFO",
    "NODE_STOP",
    "PAYMENT_CANCEL",
    "PAYMENT_LIST",
    "PEER_CONNECT",
    "PEER_LIST",
    "RPC_DISCOVER",
    "WALLET_BALANCE",
    "WALLET_SEND",
    "Method",
]

P = TypeVar("P", bound=schema.Params)
R = TypeVar("R")
P_co = TypeVar("P_co", bound=schema.Params, covariant=True)
R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True)
class Method(Generic[P_co, R_co]):
    """One method: its params and result types, what it does, and which errors of the table it can answer.

    `ask`: of what changes something, where it is seen whether that happened; `each_anew`: whether it is another action
    each time it is called without an idempotency key.
    """

    name: str
    params: type[P_co]
    result: type[R_co]
    doc: str
    errors: tuple[str, ...] = ()
    ask: str = ""
    each_anew: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.errors if name not in BY_NAME]
        if unknown:
            raise ValueError(f"{self.name} names errors that have no code: {unknown}")

    @property
    def handler(self) -> str:
        """Name of its method of `NodeApi`."""
        return self.name.replace(".", "_")

    def is_one_action(self, key: str | None) -> bool:
        """Whether the same call may be made again without doing anything twice. `key`: its idempotency key."""
        return key is not None or not self.each_anew

    def ask_again(self, key: str | None) -> str:
        """Return what tells, when the node runs again, what became of a call that was not answered with its end."""
        if key is not None:
            return f"ask {self.name} again with idempotency_key {key!r}: it is done once, and the answer tells"
        if self.each_anew:
            return f"{self.ask}; look before you ask again: without an idempotency_key it would be done once more"
        return f"{self.ask}; it may be asked again"

    @cached_property
    def decode_params(self) -> Callable[[msgspec.Raw], P_co]:
        """Decodes a JSON object into its params. Raises `msgspec.DecodeError`."""
        return msgspec.json.Decoder(self.params, dec_hook=decode_value).decode

    @cached_property
    def decode_result(self) -> Callable[[msgspec.Raw], R_co]:
        """Decodes its result. Raises `msgspec.DecodeError`."""
        return msgspec.json.Decoder(self.result, dec_hook=decode_value).decode


_CHANNEL: Final = ("unknown_channel", "ambiguous_channel")
_CHAIN: Final = ("chain_unreachable", "untrusted_answer")
_DIAL: Final = ("peer_unreachable", "wrong_network", "bad_peer", "peer_is_self", "peer_timeout", "peer_violation")
_UNTOLD: Final = ("storage_failed", "outcome_unknown")
"""Of what changes something: see `perund.node.promises`."""
_LEAVE: Final = ("channel_closed", "channel_recovering", "wait_ended", "canister_refused", *_CHAIN, *_UNTOLD)

_SEEN: Final = "channel.get shows how the channel stands"

NODE_INFO: Final = Method("node.info", schema.NoParams, schema.NodeInfo, "Who this node is and how it is.")
NODE_HEALTH: Final = Method(
    "node.health", schema.NoParams, schema.Health, "Whether the money is safe: lag, margins, alarms."
)
NODE_STOP: Final = Method("node.stop", schema.NoParams, schema.Stopping, "Stop the node cleanly.")
WALLET_BALANCE: Final = Method(
    "wallet.balance", schema.NoParams, schema.WalletBalance, "The wallet's account and its balance.", _CHAIN
)
WALLET_SEND: Final = Method(
    "wallet.send",
    schema.SendParams,
    schema.SendResult,
    "Send ICP from the wallet.",
    (
        "bad_account",
        "loses_money",
        "insufficient_funds",
        "ledger_refused",
        "fee_too_high",
        "idempotency_conflict",
        "wait_ended",
        *_CHAIN,
        *_UNTOLD,
    ),
    ask="wallet.balance shows whether the money went",
    each_anew=True,
)
PEER_CONNECT: Final = Method(
    "peer.connect",
    schema.PeerConnectParams,
    schema.PeerAddress,
    "Connect to a peer and keep connected.",
    (*_DIAL, "wait_ended", *_UNTOLD),
    ask="peer.list shows the peers",
)
PEER_LIST: Final = Method("peer.list", schema.NoParams, schema.PeerList, "Peers, connected or with channels.")
CHANNEL_OPEN: Final = Method(
    "channel.open",
    schema.ChannelOpenParams,
    schema.Channel,
    "Open a channel: agree, fund, be ready.",
    (
        *_DIAL,
        "peer_not_connected",
        "peer_refused",
        "policy_refused",
        "opening_failed",
        "canister_not_allowed",
        "stopped_signing",
        "insufficient_funds",
        "fee_too_high",
        "ledger_refused",
        "idempotency_conflict",
        "wait_ended",
        *_CHAIN,
        *_UNTOLD,
    ),
    ask="channel.list shows the channels",
    each_anew=True,
)
CHANNEL_LIST: Final = Method("channel.list", schema.ChannelListParams, schema.ChannelPage, "Channels, in pages.")
CHANNEL_GET: Final = Method("channel.get", schema.ChannelGetParams, schema.Channel, "One channel.", _CHANNEL)
CHANNEL_PAY: Final = Method(
    "channel.pay",
    schema.PayParams,
    schema.PayResult,
    "Pay the peer, once or many times.",
    (
        *_CHANNEL,
        "channel_not_open",
        "channel_frozen",
        "channel_recovering",
        "channel_closing",
        "channel_closed",
        "look_too_old",
        "insufficient_balance",
        "amount_too_small",
        "bad_memo",
        "payment_id_used",
        "payment_declined",
        "payment_failed",
        "queue_full",
        "peer_timeout",
        "idempotency_conflict",
        "wait_ended",
        *_UNTOLD,
    ),
    ask="payment.list shows the payments",
    each_anew=True,
)
CHANNEL_CLOSE: Final = Method(
    "channel.close",
    schema.ChannelCloseParams,
    schema.Channel,
    "Close together; alone if the peer does not answer in time.",
    (*_CHANNEL, "channel_not_open", "channel_frozen", "idempotency_conflict", *_LEAVE),
    ask=_SEEN,
)
CHANNEL_DISPUTE: Final = Method(
    "channel.dispute",
    schema.ChannelDisputeParams,
    schema.Channel,
    "Register the newest state and leave alone, after the challenge period.",
    (*_CHANNEL, "idempotency_conflict", *_LEAVE),
    ask=_SEEN,
)
CHANNEL_WITHDRAW: Final = Method(
    "channel.withdraw",
    schema.ChannelWithdrawParams,
    schema.Channel,
    "Take out now what is ours in a settled channel.",
    (*_CHANNEL, "not_settled", "nothing_to_withdraw", *_LEAVE),
    ask=_SEEN,
)
CHANNEL_RECOVER: Final = Method(
    "channel.recover",
    schema.ChannelRecoverParams,
    schema.Recovery,
    "What is known of a channel whose data may be lost; declare a version the newest, and end the loss on it.",
    (
        *_CHANNEL,
        "not_recovering",
        "version_changed",
        "towers_not_asked",
        "channel_not_open",
        "channel_closing",
        "channel_closed",
        "idempotency_conflict",
        "wait_ended",
        *_UNTOLD,
    ),
    ask="channel.recover shows how the channel stands",
)
PAYMENT_LIST: Final = Method(
    "payment.list", schema.PaymentListParams, schema.PaymentPage, "Payments, in pages.", _CHANNEL
)
PAYMENT_CANCEL: Final = Method(
    "payment.cancel",
    schema.PaymentCancelParams,
    schema.Payment,
    "Take back a payment that is still queued.",
    (*_CHANNEL, "unknown_payment", "payment_not_queued", "wait_ended", *_UNTOLD),
    ask="payment.list shows the payments",
)
EVENT_SUBSCRIBE: Final = Method(
    "event.subscribe",
    schema.SubscribeParams,
    schema.Subscription,
    "Be notified of what happens, from a cursor on.",
    ("busy",),
)
RPC_DISCOVER: Final[Method[schema.NoParams, dict[str, Any]]] = Method(
    "rpc.discover", schema.NoParams, dict[str, Any], "This interface as an OpenRPC document."
)

METHODS: Final[dict[str, Method[schema.Params, object]]] = {
    method.name: method
    for method in (
        NODE_INFO,
        NODE_HEALTH,
        NODE_STOP,
        WALLET_BALANCE,
        WALLET_SEND,
        PEER_CONNECT,
        PEER_LIST,
        CHANNEL_OPEN,
        CHANNEL_LIST,
        CHANNEL_GET,
        CHANNEL_PAY,
        CHANNEL_CLOSE,
        CHANNEL_DISPUTE,
        CHANNEL_WITHDRAW,
        CHANNEL_RECOVER,
        PAYMENT_LIST,
        PAYMENT_CANCEL,
        EVENT_SUBSCRIBE,
        RPC_DISCOVER,
    )
}
