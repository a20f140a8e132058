"""What servers of the Internet Computer answer, and what people type and keep about it."""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import cbor2

from chain import agent, answers, candid, cbor, certificate, ledger, perun
from chain.candid import BLOB, NAT, NAT64, NULL, opt, record, variant, vec
from chain.certificate import CertificateVerifier, verify_bls
from chain.errors import ChainError, InvalidPrincipal, LyingReplica, UnexpectedReply, UnusableIdentity
from chain.hash_tree import HashTree, MalformedTree, parse_tree
from chain.identity import Ed25519Identity, Secp256k1Identity, identity_from_pem
from chain.interface import methods_of
from chain.principal import account_from_text, account_identifier, principal_from_text, principal_to_text
from chain.request import SignedCall, call_content, envelope, hash_of_map
from chain.transport import Response, endpoints
from protocol.errors import Undecodable
from protocol.types import ChannelId
from tests.fuzz.mutation import Tree
from tests.fuzz.target import Target, as_text

__all__ = ["TARGETS"]

T = TypeVar("T")
VECTORS = Path(__file__).parents[1] / "vectors"
CERTIFICATES = json.loads((VECTORS / "ic-certificates.json").read_text())
REQUESTS = json.loads((VECTORS / "ic-requests.json").read_text())
TAG = b"\xd9\xd9\xf7"
CHANNEL = ChannelId(bytes(range(64)))
CANDID_TOKENS = (
    b"DIDL", b"\x6e", b"\x6d", b"\x6c", b"\x6b", b"\x7d", b"\x71", b"\x68", b"\x6a", b"\x69", b"\x70", b"\x7f",
    b"\xff" * 3000 + b"\x01",
)  # fmt: skip
CBOR_TOKENS = (
    TAG,
    b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x9f",
    b"\xbf",
    b"\xff",
    b"\xd8\x1d\x00",
    b"\xfb",
    b"\xc2\x58",
)


def to_cbor(tree: Tree) -> bytes:
    encoded: bytes = TAG + cbor2.dumps(tree)
    return encoded


def from_cbor(data: bytes) -> Tree:
    tree: Tree = cbor2.loads(data.removeprefix(TAG))
    return tree


def cbor_values() -> Target:
    corpus = tuple(bytes.fromhex(v["certificate_cbor_hex"]) for v in CERTIFICATES["certificates"][:2])
    trees: tuple[Tree, ...] = ({"a": [1, 2**64 - 1, b"\x01" * 24, "text", None, True, {}]}, [[], b"", ""])
    return Target(cbor.decode, (cbor.MalformedCbor,), corpus, trees, to_cbor, CBOR_TOKENS)


def hash_trees() -> Target:
    """Trees as the specification shows them. What is read can be looked through."""
    corpus = tuple(bytes.fromhex(CERTIFICATES["hash_tree"][f"{kind}_tree_cbor_hex"]) for kind in ("full", "pruned"))

    def parse(data: bytes) -> object:
        tree = parse_tree(cbor.decode(data))
        visit(tree)
        return tree.lookup((b"a", b"y")), tree.lookup((b"d",))

    errors = (cbor.MalformedCbor, MalformedTree)
    return Target(parse, errors, corpus, tuple(map(from_cbor, corpus)), to_cbor, CBOR_TOKENS)


def visit(tree: HashTree) -> None:
    for label, below in tree.children():
        assert tree.subtree((label,)) is below
        visit(below)


def certificates() -> Target:
    """Certificates of which every signature is taken for good: what a dishonest subnet could sign must be read safely.

    What a signature is worth is the target `signatures`, and every vector's own test.
    """
    valid = [v for v in CERTIFICATES["certificates"] if v["expected"] == "valid"]
    vector = min((v for v in valid if v["has_delegation"]), key=lambda v: len(v["certificate_cbor_hex"]))
    plain = replied(b"\x07" * 32)
    corpus = (bytes.fromhex(vector["certificate_cbor_hex"]), plain)
    canister = bytes.fromhex(vector["effective_canister_id_hex"])
    verifier = CertificateVerifier(certificate.MAINNET_ROOT_KEY)
    every_signature = mock.patch.object(certificate, "verify_bls", lambda *_: True)  # noqa: PT008  (a mock keeps calls)
    every_signature.start()

    def parse(data: bytes) -> object:
        verifier._delegations.clear()
        read = verifier.verify(data, canister)
        read.hosts(canister)
        visit(read.tree)
        requests = read.tree.subtree((b"request_status",))
        labels = [label for label, _ in requests.children()] if isinstance(requests, HashTree) else []
        return [answers.request_status(read, label) for label in labels]

    trees = (from_cbor(corpus[0]), from_cbor(plain))
    close = every_signature.stop
    return Target(parse, (LyingReplica,), corpus, trees, to_cbor, CBOR_TOKENS, close=close)


