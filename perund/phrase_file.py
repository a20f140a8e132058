"""The 24 words as people have them in a file: in lines and columns, numbered or not, from any editor.

What `perund init` prints is taken as it stands, with its text around the words or as its JSON.
"""

from __future__ import annotations

import codecs
import re
import sys
from pathlib import Path
from typing import Final

import msgspec

from perund.mnemonic import WORDS, entropy_of, is_word
from perund.passphrase import STDIN
from perund.setup_errors import PhraseError

__all__ = ["phrase_in", "read_entropy", "read_phrase"]

MAX_BYTES: Final = 65_536
_INVISIBLE: Final = dict.fromkeys(map(ord, "\ufeff\u200b\u200c\u200d\u2060\u00ad"))
"""Marks that are no white space and show nothing: byte order, zero width, soft hyphen."""
_NUMBERED: Final = re.compile(r"(?<![^\s|,;])([0-9]{1,2})[.):\]]?\s*([A-Za-z]{3,8})(?![A-Za-z])")
_NUMBER: Final = re.compile(r"[0-9]{1,2}[.):\]]?")
_BETWEEN: Final = re.compile(r"[\s,;|]+")


class _Printed(msgspec.Struct):
    """What `perund init --json` prints, as far as it matters here."""

    phrase: str


def read_entropy(file: str) -> bytes:
    """Return the 32 bytes of the words in a file, or on standard input for `-`. Raises `PhraseError`."""
    phrase = read_phrase(file)
    try:
        return entropy_of(phrase)
    except PhraseError as error:
        where = "standard input" if file == STDIN else file
        raise PhraseError(f"{where}: {error.message}", error.hint) from None


def read_phrase(file: str) -> str:
    """Return the words in a file, or on standard input for `-`, with single spaces. Raises `PhraseError`."""
    try:
        content = _typed() if file == STDIN else _content(Path(file))
    except OSError as error:
        raise PhraseError(f"{file} cannot be read ({error.strerror})", "check its name and permissions") from error
    if len(content) > MAX_BYTES:
        raise PhraseError(f"{file} has more than {MAX_BYTES} bytes", "give a file that has the 24 words")
    try:
        return phrase_in(_text(content))
    except UnicodeDecodeError:
        raise PhraseError(f"{file} is no text", "give a text file that has the 24 words") from None


def _content(path: Path) -> bytes:
    with path.open("rb") as opened:
        return opened.read(MAX_BYTES + 1)


def _typed() -> bytes:
    """Read to the end, or, where somebody types, until the words are complete."""
    if not sys.stdin.isatty():
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    typed = b""
    while len(phrase_in(typed.decode(errors="replace")).split()) < WORDS and (line := sys.stdin.buffer.readline()):
        typed += line
    return typed


def _text(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    return content.decode("utf-8-sig")


def phrase_in(text: str) -> str:
    """Return the words in a text, in their order. Whether they are a phrase, `entropy_of` says.

    Where there are 24 numbered ones, 1 to 24, the numbers decide about the order and everything else is left out.
    """
    text = text.translate(_INVISIBLE)
    if text.lstrip().startswith("{"):
        try:
            return msgspec.json.decode(text.encode(), type=_Printed).phrase
        except msgspec.MsgspecError:
            pass  # then it is a text that begins with a bracket
    numbered = [(int(number), word) for number, word in _NUMBERED.findall(text) if is_word(word)]
    if sorted(number for number, _ in numbered) == list(range(1, WORDS + 1)):
        return " ".join(word for _, word in sorted(numbered))
    parts = [re.sub(r"^[0-9]{1,2}[.):\]]", "", part) for part in _BETWEEN.split(text) if part]
    return " ".join(part for part in parts if part and not _NUMBER.fullmatch(part))
