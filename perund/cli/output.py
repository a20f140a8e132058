"""What the command lines print: on standard output what was asked for, on standard error the rest.

A deed that is done stays done when its result cannot be written (a full disk, a reader that went away): the status
then says that it was done, because whoever reads only the status would do it again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from typing import Final

import click

__all__ = [
    "OutputLost",
    "complain",
    "deed_done",
    "lost_by",
    "note",
    "open_streams",
    "plain",
    "said_done",
    "say",
    "say_json",
]

_DONE: Final = "perund.cli.done"
_STREAMS: Final = (("stdin", "r", 0), ("stdout", "w", 1), ("stderr", "w", 2))


class OutputLost(Exception):
    """Standard output takes nothing. `quiet`: its reader went away, as `head` does when it has seen enough."""

    def __init__(self, reason: str, *, quiet: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.quiet = quiet


def open_streams() -> None:
    """Give a process whose standard streams are closed empty ones, and write whatever can be encoded, somehow.

    Else the next file that is opened has their number, and Python has no stream there at all.
    """
    for name, mode, number in _STREAMS:
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(text: str = "") -> None:
    """Print a line on standard output. Raises `OutputLost`."""
    try:
        click.echo(text)
    except OSError as error:
        raise lost_by(error) from error


def lost_by(error: OSError) -> OutputLost:
    """Return what an error of writing to standard output means, and write nothing there any more."""
    _give_up(sys.stdout)
    return OutputLost(os.strerror(error.errno or 0), quiet=error.errno == errno.EPIPE)


def say_json(encoded: bytes) -> None:
    """Print JSON whose text cannot move the cursor: what is not printable is escaped, and says the same."""
    text = encoded.decode()
    say(text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text))


def note(text: str) -> None:
    """Print a line on standard error. Where that takes nothing, nobody can be told."""
    complain(plain(text))


def complain(text: str) -> None:
    """Print a line on standard error as it is."""
    try:
        click.echo(text, err=True)
    except OSError:
        _give_up(sys.stderr)


def plain(text: str) -> str:
    """Replace what could move the cursor: much of what is printed was written by a peer, or is a name of a file."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def deed_done(status: int = 0, undo: Callable[[], str] | None = None) -> None:
    """Remember that what was asked for is done, with this status, whatever becomes of the output from here on.

    `undo`: for a deed that is worth nothing when its result was not read; it says what it did.
    """
    click.get_current_context().find_root().meta[_DONE] = (status, undo)


def said_done(context: click.Context) -> tuple[int, Callable[[], str] | None] | None:
    """Return what `deed_done` remembered, or None when nothing was done."""
    found: tuple[int, Callable[[], str] | None] | None = context.find_root().meta.get(_DONE)
    return found


def _give_up(stream: object) -> None:
    """Let the interpreter find nothing to flush at its end: it would fail once more."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # type: ignore[attr-defined]


def _escaped(char: str) -> str:
    # The text is JSON: outside of its strings everything is printable, and inside \u is how a character is written.
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
