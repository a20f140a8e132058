from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from chain.errors import UnusableIdentity
from chain.identity import (
    Anonymous,
    Ed25519Identity,
    Identity,
    Secp256k1Identity,
    identity_from_pem,
    load_identity,
    save_identity,
)
from tests.unit.chain.conftest import vectors

PEM = vectors("ic-requests")["pem"]
SEED = bytes(range(32))
SECP_PEM: str = PEM["secp256k1_ec_private_key_pem"]
SECP_SECRET = bytes.fromhex("0832ee76447151e443867529da9bcbc4b0c808b2283426b5b1074c833e58d781")


def pem(label: str, der: bytes) -> str:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n"


@pytest.mark.parametrize("form", ["ed25519_v1_der_hex", "ed25519_v2_old_dfx_der_hex", "ed25519_v2_rfc5958_der_hex"])
def test_every_form_of_an_ed25519_file(form: str) -> None:
    identity = identity_from_pem(pem("PRIVATE KEY", bytes.fromhex(PEM[form])))
    assert isinstance(identity, Ed25519Identity)
    assert identity.sender == Ed25519Identity(SEED).sender


def parameters(hexed: str) -> str:
    return pem("EC PARAMETERS", bytes.fromhex(hexed))


def ec_pem(curve: ec.EllipticCurve, form: PrivateFormat) -> str:
    key = ec.derive_private_key(int.from_bytes(SECP_SECRET, "big"), curve)
    return key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()


@pytest.mark.parametrize(
    "text",
    [
        SECP_PEM,
        parameters("06052b8104000a") + SECP_PEM,
        ec_pem(ec.SECP256K1(), PrivateFormat.PKCS8),
        SECP_PEM.replace("\n", "\r\n"),
    ],
    ids=["SEC1", "SEC1 with parameters", "PKCS8", "Windows line ends"],
)
def test_every_form_of_a_secp256k1_file(text: str) -> None:
    identity = identity_from_pem(text)
    assert isinstance(identity, Secp256k1Identity)
    assert identity.sender == Secp256k1Identity(SECP_SECRET).sender


def rsa_pem() -> str:
    key = rsa.generate_private_key(65537, 1024)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def encrypted_pem(form: PrivateFormat) -> str:
    key = ec.derive_private_key(5, ec.SECP256K1())
    return key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret")).decode()


ED = bytes.fromhex(PEM["ed25519_v2_rfc5958_der_hex"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no PEM file"),
        ("-----BEGIN PRIVATE KEY-----\n", "no PEM file"),
        (pem("PUBLIC KEY", b"x"), "public key"),
        (pem("CERTIFICATE", b"x"), "certificate"),
        ("-----BEGIN PRIVATE KEY-----\n!!!\n-----END PRIVATE KEY-----", "not base64"),
        (pem("PRIVATE KEY", ED[:40]), "cut short"),
        (pem("PRIVATE KEY", ED[:-1] + b"\x00"), "does not belong"),
        (pem("PRIVATE KEY", b"\x30\x03\x02\x01\x00"), "cannot be read"),
        (ec_pem(ec.SECP256R1(), PrivateFormat.TraditionalOpenSSL), "P-256"),
        (ec_pem(ec.SECP256R1(), PrivateFormat.PKCS8), "P-256"),
        (parameters("06082a8648ce3d030107") + SECP_PEM, "P-256"),
        (ec_pem(ec.SECP384R1(), PrivateFormat.PKCS8), "secp384r1"),
        (parameters("06052b8104000a"), "no private key"),
        (SECP_PEM + SECP_PEM, "more than one"),
        (rsa_pem(), "RSAPrivateKey"),
        (encrypted_pem(PrivateFormat.PKCS8), "encrypted; export it"),
        (encrypted_pem(PrivateFormat.TraditionalOpenSSL), "encrypted; export it"),
    ],
)
def test_files_that_cannot_be_used_are_refused_by_name(text: str, says: str) -> None:
    with pytest.raises(UnusableIdentity, match=says):
        identity_from_pem(text)


def secret_is_in(text: str) -> bool:
    return any(form in text for s in (SEED, SECP_SECRET) for form in (s.hex(), base64.b64encode(s).decode(), str(s)))


@pytest.mark.parametrize("identity", [Ed25519Identity(SEED), Secp256k1Identity(SECP_SECRET)], ids=["ed", "secp"])
def test_a_saved_identity_comes_back_and_is_nobody_elses_to_read(
    identity: Ed25519Identity | Secp256k1Identity, tmp_path: Path
) -> None:
    path = tmp_path / "identity.pem"
    save_identity(identity, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_identity(path).sender == identity.sender
    assert not secret_is_in(repr(identity) + str(identity))
    with pytest.raises(UnusableIdentity, match="File exists"):
        save_identity(identity, path)


def test_a_file_that_is_not_there_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(UnusableIdentity, match="No such file"):
        load_identity(tmp_path / "none.pem")
    (tmp_path / "large.pem").write_bytes(bytes(20_000))
    with pytest.raises(UnusableIdentity, match="larger"):
        load_identity(tmp_path / "large.pem")
    (tmp_path / "bad.pem").write_text(SECP_PEM[:60])
    with pytest.raises(UnusableIdentity, match=r"bad\.pem"):
        load_identity(tmp_path / "bad.pem")


def test_secrets_out_of_range_are_refused_without_being_shown() -> None:
    for secret in (bytes(32), b"\xff" * 32, b"\x01" * 31):
        with pytest.raises(UnusableIdentity) as caught:
            Secp256k1Identity(secret)
        assert caught.value.__cause__ is None
    with pytest.raises(UnusableIdentity):
        Ed25519Identity(bytes(31))


def test_secp256k1_signatures_have_a_low_s() -> None:
    identity = Secp256k1Identity(SECP_SECRET)
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    for n in range(50):
        assert 0 < int.from_bytes(identity.sign(bytes([n]))[32:], "big") <= order // 2


def test_the_anonymous_identity_signs_nothing() -> None:
    anonymous: Identity = Anonymous()
    assert (anonymous.sender, anonymous.public_key_der) == (b"\x04", None)
    with pytest.raises(UnusableIdentity):
        anonymous.sign(b"x")
