"""What every adversarial test may ask for: a devnet in this process and a node on it, both in a hurry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.adversarial.house import House, house_of
from tests.adversarial.inhabitant import Inhabitant


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait between two attempts, but not as long as in the real world."""
    monkeypatch.setattr("perund.node.job.FIRST_WAIT_S", 0.01)
    monkeypatch.setattr("perund.node.job.LAST_WAIT_S", 0.05)
    monkeypatch.setattr("watcher.watch.RETRY_FIRST_S", 0.02)
    monkeypatch.setattr("watcher.watch.RETRY_LAST_S", 0.1)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with house_of() as opened:
        yield opened


@pytest.fixture
async def alice(house: House, tmp_path: Path) -> AsyncIterator[Inhabitant]:
    running = Inhabitant(house, tmp_path / "alice").start()
    yield running
    await running.stop()
