"""A crowd as a process of its own: `python -m tests.hostile.crowds KIND ADDRESS NETWORK PER_SECOND ADDRESSES`.

It says `ready` when the flood has begun, and floods until its standard input ends. It is niced: it may use what
processor time nobody else wants, as a crowd elsewhere would not take ours. ADDRESS: NODEID@host:port; NETWORK: 32
bytes, in hex; ADDRESSES: from how many it comes, 0: from 127.0.0.1, where everybody is.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Final

import structlog
from coincurve import PrivateKey

from protocol.messages import Ping
from tests.hostile.strangers import Flood, Place, Stranger, addresses, half_open
from wire.noise import Initiator

__all__ = ["KINDS"]

Act = Callable[[str], Coroutine[None, None, None]]
AT_ONCE: Final = 1_000


def arriving(place: Place) -> Act:
    """Fresh keys that complete the handshake, say hello, and leave."""

    async def act(source: str) -> None:
        stranger = await Stranger(place).arrive(source, patience_s=5)
        stranger.leave()

    return act


def staying(place: Place) -> Act:
    """Fresh keys that arrive and stay."""

    async def act(source: str) -> None:
        stranger = await Stranger(place).arrive(source, patience_s=5)
        await stranger.gone(60)

    return act


def silent(place: Place) -> Act:
    """Connections that say nothing."""

    async def act(source: str) -> None:
        writer = await half_open(place, source)
        try:
            await asyncio.sleep(2)
        finally:
            writer.close()

    return act


def mute(place: Place) -> Act:
    """Fresh keys that complete the handshake, and say no hello."""

    async def act(source: str) -> None:
        stranger = await Stranger(place).secure(source, patience_s=5)
        await stranger.gone(60)

    return act


def knocking(place: Place) -> Act:
    """Connections that begin a handshake, all with the same bytes, and never end it."""
    first = Initiator(PrivateKey(), place.node_id).begin()

    async def act(source: str) -> None:
        writer = await half_open(place, source)
        try:
            writer.write(first)
            await asyncio.sleep(2)
        finally:
            writer.close()

    return act


def proposing(place: Place) -> Act:
    """Fresh keys that propose as much as they can, and sign it."""

    async def act(source: str) -> None:
        stranger = await Stranger(place).arrive(source, patience_s=5)
        try:
            while True:
                await stranger.sign()
        finally:
            stranger.leave()

    return act


def chattering(place: Place) -> Act:
    """Fresh keys that say as much as they are let."""

    async def act(source: str) -> None:
        stranger = await Stranger(place).arrive(source, patience_s=5)
        try:
            for number in range(400):
                stranger.say(Ping(number), Stranger.proposal(mine_e8s=1))
                await asyncio.sleep(0.01)
        finally:
            stranger.leave()

    return act


KINDS: Final[dict[str, Callable[[Place], Act]]] = {
    act.__name__: act for act in (arriving, staying, silent, mute, knocking, proposing, chattering)
}


async def _main(kind: str, address: str, network: str, per_second: float, count: int) -> None:
    os.nice(10)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    act = KINDS[kind](Place(address, bytes.fromhex(network)))
    async with Flood(act, addresses(count) or ["127.0.0.1"], per_second=per_second, at_once=AT_ONCE) as flood:
        while flood.started < min(per_second, AT_ONCE):  # noqa: ASYNC110  (the flood is under way)
            await asyncio.sleep(0.02)
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        print(f"{kind}: {flood.started} begun, {flood.done} done, turned away: {flood.failed}", flush=True)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), int(sys.argv[5])))
