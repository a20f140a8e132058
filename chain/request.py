"""Requests: what is signed, its id, and the bytes that carry it.

Source: Internet Computer interface specification, "Authentication" and "Representation-independent hashing".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, TypeVar

from chain import cbor
from chain.cbor import Value
from chain.identity import Identity
from protocol.encoding import uleb128
from protocol.errors import Undecodable

__all__ = ["NEVER_FRESH", "SignedCall", "call_content", "envelope", "hash_of_map", "query_content", "read_content"]

REQUEST_DOMAIN: Final = b"\x0aic-request"
NEVER_FRESH: Final = -(2**62)
"""The signing moment of a call that came back from storage: long before anything the clock can say."""
STORED_FORM: Final = 1

T = TypeVar("T")


def hash_of_map(content: Mapping[str, Value]) -> bytes:
    """Return the representation-independent hash of a map (32 bytes). Fields that are None are absent."""
    pairs = sorted(
        sha256(key.encode()).digest() + _hash_of(value) for key, value in content.items() if value is not None
    )
    return sha256(b"".join(pairs)).digest()


def _hash_of(value: Value) -> bytes:
    match value:
        case bytes():
            return sha256(value).digest()
        case str():
            return sha256(value.encode()).digest()
        case bool() | None:
            raise ValueError(f"{value!r} has no representation-independent hash")
        case int():
            return sha256(uleb128(value)).digest()
        case Mapping():
            return hash_of_map(value)
        case Sequence():
            return sha256(b"".join(_hash_of(item) for item in value)).digest()


def call_content(
    canister: bytes, method: str, arg: bytes, sender: bytes, ingress_expiry_ns: int, nonce: bytes
) -> dict[str, Value]:
    """Return the content of a call. `nonce`: random, at most 32 bytes: without it equal calls are one call."""
    return {
        "request_type": "call",
        "canister_id": canister,
        "method_name": method,
        "arg": arg,
        "sender": sender,
        "ingress_expiry": ingress_expiry_ns,
        "nonce": nonce,
    }


def query_content(canister: bytes, method: str, arg: bytes, sender: bytes, ingress_expiry_ns: int) -> dict[str, Value]:
    """Return the content of a query."""
    return {
        "request_type": "query",
        "canister_id": canister,
        "method_name": method,
        "arg": arg,
        "sender": sender,
        "ingress_expiry": ingress_expiry_ns,
    }


def read_content(paths: Sequence[Sequence[bytes]], sender: bytes, ingress_expiry_ns: int) -> dict[str, Value]:
    """Return the content of a read of certified state."""
    return {
        "request_type": "read_state",
        "paths": [list(path) for path in paths],
        "sender": sender,
        "ingress_expiry": ingress_expiry_ns,
    }


def envelope(content: Mapping[str, Value], identity: Identity) -> bytes:
    """Return the bytes to post: the content, signed unless the identity is anonymous."""
    public_key = identity.public_key_der
    if public_key is None:
        return cbor.encode({"content": content})
    signature = identity.sign(REQUEST_DOMAIN + hash_of_map(content))
    return cbor.encode({"content": content, "sender_pubkey": public_key, "sender_sig": signature})


@dataclass(frozen=True, slots=True)
class SignedCall:
    """A call that is ready to be sent, as often as needed: the same bytes execute at most once.

    `canister`: raw principal; `request_id`: 32 bytes; `envelope`: the bytes to post; `ingress_expiry_ns`: chain
    time after which it cannot execute any more; `signed_at_mono_ns`: the agent's monotonic clock when it was
    signed (rule 5: a look is as old as that); `signed_at_chain_ns`: the agent's chain time then.
    """

    canister: bytes
    method: str
    request_id: bytes
    envelope: bytes
    ingress_expiry_ns: int
    signed_at_mono_ns: int
    signed_at_chain_ns: int

    def to_bytes(self) -> bytes:
        """Return bytes that a job stores before the call is sent. They authorise the call: keep them private."""
        return cbor.encode(
            {"form": STORED_FORM, "envelope": self.envelope, "signed_at_chain_ns": self.signed_at_chain_ns}
        )

    @classmethod
    def from_bytes(cls, stored: bytes) -> SignedCall:
        """Return the call that was stored. Raises `Undecodable` when the bytes are not what `to_bytes` made.

        Everything but the envelope is derived from it anew, so nothing can contradict the bytes that are sent.
        Its signing moment becomes `NEVER_FRESH`: the monotonic clock of another boot says nothing, and an
        answer to a restored call must never count as a look.
        """
        try:
            record = _map(cbor.decode(stored))
            posted = _field(record, "envelope", bytes)
            content = _map(_map(cbor.decode(posted)).get("content"))
            if record.get("form") != STORED_FORM or content.get("request_type") != "call":
                raise Undecodable("a stored call has an unknown form")
            return cls(
                canister=_field(content, "canister_id", bytes),
                method=_field(content, "method_name", str),
                request_id=hash_of_map(content),
                envelope=posted,
                ingress_expiry_ns=_field(content, "ingress_expiry", int),
                signed_at_mono_ns=NEVER_FRESH,
                signed_at_chain_ns=_field(record, "signed_at_chain_ns", int),
            )
        except ValueError as exc:
            raise Undecodable(f"a stored call cannot be read: {exc}") from exc


def _map(value: Value) -> Mapping[str, Value]:
    if not isinstance(value, Mapping):
        raise Undecodable("a stored call is no map")
    return value


def _field(record: Mapping[str, Value], name: str, kind: type[T]) -> T:
    value = record.get(name)
    if not isinstance(value, kind):
        raise Undecodable(f"the field {name} of a stored call is missing or of another kind")
    return value
