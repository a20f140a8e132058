"""`perund passphrase`: another passphrase for the key store of a directory, whose channels stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from perund.cli.failing import run_async
from perund.cli.output import deed_done, note, say, say_json
from perund.cli.values import DIR, PASSPHRASE_FILE, SECRET
from perund.passphrase import STDIN, ask_passphrase, read_secret_line
from perund.setup_errors import ConfigError, KeyStoreError, PassphraseError

if TYPE_CHECKING:
    from perund.keys import Keys
    from perund.keystore import KeyStore

__all__ = ["passphrase"]

NEW: Final = "New passphrase of the key store: "


@click.command()
@DIR
@PASSPHRASE_FILE
@click.option(
    "--new-passphrase-file",
    type=SECRET,
    metavar="FILE",
    help="File whose first line is to open it; - is standard input.",
)
@click.option(
    "--phrase-file", type=SECRET, metavar="FILE", help="The 24 words instead of a passphrase that is lost; - is stdin."
)
@click.option("--non-interactive", is_flag=True, help="Never ask.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def passphrase(
    data_dir: Path,
    passphrase_file: str | None,
    new_passphrase_file: str | None,
    phrase_file: str | None,
    *,
    non_interactive: bool,
    as_json: bool,
) -> None:
    """Set another passphrase for the key store. Keys, wallet and channels stay as they are; the node may be running.

    The passphrase that opens it now is taken as in `run`; if it is lost, the 24 words are, in --phrase-file. The new
    key store has been opened before it takes the place of the old one.
    """
    import msgspec

    from perund.keys import Keys
    from perund.keystore import KeyStore
    from perund.mnemonic import entropy_of
    from perund.phrase_file import read_entropy

    async def work() -> dict[str, str]:
        if [passphrase_file, new_passphrase_file, phrase_file].count(STDIN) > 1:
            raise PassphraseError("more than one secret from standard input", "give the others in files")
        store, configured = KeyStore(data_dir), _configured(data_dir)
        if phrase_file is not None:
            entropy = read_entropy(phrase_file)
            _require_own_words(data_dir, store, Keys(entropy))
        else:
            store.node_id()  # a missing or damaged file is named before anybody types a passphrase
            now = ask_passphrase(passphrase_file, configured=configured, interactive=not non_interactive)
            entropy = entropy_of(store.open(now).phrase)
        new = ask_passphrase(
            new_passphrase_file, twice=True, interactive=not non_interactive, environment={}, prompt=NEW
        )
        keys = store.replace(entropy, new)
        told = {"node_id": keys.node_id, "keystore": str(store.path)}
        if configured and read_secret_line(configured) != new:
            told["warning"] = (
                f"{configured}, which keys.passphrase_file names, does not have the new passphrase: the next start "
                "fails until it does"
            )
        return told

    done = run_async(work, as_json=as_json)
    deed_done()
    if as_json:
        say_json(msgspec.json.encode(done))
        return
    say(f"{done['keystore']} opens with the new passphrase now.")
    if "warning" in done:
        note(done["warning"])
    say("Copies of the file from before still open with the old one.")


def _configured(data_dir: Path) -> str:
    from perund.config_file import load_config

    try:
        return load_config(data_dir).keys.passphrase_file
    except ConfigError:  # what is wrong with it, the next start says; the key store does not depend on it
        return ""


def _require_own_words(data_dir: Path, store: KeyStore, keys: Keys) -> None:
    """Raise `KeyStoreError` when these words are not those of the node that lives in the directory.

    The key store names its node, if it can be read; else the backup file opens with its words only, else the keys of
    the channels come from them.
    """
    if store.readable():
        return  # `KeyStore.replace` compares
    from perund.recovery.backup import BACKUP_NAME, BackupError, read_backup
    from perund.store.reading import open_reader
    from perund.store.schema import STORE_NAME
    from protocol.signing import ChannelKey

    strangers = KeyStoreError(
        f"these words are not those of the node in {data_dir}", "nothing was changed; give the 24 words of that node"
    )
    proven = False
    if (data_dir / BACKUP_NAME).exists():
        try:
            proven = read_backup(data_dir / BACKUP_NAME, keys).node_id == keys.node_id
        except BackupError:
            proven = False
    if not proven and (data_dir / STORE_NAME).exists():
        rows = list(open_reader(data_dir / STORE_NAME).live_channels())
        ours = [
            ChannelKey(keys.participant_seed(row.terms.our_share)).public
            == row.terms.params.participants[row.terms.our_index]
            for row in rows
        ]
        if not all(ours):
            raise strangers
        proven = bool(ours) or not (data_dir / BACKUP_NAME).exists()
    if not proven:
        if (data_dir / BACKUP_NAME).exists():
            raise strangers
        raise KeyStoreError(f"no node lives in {data_dir}", "give the right --dir, and see that its disk is mounted")
