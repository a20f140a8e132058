"""How commands end: one line about what was wrong and what to do, and an exit code that scripts can use."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Final, NoReturn, TypeVar

import click
import msgspec

from perund.control.errors import NodeUnreachable, RpcError
from perund.setup_errors import SetupError
from protocol.errors import CallerMistake, PerundError

__all__ = ["FAILED", "OK", "PARTLY", "REFUSED", "UNREACHABLE", "UNTOLD", "USAGE", "fail", "run_async"]

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
REFUSED: Final = 3
UNREACHABLE: Final = 4
PARTLY: Final = 5
"""What was good is done, and what was not was said."""
UNTOLD: Final = 6
"""It goes on, or may be done: the message says how to find out."""

T = TypeVar("T")
_FAILURES: Final = {"internal_error", "storage_failed", "payment_failed", "payment_declined", "opening_failed"}
_UNTOLD_NAMES: Final = {"wait_ended", "outcome_unknown"}
_UNDECIDED: Final = {*_UNTOLD_NAMES, "busy", "internal_error"}
"""Errors after which what was asked for may be done, or go on."""


def run_async(work: Callable[[], Coroutine[None, None, T]], *, as_json: bool = False, key: str = "") -> T:
    """Run a command to its end; say what went wrong without a traceback, and exit with the right code.

    `key`: the idempotency key of its action, told whenever nobody knows what became of that.
    """
    again = f"the same command with --key {key} asks again, and nothing is done twice"
    try:
        return asyncio.run(work())
    except NodeUnreachable as error:
        told = key if error.sent else ""
        fail(str(error), f"{error.hint}; {again}" if told else error.hint, UNREACHABLE, as_json=as_json, key=told)
    except RpcError as error:
        code = UNTOLD if error.name in _UNTOLD_NAMES else FAILED if error.name in _FAILURES else REFUSED
        told = key if error.name in _UNDECIDED else ""
        hint = again if told else error.hint
        fail(error.message, hint, code, as_json=as_json, name=error.name, retryable=error.retryable, key=told)
    except SetupError as error:
        fail(error.message, error.hint, FAILED, as_json=as_json)
    except CallerMistake as error:
        fail(str(error), "", USAGE, as_json=as_json, name=error.code)
    except PerundError as error:
        fail(str(error), "", FAILED, as_json=as_json)
    except UnicodeEncodeError as error:  # bytes of the shell that are no UTF-8: they reach nobody
        fail(f"{error.object!a} is not text", "write it in UTF-8", USAGE, as_json=as_json)
    except KeyboardInterrupt:
        goes_on = "what the node accepted goes on"
        fail("interrupted", f"{goes_on}; {again}" if key else goes_on, FAILED, as_json=as_json, key=key)


def fail(
    what: str,
    hint: str,
    code: int,
    *,
    as_json: bool = False,
    name: str = "",
    retryable: bool | None = None,
    key: str = "",
) -> NoReturn:
    """Print `error: what; hint` on standard error (an object with --json), and exit."""
    if as_json:
        body: dict[str, object] = {"message": what, "hint": hint}
        if name:
            body["name"] = name
        if retryable is not None:
            body["retryable"] = retryable
        if key:
            body["idempotency_key"] = key
        click.echo(msgspec.json.encode({"error": body}).decode(), err=True)
    else:
        text = f"{what}; {hint}" if hint else what
        # The message may quote a peer: nothing of it may move the cursor.
        click.echo(f"error: {''.join(c if c.isprintable() else '?' for c in text)}", err=True)
    sys.exit(code)
