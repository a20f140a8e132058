"""What a caller is told whose call does not come to its end: by what is known of its write, and by nothing else.

A call has done nothing before it asks the store for a unit of work. From then on the end of that unit decides, whatever
ended the wait: a full disk, files that were replaced, a node that stops, another copy of it that took over.

| its unit | what is told |
| --- | --- |
| was not asked for, or is not written | `node_stopping`, `storage_failed`, `stopped_signing`: nothing happened |
| may be written | `outcome_unknown`: the next start sees, and this is what to ask then |
| is written | `wait_ended`: it goes on. `outcome_unknown` where others decide, and have not said |
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from perund.control.errors import RpcError
from perund.control.methods import Method
from perund.store.errors import End, StorageFailed
from perund.store.store import Store
from protocol.errors import PerundError

__all__ = ["STOPS", "Promise", "Promises", "WaitEnded"]

STOPS: Final = "the node stops"
GOES_ON: Final = "goes on when the node runs again"


class WaitEnded(PerundError):
    """Nobody waits any more for what a channel or an opening comes to. Its text says why."""


@dataclass(slots=True)
class Promise:
    """One call. `what`: it is about, for people; `key`: its idempotency key, if it has one."""

    method: Method[Any, Any]
    key: str | None
    what: str
    unit: int | None = None
    """The unit of work that decides, by its number in the store. 0: it was there before the call; None: not asked."""
    others_decide: bool = False
    """Whether what is written is only that somebody else is asked, who may have done it."""
    then: str = GOES_ON
    """What becomes of it when it is written."""

    def was_asked(self, unit: int) -> None:
        """Take the unit of work that decides."""
        self.unit = unit


class Promises:
    """The one place that decides what is told."""

    def __init__(self, store: Store, reason_not_to_sign: Callable[[], str | None]) -> None:
        """`reason_not_to_sign`: why this copy of the node carries nothing out any more, or None."""
        self._store = store
        self._reason_not_to_sign = reason_not_to_sign

    @contextmanager
    def of(
        self,
        method: Method[Any, Any],
        key: str | None,
        what: str,
        *,
        others_decide: bool = False,
        then: str = GOES_ON,
    ) -> Iterator[Promise]:
        """Answer a call by its write when the store fails or the wait ends in this block."""
        promise = Promise(method, key, what, others_decide=others_decide, then=then)
        try:
            yield promise
        except (StorageFailed, WaitEnded) as error:
            raise self.broken(promise, str(error)) from error
        except asyncio.CancelledError as error:  # by the server alone, when it stops
            raise self.broken(promise, STOPS) from error

    @contextmanager
    def asking(self, promise: Promise) -> Iterator[None]:
        """Note what the store is asked for in this block, in which nothing is awaited, as what decides."""
        before = self._store.asked
        yield
        promise.unit = self._store.asked if self._store.asked != before else 0

    def broken(self, promise: Promise, why: str) -> RpcError:
        """Return what the caller is told. `why`: what ended the wait."""
        end = self._store.end_of(promise.unit) if promise.unit is not None else End.NOT_WRITTEN
        reason = self._reason_not_to_sign()
        if end is End.NOT_WRITTEN:
            name = "node_stopping" if why == STOPS else "storage_failed" if reason is None else "stopped_signing"
            return RpcError(name, f"nothing of {promise.what} happened: {why}")
        if end is End.UNKNOWN:
            text = f"{why}; whether {promise.what} was taken up shows when the node runs again"
            return self.unknown(promise, text)
        if reason is not None:
            return self.unknown(promise, f"{promise.what} is written down, and {reason}")
        if promise.others_decide:
            return self.unknown(promise, f"{why}; what became of {promise.what} is not known yet")
        return _told("wait_ended", promise, f"{why}; {promise.what} {promise.then}")

    def late(self, promise: Promise, state: str) -> RpcError:
        """Return what a caller is told whose time is over. `state`: how it stands, for people."""
        if promise.unit is not None and self._store.end_of(promise.unit) is End.WRITTEN:
            return _told("wait_ended", promise, state)
        return self.unknown(promise, f"{state}; it is not known to be written down yet")

    def unknown(self, promise: Promise, text: str) -> RpcError:
        """Return that it may have happened, and what to ask."""
        return _told("outcome_unknown", promise, text)


def _told(name: str, promise: Promise, text: str) -> RpcError:
    method, key = promise.method, promise.key
    return RpcError(name, text, hint=method.ask_again(key), retryable=method.is_one_action(key), idempotency_key=key)
