"""What clients send to the devnet: envelopes, arguments, admin calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import cast

from aiohttp import web

from chain import cbor as chain_cbor
from chain.candid import BLOB, NAT64, PRINCIPAL, CandidValue, encode, opt, record
from chain.cbor import Value
from chain.identity import Ed25519Identity, Secp256k1Identity
from chain.principal import account_identifier
from chain.request import call_content, envelope, hash_of_map, query_content, read_content
from devnet.canister import Call, MethodNotFound, Trap
from devnet.ledger.binding import LedgerModule
from devnet.ledger.ledger import IcpLedger
from devnet.network import ICP_LEDGER_ID, PERUN_CANISTER_ID, LocalNetwork
from devnet.perun import LocalLedger, PerunCanister, PerunModule
from devnet.replica import admin, cbor
from devnet.replica.authentication import authenticate
from devnet.replica.envelope import RequestType, decode_envelope
from devnet.replica.errors import RequestRefused
from devnet.replica.faults import Faults
from devnet.replica.principals import NotAPrincipal, from_text, to_text
from tests.fuzz.chain_targets import CANDID_TOKENS, CBOR_TOKENS, REQUESTS, VECTORS, at_once, from_cbor, to_cbor
from tests.fuzz.mutation import Tree
from tests.fuzz.node_targets import JSON_TOKENS, to_json
from tests.fuzz.target import Target, as_text

__all__ = ["TARGETS"]

NOW_NS = 1_700_000_000_000_000_000
SOON_NS = NOW_NS + 60_000_000_000
KINDS: tuple[RequestType, ...] = ("call", "query", "read_state")


def envelopes() -> Target:
    """Requests, signed and not, up to who sent them. The first byte tells at which endpoint."""
    users = (Ed25519Identity(bytes(32)), Secp256k1Identity(b"\x01" * 32))
    corpus = []
    for user in users:
        corpus += [
            b"\x00" + envelope(call_content(bytes(10), "go", b"DIDL\x00\x00", user.sender, SOON_NS, bytes(16)), user),
            b"\x01" + envelope(query_content(bytes(10), "see", b"DIDL\x00\x00", user.sender, SOON_NS), user),
            b"\x02" + envelope(read_content([(b"time",), (b"request_status", bytes(32))], user.sender, SOON_NS), user),
        ]
    first = call_content(bytes(10), "go", b"DIDL\x00\x00", users[0].sender, SOON_NS, bytes(16))
    may: dict[str, Value] = {"pubkey": users[1].public_key_der, "expiration": SOON_NS, "targets": [bytes(10)]}
    link: Value = {"delegation": may, "signature": users[0].sign(b"\x1aic-request-auth-delegation" + hash_of_map(may))}
    delegated: dict[str, Value] = {
        "content": first,
        "sender_pubkey": users[0].public_key_der,
        "sender_sig": users[1].sign(b"\x0aic-request" + hash_of_map(first)),
        "sender_delegation": [link],
    }
    anonymous: dict[str, Value] = {"content": call_content(bytes(10), "go", b"", b"\x04", SOON_NS, bytes(16))}
    calls = (corpus[0][1:], chain_cbor.encode(delegated), chain_cbor.encode(anonymous))

    def encode_call(tree: Tree) -> bytes:
        return b"\x00" + to_cbor(tree)

    def parse(data: bytes) -> object:
        request = decode_envelope(data[1:], KINDS[(data[0] if data else 0) % len(KINDS)])
        return authenticate(request, NOW_NS)

    tokens = (*CBOR_TOKENS, b"\xc2\x5a\x00\x00\x10\x00" + b"\xff" * 4096)
    return Target(parse, (RequestRefused,), tuple(corpus), tuple(map(from_cbor, calls)), encode_call, tokens)


def replica_cbor() -> Target:
    """Bodies. What is read is written again as the same."""
    tree: Tree = {"a": [1, 2**64 - 1, b"\x01" * 24, "text", None, {}]}
    corpus = (to_cbor(tree), bytes.fromhex("d9d9f79f5f4101ff0402ff"), bytes.fromhex("bf6161c249010000000000000000ff"))

    def parse(data: bytes) -> object:
        value = cbor.decode(data)
        assert cbor.decode(cbor.encode(value)) == value
        return value

    return Target(parse, (cbor.NotCbor,), corpus, (tree,), to_cbor, CBOR_TOKENS)


TRANSFER = record(
    memo=NAT64,
    amount=record(e8s=NAT64),
    fee=record(e8s=NAT64),
    from_subaccount=opt(BLOB),
    to=BLOB,
    created_at_time=opt(record(timestamp_nanos=NAT64)),
)
ACCOUNT = account_identifier(PERUN_CANISTER_ID)
PAYMENT: CandidValue = {
    "memo": 7, "amount": {"e8s": 5}, "fee": {"e8s": 10_000}, "from_subaccount": None, "to": ACCOUNT,
    "created_at_time": {"timestamp_nanos": NOW_NS},
}  # fmt: skip
OWNER: CandidValue = {"owner": PERUN_CANISTER_ID, "subaccount": bytes(32)}
ARGUMENTS: dict[str, str | bytes] = {
    "conclude": "conclude-args(Params,FullySignedState)",
    "dispute": "conclude-args(Params,FullySignedState)",
    "deposit": "funding",
    "query_holdings": "funding",
    "transfer": encode([TRANSFER], [PAYMENT]),
    "query_blocks": "icp-query-blocks-args",
    "account_balance": encode([record(account=BLOB)], [{"account": ACCOUNT}]),
    "icrc1_balance_of": encode([record(owner=PRINCIPAL, subaccount=opt(BLOB))], [OWNER]),
    "symbol": "empty-args",
}
"""Arguments of methods, or the names of vectors that are some."""


def canister_arguments() -> Target:
    """Arguments of every method of both canisters, carried out. The first byte tells which."""
    ledger = IcpLedger()
    perun = PerunCanister(PERUN_CANISTER_ID, ICP_LEDGER_ID, LocalLedger(ledger, PERUN_CANISTER_ID, lambda: NOW_NS))
    modules = (PerunModule(perun), LedgerModule(ledger))
    methods = [(module, name) for module in modules for name in sorted(module.updates | module.queries)]
    vectors = json.loads((VECTORS / "candid.json").read_text())["vectors"]
    known = {vector["name"]: bytes.fromhex(vector["rust_hex"]) for vector in vectors}
    caller = Ed25519Identity(bytes(32)).sender

    def parse(data: bytes) -> object:
        module, name = methods[(data[0] if data else 0) % len(methods)]
        return at_once(module.execute(name, data[1:], Call(caller, NOW_NS)))

    corpus = []
    for place, (_, name) in enumerate(methods):
        if name in ARGUMENTS:
            argument = ARGUMENTS[name]
            corpus.append(bytes([place]) + (known[argument] if isinstance(argument, str) else argument))
    return Target(parse, (Trap, MethodNotFound), tuple(corpus), tokens=CANDID_TOKENS)


def replica_principals() -> Target:
    """The principals in addresses."""
    corpus = tuple(str(v["text"]).encode() for v in REQUESTS["principals"])

    def parse(text: str) -> object:
        raw = from_text(text)
        assert to_text(raw) == text.lower()
        return raw

    return Target(as_text(parse), (NotAPrincipal,), corpus, tokens=(b"-", "ß".encode(), b"="))


class Body:
    """What an admin call sees of a request."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.content_length = len(content)

    async def read(self) -> bytes:
        return self._content


