"""What both programs have in common: how they begin, and that each end of them is a sentence and a status."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import click

from perund.cli.failing import FAILED, USAGE, fail
from perund.cli.output import OutputLost, complain, lost_by, note, open_streams, said_done
from perund.setup_errors import SetupError

__all__ = ["Program"]

_OF_WRITING: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


class Program(click.Group):
    """A group of commands that ends without a traceback, whatever it was given and wherever its output goes."""

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run a command line, and exit."""
        open_streams()
        words = list(sys.argv[1:] if args is None else args)
        as_json = "--json" in words
        extra.pop("standalone_mode", None)
        try:
            status = super().main(words, prog_name, standalone_mode=False, **extra)
        except click.UsageError as error:
            _refuse(error, as_json=as_json)
        except click.ClickException as error:
            fail(error.format_message(), "", error.exit_code, as_json=as_json)
        except click.Abort:
            complain("Aborted!")
            sys.exit(FAILED)
        except SetupError as error:  # where no command had begun: a variable of the environment, a directory
            fail(error.message, error.hint, FAILED, as_json=as_json)
        except OSError as error:
            if error.filename is None and error.errno in _OF_WRITING:  # of click itself, which prints the help
                _tell_of(lost_by(error))
                sys.exit(FAILED)
            _of_the_system(error, as_json=as_json)
        sys.exit(status if isinstance(status, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; once its deed is done, what becomes of the output does not change the status."""
        try:
            return super().invoke(ctx)
        except OutputLost as lost:
            done = said_done(ctx)
            if done is None:
                _tell_of(lost)
                sys.exit(FAILED)
            status, undo = done
            if undo is not None:
                note(f"error: the result cannot be written ({lost.reason}): {undo()}")
                sys.exit(FAILED)
            note(f"the result cannot be written ({lost.reason}), but it is done: do not do it again")
            sys.exit(status)


def _tell_of(lost: OutputLost) -> None:
    if not lost.quiet:
        note(f"error: the output cannot be written ({lost.reason}); free some space, or send it elsewhere")


def _refuse(error: click.UsageError, *, as_json: bool) -> NoReturn:
    where = f"`{error.ctx.command_path} --help` shows how it is used" if error.ctx is not None else ""
    fail(error.format_message().rstrip("."), where, USAGE, as_json=as_json)


def _of_the_system(error: OSError, *, as_json: bool) -> NoReturn:
    place = f"{error.filename}: " if error.filename is not None else ""
    fail(f"{place}{error.strerror or error}", "give another place, or put right what is wrong there", FAILED,
         as_json=as_json)  # fmt: skip
