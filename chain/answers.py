"""What servers answer, read into types. Nothing here is proven yet: proof is the certificate's or the agent's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from chain import cbor
from chain.cbor import MalformedCbor, Value
from chain.certificate import Certificate, uleb128_value
from chain.errors import LyingReplica
from chain.hash_tree import HashTree, Missing
from chain.transport import Response

__all__ = [
    "Accepted",
    "CertificateBytes",
    "Pending",
    "QueryAnswer",
    "Rejection",
    "Reply",
    "call_answer",
    "certificate_in",
    "query_answer",
    "request_status",
    "shown_reply",
]


@dataclass(frozen=True, slots=True)
class CertificateBytes:
    """A certificate, not verified."""

    encoded: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """The call was taken in (or so the server says); its result must be asked for."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A reject: certified or not, as its source is."""

    code: int
    message: str
    error_code: str | None


@dataclass(frozen=True, slots=True)
class Reply:
    """A certified reply: Candid bytes."""

    value: bytes


class Pending(Enum):
    """A certified status that is not (or not any more) a result."""

    ABSENT = "absent"
    RECEIVED = "received"
    PROCESSING = "processing"
    DONE = "done"


def call_answer(response: Response) -> CertificateBytes | Accepted | Rejection:
    """Read the answer to a call of any version of the interface. Raises `LyingReplica`."""
    if response.status == 202:
        return Accepted()
    match _decoded(response.body):
        case {"certificate": bytes(encoded)}:
            return CertificateBytes(encoded)
        case {"reject_code": int(), "reject_message": str()} as fields:
            return _rejection(fields)
        case {"status": "accepted"}:
            return Accepted()
        case _:
            raise LyingReplica("the answer to a call is neither a certificate nor a reject")


def certificate_in(body: bytes) -> bytes:
    """Return the certificate in the answer to a read of state. Raises `LyingReplica`."""
    match _decoded(body):
        case {"certificate": bytes(encoded)}:
            return encoded
        case _:
            raise LyingReplica("the answer to a read of state holds no certificate")


def request_status(certificate: Certificate, request_id: bytes) -> Reply | Rejection | Pending:
    """Return what a verified certificate says of a request. Raises `LyingReplica` if it hides that."""
    path = (b"request_status", request_id)
    status = certificate.lookup(*path, b"status")
    if status is Missing.ABSENT:
        # Provably absent must be the request, not only its status.
        if certificate.tree.subtree(path) is not Missing.ABSENT:
            raise LyingReplica("a certificate shows a request without a status")
        return Pending.ABSENT
    match status:
        case b"replied":
            return Reply(_leaf(certificate, request_id, b"reply"))
        case b"rejected":
            return _certified_rejection(certificate, request_id)
        case b"received" | b"processing" | b"done":
            return Pending(status.decode())
        case _:
            raise LyingReplica("a certificate does not show the status of the request that it was asked for")


def shown_reply(tree: HashTree, request_id: bytes) -> bytes | None:
    """Return the reply to a request in a tree that proves nothing, or None when it shows none."""
    path = (b"request_status", request_id)
    reply = tree.lookup((*path, b"reply"))
    return reply if tree.lookup((*path, b"status")) == b"replied" and isinstance(reply, bytes) else None


def _certified_rejection(certificate: Certificate, request_id: bytes) -> Rejection:
    error_code = certificate.lookup(b"request_status", request_id, b"error_code")
    return Rejection(
        uleb128_value(_leaf(certificate, request_id, b"reject_code")),
        _leaf(certificate, request_id, b"reject_message").decode(errors="replace"),
        error_code.decode(errors="replace") if isinstance(error_code, bytes) else None,
    )


def _leaf(certificate: Certificate, request_id: bytes, name: bytes) -> bytes:
    value = certificate.lookup(b"request_status", request_id, name)
    if isinstance(value, Missing):
        raise LyingReplica(f"a certificate shows a result without its {name.decode()}")
    return value


@dataclass(frozen=True, slots=True)
class NodeSignature:
    """One node's word. `timestamp_ns`: its time; `node`: its principal."""

    timestamp_ns: int
    node: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """The answer to a query with the signatures of the nodes that gave it."""

    result: Reply | Rejection
    signatures: tuple[NodeSignature, ...]

    def signed_map(self, request_id: bytes, timestamp_ns: int) -> dict[str, Value]:
        """Return the map that a node hashed and signed. Source: specification, "Query call"."""
        common: dict[str, Value] = {"timestamp": timestamp_ns, "request_id": request_id}
        match self.result:
            case Reply(value):
                return {"status": "replied", "reply": {"arg": value}, **common}
            case Rejection(code, message, error_code):
                rejection: dict[str, Value] = {"reject_code": code, "reject_message": message}
                return {"status": "rejected", **rejection, "error_code": error_code, **common}


def query_answer(body: bytes) -> QueryAnswer:
    """Read the answer to a query. Raises `LyingReplica`."""
    fields = _decoded(body)
    result: Reply | Rejection
    match fields:
        case {"status": "replied", "reply": {"arg": bytes(value)}}:
            result = Reply(value)
        case {"status": "rejected"}:
            result = _rejection(fields)
        case _:
            raise LyingReplica("the answer to a query is neither a reply nor a reject")
    signatures: list[NodeSignature] = []
    listed = fields.get("signatures")
    for item in listed if isinstance(listed, list) else ():
        match item:
            case {"timestamp": int(timestamp), "signature": bytes(signature), "identity": bytes(node)} if _is_nat(
                timestamp
            ):
                signatures.append(NodeSignature(timestamp, node, signature))
            case _:
                raise LyingReplica("a signature of a query's answer is malformed")
    return QueryAnswer(result, tuple(signatures))


def _rejection(fields: Mapping[str, Value]) -> Rejection:
    match fields:
        case {"reject_code": int(code), "reject_message": str(message)} if _is_nat(code):
            error_code = fields.get("error_code")
            return Rejection(code, message, error_code if isinstance(error_code, str) else None)
        case _:
            raise LyingReplica("a reject is malformed")


def _is_nat(number: int) -> bool:
    """Whether it came as a number. Python takes true and false for numbers too; they have no hash."""
    return not isinstance(number, bool)


def _decoded(body: bytes) -> Mapping[str, Value]:
    try:
        value = cbor.decode(body)
    except MalformedCbor as exc:
        raise LyingReplica(f"an answer is malformed: {exc}") from exc
    if not isinstance(value, Mapping):
        raise LyingReplica("an answer is no map")
    return value
