"""The encryption of messages after the handshake: BOLT #8, frames of a sealed length and a sealed body.

A frame is 18 bytes (length, big endian, with MAC) and then the body with its MAC of 16. Each direction counts
its own nonces; a key is used 1000 times, that is for 500 messages, and then replaced.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from protocol.errors import InvariantBroken
from wire.errors import BadFrame
from wire.noise import derive_two_keys

__all__ = ["FRAME_OVERHEAD", "MAX_MESSAGE_BYTES", "Opener", "Sealer"]

MAX_MESSAGE_BYTES: Final = 65_535
MAC_BYTES: Final = 16
HEADER_BYTES: Final = 2 + MAC_BYTES
FRAME_OVERHEAD: Final = HEADER_BYTES + MAC_BYTES
USES_PER_KEY: Final = 1000
NONCES: Final = tuple(bytes(4) + count.to_bytes(8, "little") for count in range(USES_PER_KEY))
"""Every nonce that is ever used. Source: BOLT #8: 32 zero bits and a little-endian counter."""


class _KeyChain:
    """One direction: the cipher, how often it was used, and what the next key is made from."""

    __slots__ = ("_chaining_key", "_key", "aead", "uses")

    def __init__(self, key: bytes, chaining_key: bytes) -> None:
        self._key = key
        self._chaining_key = chaining_key
        self.aead = ChaCha20Poly1305(key)
        self.uses = 0

    def rotate(self) -> None:
        """Replace the key after its last use. Source: BOLT #8, key rotation."""
        self._chaining_key, self._key = derive_two_keys(self._chaining_key, self._key)
        self.aead = ChaCha20Poly1305(self._key)
        self.uses = 0


class Sealer:
    """Turns messages into frames, in order. Takes the sending key and the chaining key of the handshake."""

    __slots__ = ("_chain",)

    def __init__(self, key: bytes, chaining_key: bytes) -> None:
        self._chain = _KeyChain(key, chaining_key)

    def seal(self, message: bytes) -> bytes:
        """Return the frame of a message of at most 65,535 bytes. Longer ones are a defect of the caller."""
        size = len(message)
        if size > MAX_MESSAGE_BYTES:
            raise InvariantBroken(f"a message of {size} bytes was to be sent; a frame holds {MAX_MESSAGE_BYTES}")
        chain = self._chain
        uses = chain.uses
        encrypt = chain.aead.encrypt
        frame = encrypt(NONCES[uses], size.to_bytes(2, "big"), None) + encrypt(NONCES[uses + 1], message, None)
        chain.uses = uses + 2
        if chain.uses == USES_PER_KEY:
            chain.rotate()
        return frame


class Opener:
    """Turns received bytes into messages. Takes the receiving key and the chaining key of the handshake.

    `feed` what arrives, then call `next` until it returns None. It holds what was fed and not yet returned: its
    user stops feeding while a backlog is there.
    """

    __slots__ = ("_body_bytes", "_buffer", "_chain", "_start")

    def __init__(self, key: bytes, chaining_key: bytes) -> None:
        self._chain = _KeyChain(key, chaining_key)
        self._buffer = bytearray()
        self._start = 0
        self._body_bytes = -1  # sealed size of the body whose header is read; -1: a header comes next

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes as they arrive."""
        self._buffer += data

    def next(self) -> bytes | None:
        """Return the next whole message, or None when more bytes are needed. Raises `BadFrame`, then always."""
        if self._body_bytes < 0:
            header = self._open(HEADER_BYTES, "length")
            if header is None:
                return None
            self._body_bytes = int.from_bytes(header, "big") + MAC_BYTES
        body = self._open(self._body_bytes, "body")
        if body is not None:
            self._body_bytes = -1
            if self._chain.uses == USES_PER_KEY:
                self._chain.rotate()
        return body

    def _open(self, size: int, what: str) -> bytes | None:
        end = self._start + size
        if len(self._buffer) < end:
            if self._start:
                del self._buffer[: self._start]
                self._start = 0
            return None
        chain = self._chain
        # Two views: releasing them at once lets the buffer be resized again.
        with memoryview(self._buffer) as whole, whole[self._start : end] as sealed:
            try:
                plaintext = chain.aead.decrypt(NONCES[chain.uses], sealed, None)
            except InvalidTag:
                raise BadFrame(
                    f"the {what} of a frame does not decrypt: its bytes were changed, lost or repeated on the way"
                ) from None
        chain.uses += 1
        self._start = end
        return plaintext
