from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.store.books import Books


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    opened = Books(tmp_path)
    yield opened
    opened.store.close()
