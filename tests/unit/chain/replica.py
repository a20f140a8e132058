"""A replica in this process that signs with real keys and can be made to misbehave in every way we know of.

It shares no code with the client: trees, hashes and CBOR are written again here, so that a mistake of the
client is not repeated by what tests it.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import cbor2
from aiohttp import web
from aiohttp.test_utils import TestServer
from nacl.signing import SigningKey
from pyblst import BlstP1Element, BlstP2Element  # type: ignore[attr-defined]

SECOND: Final = 1_000_000_000
TAG: Final = b"\xd9\xd9\xf7"
DST: Final = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
GENERATOR: Final = BlstP2Element.uncompress(
    bytes.fromhex(
        "93e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e"
        "024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8"
    )
)
BLS_PREFIX: Final = bytes.fromhex("308182301d060d2b0601040182dc7c0503010201060c2b0601040182dc7c05030201036100")
ED_PREFIX: Final = bytes.fromhex("302a300506032b6570032100")
CANISTER: Final = bytes.fromhex("80000000001000010101")
ELSEWHERE: Final = bytes.fromhex("00000000000000020101")

Tree = Mapping[bytes, "Tree | bytes"]
Handler = Callable[["TestReplica", web.Request, bytes], Awaitable[web.Response | None]]


class FakeClock:
    """A clock that only moves when told; `pause` is the sleep that goes with it."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000 * SECOND
        self.mono = 1_000 * SECOND
        self.paused_s: list[float] = []

    def wall_ns(self) -> int:
        return self.wall

    def monotonic_ns(self) -> int:
        return self.mono

    def advance(self, seconds: float) -> None:
        self.wall += int(seconds * SECOND)
        self.mono += int(seconds * SECOND)

    async def pause(self, seconds: float) -> None:
        self.paused_s.append(seconds)
        self.advance(seconds)


class BlsKey:
    def __init__(self, secret: int) -> None:
        self._secret = secret
        self.der = BLS_PREFIX + GENERATOR.scalar_mul(secret).compress()
        self.subnet_id = hashlib.sha224(self.der).digest() + b"\x02"

    def sign(self, message: bytes) -> bytes:
        signature: bytes = BlstP1Element.hash_to_group(message, DST).scalar_mul(self._secret).compress()
        return signature


