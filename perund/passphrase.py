"""Where the passphrase comes from: a file, standard input, the environment or a prompt; never the arguments.

Arguments are visible to every user of the machine (`ps`) and stay in the shell's history.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from perund.environment import PASSPHRASE as ENVIRONMENT
from perund.setup_errors import PassphraseError

__all__ = ["ENVIRONMENT", "MIN_PASSPHRASE", "STDIN", "ask_passphrase", "check_passphrase", "read_secret_line"]

STDIN: Final = "-"
MAX_BYTES: Final = 4_096
MIN_PASSPHRASE: Final = 8
"""Characters. Shorter ones are guessed in minutes, whatever scrypt costs."""
_WAYS: Final = f"give --passphrase-file FILE (or - for standard input), set {ENVIRONMENT}, or run it in a terminal"


def ask_passphrase(
    file: str | None = None,
    *,
    configured: str = "",
    twice: bool = False,
    interactive: bool = True,
    environment: Mapping[str, str] = os.environ,
    prompt: str = "Passphrase of the key store: ",
) -> str:
    """Return the passphrase, from the first of these that is there.

    1. `file` (the option; `-` is standard input), 2. the environment, 3. `configured` (the file named in
    perund.toml), 4. a prompt on the terminal. `twice`: it is for a new key store: a prompt asks again, and one that is
    too short is refused.
    Raises `PassphraseError`.
    """
    if file is not None:
        return _checked(read_secret_line(file), "standard input" if file == STDIN else file, new=twice)
    if ENVIRONMENT in environment:
        return _checked(environment[ENVIRONMENT], ENVIRONMENT, new=twice)
    if configured:
        return _checked(read_secret_line(configured), configured, new=twice)
    if not interactive or not sys.stdin.isatty():
        raise PassphraseError("no passphrase for the key store", _WAYS)
    try:
        passphrase = getpass.getpass(prompt)
        if twice and getpass.getpass("The same again: ") != passphrase:
            raise PassphraseError("the two passphrases differ", "nothing was made; try again")
    except EOFError:
        raise PassphraseError("no passphrase for the key store", _WAYS) from None
    return _checked(passphrase, "the terminal", new=twice)


def read_secret_line(file: str) -> str:
    """Return the first line of a file, or of standard input for `-`. Raises `PassphraseError`."""
    try:
        if file == STDIN:
            content = sys.stdin.buffer.readline(MAX_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                content = opened.readline(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise PassphraseError(f"the first line of {file} is too long", f"at most {MAX_BYTES} bytes are read")
        return content.decode("utf-8-sig").rstrip("\r\n")  # editors begin a file with a byte order mark
    except OSError as error:
        raise PassphraseError(f"{file} cannot be read ({error.strerror})", "check its name and permissions") from error
    except UnicodeDecodeError:
        raise PassphraseError(f"the first line of {file} is not UTF-8 text", "save it as UTF-8") from None


def _checked(passphrase: str, source: str, *, new: bool) -> str:
    if not passphrase:
        raise PassphraseError(f"the passphrase from {source} is empty", _WAYS)
    if new:
        check_passphrase(passphrase, f"the passphrase from {source}")
    return passphrase


def check_passphrase(passphrase: str, named: str = "the passphrase") -> None:
    """Raise `PassphraseError` when a new key store should not be protected by this passphrase.

    What is taken here can be given in each way later: as the first line of a file, too.
    """
    try:
        length = len(passphrase.encode())
    except UnicodeEncodeError:
        raise PassphraseError(f"{named} is not UTF-8 text", "use characters of UTF-8") from None
    if length > MAX_BYTES or "\n" in passphrase or "\r" in passphrase:
        raise PassphraseError(
            f"{named} has more than one line, or more than {MAX_BYTES} bytes", "give one line of text"
        )
    if len(passphrase) < MIN_PASSPHRASE:
        raise PassphraseError(
            f"{named} has {len(passphrase)} characters",
            f"use at least {MIN_PASSPHRASE}; a few words are best",
        )
