"""Requests as they arrive: CBOR envelopes, decoded into typed content before anything looks at them.

Every field of the content goes into the request id, also those that this replica does not know: otherwise a
client with a newer field would sign another id than the one it is answered under.
Source: Interface Specification, "Request: Call" and following.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from devnet.replica import cbor
from devnet.replica.errors import RequestRefused
from devnet.replica.principals import MAX_LENGTH
from devnet.replica.request_id import hash_of_map

__all__ = [
    "CallContent",
    "Content",
    "Delegation",
    "Envelope",
    "Invocation",
    "QueryContent",
    "ReadStateContent",
    "decode_envelope",
]

_MAX_NONCE: Final = 32
_MAX_PATHS: Final = 1000
_MAX_LABELS: Final = 127

RequestType = Literal["call", "query", "read_state"]


@dataclass(frozen=True, slots=True)
class Content:
    """What all requests have. `sender`: raw principal; `expiry_ns`: until when it may be taken."""

    sender: bytes
    expiry_ns: int


@dataclass(frozen=True, slots=True)
class Invocation(Content):
    """A method to run: `arg` is its Candid argument."""

    canister_id: bytes
    method: str
    arg: bytes


@dataclass(frozen=True, slots=True)
class CallContent(Invocation):
    """An update call."""


@dataclass(frozen=True, slots=True)
class QueryContent(Invocation):
    """A query call."""


@dataclass(frozen=True, slots=True)
class ReadStateContent(Content):
    """Certified state: each path is a list of labels."""

    paths: tuple[tuple[bytes, ...], ...]


@dataclass(frozen=True, slots=True)
class Delegation:
    """One link of a chain: the key before it lets `public_key` sign until `expiration_ns`.

    `targets`: the only canisters that it may be used for, None for any; `digest`: what is signed.
    """

    public_key: bytes
    expiration_ns: int
    targets: frozenset[bytes] | None
    digest: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A request and what authenticates it. `request_id`: 32 bytes. An anonymous request has no key."""

    content: Content
    request_id: bytes
    public_key: bytes | None
    signature: bytes | None
    delegations: tuple[Delegation, ...]


def decode_envelope(body: bytes, expected: RequestType) -> Envelope:
    """Return the envelope in a request's body. Raises `RequestRefused` (400) if it is not `expected`."""
    try:
        outer = _Fields(cbor.decode(body), "the envelope")
        inner = _Fields(outer.value("content"), "content")
        content = _content(inner, expected)
        return Envelope(
            content=content,
            request_id=hash_of_map(inner.fields),
            public_key=outer.optional_blob("sender_pubkey"),
            signature=outer.optional_blob("sender_sig"),
            delegations=tuple(_delegation(link) for link in outer.optional_sequence("sender_delegation")),
        )
    except ValueError as exc:
        raise RequestRefused(400, f"Malformed request: could not parse body as {expected} message: {exc}") from exc


def _content(fields: _Fields, expected: RequestType) -> Content:
    request_type = fields.text("request_type")
    if request_type != expected:
        raise ValueError(f"request_type is {request_type!r}, expected {expected!r} at this endpoint")
    sender, expiry_ns = fields.principal("sender"), fields.nat("ingress_expiry")
    nonce = fields.optional_blob("nonce")
    if nonce is not None and len(nonce) > _MAX_NONCE:
        raise ValueError(f"Nonce is too big: got {len(nonce)} bytes, but at most {_MAX_NONCE} are allowed")
    if expected == "read_state":
        return ReadStateContent(sender, expiry_ns, _paths(fields.sequence("paths")))
    kind = CallContent if expected == "call" else QueryContent
    return kind(sender, expiry_ns, fields.principal("canister_id"), fields.text("method_name"), fields.blob("arg"))


def _paths(raw: list[cbor.Value]) -> tuple[tuple[bytes, ...], ...]:
    if len(raw) > _MAX_PATHS:
        raise ValueError(f"Too many paths in read_state request: got {len(raw)}, but at most {_MAX_PATHS} are allowed")
    paths = []
    for path in raw:
        if not isinstance(path, list) or len(path) > _MAX_LABELS:
            raise ValueError(f"a path is a list of at most {_MAX_LABELS} labels")
        labels = tuple(label for label in path if isinstance(label, bytes))
        if len(labels) != len(path):
            raise ValueError("the labels of a path are byte strings")
        paths.append(labels)
    return tuple(paths)


def _delegation(link: cbor.Value) -> Delegation:
    outer = _Fields(link, "a signed delegation")
    inner = _Fields(outer.value("delegation"), "a delegation")
    targets = inner.fields.get("targets")
    return Delegation(
        public_key=inner.blob("pubkey"),
        expiration_ns=inner.nat("expiration"),
        targets=None if targets is None else _targets(targets),
        digest=hash_of_map(inner.fields),
        signature=outer.blob("signature"),
    )


def _targets(raw: cbor.Value) -> frozenset[bytes]:
    if not isinstance(raw, list) or len(raw) > 1000:
        raise ValueError("the targets of a delegation are a list of at most 1000 canister ids")
    return frozenset(_checked(target, bytes, "a delegation's target") for target in raw)


Checked = TypeVar("Checked", bytes, str, int, list[cbor.Value])


def _checked(value: cbor.Value, kind: type[Checked], what: str) -> Checked:
    if not isinstance(value, kind):
        found = "missing" if value is None else f"a {type(value).__name__}"
        raise ValueError(f"{what} must be {kind.__name__}, but is {found}")  # noqa: TRY004  (all shapes fail alike)
    return value


class _Fields:
    """A map of a request, read field by field. A null counts as absent: some agents send them."""

    def __init__(self, value: cbor.Value, what: str) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{what} is not a map")  # noqa: TRY004  (all shapes fail alike)
        self.fields = value
        self._what = what

    def value(self, name: str) -> cbor.Value:
        return self.fields.get(name)

    def blob(self, name: str) -> bytes:
        return _checked(self.value(name), bytes, name)

    def optional_blob(self, name: str) -> bytes | None:
        return None if self.value(name) is None else self.blob(name)

    def text(self, name: str) -> str:
        return _checked(self.value(name), str, name)

    def nat(self, name: str) -> int:
        number = _checked(self.value(name), int, name)
        if number >= 2**64:
            raise ValueError(f"{name} is above 2^64-1")
        return number

    def sequence(self, name: str) -> list[cbor.Value]:
        found = self.value(name)
        if not isinstance(found, list):
            raise ValueError(f"{name} must be a list")  # noqa: TRY004  (all shapes fail alike)
        return found

    def optional_sequence(self, name: str) -> list[cbor.Value]:
        return [] if self.value(name) is None else self.sequence(name)

    def principal(self, name: str) -> bytes:
        raw = self.blob(name)
        if len(raw) > MAX_LENGTH:
            raise ValueError(f"{name} has {len(raw)} bytes, a principal at most {MAX_LENGTH}")
        return raw
