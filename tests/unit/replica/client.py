"""A plain client for tests: it signs requests as the interface specification says and posts them."""

from __future__ import annotations

import hashlib
import io
import os
import time
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.unit.replica.certificate_check import Certificate, hash_of_map, untag
from tests.unit.replica.counter import COUNTER, COUNTER_TEXT, from_nat64

TAG = b"\xd9\xd9\xf7"
MINUTE_NS = 60 * 10**9


class Signer(Protocol):
    der: bytes

    def sign(self, message: bytes) -> bytes: ...


class Ed25519Key:
    def __init__(self, seed: bytes | None = None) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed or os.urandom(32))
        public = self._key.public_key()
        self.der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


class EcdsaKey:
    """`high_s`: use the other of the two signatures that verify."""

    def __init__(self, curve: ec.EllipticCurve, *, high_s: bool = False) -> None:
        self._key = ec.generate_private_key(curve)
        public = self._key.public_key()
        self.der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self._order = {
            "secp256k1": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
            "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
        }[curve.name]
        self._high_s = high_s

    def sign(self, message: bytes) -> bytes:
        r, s = decode_dss_signature(self._key.sign(message, ec.ECDSA(SHA256())))
        low = min(s, self._order - s)
        s = self._order - low if self._high_s else low
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def self_authenticating(der: bytes) -> bytes:
    return hashlib.sha224(der).digest() + b"\x02"


def delegate(by: Signer, to: Signer, expiration_ns: int, targets: list[bytes] | None = None) -> dict[str, Any]:
    delegation: dict[str, Any] = {"pubkey": to.der, "expiration": expiration_ns}
    if targets is not None:
        delegation["targets"] = targets
    message = b"\x1aic-request-auth-delegation" + hash_of_map(delegation)
    return {"delegation": delegation, "signature": by.sign(message)}


@dataclass
class Answer:
    status: int
    body: bytes
    content_type: str
    headers: Any

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def cbor(self) -> dict[str, Any]:
        assert self.content_type == "application/cbor", (self.status, self.body)
        fields = untag(self.body)
        assert isinstance(fields, dict)
        return fields


class Client:
    """A user of the replica at `url`: signs with `key`, or is anonymous."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: Signer | None = None) -> None:
        self.session = session
        self.url = url
        self.key = key
        self.sender = b"\x04" if key is None else self_authenticating(key.der)
        self.clock_ns = time.time_ns

    def content(self, request_type: str, **fields: Any) -> dict[str, Any]:
        content: dict[str, Any] = {
            "request_type": request_type,
            "sender": self.sender,
            "ingress_expiry": self.clock_ns() + 4 * MINUTE_NS,
        }
        if request_type != "read_state":
            content |= {"canister_id": COUNTER, "arg": b"DIDL\x00\x00"}
        if request_type == "call":
            content["nonce"] = os.urandom(16)
        return content | fields

    def envelope(self, content: dict[str, Any]) -> dict[str, Any]:
        if self.key is None:
            return {"content": content}
        return {
            "content": content,
            "sender_pubkey": self.key.der,
            "sender_sig": self.key.sign(b"\x0aic-request" + hash_of_map(content)),
        }

    async def post(self, path: str, envelope: dict[str, Any] | bytes) -> Answer:
        body = envelope if isinstance(envelope, bytes) else TAG + cbor2.dumps(envelope)
        headers = {"content-type": "application/cbor"}
        async with self.session.post(self.url + path, data=io.BytesIO(body), headers=headers) as response:
            return Answer(response.status, await response.read(), response.content_type, response.headers)

    async def send(self, content: dict[str, Any], version: str = "v4", canister: str = COUNTER_TEXT) -> Answer:
        path = f"/api/{version}/canister/{canister}/{content['request_type']}"
        return await self.post(path, self.envelope(content))

    async def root_key(self) -> bytes:
        async with self.session.get(self.url + "/api/v2/status") as response:
            key = untag(await response.read())["root_key"]
            assert isinstance(key, bytes)
            return key

    async def certificate_of(self, answer: Answer) -> Certificate:
        assert answer.status == 200, answer.text
        return Certificate(answer.cbor["certificate"], await self.root_key())

    async def call(self, method: str, arg: bytes = b"DIDL\x00\x00") -> bytes:
        """Call, and return the certified reply."""
        content = self.content("call", method_name=method, arg=arg)
        certificate = await self.certificate_of(await self.send(content))
        return certificate.value(b"request_status", hash_of_map(content), b"reply")

    async def query(self, method: str) -> dict[str, Any]:
        return (await self.send(self.content("query", method_name=method), "v3")).cbor

    async def count(self) -> int:
        answer = await self.query("get")
        return from_nat64(answer["reply"]["arg"])

    async def read_state(self, *paths: list[bytes], canister: str = COUNTER_TEXT) -> Certificate:
        content = self.content("read_state", paths=list(paths))
        return await self.certificate_of(await self.send(content, "v3", canister))

    async def admin(self, call: str, **fields: Any) -> tuple[int, dict[str, Any]]:
        async with self.session.post(f"{self.url}/_devnet/{call}", json=fields) as response:
            return response.status, await response.json()
