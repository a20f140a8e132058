"""The handshake of BOLT #8, `Noise_XK_secp256k1_ChaChaPoly_SHA256`, without I/O.

The initiator knows the responder's node key beforehand and proves its own in act three. Both end with two keys,
one for each direction. Acts have 50, 50 and 66 bytes. Source: BOLT #8; tests/vectors/bolt8.json.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from coincurve import PrivateKey, PublicKey
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from protocol.errors import InvariantBroken
from wire.errors import HandshakeFailed, HandshakeFault

__all__ = ["NODE_KEY_BYTES", "Initiator", "Responder", "Secured", "derive_two_keys", "is_node_key"]

NODE_KEY_BYTES: Final = 33
PROTOCOL_NAME: Final = b"Noise_XK_secp256k1_ChaChaPoly_SHA256"
PROLOGUE: Final = b"lightning"
"""Kept from BOLT #8, so that its vectors hold; `Hello` is what tells networks apart."""
HANDSHAKE_VERSION: Final = 0
ACT_BYTES: Final = {1: 50, 2: 50, 3: 66}
NONCE_0: Final = bytes(12)
NONCE_1: Final = bytes(4) + (1).to_bytes(8, "little")


def derive_two_keys(salt: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """Return 64 bytes of HKDF-SHA256 with empty info, in halves. Source: BOLT #8, `HKDF(salt, ikm)`."""
    extracted = hmac.digest(salt, secret, "sha256")
    first = hmac.digest(extracted, b"\x01", "sha256")
    return first, hmac.digest(extracted, first + b"\x02", "sha256")


def is_node_key(key: bytes) -> bool:
    """Whether `key` is a compressed point of secp256k1 (33 bytes)."""
    return _parse_key(key) is not None


def _parse_key(key: bytes) -> PublicKey | None:
    if len(key) != NODE_KEY_BYTES or key[0] not in (2, 3):
        return None
    try:
        return PublicKey(key)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Secured:
    """The result of a handshake: the peer's node key (33 bytes) and the keys of the frames (32 bytes each)."""

    peer: bytes
    send_key: bytes = field(repr=False)
    receive_key: bytes = field(repr=False)
    chaining_key: bytes = field(repr=False)


class _Transcript:
    """The hash and the chaining key that both sides grow in step."""

    __slots__ = ("chaining_key", "digest", "temporary_key")

    def __init__(self, responder_key: bytes) -> None:
        self.chaining_key = hashlib.sha256(PROTOCOL_NAME).digest()
        self.digest = hashlib.sha256(self.chaining_key + PROLOGUE).digest()
        self.temporary_key = b""
        self.mix(responder_key)

    def mix(self, data: bytes) -> None:
        self.digest = hashlib.sha256(self.digest + data).digest()

    def mix_secret(self, ours: PrivateKey, theirs: bytes) -> None:
        """Mix in the shared secret: SHA-256 of the compressed product, which is what `ecdh` returns."""
        self.chaining_key, self.temporary_key = derive_two_keys(self.chaining_key, ours.ecdh(theirs))

    def seal(self, nonce: bytes, plaintext: bytes) -> bytes:
        sealed = ChaCha20Poly1305(self.temporary_key).encrypt(nonce, plaintext, self.digest)
        self.mix(sealed)
        return sealed

    def open(self, nonce: bytes, sealed: bytes) -> bytes | None:
        """Return the plaintext, or None when the MAC does not match."""
        try:
            plaintext = ChaCha20Poly1305(self.temporary_key).decrypt(nonce, sealed, self.digest)
        except InvalidTag:
            return None
        self.mix(sealed)
        return plaintext


class _Side:
    """What initiator and responder share. `expects`: bytes of the next act, 0 when none is due."""

    __slots__ = ("_ephemeral", "_static", "_transcript", "expects", "secured")

    def __init__(self, static: PrivateKey, responder_key: bytes, ephemeral: PrivateKey | None) -> None:
        self._static = static
        self._ephemeral = PrivateKey() if ephemeral is None else ephemeral
        self._transcript = _Transcript(responder_key)
        self.expects = 0
        self.secured: Secured | None = None
        """Set when the handshake is complete."""

    def _due(self, act: int) -> None:
        if self.expects != ACT_BYTES[act]:
            raise InvariantBroken(f"act {act} of a handshake is not due")
        self.expects = 0  # also after a failure: a handshake is never tried twice

    def _check_form(self, act: int, data: bytes) -> None:
        if len(data) != ACT_BYTES[act]:
            raise HandshakeFailed(
                act, HandshakeFault.SHORT, f"act {act} of the handshake has {len(data)} of {ACT_BYTES[act]} bytes"
            )
        if data[0] != HANDSHAKE_VERSION:
            raise HandshakeFailed(
                act,
                HandshakeFault.VERSION,
                f"act {act} of the handshake has version {data[0]}, not {HANDSHAKE_VERSION}: "
                f"the other side is not a peer, or a newer one",
            )

    def _read_ephemeral(self, act: int, data: bytes, ours: PrivateKey) -> bytes:
        """Read act one or two: version, ephemeral key, MAC over the transcript."""
        self._check_form(act, data)
        theirs = data[1:34]
        if not is_node_key(theirs):
            raise HandshakeFailed(act, HandshakeFault.KEY, f"the ephemeral key of act {act} is not a point")
        self._transcript.mix(theirs)
        self._transcript.mix_secret(ours, theirs)
        if self._transcript.open(NONCE_0, data[34:]) is None:
            raise HandshakeFailed(
                act,
                HandshakeFault.MAC,
                f"act {act} of the handshake does not authenticate: "
                + ("it was meant for another node key" if act == 1 else "the other side lacks the expected node key"),
            )
        return theirs

    def _write_ephemeral(self, secret: PrivateKey, theirs: bytes) -> bytes:
        key = self._ephemeral.public_key.format()
        self._transcript.mix(key)
        self._transcript.mix_secret(secret, theirs)
        return bytes((HANDSHAKE_VERSION,)) + key + self._transcript.seal(NONCE_0, b"")


class Initiator(_Side):
    """The side that dials. `begin()` returns act one, `receive(act_two)` returns act three."""

    __slots__ = ("_peer",)

    def __init__(self, static: PrivateKey, peer: bytes, ephemeral: PrivateKey | None = None) -> None:
        """Take our node key and the peer's (33 bytes, a valid point). `ephemeral` is given by vectors only."""
        if not is_node_key(peer):
            raise InvariantBroken("a handshake was begun with something that is not a node key")
        super().__init__(static, peer, ephemeral)
        self._peer = peer

    def begin(self) -> bytes:
        """Return act one."""
        self.expects = ACT_BYTES[2]
        return self._write_ephemeral(self._ephemeral, self._peer)

    def receive(self, act: bytes) -> bytes:
        """Take act two and return act three; the handshake is complete then. Raises `HandshakeFailed`."""
        self._due(2)
        theirs = self._read_ephemeral(2, act, self._ephemeral)
        transcript = self._transcript
        sealed_key = transcript.seal(NONCE_1, self._static.public_key.format())
        transcript.mix_secret(self._static, theirs)
        tag = transcript.seal(NONCE_0, b"")
        send_key, receive_key = derive_two_keys(transcript.chaining_key, b"")
        self.secured = Secured(self._peer, send_key, receive_key, transcript.chaining_key)
        return bytes((HANDSHAKE_VERSION,)) + sealed_key + tag


class Responder(_Side):
    """The side that was dialed. `receive(act_one)` returns act two; `receive(act_three)` completes it."""

    __slots__ = ()

    def __init__(self, static: PrivateKey, ephemeral: PrivateKey | None = None) -> None:
        """Take our node key. `ephemeral` is given by vectors only."""
        super().__init__(static, static.public_key.format(), ephemeral)
        self.expects = ACT_BYTES[1]

    def begin(self) -> bytes:
        """Return nothing: the responder waits."""
        return b""

    def receive(self, act: bytes) -> bytes:
        """Take the act that is due and return the answer (empty after act three). Raises `HandshakeFailed`."""
        if self.expects == ACT_BYTES[1]:
            self._due(1)
            theirs = self._read_ephemeral(1, act, self._static)
            answer = self._write_ephemeral(self._ephemeral, theirs)
            self.expects = ACT_BYTES[3]
            return answer
        self._due(3)
        self._finish(act)
        return b""

    def _finish(self, act: bytes) -> None:
        self._check_form(3, act)
        transcript = self._transcript
        peer = transcript.open(NONCE_1, act[1:50])
        if peer is None:
            raise HandshakeFailed(3, HandshakeFault.KEY_MAC, "the node key in act 3 does not authenticate")
        if not is_node_key(peer):
            raise HandshakeFailed(3, HandshakeFault.KEY, "the node key in act 3 is not a point")
        transcript.mix_secret(self._ephemeral, peer)
        if transcript.open(NONCE_0, act[50:]) is None:
            raise HandshakeFailed(3, HandshakeFault.MAC, "act 3 of the handshake does not prove its node key")
        receive_key, send_key = derive_two_keys(transcript.chaining_key, b"")
        self.secured = Secured(peer, send_key, receive_key, transcript.chaining_key)
