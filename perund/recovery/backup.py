"""The backup file: what the 24 words do not give, encrypted with a key that they do.

It has the terms and the signed state 0 of every channel that is not closed, where peers were reached, and the
configuration. It is rewritten whenever a channel opens or closes, and is on the disk before our signature on a
state 0 leaves: a channel that can be funded can be found again. It holds no secret beyond what the phrase
derives, and it does harm to nobody at any age, because what is restored from it only refutes, adopts and closes
(rule 7).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from msgspec import Meta

from perund.config import Config
from perund.config_file import render_config
from perund.keys import Keys
from perund.setup_errors import SetupError
from perund.store.reading import Reader
from protocol.opening import Opened
from protocol.terms import Terms
from protocol.types import Nanos, Params, ParticipantKey, SignedState

__all__ = ["BACKUP_NAME", "Backup", "BackupError", "BackupFile", "SavedChannel", "SavedPeer", "read_backup"]

BACKUP_NAME: Final = "backup.perund"
MAGIC: Final = b"perund-backup-1\n"
NONCE_BYTES: Final = 12
MAX_BYTES: Final = 256 * 1024 * 1024

Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Bytes33 = Annotated[bytes, Meta(min_length=33, max_length=33)]
Bytes64 = Annotated[bytes, Meta(min_length=64, max_length=64)]
Natural = Annotated[int, Meta(ge=0)]


class BackupError(SetupError):
    """The backup file is missing, damaged, or of another node."""


class SavedChannel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A channel that can be found again: its terms and its signed state 0."""

    proposal_id: Bytes32
    peer: Bytes33
    our_index: Literal[0, 1]
    nonce: Bytes64
    participants: tuple[Bytes32, Bytes32]
    challenge_ns: Natural
    allocation: tuple[Natural, Natural]
    deadline_ns: Natural
    our_share: Bytes32
    peer_share: Bytes32
    signatures: tuple[Bytes64, Bytes64]
    opened_ns: Natural

    def opened(self) -> Opened:
        """Return it as the opening left it. Raises `Undecodable`."""
        params = Params(
            self.nonce,
            (ParticipantKey(self.participants[0]), ParticipantKey(self.participants[1])),
            Nanos(self.challenge_ns),
        )
        terms = Terms(
            self.proposal_id, self.peer, self.our_index, params, self.allocation, Nanos(self.deadline_ns),
            self.our_share, self.peer_share,
        )  # fmt: skip
        return Opened(terms, SignedState(terms.state_0(), self.signatures), None)


class SavedPeer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a peer was last reached."""

    peer: Bytes33
    host: Annotated[str, Meta(max_length=255)]
    port: Annotated[int, Meta(ge=1, le=65_535)]


class Backup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything in the file. `half_open`: shares of openings that we signed and the peer may have completed."""

    node_id: Annotated[str, Meta(pattern="^[0-9a-f]{66}$")]
    network: Bytes32
    made_ms: Natural
    config: Annotated[str, Meta(max_length=1_000_000)]
    channels: list[SavedChannel]
    peers: list[SavedPeer]
    half_open: list[tuple[Bytes33, Bytes32]]


class BackupFile:
    """Writes `backup.perund` of a data directory: whole or not at all, and durable when `write` returns."""

    def __init__(self, data_dir: Path, keys: Keys, network: bytes, config: Config, read: Reader) -> None:
        self.path = data_dir / BACKUP_NAME
        self._keys = keys
        self._network = network
        self._config = config
        self._read = read

    def collect(self, made_ms: int) -> Backup:
        """Return what the store has now."""
        return Backup(
            node_id=self._keys.node_id,
            network=self._network,
            made_ms=made_ms,
            config=render_config(self._config),
            channels=[
                SavedChannel(
                    proposal_id=row.terms.proposal_id,
                    peer=row.terms.peer,
                    our_index=row.terms.our_index,
                    nonce=row.terms.params.nonce,
                    participants=row.terms.params.participants,
                    challenge_ns=row.terms.params.challenge_duration_ns,
                    allocation=row.terms.allocation,
                    deadline_ns=row.terms.funding_deadline_ns,
                    our_share=row.terms.our_share,
                    peer_share=row.terms.peer_share,
                    signatures=self._read.signatures_0(row.number),
                    opened_ns=row.opened_ns,
                )
                for row in self._read.live_channels()
            ],
            peers=[SavedPeer(peer, host, port) for peer, (host, port) in self._read.peers().items()],
            half_open=self._read.half_open(),
        )

    def write(self, made_ms: int) -> None:
        """Replace the file. Raises `OSError` when the disk refuses: then nothing may be signed (rule 8)."""
        write_backup(self.path, self._keys, self.collect(made_ms))


def write_backup(path: Path, keys: Keys, backup: Backup) -> None:
    """Write a backup atomically and durably, mode 0600."""
    nonce = os.urandom(NONCE_BYTES)
    sealed = ChaCha20Poly1305(keys.backup_key).encrypt(nonce, msgspec.msgpack.encode(backup), MAGIC)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(MAGIC + nonce + sealed)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_backup(path: Path, keys: Keys) -> Backup:
    """Open a backup with the keys of its phrase. Raises `BackupError`."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BackupError(f"{path} has more than {MAX_BYTES} bytes", "it is no backup of perund")
        content = path.read_bytes()
    except OSError as error:
        raise BackupError(f"{path} cannot be read ({error.strerror})", "give the file that the node wrote") from error
    if not content.startswith(MAGIC):
        raise BackupError(f"{path} does not begin like a backup of perund", "give the file that the node wrote")
    nonce, sealed = content[len(MAGIC) : len(MAGIC) + NONCE_BYTES], content[len(MAGIC) + NONCE_BYTES :]
    try:
        opened = ChaCha20Poly1305(keys.backup_key).decrypt(nonce, sealed, MAGIC)
        backup = msgspec.msgpack.decode(opened, type=Backup)
    except (InvalidTag, ValueError, msgspec.MsgspecError) as error:
        raise BackupError(
            f"{path} does not open with these 24 words", "it belongs to another node, or it is damaged"
        ) from error
    if backup.node_id != keys.node_id:
        raise BackupError(f"{path} belongs to node {backup.node_id[:16]}…", "use the 24 words of that node")
    return backup
