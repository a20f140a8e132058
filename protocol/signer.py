"""Rule 1, where signatures are made: never two different states of one version.

The signer remembers the highest version it signed, and what. It is built from what the store says, and the
store refuses a second content for a version as well (a trigger). The record of each signature is part of the
step that sends it, so it is durable before the signature leaves.
"""

from __future__ import annotations

from typing import Protocol

from protocol.effects import SignatureRecord
from protocol.errors import InvariantBroken
from protocol.signing import ChannelKey
from protocol.types import MAX_VERSION, ParticipantKey, State

__all__ = ["StateSigner"]


class _Signs(Protocol):
    @property
    def public(self) -> ParticipantKey: ...

    def sign_state(self, state: State) -> bytes: ...


class StateSigner:
    """Signs the states of one channel, each version for one content, and nothing after a final state."""

    __slots__ = ("_digest", "_finalized", "_key", "_version")

    def __init__(self, key: ChannelKey | _Signs, last: SignatureRecord | None) -> None:
        """Take the channel's key, and the newest signature that the store knows of."""
        self._key = key
        self._version = last.version if last else -1
        self._digest = last.digest if last else b""
        self._finalized = last.finalized if last else False

    @property
    def public(self) -> ParticipantKey:
        """Our participant key, 32 bytes."""
        return self._key.public

    @property
    def signed_final(self) -> bool:
        """Whether a final state was signed: nothing else ever is."""
        return self._finalized

    def has_signed(self, version: int, digest: bytes) -> bool:
        """Whether the newest signature that is known here is the one on this content."""
        return (version, digest) == (self._version, self._digest)

    def adopted(self, state: State) -> tuple[SignatureRecord, ...]:
        """Take note of a fully signed state that the store lacked: it bears our signature, so rule 1 covers it.

        Returns what must be durable with it; nothing when what is known here is newer, or final.
        """
        if self._finalized or state.version <= self._version:
            return ()
        self._version, self._digest, self._finalized = state.version, state.digest, state.finalized
        return (SignatureRecord(state.channel, state.version, state.digest, state.finalized),)

    def sign(self, state: State) -> tuple[bytes, SignatureRecord]:
        """Return 64 bytes and the record that must be durable before they leave.

        The same content again gives the same signature. Raises `InvariantBroken` for another content of a
        version that was signed, for a lower version, after a final state, and above 2^63-1.
        """
        digest = state.digest
        again = state.version == self._version and digest == self._digest
        if not again:
            if self._finalized:
                raise InvariantBroken(f"a final state is signed; version {state.version} must not be")
            if state.version <= self._version:
                raise InvariantBroken(f"version {self._version} is signed; another {state.version} must not be")
            if state.version > MAX_VERSION:
                raise InvariantBroken(f"version {state.version} is above 2^63-1")
        signature = self._key.sign_state(state)
        self._version, self._digest, self._finalized = state.version, digest, state.finalized
        return signature, SignatureRecord(state.channel, state.version, digest, state.finalized)
