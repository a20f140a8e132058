"""Runs a devnet: the local network behind a TCP port, until it is told to stop."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

from devnet.network import LocalNetwork
from devnet.replica.admin import Admin, add_admin_routes
from devnet.replica.errors import CannotListen, PortInUse
from devnet.replica.faults import Faults
from devnet.replica.http import create_application

__all__ = ["Ready", "run_devnet", "run_network", "serve"]

log = structlog.get_logger(__name__)

Ready = dict[str, str]
"""What clients need to know: `url`, `root_key` (hex of 133 bytes of DER), `perun_canister`, `icp_ledger`."""

_SHUTDOWN_WAIT_S: Final = 1.0
_KEEPALIVE_S: Final = 75.0


async def run_devnet(
    host: str,
    port: int,
    state: Path | None,
    ready: Callable[[Ready], None],
    stop: asyncio.Event,
) -> None:
    """Serve a local network on `host`:`port` (0: any free one) until `stop` is set.

    `state`: the directory that keeps it, None for a network that ends with the call. `ready` is called once, when
    requests are answered. Raises `PortInUse`, and `StateUnusable` at the start or when a later write fails.
    """
    await run_network(LocalNetwork.create(state), host, port, ready, stop)


async def run_network(
    network: LocalNetwork, host: str, port: int, ready: Callable[[Ready], None], stop: asyncio.Event
) -> None:
    """Serve `network` until `stop` is set, and close it. As `run_devnet` otherwise."""
    try:
        async with serve(network, host, port) as info:
            ready(info)
            ends = {asyncio.create_task(event.wait()) for event in (stop, network.replica.rounds.failed)}
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for end in ends:
                    end.cancel()
    finally:
        await network.replica.close()
    if network.replica.rounds.failure is not None:
        raise network.replica.rounds.failure


@asynccontextmanager
async def serve(network: LocalNetwork, host: str, port: int) -> AsyncIterator[Ready]:
    """Answer HTTP for `network` inside the block. Yields what clients need to know.

    Raises `PortInUse`. The network is not closed: whoever made it does that.
    """
    replica = network.replica
    faults = Faults(replica, network.copy)
    application = create_application(replica, faults)
    info: Ready = {}
    add_admin_routes(application, Admin(replica, network.mint, faults, info, network.change_fee))
    runner = web.AppRunner(
        application, access_log=None, keepalive_timeout=_KEEPALIVE_S, shutdown_timeout=_SHUTDOWN_WAIT_S
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                raise PortInUse(host, port) from exc
            raise CannotListen(host, port, exc.strerror or str(exc)) from exc
        except (ValueError, OverflowError) as exc:
            raise CannotListen(host, port, str(exc)) from exc
        bound = runner.addresses[0][1]
        shown_host = f"[{host}]" if ":" in host else host
        info.update(url=f"http://{shown_host}:{bound}", root_key=replica.root_key.public_der.hex(), **network.names)
        log.info("devnet.listening", url=info["url"])
        yield dict(info)
    finally:
        await runner.cleanup()
