"""What can be wrong before a node runs: its directory, key store, passphrase or configuration.

* `SetupError(PerundError)`: the operator has to change something; the message says what.
    * `ConfigError`: a key or value of perund.toml or of the environment.
    * `KeyStoreError`: the file is missing, damaged, open to others or of another version.
    * `WrongPassphraseError`: the key store does not open with it.
    * `PassphraseError`: nobody gave one.
    * `PhraseError`: the 24 words are not a BIP-39 phrase.
    * `DirectoryError`: the data directory exists already, is missing or cannot be written.
"""

from __future__ import annotations

from protocol.errors import PerundError

__all__ = [
    "ConfigError",
    "DirectoryError",
    "KeyStoreError",
    "PassphraseError",
    "PhraseError",
    "SetupError",
    "WrongPassphraseError",
]


class SetupError(PerundError):
    """The node cannot start as it is set up. `hint`: what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}; {hint}")
        self.message = message
        self.hint = hint


class ConfigError(SetupError):
    """A key or a value of the configuration is not what it can be. Names the file, the line and what can."""


class KeyStoreError(SetupError):
    """The key store is missing, damaged, readable by others or written by another version."""


class WrongPassphraseError(SetupError):
    """The key store does not open with this passphrase, or somebody changed the file."""


class PassphraseError(SetupError):
    """No passphrase was given, or one that cannot be used."""


class PhraseError(SetupError):
    """The words are not a BIP-39 phrase of 24 words. The message never repeats them."""


class DirectoryError(SetupError):
    """The data directory cannot be used for this."""
