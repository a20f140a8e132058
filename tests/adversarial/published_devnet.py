"""`perund devnet`, but with the published canister: a process of its own for tests with real nodes."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

from devnet.server import Ready, run_network
from perund.logs import configure_logs
from tests.adversarial.published import published_network


async def main() -> None:
    """Serve until a signal comes; prints the ready line."""
    configure_logs("warning")
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def ready(info: Ready) -> None:
        sys.stdout.write(json.dumps(info) + "\n")
        sys.stdout.flush()

    await run_network(published_network(), "127.0.0.1", 0, ready, stop)


if __name__ == "__main__":
    asyncio.run(main())
