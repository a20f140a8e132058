from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.node.desk import Desk
from tests.unit.node.net import Net


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    async with Net.running() as running:
        yield running


@pytest.fixture
async def desk(net: Net, tmp_path: Path) -> AsyncIterator[Desk]:
    opened = Desk(net, tmp_path)
    yield opened
    await opened.close()