def replied(request_id: bytes) -> bytes:
    """Return a certificate of a reply, a reject beside it, whose signature is no signature."""
    fields: list[Tree] = [[2, b"reply", [3, b"DIDL\x00\x00"]], [2, b"status", [3, b"replied"]]]
    rejected: list[Tree] = [
        [2, b"reject_code", [3, b"\x05"]],
        [2, b"reject_message", [3, b"no"]],
        [2, b"status", [3, b"rejected"]],
    ]
    requests: Tree = [1, [2, request_id, fork(fields)], [2, b"\x08" * 32, fork(rejected)]]
    tree: Tree = [1, [2, b"request_status", requests], [2, b"time", [3, b"\x80\xde\xa0\xcb\x05"]]]
    return to_cbor({"tree": tree, "signature": bytes(48)})


def fork(nodes: list[Tree]) -> Tree:
    return nodes[0] if len(nodes) == 1 else [1, nodes[0], fork(nodes[1:])]


def signatures() -> Target:
    """BLS: key, signature and message in a row. No change of any of them verifies."""
    valid = next(v for v in CERTIFICATES["bls"] if v["expected"] in {True, "valid"})
    key, signature, message = (bytes.fromhex(valid[f"{part}_hex"]) for part in ("pk_g2", "sig_g1", "msg"))
    good = key + signature + message

    def parse(data: bytes) -> object:
        verified = verify_bls(data[:96], data[96 + 48 :], data[96 : 96 + 48])
        assert verified == (data == good)
        if not verified:
            raise LyingReplica("not signed")
        return verified

    return Target(parse, (LyingReplica,), (good,), tokens=(b"\xc0" + bytes(47), b"\xc0" + bytes(95)))


def call_answers() -> Target:
    """Answers to calls (versions 2 to 4) and to reads of state."""
    trees: tuple[Tree, ...] = (
        {"status": "replied", "certificate": b"\x01" * 40},
        {"status": "non_replicated_rejection", "reject_code": 4, "reject_message": "no", "error_code": "IC0406"},
        {"reject_code": 5, "reject_message": "trapped"},
        {"status": "accepted"},
    )

    def parse(data: bytes) -> object:
        try:
            return answers.certificate_in(data)
        except LyingReplica:
            return answers.call_answer(Response(200, data, 4))

    corpus = tuple(map(to_cbor, trees))
    return Target(parse, (LyingReplica,), corpus, trees, to_cbor, CBOR_TOKENS)


def query_answers() -> Target:
    """Answers to queries, up to the hash that nodes sign."""
    signed: list[Tree] = [{"timestamp": 1, "signature": bytes(64), "identity": bytes(29)}]
    trees: tuple[Tree, ...] = (
        {"status": "replied", "reply": {"arg": b"DIDL\x00\x00"}, "signatures": signed},
        {"status": "rejected", "reject_code": 5, "reject_message": "no", "error_code": "IC0503", "signatures": signed},
        {"status": "rejected", "reject_code": 5, "reject_message": "no", "signatures": signed},
    )

    def parse(data: bytes) -> object:
        answer = answers.query_answer(data)
        return [hash_of_map(answer.signed_map(bytes(32), one.timestamp_ns)) for one in answer.signatures]

    corpus = tuple(map(to_cbor, trees))
    return Target(parse, (LyingReplica,), corpus, trees, to_cbor, CBOR_TOKENS)


def status_answers() -> Target:
    """The status of a local network, from which its root key is taken."""
    tree: Tree = {"root_key": certificate.MAINNET_ROOT_KEY, "replica_health_status": "healthy", "impl_version": "x"}

    class Fixed:
        """A transport whose server has answered."""

        body = b""

        async def status(self, url: str) -> bytes:
            return self.body

        async def close(self) -> None:
            return None

    fixed = Fixed()
    no_network = mock.patch.object(agent, "Transport", lambda *_: fixed)  # noqa: PT008  (a mock keeps calls)
    no_network.start()

    def parse(data: bytes) -> object:
        fixed.body = data
        return at_once(agent.fetch_root_key("http://127.0.0.1"))

    corpus, close = (to_cbor(tree),), no_network.stop
    return Target(parse, (LyingReplica,), corpus, (tree,), to_cbor, CBOR_TOKENS, close=close)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine comes to that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise asyncio.InvalidStateError("it waits for something")


