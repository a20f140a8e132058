"""What every end-to-end test may ask for."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.town import Town


@pytest.fixture
async def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Town]:
    """A town of its own for each test. Its nodes agree to challenge periods of seconds: time is advanced here."""
    monkeypatch.setenv("PERUND_POLICY_MIN_CHALLENGE_S", "1")
    monkeypatch.setenv("PERUND_LOG_FORMAT", "console")
    town = await Town(tmp_path).found()
    try:
        yield town
    finally:
        await town.leave()
