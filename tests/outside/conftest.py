"""A devnet as a process of its own for all clients from outside; its time is never advanced, for they have clocks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from perund.demo.processes import DevnetProcess
from tests.outside.icp import Icp
from tests.outside.install import Clients, installed
from tests.outside.javascript import JavaScript


@pytest.fixture(scope="session")
def clients() -> Clients:
    return installed()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def devnet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DevnetProcess]:
    process = await DevnetProcess(tmp_path_factory.mktemp("devnet")).start()
    yield process
    assert await process.stop() == 0


@pytest.fixture
def icp(clients: Clients, devnet: DevnetProcess, tmp_path: Path) -> Icp:
    """The command, with a home of its own in which it knows nobody."""
    return Icp(clients.icp, tmp_path / "home", devnet.url, devnet.root_key)


@pytest.fixture
def javascript(clients: Clients, devnet: DevnetProcess, tmp_path: Path) -> JavaScript:
    return JavaScript(clients, tmp_path, devnet)