def candid_replies() -> Target:
    """Certified replies of canisters, up to the types of the node. The first byte tells what was asked."""
    error = variant(Authentication=NULL, ReceiverError=variant(Recipient=NULL))
    state = record(channel=BLOB, version=NAT64, allocation=vec(NAT), finalized=candid.BOOL)
    registered = record(state=state, timeout=NAT64)
    value: candid.CandidValue = {
        "state": {"channel": CHANNEL, "version": 7, "allocation": [5, 6], "finalized": False},
        "timeout": 9,
    }
    entry = record(index=NAT64, channel=BLOB, state=registered)
    tokens, time = record(e8s=NAT64), record(timestamp_nanos=NAT64)
    moved = record(**{"from": BLOB, "to": BLOB, "amount": tokens, "fee": tokens, "spender": opt(BLOB)})
    block = record(
        transaction=record(memo=NAT64, operation=opt(variant(Transfer=moved)), created_at_time=time), timestamp=time
    )
    archived = record(start=NAT64, length=NAT64, callback=candid.FUNC)
    page = record(chain_length=NAT64, blocks=vec(block), first_block_index=NAT64, archived_blocks=vec(archived))
    transfer: candid.CandidValue = {
        "from": bytes(32), "to": bytes(32), "amount": {"e8s": 5}, "fee": {"e8s": 1}, "spender": None,
    }  # fmt: skip
    listed: candid.CandidValue = {
        "transaction": {"memo": 1, "operation": {"Transfer": transfer}, "created_at_time": {"timestamp_nanos": 3}},
        "timestamp": {"timestamp_nanos": 4},
    }
    blocks: candid.CandidValue = {"chain_length": 3, "blocks": [listed], "first_block_index": 2, "archived_blocks": []}
    event = variant(Funded=record(who=BLOB, total=NAT), Disputed=registered, Concluded=NULL)

    def events(reply: bytes) -> object:
        (found,) = candid.decode([vec(perun._EVENT)], reply)
        return [perun._event(one) for one in perun._listed(found)]

    listed_entry: candid.CandidValue = {"index": 1, "channel": CHANNEL, "state": value}
    registrations: candid.CandidValue = {"entries": [listed_entry], "head": 2}
    payout, refused = opt(NAT64), {"ReceiverError": {"Recipient": None}}
    happened: candid.CandidValue = [
        {"Funded": {"who": bytes(32), "total": 2**70}}, {"Concluded": None}, {"Disputed": value},
    ]  # fmt: skip
    bad_fee = variant(Err=variant(BadFee=record(expected_fee=tokens)))
    readers: list[tuple[Callable[[bytes], object], bytes]] = [
        (lambda reply: perun._registered_in(reply, CHANNEL), candid.encode([opt(registered)], [value])),
        (perun._page, candid.encode([record(entries=vec(entry), head=NAT64)], [registrations])),
        (perun._withdrawn, candid.encode([payout, opt(error)], [3, None])),
        (perun._withdrawn, candid.encode([payout, opt(error)], [None, refused])),
        (events, candid.encode([vec(event)], [happened])),
        (ledger._transferred, candid.encode([variant(Ok=NAT64)], [{"Ok": 5}])),
        (ledger._transferred, candid.encode([bad_fee], [{"Err": {"BadFee": {"expected_fee": {"e8s": 5}}}}])),
        (lambda reply: ledger._page(reply, 2), candid.encode([page], [blocks])),
    ]

    def parse(data: bytes) -> object:
        read, _ = readers[(data[0] if data else 0) % len(readers)]
        return read(data[1:])

    corpus = tuple(bytes([place]) + reply for place, (_, reply) in enumerate(readers))
    return Target(parse, (UnexpectedReply,), corpus, tokens=CANDID_TOKENS)


def interfaces() -> Target:
    """The interface that a canister publishes."""
    small = "type A = record { x : nat }; service : { a : (A) -> (); }"
    tokens = (b"service", b"type ", b"record", b"variant", b"opt ", b"vec ", b"func ", b"{", b"}", b"(", b"->", b"//")
    return Target(as_text(methods_of), (UnexpectedReply,), (small.encode(),), tokens=tokens)


