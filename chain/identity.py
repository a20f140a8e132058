"""Who signs calls: Ed25519 and secp256k1 keys, or nobody.

PEM files are read in every form that `dfx` and `icp` have written. An identity never prints its key.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol

from coincurve import PrivateKey
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from nacl.signing import SigningKey

from chain.errors import UnusableIdentity
from chain.principal import ANONYMOUS, principal_to_text, self_authenticating

__all__ = [
    "Anonymous",
    "Ed25519Identity",
    "Identity",
    "Secp256k1Identity",
    "identity_from_pem",
    "load_identity",
    "save_identity",
]

ED25519_DER_PREFIX: Final = bytes.fromhex("302a300506032b6570032100")
SECP256K1_DER_PREFIX: Final = bytes.fromhex("3056301006072a8648ce3d020106052b8104000a034200")
PKCS8_V1: Final = bytes.fromhex("302e020100300506032b657004220420")
PKCS8_V2: Final = bytes.fromhex("3051020101300506032b657004220420")
PKCS8_V2_OLD_DFX: Final = bytes.fromhex("3053020101300506032b657004220420")
"""Three fixed layouts: 16 bytes, the seed, then perhaps the public key (RFC 5958, or nested once more)."""
V2_KEY_TAGS: Final = (bytes.fromhex("812100"), bytes.fromhex("a123032100"))
SECP256K1_PARAMETERS: Final = bytes.fromhex("06052b8104000a")
MAX_PEM_BYTES: Final = 16_384
_BLOCK: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\s*(.*?)-----END \1-----", re.DOTALL)
_EXPORT: Final = "export it unencrypted with `dfx identity export NAME` or `icp identity export NAME`"


class Identity(Protocol):
    """What the agent needs of an identity."""

    @property
    def sender(self) -> bytes:
        """Its principal."""
        ...

    @property
    def public_key_der(self) -> bytes | None:
        """Its public key as SubjectPublicKeyInfo; None for the anonymous one."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return 64 bytes over the message; for secp256k1 `r · s` over its SHA-256, with low s."""
        ...


class Anonymous:
    """Nobody in particular: requests are not signed. Enough for every read."""

    sender: Final = ANONYMOUS
    public_key_der: Final = None

    def sign(self, message: bytes) -> bytes:
        """Refuse: an anonymous request carries no signature."""
        raise UnusableIdentity(f"the anonymous identity cannot sign ({len(message)} bytes)")

    def __repr__(self) -> str:
        return "Anonymous()"


class Ed25519Identity:
    """An Ed25519 key from its 32-byte seed."""

    __slots__ = ("_key", "public_key_der", "sender")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise UnusableIdentity(f"an Ed25519 seed has 32 bytes, not {len(seed)}")
        self._key = SigningKey(seed)
        self.public_key_der = ED25519_DER_PREFIX + bytes(self._key.verify_key)
        self.sender = self_authenticating(self.public_key_der)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of the message itself."""
        return self._key.sign(message).signature

    def to_pem(self) -> str:
        """Return PKCS#8, version 1: the one form that every tool reads. It contains the secret key."""
        return _pem("PRIVATE KEY", PKCS8_V1 + bytes(self._key))

    def __repr__(self) -> str:
        return f"Ed25519Identity({principal_to_text(self.sender)})"


class Secp256k1Identity:
    """A secp256k1 key from its 32-byte secret."""

    __slots__ = ("_key", "public_key_der", "sender")

    def __init__(self, secret: bytes) -> None:
        try:
            # The library would fill up what is short.
            self._key = PrivateKey(secret if len(secret) == 32 else b"")
        except ValueError:
            # `from None`: the library's message and its traceback may show the value.
            raise UnusableIdentity("a secp256k1 secret is 32 bytes between 1 and the group order") from None
        self.public_key_der = SECP256K1_DER_PREFIX + self._key.public_key.format(compressed=False)
        self.sender = self_authenticating(self.public_key_der)

    def sign(self, message: bytes) -> bytes:
        """Return `r · s` (64 bytes) over the SHA-256 of the message, with low s, by RFC 6979."""
        return self._key.sign_recoverable(message, hasher=_sha256)[:64]

    def to_pem(self) -> str:
        """Return SEC1 (`EC PRIVATE KEY`) as `dfx` writes it. It contains the secret key."""
        key = ec.derive_private_key(int.from_bytes(self._key.secret, "big"), ec.SECP256K1())
        return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()

    def __repr__(self) -> str:
        return f"Secp256k1Identity({principal_to_text(self.sender)})"


def _sha256(data: bytes) -> bytes:
    return sha256(data).digest()


