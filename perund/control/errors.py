"""Errors of the control interface: the standard codes of JSON-RPC, and a table of our own.

A caller gets a number that never changes its meaning, a sentence for people, and in `data` a name, a hint and
whether the same call may succeed later. `RpcError` is also what the client raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from perund.store.errors import StorageFailed
from protocol.errors import CallerMistake, PeerViolation, PerundError

__all__ = ["BY_CODE", "BY_NAME", "ERRORS", "ErrorKind", "NodeUnreachable", "RpcError", "to_rpc_error"]


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """A row of the table. `retryable`: the same call may succeed later without anybody changing anything."""

    code: int
    name: str
    hint: str
    retryable: bool = False


ERRORS: Final = (
    # Defined by JSON-RPC 2.0.
    ErrorKind(-32700, "parse_error", "send one JSON object per line"),
    ErrorKind(-32600, "invalid_request", 'send {"jsonrpc":"2.0","id":1,"method":"...","params":{...}}'),
    ErrorKind(-32601, "method_not_found", "rpc.discover lists the methods"),
    ErrorKind(-32602, "invalid_params", "rpc.discover has the schema of each method"),
    ErrorKind(-32603, "internal_error", "a defect of perund: its log has the details; please report it"),
    # The node.
    ErrorKind(100, "node_starting", "wait until node.info says that it is running", retryable=True),
    ErrorKind(101, "node_stopping", "nothing happened: start the node, and ask again", retryable=True),
    ErrorKind(102, "storage_failed", "nothing happened: check the disk, start the node, and ask again", retryable=True),
    ErrorKind(103, "busy", "send less at a time, or try again", retryable=True),
    ErrorKind(
        104, "wait_ended", "it is durable and goes on; channel.get, payment.list or the same idempotency_key tell"
    ),
    ErrorKind(105, "idempotency_conflict", "use a new key for a new action"),
    ErrorKind(106, "refused", "change what the message names"),
    ErrorKind(
        107, "stopped_signing", "stop the other copy of this node; perund run --take-over starts the one to keep"
    ),
    # Channels.
    ErrorKind(200, "unknown_channel", "channel.list shows the channels"),
    ErrorKind(201, "ambiguous_channel", "give more digits of the channel id"),
    ErrorKind(202, "channel_not_open", "channel.get shows what the channel waits for", retryable=True),
    ErrorKind(203, "channel_frozen", "the last good state stands: the node settles with it; channel.get has `way_out`"),
    ErrorKind(204, "channel_recovering", "channel.recover shows what is known, and how to go on"),
    ErrorKind(205, "channel_closed", "open another channel"),
    ErrorKind(206, "channel_closing", "the node finishes it by itself; channel.get shows how far it is"),
    ErrorKind(207, "look_too_old", "the Internet Computer does not answer fast enough; node.health", retryable=True),
    ErrorKind(208, "nothing_to_withdraw", "channel.get shows where the money is"),
    ErrorKind(209, "not_settled", "the node withdraws by itself when the challenge period is over", retryable=True),
    ErrorKind(210, "not_recovering", "channel.get shows how the channel stands"),
    ErrorKind(211, "version_changed", "channel.recover shows what is known now"),
    ErrorKind(212, "towers_not_asked", "they have two minutes to answer; then try again", retryable=True),
    # Payments.
    ErrorKind(300, "insufficient_balance", "channel.get has `sendable_e8s`"),
    ErrorKind(301, "amount_too_small", "the peer announced a minimum payment"),
    ErrorKind(302, "unknown_payment", "payment.list shows the payments"),
    ErrorKind(303, "payment_not_queued", "it is offered or signed: the peer may complete it"),
    ErrorKind(304, "payment_id_used", "payment.list shows what became of it; use a new id for a new payment"),
    ErrorKind(305, "payment_declined", "payment.list has the peer's reason; pay again with a new id"),
    ErrorKind(306, "payment_failed", "the channel ended without it; it was not paid"),
    ErrorKind(307, "queue_full", "wait until payments are delivered", retryable=True),
    ErrorKind(308, "bad_amount", "write 1.5, 1.5 ICP or 150000000 e8s"),
    ErrorKind(309, "bad_duration", "write 60s, 10m, 2h or 1d"),
    ErrorKind(310, "bad_memo", "a memo has at most 256 bytes"),
    # Peers.
    ErrorKind(400, "peer_unreachable", "check address, port and whether the peer runs", retryable=True),
    ErrorKind(401, "peer_not_connected", "peer.connect, or give NODEID@host:port", retryable=True),
    ErrorKind(402, "peer_refused", "ask its operator; its reason is in the message"),
    ErrorKind(403, "wrong_network", "both nodes need the same root key, canister and ledger"),
    ErrorKind(404, "peer_violation", "the peer broke the protocol; the last good state stands"),
    ErrorKind(405, "peer_timeout", "the peer is slow or gone; the node goes on trying", retryable=True),
    ErrorKind(406, "bad_peer", "write NODEID@host:port, the node id with 66 hex digits"),
    ErrorKind(407, "peer_is_self", "give the node id of another node"),
    # Opening.
    ErrorKind(500, "policy_refused", "the peer's operator decides that; propose what its message names, or ask"),
    ErrorKind(501, "opening_failed", "nothing was funded, or what was comes back; channel.get", retryable=False),
    ErrorKind(502, "canister_not_allowed", "add the module hash to ic.module_hashes once you trust that code"),
    # The Internet Computer.
    ErrorKind(
        600,
        "chain_unreachable",
        "check ic.urls and the connection; start a devnet again with its --state",
        True,
    ),
    ErrorKind(601, "insufficient_funds", "send ICP to the account that wallet.balance shows"),
    ErrorKind(602, "ledger_refused", "the ledger's answer is in the message"),
    ErrorKind(603, "canister_refused", "the canister's answer is in the message"),
    ErrorKind(
        604,
        "outcome_unknown",
        "it may be done: channel.get, payment.list or the same idempotency_key tell; do not repeat it",
    ),
    ErrorKind(605, "fee_too_high", "raise fees.max_fee_e8s in perund.toml if you agree"),
    ErrorKind(606, "bad_account", "give an account (64 hex digits) or a principal"),
    ErrorKind(607, "untrusted_answer", "the answer bears no valid certificate; check ic.urls and ic.root_key"),
    ErrorKind(608, "loses_money", "check the account; `accept_loss` (`perun wallet send --yes`) sends it all the same"),
)
BY_NAME: Final = {kind.name: kind for kind in ERRORS}
BY_CODE: Final = {kind.code: kind for kind in ERRORS}


class RpcError(PerundError):
    """A call was answered with an error.

    `code`, `name`: see docs/rpc.md; `hint`: what to do; `retryable`: whether the same call may succeed later;
    `idempotency_key`: with it the same call is the same action, which may have been done.
    """

    def __init__(
        self,
        name: str,
        message: str,
        *,
        hint: str | None = None,
        code: int | None = None,
        retryable: bool | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        super().__init__(message)
        kind = BY_NAME.get(name, BY_NAME["refused"])
        self.name = name
        self.message = message
        self.code = kind.code if code is None else code
        self.hint = kind.hint if hint is None else hint
        self.retryable = kind.retryable if retryable is None else retryable
        self.idempotency_key = idempotency_key


class NodeUnreachable(PerundError):
    """There is no node behind the control socket, or it went away during the call.

    `sent`: whether the request may have reached it; then its action may have been done. `idempotency_key`: that of
    the request.
    """

    def __init__(self, message: str, hint: str, *, sent: bool = False, idempotency_key: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        self.sent = sent
        self.idempotency_key = idempotency_key


def to_rpc_error(error: Exception) -> RpcError:
    """Return what a caller is told about an exception of a handler.

    `CallerMistake` keeps its word as the name. What is no error of ours is `internal_error` and says nothing
    of its text: it may hold anything.
    """
    match error:
        case RpcError():
            return error
        case CallerMistake(code=word):
            return RpcError(word, str(error))
        case PeerViolation(code=word):
            return RpcError("peer_violation", f"{error} ({word})")
        case StorageFailed():
            return RpcError("storage_failed", str(error))
        case PerundError():
            return RpcError("refused", str(error))
        case _:
            return RpcError("internal_error", f"perund failed inside ({type(error).__name__})")
