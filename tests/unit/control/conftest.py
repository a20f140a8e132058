import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from perund.control.client import ControlClient
from perund.control.server import ControlServer
from tests.unit.control.node_double import NodeDouble


@pytest.fixture
def data_dir() -> Iterator[Path]:
    # Not tmp_path: the path of a Unix socket is short.
    with tempfile.TemporaryDirectory(prefix="perund-") as name:
        yield Path(name)


@pytest.fixture
async def node() -> NodeDouble:
    return NodeDouble()


@pytest.fixture
async def server(node: NodeDouble, data_dir: Path) -> AsyncIterator[ControlServer]:
    serving = ControlServer(node, data_dir, version="0.1.0")
    await serving.start()
    yield serving
    node.release.set()
    await serving.stop(grace_s=1)


@pytest.fixture
async def client(server: ControlServer) -> AsyncIterator[ControlClient]:
    async with await ControlClient.connect(server.path) as connected:
        yield connected
