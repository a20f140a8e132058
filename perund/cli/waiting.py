"""Calls that wait: what a person sees meanwhile, how they end by time, and why asking again does nothing twice.

A call is asked for in short turns. Each turn that ends by time says what is waited for; the next one has the same
idempotency key, so it is the same action.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import sys
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from perund.cli.failing import for_people
from perund.cli.output import note, plain
from perund.control.client import ControlClient
from perund.control.errors import NodeUnreachable, RpcError
from perund.control.methods import Method, P, R
from perund.control.values import Seconds
from perund.durations import format_duration

__all__ = ["GRACE_S", "Tell", "ask_until", "new_key", "telling"]

FIRST_TURN_S: Final = 2
NEXT_TURN_S: Final = 5
BUSY_PAUSE_S: Final = 1.0
SAY_AGAIN_S: Final = 300.0
"""What has not changed is said again so often where no terminal shows it all the time."""
GRACE_S: Final = 3.0
"""How much longer than the caller's time the node has to say how things stand."""

Tell = Callable[[str], None]


def new_key() -> str:
    """Return an idempotency key that nobody has used."""
    return f"perun-{secrets.token_hex(8)}"


@contextlib.contextmanager
def telling(*, as_json: bool) -> Iterator[Tell]:
    """Give what is called with what is waited for. On a terminal one line shows the newest; else each is a line once.

    A program that reads JSON hears nothing of it.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.markup import escape

        with Console(stderr=True).status("asking the node") as status:
            yield lambda text: status.update(escape(plain(for_people(text))))
    elif as_json:
        yield lambda _: None
    else:
        yield _Lines()


class _Lines:
    """Writes what is waited for when it is another, and now and then."""

    def __init__(self) -> None:
        self._last = ""
        self._said_s = -math.inf

    def __call__(self, text: str) -> None:
        now_s = asyncio.get_running_loop().time()
        if text != self._last or now_s - self._said_s >= SAY_AGAIN_S:
            self._last, self._said_s = text, now_s
            note(f"waiting: {for_people(text)}")


async def ask_until(client: ControlClient, method: Method[P, R], params: P, timeout_s: int | None, tell: Tell) -> R:
    """Call a method whose params have `timeout_s`, again and again, until it ends or the time is over.

    Raises `RpcError`: `wait_ended` with what is waited for when the time is over.
    """
    loop = asyncio.get_running_loop()
    clock = loop.time
    end_s = math.inf if timeout_s is None else clock() + timeout_s
    turn_s, state = FIRST_TURN_S, ""
    while True:
        turn = Seconds(max(1, math.ceil(min(turn_s, end_s - clock()))))
        silence = loop.call_later(turn + GRACE_S, tell, "the node has not answered yet")
        try:
            return await client.call(method, msgspec.structs.replace(params, timeout_s=turn))
        except NodeUnreachable as error:
            error.sent = error.sent or bool(state)
            raise
        except RpcError as error:
            if state and error.name in ("node_stopping", "storage_failed"):
                # Said of this turn alone: an earlier one took it up.
                raise RpcError("wait_ended", f"{state}; now the node stops") from error
            if error.name not in ("wait_ended", "busy") or client.ended:
                raise
            if timeout_s is not None and clock() >= end_s:
                raise _over(timeout_s, error.message) from error
            state = error.message
            tell(state)
            if error.name == "busy":  # such as a turn of before that is being taken up
                await asyncio.sleep(BUSY_PAUSE_S)
        finally:
            silence.cancel()
        turn_s = NEXT_TURN_S


def _over(timeout_s: int, state: str) -> RpcError:
    return RpcError("wait_ended", f"not ended within {format_duration(timeout_s)}: {state}")
