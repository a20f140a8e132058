"""Makes a new node: data directory, key store and configuration."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from chain.agent import fetch_root_key
from chain.errors import ChainError
from chain.identity import Ed25519Identity
from chain.principal import account_identifier, principal_to_text
from perund.config import FILE_NAME as CONFIG_NAME
from perund.config import Config
from perund.config_file import write_config
from perund.keystore import FILE_NAME as KEYSTORE_NAME
from perund.keystore import KeyStore
from perund.passphrase import check_passphrase
from perund.private_file import make_private_dir
from perund.setup_errors import SetupError

__all__ = ["NewNode", "create_node", "local_root_key", "remove_node"]


@dataclass(frozen=True, slots=True)
class NewNode:
    """What the operator needs to know. `phrase` is shown once and stored nowhere in clear."""

    data_dir: Path
    node_id: str
    principal: str
    account: str
    phrase: str

    def __repr__(self) -> str:
        return f"NewNode(node_id={self.node_id!r}, data_dir={str(self.data_dir)!r})"


async def local_root_key(url: str) -> bytes:
    """Ask a devnet for its root key, to be pinned. Raises `SetupError` when nobody answers."""
    try:
        return await fetch_root_key(url)
    except ChainError as error:
        raise SetupError(
            f"the root key of {url} cannot be read ({error})",
            "start the devnet with `perund devnet`, or give --root-key",
        ) from error


def create_node(data_dir: Path, config: Config, entropy: bytes, passphrase: str) -> NewNode:
    """Make the directory (0700), the configuration and the key store; durable on return.

    Raises `DirectoryError` when there is anything already: nothing is overwritten. `PassphraseError` when it is
    too short: nothing is made.
    """
    check_passphrase(passphrase)
    make_private_dir(data_dir)
    write_config(data_dir, config)
    keys = KeyStore(data_dir).create(entropy, passphrase)
    principal = Ed25519Identity(keys.wallet_seed).sender
    return NewNode(
        data_dir, keys.node_id, principal_to_text(principal), account_identifier(principal).hex(), keys.phrase
    )


def remove_node(data_dir: Path) -> None:
    """Take back what `create_node` made, and nothing else. For a node whose words reached nobody."""
    for name in (KEYSTORE_NAME, CONFIG_NAME):
        (data_dir / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a mount point, or a directory that was there before, may stay
        data_dir.rmdir()
