"""The key store: 32 bytes of entropy, encrypted under a passphrase, in `keystore.json`.

scrypt turns the passphrase into a key; ChaCha20-Poly1305 encrypts with it; everything else in the file is
authenticated along (a changed parameter or node id is as wrong as a wrong passphrase). The file is written
once; only `perund passphrase` puts another one in its place, after reading that back.
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
import time
import unicodedata
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from perund.keys import Keys
from perund.mnemonic import ENTROPY_BYTES
from perund.passphrase import check_passphrase
from perund.private_file import sync_directory, write_new
from perund.setup_errors import DirectoryError, KeyStoreError, WrongPassphraseError

__all__ = ["FILE_NAME", "KeyStore", "Keys", "ScryptCost"]

FILE_NAME: Final = "keystore.json"
MAX_FILE_BYTES: Final = 16_384
_MARK: Final = "\ufeff"
"""A byte order mark at the beginning of a passphrase file was part of the passphrase once."""
OF_A_NODE: Final = frozenset({"perund.db", "backup.perund", "perund.toml", "perund.ran", "tower.db"})
"""What is in a directory in which a node lived."""


class ScryptCost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one guess costs: 128·n·r bytes of memory and p passes.

    Bounded both ways: a weaker file than 2^15 is refused, and one that would need more than 2 GiB too.
    """

    n: Annotated[int, msgspec.Meta(ge=2**15, le=2**20)] = 2**16
    r: Annotated[int, msgspec.Meta(ge=8, le=16)] = 8
    p: Annotated[int, msgspec.Meta(ge=1, le=8)] = 1

    def __post_init__(self) -> None:
        if self.n & (self.n - 1):
            raise ValueError(f"n is {self.n}, not a power of two")


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal["perund-keystore"]
    version: Literal[1]
    node_id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{66}$")]
    kdf: Literal["scrypt"]
    cost: ScryptCost
    salt: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    cipher: Literal["chacha20-poly1305"]
    nonce: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{24}$")]

    def authenticated(self) -> bytes:
        """The bytes that the cipher binds to the secret."""
        return msgspec.json.encode(self, order="sorted")

    def cipher_for(self, passphrase: str) -> ChaCha20Poly1305:
        """Derive the key. Takes a tenth of a second or more, on purpose."""
        # Two keyboards can compose the same character differently.
        text = unicodedata.normalize("NFKD", passphrase).encode()
        kdf = Scrypt(salt=bytes.fromhex(self.salt), length=32, n=self.cost.n, r=self.cost.r, p=self.cost.p)
        return ChaCha20Poly1305(kdf.derive(text))


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    header: _Header
    secret: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{96}$")]

    def opened(self, passphrase: str) -> bytes | None:
        """Return the entropy, or None when this passphrase does not open it."""
        header = self.header
        try:
            return header.cipher_for(passphrase).decrypt(
                bytes.fromhex(header.nonce), bytes.fromhex(self.secret), header.authenticated()
            )
        except InvalidTag:
            return None


