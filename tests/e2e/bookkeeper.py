"""Has somebody else compare what nodes say of their money with the ledger and the canister. See `books.py`."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final

from perund.demo.processes import NodeProcess
from tests.e2e.shell import Ran, run
from tests.e2e.town import Town

__all__ = ["BOOKS", "claims", "read_books"]

BOOKS: Final = Path(__file__).with_name("books.py")


async def claims(*nodes: NodeProcess) -> dict[str, Any]:
    """What the nodes say, as `perun --json` would print it."""
    said = []
    for node in nodes:
        balance, channels = await asyncio.gather(
            node.control.call("wallet.balance"), node.control.call("channel.list", {"limit": 1000})
        )
        said.append({"name": node.name, **balance, "channels": channels["channels"]})
    return {"nodes": said}


async def read_books(town: Town, said: dict[str, Any]) -> Ran:
    """Run the comparison."""
    devnet = town.devnet
    arguments = (sys.executable, "-I", str(BOOKS), devnet.url, devnet.icp_ledger, devnet.perun_canister)
    return await run(*arguments, stdin=json.dumps(said))