def identities() -> Target:
    """Key files in PEM."""
    pem = REQUESTS["pem"]
    ders = [bytes.fromhex(pem[f"ed25519_{form}_der_hex"]) for form in ("v1", "v2_old_dfx", "v2_rfc5958")]
    ec_key = str(pem["secp256k1_ec_private_key_pem"])
    corpus = (
        *(armoured("PRIVATE KEY", der) for der in ders),
        Ed25519Identity(bytes(32)).to_pem().encode(),
        Secp256k1Identity(b"\x01" * 32).to_pem().encode(),
        ec_key.encode(),
    )
    sec1 = base64.b64decode("".join(ec_key.split("-----")[2].split()))
    labelled: list[tuple[str, bytes]] = [*(("PRIVATE KEY", der) for der in ders), ("EC PRIVATE KEY", sec1)]
    trees: tuple[Tree, ...] = tuple([label, der] for label, der in labelled)

    def encode(tree: Tree) -> bytes:
        match tree:
            case [str(label), bytes(der)]:
                return armoured(label, der)
            case _:
                return str(tree).encode()

    tokens = (b"-----BEGIN EC PARAMETERS-----\nBgUrgQQACg==\n-----END EC PARAMETERS-----\n", b"-----", b"ENCRYPTED")
    return Target(as_text(identity_from_pem), (UnusableIdentity,), corpus, trees, encode, tokens)


def armoured(label: str, der: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n{base64.b64encode(der).decode()}\n-----END {label}-----\n".encode()


def principals() -> Target:
    """Principals in text. Half of the changed ones have a checksum that fits."""
    corpus = tuple(str(v["text"]).encode() for v in REQUESTS["principals"])
    trees: tuple[Tree, ...] = tuple(bytes.fromhex(v["hex"]) for v in REQUESTS["principals"])

    def encode(tree: Tree) -> bytes:
        raw = tree if isinstance(tree, bytes) else str(tree).encode()
        letters = base64.b32encode(zlib.crc32(raw).to_bytes(4, "big") + raw).decode().rstrip("=").lower()
        return "-".join(letters[at : at + 5] for at in range(0, len(letters), 5)).encode()

    def parse(text: str) -> object:
        principal = principal_from_text(text)
        assert principal_to_text(principal) == text.lower()
        return principal

    return Target(as_text(parse), (InvalidPrincipal,), corpus, trees, encode, (b"-", "ß".encode(), b"="))


def accounts() -> Target:
    """Account identifiers in text. Half of the changed ones have a checksum that fits."""
    corpus = tuple(account_identifier(bytes([n]) * 10).hex().encode() for n in range(3))
    trees: tuple[Tree, ...] = (bytes(28), bytes(range(28)))

    def encode(tree: Tree) -> bytes:
        rest = tree if isinstance(tree, bytes) else str(tree).encode()
        return (zlib.crc32(rest).to_bytes(4, "big") + rest).hex().encode()

    return Target(as_text(account_from_text), (InvalidPrincipal,), corpus, trees, encode, (b" ", b"0x"))


def urls() -> Target:
    """Addresses of servers."""
    corpus = (b"https://icp-api.io", b"http://127.0.0.1:4943/", b"http://[::1]:8080/path")
    tokens = (b"http://", b"[", b"]", b":", b"@", b"//", b"?", b"#", b"%", "\u2100".encode(), b":65536")
    return Target(as_text(lambda text: endpoints([text])), (ChainError,), corpus, tokens=tokens)


def stored_calls() -> Target:
    """Calls that come back from the store."""
    identity = Ed25519Identity(bytes(32))
    content = call_content(bytes(10), "transfer", b"DIDL\x00\x00", identity.sender, 10**18, bytes(16))
    posted = envelope(content, identity)
    tree: Tree = {"form": 1, "envelope": posted, "signed_at_chain_ns": 5}
    corpus = (to_cbor(tree),)
    return Target(SignedCall.from_bytes, (Undecodable,), corpus, (tree,), to_cbor, CBOR_TOKENS)


TARGETS: tuple[Callable[[], Target], ...] = (
    cbor_values, hash_trees, certificates, signatures, call_answers, query_answers, status_answers, candid_replies,
    interfaces, identities, principals, accounts, urls, stored_calls,
)  # fmt: skip