def _pem(label: str, der: bytes) -> str:
    body = base64.b64encode(der).decode()
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def identity_from_pem(text: str) -> Ed25519Identity | Secp256k1Identity:
    """Return the identity in a PEM text. Raises `UnusableIdentity`, which never quotes the text."""
    blocks = _BLOCK.findall(text)
    if not blocks:
        raise UnusableIdentity(f"this is no PEM file (it has no -----BEGIN ...----- block); {_EXPORT}")
    if any("ENCRYPTED" in label or "ENCRYPTED" in body for label, body in blocks):
        raise UnusableIdentity(f"the key file is encrypted; {_EXPORT}")
    key: Ed25519Identity | Secp256k1Identity | None = None
    for label, body in blocks:
        der = _der(body)
        if label == "EC PARAMETERS":
            if der != SECP256K1_PARAMETERS:
                raise UnusableIdentity(_wrong_curve(_curve_name_of(der)))
        elif label not in {"PRIVATE KEY", "EC PRIVATE KEY"}:
            raise UnusableIdentity(f"the file holds a {label.lower()}, not a private key of an identity")
        elif key is not None:
            raise UnusableIdentity("the file holds more than one private key; keep one in it")
        else:
            key = _ed25519(der) if label == "PRIVATE KEY" and der[:16] in _ED25519_HEADS else _secp256k1(der)
    if key is None:
        raise UnusableIdentity("the file holds parameters but no private key")
    return key


_ED25519_HEADS: Final = frozenset((PKCS8_V1, PKCS8_V2, PKCS8_V2_OLD_DFX))


def _ed25519(der: bytes) -> Ed25519Identity:
    seed, rest = der[16:48], der[48:]
    if len(seed) != 32:
        raise UnusableIdentity("the Ed25519 key is cut short; the file is damaged")
    identity = Ed25519Identity(seed)
    public = identity.public_key_der[len(ED25519_DER_PREFIX) :]
    if rest and rest not in {tag + public for tag in V2_KEY_TAGS}:
        # A wrong public half would make signatures that leak the secret in other software: do not touch it.
        raise UnusableIdentity("the file's public key does not belong to its Ed25519 key; the file is damaged")
    return identity


def _secp256k1(der: bytes) -> Secp256k1Identity:
    try:
        key = load_der_private_key(der, password=None)
    except (ValueError, TypeError):
        raise UnusableIdentity("the private key cannot be read; the file is damaged or of another kind") from None
    except Exception:  # noqa: BLE001  (UnsupportedAlgorithm and whatever OpenSSL adds)
        raise UnusableIdentity("the private key is of a kind that the Internet Computer does not know") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UnusableIdentity(f"a {type(key).__name__.lstrip('_')} is no identity; use Ed25519 or secp256k1")
    if not isinstance(key.curve, ec.SECP256K1):
        raise UnusableIdentity(_wrong_curve(key.curve.name))
    return Secp256k1Identity(key.private_numbers().private_value.to_bytes(32, "big"))


def _curve_name_of(parameters: bytes) -> str:
    return "secp256r1" if parameters == bytes.fromhex("06082a8648ce3d030107") else "unknown"


def _wrong_curve(name: str) -> str:
    shown = "P-256 (prime256v1, secp256r1)" if name == "secp256r1" else name
    return f"the key is on the curve {shown}; use an Ed25519 or a secp256k1 identity"


def _der(body: str) -> bytes:
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        raise UnusableIdentity("the PEM block is not base64; the file is damaged") from None


def load_identity(path: Path) -> Ed25519Identity | Secp256k1Identity:
    """Return the identity in a PEM file. Raises `UnusableIdentity`, naming the file."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_PEM_BYTES + 1)
    except OSError as exc:
        raise UnusableIdentity(f"cannot read the identity file {path}: {exc.strerror or exc}") from exc
    if len(raw) > MAX_PEM_BYTES:
        raise UnusableIdentity(f"{path} is larger than any identity file")
    try:
        return identity_from_pem(raw.decode("ascii", errors="replace"))
    except UnusableIdentity as exc:
        raise UnusableIdentity(f"cannot use the identity file {path}: {exc}") from None


def save_identity(identity: Ed25519Identity | Secp256k1Identity, path: Path) -> None:
    """Write the identity as PEM, durable, readable only by its owner. Raises `UnusableIdentity` if it exists."""
    try:
        # O_EXCL: overwriting a key file would lose whatever it guards.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(identity.to_pem())
            file.flush()
            os.fsync(file.fileno())
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as exc:
        raise UnusableIdentity(f"cannot write the identity file {path}: {exc.strerror or exc}") from exc
