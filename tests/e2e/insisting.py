"""A caller who takes no silence for an answer: whatever happens to the node, it asks again until it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from perund.control.client import ControlClient
from perund.control.errors import NodeUnreachable, RpcError
from perund.control.methods import Method, P, R
from perund.demo.processes import NodeProcess

__all__ = ["insist"]

ASK_AGAIN_S: Final = 0.05


async def insist(node: NodeProcess, method: Method[P, R], params: P, again: Callable[[], None] = lambda: None) -> R:
    """Return the answer to one and the same call, made until there is one. `again` is told of every repetition.

    Raises `RpcError` for a refusal that is final. Of what moves money the params need an `idempotency_key`.
    """
    while True:
        try:
            async with await ControlClient.connect(node.dir) as control:
                return await control.call(method, params)
        except NodeUnreachable:
            pass  # killed, and not there again yet
        except RpcError as error:
            if not error.retryable:
                raise
        again()
        await asyncio.sleep(ASK_AGAIN_S)
