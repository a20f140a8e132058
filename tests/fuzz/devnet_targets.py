"""What clients send to the devnet: envelopes, arguments, admin calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from aiohttp import web

from chain.identity import Ed25519Identity, Secp256k1Identity
from chain.request import call_content, envelope, query_content, read_content
from devnet.canister import Call, MethodNotFound, Trap
from devnet.ledger.binding import LedgerModule
from devnet.ledger.ledger import IcpLedger
from devnet.network import ICP_LEDGER_ID, PERUN_CANISTER_ID, LocalNetwork
from devnet.perun import LocalLedger, PerunCanister, PerunModule
from devnet.replica import admin, cbor
from devnet.replica.authentication import authenticate
from devnet.replica.envelope import decode_envelope
from devnet.replica.errors import RequestRefused
from devnet.replica.faults import Faults
from devnet.replica.principals import NotAPrincipal, from_text, to_text
from tests.fuzz.chain_targets import CBOR_TOKENS, REQUESTS, VECTORS, at_once, from_cbor, to_cbor
from tests.fuzz.mutation import Tree
from tests.fuzz.node_targets import JSON_TOKENS, to_json
from tests.fuzz.target import Target, as_text

__all__ = ["TARGETS"]

NOW_NS = 1_700_000_000_000_000_000
SOON_NS = NOW_NS + 60_000_000_000


def envelopes() -> Target:
    """Requests, signed and not, up to who sent them. The first byte tells at which endpoint."""
    kinds = ("call", "query", "read_state")
    users = (Ed25519Identity(bytes(32)), Secp256k1Identity(b"\x01" * 32))
    corpus = []
    for user in users:
        corpus += [
            b"\x00" + envelope(call_content(bytes(10), "go", b"DIDL\x00\x00", user.sender, SOON_NS, bytes(16)), user),
            b"\x01" + envelope(query_content(bytes(10), "see", b"DIDL\x00\x00", user.sender, SOON_NS), user),
            b"\x02" + envelope(read_content([(b"time",), (b"request_status", bytes(32))], user.sender, SOON_NS), user),
        ]
    delegated = from_cbor(corpus[0][1:])
    assert isinstance(delegated, dict)
    link: Tree = {
        "delegation": {"pubkey": users[1].public_key_der, "expiration": SOON_NS, "targets": [bytes(10)]},
        "signature": bytes(64),
    }
    trees: tuple[Tree, ...] = tuple(from_cbor(one[1:]) for one in corpus)

    def encode(tree: Tree) -> bytes:
        return b"\x00" + to_cbor(tree)

    def parse(data: bytes) -> object:
        kind = kinds[(data[0] if data else 0) % 3]
        request = decode_envelope(data[1:], cast("Any", kind))
        return authenticate(request, NOW_NS)

    calls = tuple(tree for tree in trees if "nonce" in str(tree))
    strange = (to_cbor([link])[3:], b"\xc2\x5a\x00\x00\x10\x00" + b"\xff" * 4096)
    return Target("envelopes", parse, (RequestRefused,), tuple(corpus), calls, encode, (*CBOR_TOKENS, *strange))


def replica_cbor() -> Target:
    tree: Tree = {"a": [1, 2**64 - 1, b"\x01" * 24, "text", None, {}]}
    corpus = (to_cbor(tree), bytes.fromhex("d9d9f79f5f4101ff0402ff"), bytes.fromhex("bf6161c249010000000000000000ff"))

    def parse(data: bytes) -> object:
        value = cbor.decode(data)
        assert cbor.decode(cbor.encode(value)) == value
        return value

    return Target("replica-cbor", parse, (cbor.NotCbor,), corpus, (tree,), to_cbor, CBOR_TOKENS)


def canister_arguments() -> Target:
    """Arguments of every method of both canisters, carried out. The first byte tells which."""
    ledger = IcpLedger()
    perun = PerunCanister(PERUN_CANISTER_ID, ICP_LEDGER_ID, LocalLedger(ledger, PERUN_CANISTER_ID, lambda: NOW_NS))
    modules = (PerunModule(perun), LedgerModule(ledger))
    methods = [(module, name) for module in modules for name in sorted(module.updates | module.queries)]
    known = {
        v["name"]: bytes.fromhex(v["rust_hex"]) for v in json.loads((VECTORS / "candid.json").read_text())["vectors"]
    }
    caller = Ed25519Identity(bytes(32)).sender

    def parse(data: bytes) -> object:
        module, name = methods[(data[0] if data else 0) % len(methods)]
        return at_once(module.execute(name, data[1:], Call(caller, NOW_NS)))

    corpus = tuple(
        bytes([place]) + known[ARGUMENTS[name]] for place, (_, name) in enumerate(methods) if name in ARGUMENTS
    )
    tokens = (
        b"DIDL",
        b"\x6e",
        b"\x6d",
        b"\x6c",
        b"\x6b",
        b"\x7d",
        b"\x71",
        b"\x68",
        b"\x6a",
        b"\x69",
        b"\x70",
        b"\x7f",
        b"\xff" * 3000 + b"\x01",
    )
    return Target("canister-arguments", parse, (Trap, MethodNotFound), corpus, tokens=tokens)


ARGUMENTS = {
    "conclude": "conclude-args(Params,FullySignedState)",
    "dispute": "conclude-args(Params,FullySignedState)",
    "deposit": "funding",
    "query_holdings": "funding",
    "transfer": "icp-transfer-args",
    "query_blocks": "icp-query-blocks-args",
    "account_balance": "icp-account-balance-args",
    "icrc1_balance_of": "icrc1-balance-of-arg",
    "icrc1_fee": "empty-args",
    "symbol": "empty-args",
}
"""Vectors that are arguments of methods."""


def principals_in_addresses() -> Target:
    corpus = tuple(str(v["text"]).encode() for v in REQUESTS["principals"])

    def parse(text: str) -> object:
        raw = from_text(text)
        assert to_text(raw) == text.lower()
        return raw

    return Target("replica-principals", as_text(parse), (NotAPrincipal,), corpus, tokens=(b"-", "ß".encode(), b"="))


class Body:
    """What an admin call sees of a request."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.content_length = len(content)

    async def read(self) -> bytes:
        return self._content


def admin_calls() -> Target:
    """Admin calls. The first byte tells which."""
    loop = asyncio.new_event_loop()
    actions = (admin._advance, admin._mint, admin._order_fault)
    orders: tuple[Tree, ...] = (
        {"seconds": 60},
        {"account": "2vxsx-fae", "e8s": 5},
        {"fault": "slow", "endpoint": "query", "count": 2, "seconds": 0.5, "canister": "aaaaa-aa", "method": "go"},
    )
    corpus = tuple(bytes([place]) + to_json(order) for place, order in enumerate(orders))
    trees: tuple[Tree, ...] = tuple([place, order] for place, order in enumerate(orders))

    def encode(tree: Tree) -> bytes:
        match tree:
            case [int(place), order]:
                return bytes([place % 256]) + to_json(order)
            case _:
                return b"\x00" + to_json(tree)

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

    def close() -> None:
        loop.run_until_complete(served.replica.close())
        loop.close()

    return Target("admin-calls", parse, (admin.BadInput,), corpus, trees, encode, JSON_TOKENS, close=close)


TARGETS: tuple[Callable[[], Target], ...] = (
    envelopes, replica_cbor, canister_arguments, principals_in_addresses, admin_calls,
)  # fmt: skip
