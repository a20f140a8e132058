"""What a writer takes, its reader reads: the configuration, the key store, the backup file, the memo on the wire.

(Addresses have a test of their own, `tests.unit.wire.test_address`.)
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from perund.config import Alarm, Config, Ic, Keys, Policy, Tower, Watch
from perund.config_file import load_config, write_config
from perund.keystore import KeyStore, ScryptCost
from perund.mnemonic import entropy_of, phrase_of
from perund.passphrase import read_secret_line
from perund.recovery.backup_format import Sealer, open_records, read_backup, read_content
from perund.recovery.backup_writing import write_temporary
from perund.recovery.saved import Backup, SavedChannel, SavedPeer
from perund.setup_errors import ConfigError, PassphraseError
from tests.unit.recovery.test_taking_up import KEYS, NETWORK

IC = Ic(perun_canister="aaaaa-aa", root_key="00" * 133)
quick = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
texts = st.text(max_size=40)
node_ids = st.binary(min_size=32, max_size=32).map(lambda key: "02" + key.hex())


@quick
@given(st.lists(texts, max_size=8), st.text(max_size=60), st.lists(node_ids, max_size=5), st.booleans())
@example(["\U0001f514", '"\\', "\x7f\x00\n\t", "'''", "a#b]"], "\x85\u2028", [], True)
@example(["." * 200], "a" * 300 + "." * 300, [], False)
def test_the_configuration(command: list[str], passphrase_file: str, peers: list[str], accept: bool) -> None:
    table = {
        "network": "local",
        "ic": msgspec.to_builtins(IC),
        "policy": {"accept": accept, "peers_allowed": peers, "min_challenge_s": 60},
        "alarm": {"command": command},
        "keys": {"passphrase_file": passphrase_file},
    }
    try:
        config = msgspec.convert(table, Config)
    except msgspec.ValidationError:
        assume(False)
    with tempfile.TemporaryDirectory() as name:
        try:
            write_config(Path(name), config)
        except ConfigError:
            assert any("\ud800" <= c <= "\udfff" for c in "".join([*command, passphrase_file]))
            assert list(Path(name).iterdir()) == []
            return
        assert load_config(Path(name), {}) == config


def test_the_longest_configuration(tmp_path: Path) -> None:
    """Every list as long as it may be: the file, and the backup that carries it."""
    ids = [f"02{n:064x}" for n in range(100_000)]
    towers = tuple(f"{ids[n]}@{'.'.join('a' * 30 for _ in range(8))}:65535" for n in range(16))
    config = Config(
        network="local",
        ic=msgspec.structs.replace(IC, urls=tuple(f"http://{'a.' * 240}{n}" for n in range(8))),
        policy=Policy(peers_allowed=tuple(ids[:10_000]), min_challenge_s=60),
        tower=Tower(clients=tuple(ids)),
        watch=Watch(towers=towers),
        alarm=Alarm(command=("." * 5_000,) * 64),
        keys=Keys(passphrase_file="a." * 500),
    )
    write_config(tmp_path, config)
    assert load_config(tmp_path, {}) == config
    text = (tmp_path / "perund.toml").read_text()
    backup = Backup(KEYS.node_id, NETWORK, 1, text, [], [], [])
    written, _, left_out = write_temporary(tmp_path / "backup.perund", KEYS, backup)
    assert left_out == []
    assert read_backup(written, KEYS) == backup


@settings(quick, max_examples=15)
@given(st.text(min_size=1, max_size=30), st.integers(0, 2**256 - 1))
@example("eight chars\n", 1)
@example("\r1234567890", 1)
@example("ﬁﬁﬁﬁﬁﬁﬁﬁ", 1)
@example("x" * 5_000, 1)
def test_the_key_store(passphrase: str, number: int) -> None:
    entropy = number.to_bytes(32, "big")
    assert entropy_of(phrase_of(entropy)) == entropy
    with tempfile.TemporaryDirectory() as name:
        store = KeyStore(Path(name))
        try:
            keys = store.create(entropy, passphrase, ScryptCost(n=2**15))
        except PassphraseError:
            assert not store.exists()
            return
        file = Path(name) / "passphrase"
        file.write_bytes(passphrase.encode() + b"\n")
        assert store.open(read_secret_line(str(file))).node_id == keys.node_id == store.node_id()


bytes_32 = st.binary(min_size=32, max_size=32)
bytes_33 = st.binary(min_size=33, max_size=33)
bytes_64 = st.binary(min_size=64, max_size=64)
naturals = st.integers(0, 2**63 - 1)
channels = st.builds(
    SavedChannel,
    proposal_id=bytes_32, peer=bytes_33, our_index=st.sampled_from((0, 1)), nonce=bytes_64,
    participants=st.tuples(bytes_32, bytes_32), challenge_ns=naturals, allocation=st.tuples(naturals, naturals),
    deadline_ns=naturals, our_share=bytes_32, peer_share=bytes_32, signatures=st.tuples(bytes_64, bytes_64),
    opened_ns=naturals,
)  # fmt: skip
peers = st.builds(SavedPeer, bytes_33, st.sampled_from(("::1", "a.example", "1.2.3.4")), st.integers(1, 65_535))
backups = st.builds(
    Backup,
    node_id=st.just(KEYS.node_id), network=bytes_32, made_ms=naturals, config=st.text(max_size=200).filter(str.isascii),
    channels=st.lists(channels, max_size=600, unique_by=lambda row: row.proposal_id),
    peers=st.lists(peers, max_size=5, unique_by=lambda row: row.peer),
    half_open=st.lists(st.tuples(bytes_33, bytes_32), max_size=3, unique=True),
)  # fmt: skip


@settings(quick, max_examples=30)
@given(backups)
def test_the_backup_file(backup: Backup) -> None:
    with tempfile.TemporaryDirectory() as name:
        written, _, left_out = write_temporary(Path(name) / "backup.perund", KEYS, backup)
        found = read_backup(written, KEYS)
    assert left_out == []
    opened = {row.our_share for row in backup.channels}
    half_open = [row for row in backup.half_open if row[1] not in opened]
    assert found == msgspec.structs.replace(backup, half_open=half_open)


@quick
@given(st.lists(st.binary(max_size=80), max_size=20), st.data())
def test_records_that_are_damaged_anywhere_cost_themselves(parts: list[bytes], data: st.DataObject) -> None:
    sealer = Sealer(KEYS)
    sealed = [sealer.seal(part) for part in parts]
    content = b"".join(sealed)
    assert open_records(content, KEYS, 0).parts == parts
    if not parts:
        return
    hit = data.draw(st.integers(0, len(parts) - 1))
    at = data.draw(st.integers(0, len(sealed[hit]) - 1))
    changed = bytearray(sealed[hit])
    changed[at] ^= data.draw(st.integers(1, 255))
    found = open_records(b"".join([*sealed[:hit], bytes(changed), *sealed[hit + 1 :]]), KEYS, 0)
    assert found.parts == parts[:hit] + parts[hit + 1 :]
    assert found.faults or found.torn
    cut = data.draw(st.integers(0, len(content)))
    whole = open_records(content[:cut], KEYS, 0)
    assert whole.parts == parts[: len(whole.parts)]
    assert whole.faults == []


@quick
@given(st.binary(max_size=300))
def test_no_bytes_at_all_bring_the_reader_down(content: bytes) -> None:
    for begin in (b"", b"perund-backup-1\n", b"perund-backup-2\n", b"perund-backup-2\n\xb5PBR"):
        with pytest.raises(Exception, match=r".") as caught:
            read_content(Path("x"), begin + content, KEYS)
        assert type(caught.value).__name__ == "BackupError"
