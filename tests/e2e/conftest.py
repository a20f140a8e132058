"""What every end-to-end test may ask for."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.town import Town


@pytest.fixture(scope="session")
def cabinet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the keys of alice and bob are kept from one town to the next."""
    return tmp_path_factory.mktemp("cabinet")


@pytest.fixture
async def town(tmp_path: Path, cabinet: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Town]:
    """A town of its own for each test. Its nodes agree to challenge periods of seconds: time is advanced here."""
    monkeypatch.setenv("PERUND_POLICY_MIN_CHALLENGE_S", "1")
    monkeypatch.setenv("PERUND_LOG_FORMAT", "console")
    town = await Town(tmp_path, cabinet).found()
    try:
        yield town
    finally:
        await town.leave()