def leb(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def sha(domain: str, *parts: bytes) -> bytes:
    return hashlib.sha256(bytes([len(domain)]) + domain.encode() + b"".join(parts)).digest()


def digest(node: list[Any]) -> bytes:
    match node:
        case [0]:
            return sha("ic-hashtree-empty")
        case [1, left, right]:
            return sha("ic-hashtree-fork", digest(left), digest(right))
        case [2, label, inner]:
            return sha("ic-hashtree-labeled", label, digest(inner))
        case [3, value]:
            return sha("ic-hashtree-leaf", value)
        case [4, hidden]:
            assert isinstance(hidden, bytes)
            return hidden
    raise AssertionError(node)


def tree_of(tree: Tree | bytes) -> list[Any]:
    """Return a hash tree that shows everything, as nested lists."""
    if isinstance(tree, bytes):
        return [3, tree]
    edges = [[2, label, tree_of(tree[label])] for label in sorted(tree)]
    while len(edges) > 1:
        edges = [[1, *edges[i : i + 2]] if len(edges[i : i + 2]) == 2 else edges[i] for i in range(0, len(edges), 2)]
    return edges[0] if edges else [0]


def prune(node: list[Any], label: bytes) -> list[Any]:
    """Hide every subtree under `label`, edge and all."""
    match node:
        case [1, left, right]:
            return [1, prune(left, label), prune(right, label)]
        case [2, found, inner]:
            return [4, digest(node)] if found == label else [2, found, prune(inner, label)]
    return node


def certificate(key: BlsKey, nodes: list[Any], delegation: dict[str, Any] | None = None) -> bytes:
    fields: dict[str, Any] = {"tree": nodes, "signature": key.sign(b"\x0dic-state-root" + digest(nodes))}
    if delegation is not None:
        fields["delegation"] = delegation
    return TAG + cbor2.dumps(fields)


def ranges(*pairs: tuple[bytes, bytes]) -> bytes:
    return TAG + cbor2.dumps([list(pair) for pair in pairs])


def hash_of(value: Any) -> bytes:
    match value:
        case bytes():
            raw = value
        case str():
            raw = value.encode()
        case int():
            raw = leb(value)
        case list():
            raw = b"".join(map(hash_of, value))
        case dict():
            raw = b"".join(sorted(hash_of(k) + hash_of(v) for k, v in value.items() if v is not None))
    return hashlib.sha256(raw).digest()


@dataclass
class TestReplica:
    """One server of a network. Handlers run first and may answer in its place."""

    __test__ = False

    clock: FakeClock
    root: BlsKey = field(default_factory=lambda: BlsKey(7_777_777))
    subnet: BlsKey | None = None
    """If set, it signs, with a delegation by the root."""
    hosted: tuple[bytes, bytes] = (CANISTER, CANISTER)
    behind_s: float = 0
    """How far chain time is behind the clock's wall time."""
    versions: tuple[int, ...] = (2, 3, 4)
    subnet_versions: tuple[int, ...] = (2, 3)
    """Of the reads of state at a subnet."""
    reply: bytes = b"DIDL\x00\x00"
    execute: bool = True
    state: dict[bytes, Any] = field(default_factory=dict)
    hidden: bytes | None = None
    calls: list[dict[str, Any]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    statuses: dict[bytes, Tree] = field(default_factory=dict)
    handlers: dict[str, list[Handler]] = field(default_factory=lambda: {"call": [], "query": [], "read_state": []})
    node: SigningKey = field(default_factory=lambda: SigningKey(b"\x05" * 32))
    url: str = ""

    async def start(self) -> TestServer:
        app = web.Application()
        app.router.add_post("/api/{version}/canister/{canister}/{kind}", self._serve)
        app.router.add_post("/api/{version}/subnet/{subnet}/read_state", self._serve_subnet)
        app.router.add_get("/api/v2/status", self._status)
        server = TestServer(app)
        await server.start_server()
        self.url = str(server.make_url("")).rstrip("/")
        return server

    def answer_with(self, kind: str, *handlers: Handler) -> None:
        """The next requests of this kind are answered by these, one each."""
        self.handlers[kind].extend(handlers)

    # What it certifies.

    def now_ns(self) -> int:
        return self.clock.wall - int(self.behind_s * SECOND)

    @property
    def node_der(self) -> bytes:
        return ED_PREFIX + bytes(self.node.verify_key)

    @property
    def node_id(self) -> bytes:
        return hashlib.sha224(self.node_der).digest() + b"\x02"

    def tree(self, time_ns: int | None = None) -> dict[bytes, Any]:
        signer = self.subnet or self.root
        return {
            b"time": leb(self.now_ns() if time_ns is None else time_ns),
            b"request_status": self.statuses,
            b"subnet": {
                signer.subnet_id: {
                    b"public_key": signer.der,
                    b"canister_ranges": ranges(self.hosted),
                    b"node": {self.node_id: {b"public_key": self.node_der}},
                }
            },
            **self.state,
        }

    def delegation(self) -> dict[str, Any] | None:
        if self.subnet is None:
            return None
        inner: Tree = {
            b"time": leb(self.now_ns() - 86_400 * SECOND),
            b"canister_ranges": {self.subnet.subnet_id: {self.hosted[0]: ranges(self.hosted)}},
            b"subnet": {self.subnet.subnet_id: {b"public_key": self.subnet.der}},
        }
        return {
            "subnet_id": self.subnet.subnet_id,
            "certificate": certificate(self.root, tree_of(inner)),
        }

    def certify(self, time_ns: int | None = None) -> bytes:
        nodes = tree_of(self.tree(time_ns))
        if self.hidden is not None:
            nodes = prune(nodes, self.hidden)
        return certificate(self.subnet or self.root, nodes, self.delegation())

    def finish(self, request_id: bytes) -> None:
        self.statuses[request_id] = {b"status": b"replied", b"reply": self.reply}

    def reject(self, request_id: bytes, code: int = 5, message: str = "it trapped") -> None:
        self.statuses[request_id] = {
            b"status": b"rejected",
            b"reject_code": leb(code),
            b"reject_message": message.encode(),
            b"error_code": b"IC0503",
        }

    # What it serves.

    async def _serve(self, request: web.Request) -> web.Response:
        kind, version = request.match_info["kind"], int(request.match_info["version"][1:])
        body = await request.read()
        self.requests.append(f"v{version}/{kind}")
        if version not in self.versions or (kind != "call" and version == 4):
            return web.Response(status=404, text="no such endpoint")
        content = cbor2.loads(body.removeprefix(TAG))["content"]
        if kind == "call":
            self.calls.append({"id": hash_of(content), "body": body, **content})
        for handler in self.handlers[kind][:1]:
            self.handlers[kind].remove(handler)
            answer = await handler(self, request, hash_of(content))
            if answer is not None:
                return answer
        match kind:
            case "call":
                return self._call(version, hash_of(content))
            case "query":
                return self._query(hash_of(content))
            case _:
                return cbor_response({"certificate": self.certify()})

    async def _serve_subnet(self, request: web.Request) -> web.Response:
        version = int(request.match_info["version"][1:])
        self.requests.append(f"v{version}/subnet")
        if version not in self.subnet_versions:
            return web.Response(status=404, text="no such endpoint")
        asked = principal_to_text((self.subnet or self.root).subnet_id)
        if request.match_info["subnet"] != asked:
            return web.Response(status=400, text="subnet_not_found")
        return cbor_response({"certificate": self.certify()})

    def _call(self, version: int, request_id: bytes) -> web.Response:
        if self.execute and request_id not in self.statuses:
            self.finish(request_id)
        if version == 2 or not self.execute:
            return web.Response(status=202)
        return cbor_response({"status": "replied", "certificate": self.certify()})

    def _query(self, request_id: bytes) -> web.Response:
        return cbor_response(self.signed({"status": "replied", "reply": {"arg": self.reply}}, request_id))

    def signed(self, answer: dict[str, Any], request_id: bytes, timestamp_ns: int | None = None) -> dict[str, Any]:
        timestamp = self.now_ns() if timestamp_ns is None else timestamp_ns
        hashed = hash_of({**answer, "timestamp": timestamp, "request_id": request_id})
        signature = self.node.sign(b"\x0bic-response" + hashed).signature
        return {
            **answer,
            "signatures": [{"timestamp": timestamp, "signature": signature, "identity": self.node_id}],
        }

    async def _status(self, request: web.Request) -> web.Response:
        return cbor_response({"root_key": self.root.der, "replica_health_status": "healthy"})


def principal_to_text(raw: bytes) -> str:
    body = base64.b32encode(zlib.crc32(raw).to_bytes(4, "big") + raw).decode().rstrip("=").lower()
    return "-".join(body[at : at + 5] for at in range(0, len(body), 5))


def cbor_response(value: Any) -> web.Response:
    return web.Response(body=TAG + cbor2.dumps(value), content_type="application/cbor")


def http(status: int, text: str = "") -> Handler:
    async def answer(replica: TestReplica, request: web.Request, request_id: bytes) -> web.Response:
        return web.Response(status=status, text=text)

    return answer


def answer(make: Callable[[TestReplica, bytes], Any]) -> Handler:
    """Answer with the CBOR that `make(replica, request_id)` returns."""

    async def handler(replica: TestReplica, request: web.Request, request_id: bytes) -> web.Response:
        return cbor_response(make(replica, request_id))

    return handler