def admin_calls() -> Target:
    """Admin calls, carried out. The first byte tells which."""
    loop = asyncio.new_event_loop()
    actions = (admin._advance, admin._mint, admin._order_fault)
    orders: tuple[Tree, ...] = (
        {"seconds": 60},
        {"account": "2vxsx-fae", "e8s": 5},
        {"fault": "slow", "endpoint": "query", "count": 2, "seconds": 0.5, "canister": "aaaaa-aa", "method": "go"},
    )

    async def start() -> admin.Admin:
        network = LocalNetwork.create()
        return admin.Admin(network.replica, network.mint, Faults(network.replica), {})

    served = loop.run_until_complete(start())

    async def carry_out(data: bytes) -> object:
        fields = await admin._read_object(cast("web.Request", Body(data[1:])))
        return await actions[(data[0] if data else 0) % len(actions)](served, fields)

    def parse(data: bytes) -> object:
        served.faults.clear()
        return loop.run_until_complete(carry_out(data))

    def encode_call(tree: Tree) -> bytes:
        match tree:
            case [int(place), order]:
                return bytes([place % 256]) + to_json(order)
            case _:
                return b"\x00" + to_json(tree)

    def close() -> None:
        loop.run_until_complete(served.replica.close())
        loop.close()

    corpus = tuple(bytes([place]) + to_json(order) for place, order in enumerate(orders))
    trees: tuple[Tree, ...] = tuple([place, order] for place, order in enumerate(orders))
    return Target(parse, (admin.BadInput,), corpus, trees, encode_call, JSON_TOKENS, close=close)


TARGETS: tuple[Callable[[], Target], ...] = (
    envelopes, replica_cbor, canister_arguments, replica_principals, admin_calls,
)  # fmt: skip
