"""The 24 words from which every key of a node comes. Source: BIP-39, English word list."""

from __future__ import annotations

import secrets
from functools import cache
from typing import Final

import mnemonic

from perund.setup_errors import PhraseError

__all__ = ["ENTROPY_BYTES", "WORDS", "entropy_of", "is_word", "new_entropy", "phrase_of", "seed_of"]

WORDS: Final = 24
ENTROPY_BYTES: Final = 32


@cache
def _list() -> mnemonic.Mnemonic:
    return mnemonic.Mnemonic("english")


def new_entropy() -> bytes:
    """Return 32 fresh random bytes."""
    return secrets.token_bytes(ENTROPY_BYTES)


def phrase_of(entropy: bytes) -> str:
    """Return the 24 words of 32 bytes, in lower case with single spaces."""
    return _list().to_mnemonic(entropy)


def is_word(word: str) -> bool:
    """Whether it is one of the list."""
    return word.lower() in _words()


@cache
def _words() -> frozenset[str]:
    return frozenset(_list().wordlist)


def entropy_of(phrase: str) -> bytes:
    """Return the 32 bytes of a phrase as somebody typed it (case and spacing do not matter).

    Raises `PhraseError`, which names places and never words: a message ends up in terminals and logs.
    """
    words = phrase.lower().split()
    if len(words) != WORDS:
        raise PhraseError(f"the phrase has {len(words)} words", f"a phrase of perund has {WORDS}")
    unknown = [place for place, word in enumerate(words, start=1) if not is_word(word)]
    if unknown:
        places = ", ".join(map(str, unknown))
        raise PhraseError(f"word {places} of the phrase is not in the English BIP-39 list", "check the spelling")
    try:
        return bytes(_list().to_entropy(words))
    except ValueError as error:
        # The library's message holds no words, but its context might: cut it off.
        del error
        raise PhraseError(
            "the words do not belong together (wrong checksum)", "check their order and each word"
        ) from None


def seed_of(entropy: bytes) -> bytes:
    """Return the 64-byte BIP-39 seed of the phrase, without a BIP-39 passphrase."""
    return bytes(mnemonic.Mnemonic.to_seed(phrase_of(entropy), passphrase=""))
