r"""The bytes of a backup file: sealed records, each readable without the others.

    file    = "perund-backup-2\n" record*
    record  = mark(4) file(16) place(8) length(4) nonce(12) sealed(length)

`file` is drawn when a file is written as a whole, `place` counts its records, and both are authenticated with the
record: none can be left out, moved or brought from another file without being seen. A damaged one costs itself; the
search goes on at the next mark. The numbers are big endian. A file has no bound, a record has `MAX_RECORD`.

The first format, one sealed record of everything after "perund-backup-1\n", is still read.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from perund.keys import Keys
from perund.recovery.saved import Backup, Gathering
from perund.setup_errors import SetupError

__all__ = ["FILE_ID_BYTES", "MAGIC", "BackupError", "Sealer", "open_records", "read_backup", "read_content"]

MAGIC_1: Final = b"perund-backup-1\n"
MAGIC: Final = b"perund-backup-2\n"
MARK: Final = b"\xb5PBR"
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
FILE_ID_BYTES: Final = 16
MAX_RECORD: Final = 64 * 1024 * 1024
"""Bytes of a sealed record. The largest part is the configuration, whose file has at most a quarter of it."""
_HEADER: Final = struct.Struct(">4s16sQI")


class BackupError(SetupError):
    """The backup file is missing, damaged, or of another node."""


class Sealer:
    """Seals the records of one file, in their order."""

    def __init__(self, keys: Keys) -> None:
        self._cipher = ChaCha20Poly1305(keys.backup_key)
        self.file_id = os.urandom(FILE_ID_BYTES)
        self.place = 0

    def seal(self, part: bytes) -> bytes:
        """Return the next record. Raises `BackupError` for a part that no reader would take."""
        length = len(part) + TAG_BYTES
        if length > MAX_RECORD:
            raise BackupError(f"a part of the backup has {len(part)} bytes", "a record holds at most 64 MiB")
        header = _HEADER.pack(MARK, self.file_id, self.place, length)
        nonce = os.urandom(NONCE_BYTES)
        self.place += 1
        return header + nonce + self._cipher.encrypt(nonce, part, MAGIC + header)


@dataclass(slots=True)
class Records:
    """What a file opens to. `faults`: places that are damaged, for people; `torn`: the last record is incomplete."""

    parts: list[bytes] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    torn: bool = False
    file_id: bytes = b""
    next_place: int = 0


def open_records(
    content: bytes, keys: Keys, start: int = len(MAGIC), file_id: bytes = b"", next_place: int = 0
) -> Records:
    """Open the records from `start` on: all of a file, or what was appended to it (`file_id`, `next_place`)."""
    found = Records(file_id=file_id, next_place=next_place)
    at = start
    for record in _records(content, start, ChaCha20Poly1305(keys.backup_key)):
        if record.begin > at:
            found.faults.append(f"bytes {at} to {record.begin} of the backup are damaged")
        at = record.end
        if found.file_id and record.file_id != found.file_id:
            found.faults.append(f"the record at byte {record.begin} of the backup is of another file")
            continue
        found.file_id = record.file_id
        if record.place != found.next_place:
            found.faults.append(f"records {found.next_place} to {record.place} of the backup are not there in order")
        found.next_place = record.place + 1
        found.parts.append(record.part)
    if at < len(content):
        found.torn = _is_torn(content[at:])
        if not found.torn:
            found.faults.append(f"bytes {at} to {len(content)} of the backup are damaged")
    return found


def _is_torn(rest: bytes) -> bool:
    """Whether a file that ends so was being appended to when the machine stopped: too short, or zeros at its end."""
    if not rest.rstrip(b"\0") or MARK.startswith(rest):
        return True
    if not rest.startswith(MARK):
        return False
    if len(rest) < _HEADER.size:
        return True
    *_, length = _HEADER.unpack_from(rest)
    complete = _HEADER.size + NONCE_BYTES + length
    return length <= MAX_RECORD and (len(rest) < complete or not rest[complete - TAG_BYTES :].strip(b"\0"))


@dataclass(frozen=True, slots=True)
class _Record:
    """A record that opened, and where it stands in the file."""

    begin: int
    end: int
    file_id: bytes
    place: int
    part: bytes


def _records(content: bytes, start: int, cipher: ChaCha20Poly1305) -> Iterator[_Record]:
    """Yield each record that opens, wherever it stands."""
    at = content.find(MARK, start)
    while at >= 0:
        record = _open_at(content, at, cipher)
        if record is not None:
            yield record
        at = content.find(MARK, at + 1 if record is None else record.end)


def _open_at(content: bytes, at: int, cipher: ChaCha20Poly1305) -> _Record | None:
    header = content[at : at + _HEADER.size]
    if len(header) < _HEADER.size:
        return None
    _, file_id, place, length = _HEADER.unpack(header)
    nonce = at + _HEADER.size
    begin = nonce + NONCE_BYTES
    if not TAG_BYTES <= length <= MAX_RECORD or begin + length > len(content):
        return None
    try:
        part = cipher.decrypt(content[nonce:begin], content[begin : begin + length], MAGIC + header)
    except InvalidTag:
        return None
    return _Record(at, begin + length, file_id, place, part)


def read_backup(path: Path, keys: Keys) -> Backup:
    """Open a backup with the keys of its phrase: what is good of it, and in `faults` what is not.

    Raises `BackupError`: it cannot be read, is none, is of another node, or nothing of it opens.
    """
    try:
        # Not blocking: a pipe without a writer would keep us waiting for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BackupError(f"{path} is no regular file", "give the file that the node wrote")
            content = file.read()
    except OSError as error:
        raise BackupError(f"{path} cannot be read ({error.strerror})", "give the file that the node wrote") from error
    return read_content(path, content, keys)


def read_content(path: Path, content: bytes, keys: Keys) -> Backup:
    """Open the content of a backup. As `read_backup`; `path` is named in what is said."""
    gathering = Gathering()
    torn = False
    if content.startswith(MAGIC_1):
        _read_version_1(path, content, keys, gathering)
    else:
        records = open_records(content, keys, len(MAGIC) if content.startswith(MAGIC) else 0)
        if not content.startswith(MAGIC):
            if not records.parts:
                raise BackupError(f"{path} does not begin like a backup of perund", "give the file that the node wrote")
            gathering.faults.append("the begin of the backup is damaged")
        gathering.faults += records.faults
        torn = records.torn
        for part in records.parts:
            gathering.take(part)
    backup = gathering.backup(torn=torn)
    if backup is None:
        raise BackupError(f"{path} does not open with these 24 words", "it belongs to another node, or it is damaged")
    if not gathering.whole:
        backup.faults.append("the end of what was written at once is missing: the file was cut")
    if backup.node_id != keys.node_id:
        raise BackupError(f"{path} belongs to node {backup.node_id[:16]}…", "use the 24 words of that node")
    return backup


def _read_version_1(path: Path, content: bytes, keys: Keys, gathering: Gathering) -> None:
    begin = len(MAGIC_1) + NONCE_BYTES
    try:
        opened = ChaCha20Poly1305(keys.backup_key).decrypt(content[len(MAGIC_1) : begin], content[begin:], MAGIC_1)
        gathering.take_version_1(opened)
    except (InvalidTag, ValueError, msgspec.MsgspecError) as error:
        raise BackupError(
            f"{path} does not open with these 24 words", "it belongs to another node, or it is damaged"
        ) from error
