import json
import stat
from pathlib import Path
from typing import Any

import pytest

from perund.keystore import KeyStore, ScryptCost
from perund.passphrase import ask_passphrase
from perund.setup_errors import DirectoryError, KeyStoreError, PassphraseError, WrongPassphraseError

PASSPHRASE = "correct horse battery"
QUICK = ScryptCost(n=2**15)
ENTROPY = bytes(range(32))


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    made = KeyStore(tmp_path)
    made.create(ENTROPY, PASSPHRASE, QUICK)
    return made


def edited(store: KeyStore, **header: Any) -> KeyStore:
    content = json.loads(store.path.read_text())
    content["header"].update(header)
    store.path.write_text(json.dumps(content))
    return store


def test_what_was_stored_comes_back(store: KeyStore) -> None:
    keys = store.open(PASSPHRASE)
    assert keys.wallet_seed == store.open(PASSPHRASE).wallet_seed
    assert keys.node_id == store.node_id()


def test_the_file_is_private_and_holds_no_secret_in_clear(store: KeyStore) -> None:
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    content = store.path.read_text()
    assert ENTROPY.hex() not in content
    assert PASSPHRASE not in content
    assert [path.name for path in store.path.parent.iterdir()] == ["keystore.json"]


def test_a_key_store_is_never_overwritten(store: KeyStore) -> None:
    before = store.path.read_bytes()
    with pytest.raises(DirectoryError, match="exists already"):
        store.create(bytes(32), PASSPHRASE, QUICK)
    assert store.path.read_bytes() == before


def test_a_wrong_passphrase_is_refused_with_advice(store: KeyStore) -> None:
    with pytest.raises(WrongPassphraseError, match="24 words") as caught:
        store.open("wrong horse battery")
    assert "wrong horse" not in str(caught.value)


def test_composed_and_decomposed_characters_are_the_same_passphrase(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    store.create(ENTROPY, "caf\u00e9 au lait", QUICK)
    assert store.open("cafe\u0301 au lait").node_id == store.node_id()


def test_a_short_passphrase_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(PassphraseError, match="at least 8"):
        KeyStore(tmp_path).create(ENTROPY, "short", QUICK)
    assert list(tmp_path.iterdir()) == []


def test_everything_in_the_header_is_authenticated(store: KeyStore) -> None:
    with pytest.raises(WrongPassphraseError):
        edited(store, node_id="02" + "00" * 32).open(PASSPHRASE)


@pytest.mark.parametrize(
    "cost",
    [{"n": 2**10}, {"n": 2**30}, {"n": 2**15 + 1}, {"r": 1}, {"r": 1_000}, {"p": 0}, {"p": 1_000}],
)
def test_costs_that_are_weak_or_absurd_are_refused_before_they_are_paid(store: KeyStore, cost: dict[str, int]) -> None:
    full = {"n": 2**15, "r": 8, "p": 1, **cost}
    with pytest.raises(KeyStoreError, match="damaged or of another version"):
        edited(store, cost=full).open(PASSPHRASE)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[1]", b"x" * 100_000])
def test_a_damaged_file_is_named(store: KeyStore, content: bytes) -> None:
    store.path.write_bytes(content)
    with pytest.raises(KeyStoreError, match=r"keystore\.json is damaged"):
        store.open(PASSPHRASE)


def test_a_file_that_others_can_read_is_refused(store: KeyStore) -> None:
    store.path.chmod(0o644)
    with pytest.raises(KeyStoreError, match="chmod 600"):
        store.open(PASSPHRASE)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(KeyStoreError, match="perund init"):
        KeyStore(tmp_path).open(PASSPHRASE)


def test_a_link_goes_on_leading_to_the_keys(tmp_path: Path) -> None:
    stick, directory = tmp_path / "stick", tmp_path / "node"
    stick.mkdir()
    directory.mkdir()
    KeyStore(stick).create(ENTROPY, "the passphrase before", QUICK)
    (directory / "keystore.json").symlink_to(stick / "keystore.json")
    KeyStore(directory).replace(ENTROPY, "the passphrase after it", QUICK)
    assert (directory / "keystore.json").is_symlink()
    assert [path.name for path in stick.iterdir()] == ["keystore.json"]
    KeyStore(stick).open("the passphrase after it")


def test_a_passphrase_that_a_file_with_a_byte_order_mark_set_once_opens_still(tmp_path: Path) -> None:
    old = KeyStore(tmp_path)
    old.create(ENTROPY, "\ufeff" + PASSPHRASE, QUICK)
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbf" + PASSPHRASE.encode() + b"\r\n")
    read = ask_passphrase(str(tmp_path / "file"), environment={})
    assert read == PASSPHRASE
    assert old.open(read).node_id == old.node_id()
