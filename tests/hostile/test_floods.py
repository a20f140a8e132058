"""What whoever pays nothing, or next to nothing, can take from those who have money here. Figures: docs/reliability.md.

Real processes: an Internet Computer, an honest pair whose payments are measured before and under each flood, and
attackers who speak the protocol with keys made a moment ago, or through a channel of dust.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.town import ICP, Town
from tests.hostile.measured import Cost, Flooded

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("floods")]

MOST_LOG = 400_000
MOST_DISK = 24_000_000
"""Of it 16 MB are the log of SQLite, which is written back when it is as large."""
MOST_MEMORY = 40_000_000
STOP_S = 8.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def flooded(tmp_path_factory: pytest.TempPathFactory, cabinet: Path) -> AsyncIterator[Flooded]:
    directory: Path = tmp_path_factory.mktemp("flooded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERUND_LOG_FORMAT", "json")
        patch.setenv("PERUND_POLICY_MIN_TOTAL_E8S", "1 ICP")
        patch.setenv("PERUND_POLICY_MIN_CHALLENGE_S", "20")
        patch.setenv("PERUND_POLICY_MAX_CHANNELS_PER_PEER", "5")
        town = await Town(directory, cabinet).found()
        try:
            yield await Flooded().settle_in(town)
        finally:
            await town.leave()


def bounded(cost: Cost) -> None:
    print(cost)
    assert cost.sent > 0, cost
    assert cost.in_time, cost
    assert cost.used.log <= MOST_LOG, cost
    assert cost.used.disk <= MOST_DISK, cost
    assert cost.used.memory <= MOST_MEMORY, cost


# In this order: a peer whose channel is full of offers, or frozen, is one more that the next floods have to bear.
SHORT = [("complaints", 0), ("declined", 0), ("chatter", 0)]
LONG = [
    ("declined_again", 0),
    ("waiting", ICP),
    ("replayed", ICP),
    ("resumes", 0),
    ("shown", 0),
    ("reconnects", 0),
    ("proposals", 0),
    ("unread", 0),
    ("forgeries", 0),
    ("storm", 0),
    ("payments", 0),
]


@pytest.mark.parametrize(("kind", "pays"), SHORT)
async def test_a_flood(flooded: Flooded, kind: str, pays: int) -> None:
    bounded(await flooded.measure(kind, 2, pays=pays))


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("kind", "pays"), SHORT + LONG)
async def test_a_flood_that_goes_on(flooded: Flooded, kind: str, pays: int) -> None:
    bounded(await flooded.measure(kind, 20, pays=pays))
