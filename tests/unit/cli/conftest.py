"""A node in memory behind the real socket, and the programs as processes of their own."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from perund.control.server import ControlServer
from tests.unit.control.node_double import NodeDouble


@pytest.fixture
async def node() -> NodeDouble:
    return NodeDouble()


@pytest.fixture
async def data_dir(node: NodeDouble) -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="perund-") as name:
        server = ControlServer(node, Path(name), version="0.1.0")
        await server.start()
        yield Path(name)
        await server.stop(grace_s=1)
