"""How commands end: one line about what was wrong and what to do, and an exit code that scripts can use."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Coroutine
from typing import Final, NoReturn, TypeVar

from perund.amounts import format_icp
from perund.cli.output import complain, plain
from perund.control.errors import NodeUnreachable, RpcError
from perund.setup_errors import SetupError
from protocol.errors import CallerMistake, PerundError

__all__ = [
    "COMMANDS",
    "FAILED",
    "OK",
    "PARTLY",
    "REFUSED",
    "UNREACHABLE",
    "UNTOLD",
    "USAGE",
    "fail",
    "for_people",
    "run",
    "run_async",
]

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

COMMANDS: Final = {
    "node.info": "perun info",
    "node.health": "perun health",
    "node.stop": "perun stop",
    "wallet.balance": "perun wallet balance",
    "wallet.send": "perun wallet send",
    "peer.connect": "perun connect",
    "peer.list": "perun peers",
    "channel.open": "perun open",
    "channel.list": "perun channels",
    "channel.get": "perun channel CHANNEL",
    "channel.pay": "perun pay",
    "channel.close": "perun close",
    "channel.dispute": "perun dispute",
    "channel.withdraw": "perun withdraw",
    "channel.recover": "perun recover CHANNEL",
    "payment.list": "perun payments",
    "payment.cancel": "perun cancel",
    "event.subscribe": "perun events",
    "rpc.discover": "perun call rpc.discover",
}
"""What a method of the control interface is called here."""
_METHOD: Final = re.compile(rf"(?<![\w.])`?({'|'.join(map(re.escape, COMMANDS))})`?(?![\w.])")
_FIELDS: Final = {"`sendable_e8s`": "what is sendable", "`way_out`": "the way out"}
_E8S: Final = re.compile(r"(?<![\w'.])([0-9]+)(?: to ([0-9]+))? e8s(?!['\w])")


def for_people(text: str) -> str:
    """Say in the words of the command line what the node said in those of its interface.

    >>> for_people("300000000 e8s are too much; channel.get has `sendable_e8s`")
    '3 ICP are too much; `perun channel CHANNEL` has what is sendable'
    """
    text = _METHOD.sub(lambda found: f"`{COMMANDS[found[1]]}`", text)
    for field, shown in _FIELDS.items():
        text = text.replace(field, shown)
    return _E8S.sub(lambda found: " to ".join(format_icp(int(part)) for part in found.groups() if part), text)


def run_async(work: Callable[[], Coroutine[None, None, T]], *, as_json: bool = False, key: str = "") -> T:
    """Run a command to its end; say what went wrong without a traceback, and exit with the right code.

    `key`: the idempotency key of its action, told whenever nobody knows what became of that.
    """
    import asyncio  # not for who reads a help page

    return run(lambda: asyncio.run(work()), as_json=as_json, key=key)


def run(work: Callable[[], T], *, as_json: bool = False, key: str = "") -> T:
    """As `run_async`, for what needs no event loop."""
    again = f"the same command with --key {key} asks again, and nothing is done twice"
    try:
        return work()
    except NodeUnreachable as error:
        told = key if error.sent else ""
        what, hint = for_people(str(error)), f"start it again; {again}" if told else for_people(error.hint)
        fail(what, hint, UNREACHABLE, as_json=as_json, key=told or error.idempotency_key or "")
    except RpcError as error:
        code = UNTOLD if error.name in _UNTOLD_NAMES else FAILED if error.name in _FAILURES else REFUSED
        told = key if error.name in _UNDECIDED else ""
        what, hint = for_people(error.message), again if told else for_people(error.hint)
        told = told or error.idempotency_key or ""
        fail(what, hint, code, as_json=as_json, name=error.name, retryable=error.retryable, key=told)
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
        import json

        body: dict[str, object] = {"message": what, "hint": hint}
        if name:
            body["name"] = name
        if retryable is not None:
            body["retryable"] = retryable
        if key:
            body["idempotency_key"] = key
        complain(json.dumps({"error": body}))
    else:
        # The message may quote a peer: nothing of it may move the cursor.
        complain(f"error: {plain(f'{what}; {hint}' if hint else what)}")
    sys.exit(code)