class KeyStore:
    """The key store of a data directory. It holds no secret itself: `open` returns the keys."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / FILE_NAME

    def __repr__(self) -> str:
        return f"KeyStore({str(self.path)!r})"

    def exists(self) -> bool:
        """Whether there is a file, readable or not."""
        return self.path.exists() or self.path.is_symlink()

    def create(self, entropy: bytes, passphrase: str, cost: ScryptCost | None = None) -> Keys:
        """Encrypt 32 bytes of entropy into a new file (0600), durable on return, and return its keys.

        Raises `PassphraseError` for one that is too short, `DirectoryError` when a file is there.
        """
        keys, content = _sealed(entropy, passphrase, cost)
        write_new(self.path, content)
        self._read()  # a file system that knows no modes shows itself now, not when the node is to start
        return keys

    def replace(self, entropy: bytes, passphrase: str, cost: ScryptCost | None = None) -> Keys:
        """Put a file in the place of the one that is there, for the same keys under another passphrase.

        The new file is on the disk, and has been opened with the new passphrase, before it takes the name: at every
        moment there is one that can be read. Raises `PassphraseError`, `KeyStoreError`, `DirectoryError`.
        """
        keys, content = _sealed(entropy, passphrase, cost)
        named = self._named() if self.exists() else None
        if named is not None and named != keys.node_id:
            raise KeyStoreError(
                f"{self.path} is of node {named}, these words are those of node {keys.node_id}",
                "nothing was changed; give the 24 words of the node that lives here",
            )
        # A link goes on leading to the keys: what is replaced is the file that it leads to.
        place = self.path.resolve() if named is not None else self.path
        with tempfile.TemporaryDirectory(prefix=f".{FILE_NAME}.", dir=place.parent) as directory:
            proven = KeyStore(Path(directory))
            write_new(proven.path, content)
            if proven.open(passphrase).phrase != keys.phrase:
                raise KeyStoreError(f"{proven.path} is not what was written", "nothing was changed; check the disk")
            try:
                if named is None and self.exists():  # whatever it is, it may be all that somebody has
                    self.path.rename(self.path.with_name(f"{FILE_NAME}.unreadable-{time.time_ns() // 1_000_000}"))
                proven.path.replace(place)
                sync_directory(place.parent)
            except OSError as error:
                raise DirectoryError(
                    f"{self.path} cannot be replaced ({error.strerror})", "the old passphrase still opens it"
                ) from error
        return keys

    def readable(self) -> bool:
        """Whether the file is there and names its node."""
        return self.exists() and self._named() is not None

    def _named(self) -> str | None:
        try:
            return msgspec.json.decode(self.path.read_bytes()[: MAX_FILE_BYTES + 1], type=_File).header.node_id
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None

    def open(self, passphrase: str) -> Keys:
        """Decrypt the file. Raises `WrongPassphraseError` or `KeyStoreError`."""
        file = self._read()
        header = file.header
        entropy = file.opened(passphrase) or file.opened(_MARK + passphrase)
        if entropy is None:
            raise WrongPassphraseError(
                f"the passphrase does not open {self.path}", f"try again; if it is lost, {self._set_anew}"
            )
        keys = Keys(entropy)
        if keys.node_id != header.node_id:
            raise KeyStoreError(
                f"{self.path} names node {header.node_id}, but its secret belongs to {keys.node_id}",
                f"it was not written by perund; {self._set_anew}",
            )
        return keys

    @property
    def _set_anew(self) -> str:
        """What gives the key store back and keeps the channels: a new node from the same words would not know them."""
        return (
            f"`perund passphrase --dir {self.path.parent} --phrase-file FILE` sets a new one from the 24 words and "
            "keeps the channels that are here; on another machine `perund restore` brings them back from "
            "backup.perund. `perund init` would make a node without them"
        )

    def node_id(self) -> str:
        """Return the node id that the file names (no passphrase needed). Raises `KeyStoreError`."""
        return self._read().header.node_id

    def _read(self) -> _File:
        try:
            with self.path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                content = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            there = sorted(entry.name for entry in self.path.parent.glob("*") if entry.name in OF_A_NODE)
            hint = (
                f"a node lived here ({there[0]} is there): {self._set_anew}"
                if there
                else "give the right --dir, and see that its disk is mounted; a new node is made with `perund init`"
            )
            raise KeyStoreError(f"there is no key store at {self.path}", hint) from None
        except OSError as error:
            raise KeyStoreError(
                f"{self.path} cannot be read ({error.strerror})", "run perund as the user who made it"
            ) from error
        if mode & 0o077:
            raise KeyStoreError(f"{self.path} is open to other users (mode {mode:04o})", f"run `chmod 600 {self.path}`")
        try:
            return msgspec.json.decode(content, type=_File)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise KeyStoreError(f"{self.path} is damaged or of another version ({error})", self._set_anew) from error


def _sealed(entropy: bytes, passphrase: str, cost: ScryptCost | None) -> tuple[Keys, bytes]:
    """Return the keys of 32 bytes of entropy, and the file that has them under a passphrase."""
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"a phrase of 24 words has {ENTROPY_BYTES} bytes, not {len(entropy)}")
    check_passphrase(passphrase)
    keys = Keys(entropy)
    header = _Header(
        format="perund-keystore",
        version=1,
        node_id=keys.node_id,
        kdf="scrypt",
        cost=cost or ScryptCost(),
        salt=secrets.token_hex(32),
        cipher="chacha20-poly1305",
        nonce=secrets.token_hex(12),
    )
    secret = header.cipher_for(passphrase).encrypt(bytes.fromhex(header.nonce), entropy, header.authenticated())
    file = _File(header, secret.hex())
    return keys, msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"
