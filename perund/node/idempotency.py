"""Idempotency keys: the same key twice is one action; the same key with other arguments is an error."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec

from perund.control import schema
from perund.control.errors import RpcError
from perund.control.values import encode_value
from perund.store.jobs import record_request
from perund.store.store import Store
from perund.store.writer import Statement
from protocol.errors import CallerMistake

__all__ = ["Idempotency", "keyed"]

_Keyed = TypeVar("_Keyed", schema.SendParams, schema.ChannelOpenParams)


def keyed(params: _Keyed) -> _Keyed:
    """Return the params with an idempotency key: without one of the caller a new one, by which it can ask again."""
    if params.idempotency_key is not None:
        return params
    return msgspec.structs.replace(params, idempotency_key=f"made-{os.urandom(16).hex()}")


class Idempotency:
    """Remembers what was asked for. A key is recorded in the transaction of its action."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._under_way: set[str] = set()

    def begin(self, key: str | None, method: str, params: schema.Params) -> str | None:
        """Return what the key led to before, or None for a new action, which `done` has to follow.

        Raises `CallerMistake` for other arguments, and `RpcError` (busy) while the action is being recorded.
        """
        if key is None:
            return None
        row = self._store.read.request(key)
        if row is not None:
            if (row.method, row.arguments) != (method, _hash(params)):
                raise CallerMistake("idempotency_conflict", f"the key {key!r} was used for another call")
            return row.result
        if key in self._under_way:
            raise RpcError("busy", f"the call with key {key!r} is being taken up; ask again")
        self._under_way.add(key)
        return None

    def note(self, key: str | None, method: str, params: schema.Params, result: str) -> tuple[Statement, ...]:
        """Return the record of a new action, to be durable with it."""
        if key is None:
            return ()
        return (record_request(key, method, _hash(params), result, time.time_ns() // 1_000_000),)

    def done(self, key: str | None) -> None:
        """Let go of a key: its action is durable, or it was refused."""
        if key is not None:
            self._under_way.discard(key)

    @asynccontextmanager
    async def once(self, key: str | None, method: str, params: schema.Params) -> AsyncIterator[str | None]:
        """Give what the key led to before, or None; on leaving, the new action is durable."""
        earlier = self.begin(key, method, params)
        try:
            yield earlier
            if key is not None and earlier is None:
                await self._store.write(())
        finally:
            if earlier is None:
                self.done(key)


def _hash(params: schema.Params) -> bytes:
    """Return 32 bytes over the arguments that make an action what it is.

    Not its key, nor whether and how long to wait, nor what was said to a warning: the first version that asked took
    none of it.
    """
    fields = msgspec.structs.asdict(params)
    for name in ("idempotency_key", "wait", "timeout_s", "accept_loss"):
        fields.pop(name, None)
    return hashlib.sha256(msgspec.json.encode(fields, enc_hook=encode_value, order="deterministic")).digest()
