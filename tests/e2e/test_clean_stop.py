"""After a stop one file is the node; and a node that ran does not begin again without it."""

import shutil
from pathlib import Path

import pytest

from perund.config import FILE_NAME
from perund.control import schema
from perund.control.methods import CHANNEL_LIST
from perund.control.values import E8s
from perund.demo.processes import PASSPHRASE, NodeProcess, ProcessFailed
from perund.keystore import FILE_NAME as KEYSTORE_NAME
from perund.node.daemon import STORE_NAME
from perund.recovery.backup import BACKUP_NAME
from perund.recovery.ran_before import MARK_NAME
from tests.e2e.lookout import Lookout
from tests.e2e.shell import perund
from tests.e2e.town import ICP, Town


def moved(node: NodeProcess, directory: Path, *names: str) -> NodeProcess:
    """The node on another machine, to which only these files came along."""
    other = NodeProcess(directory, "moved")
    other.dir.mkdir(mode=0o700)
    for name in names:
        shutil.copy(node.dir / name, other.dir / name)
    return other


async def channels(node: NodeProcess) -> list[tuple[str, int, E8s, bool | None]]:
    page = await node.control.call(CHANNEL_LIST, schema.ChannelListParams())
    return [(c.channel, c.version, c.mine_e8s, c.recovering) for c in page.channels]


@pytest.mark.parametrize("watched", [False, True], ids=["alone", "with `perund watch`"])
async def test_the_one_file_that_a_stop_leaves_is_the_whole_node(town: Town, tmp_path: Path, *, watched: bool) -> None:
    alice, bob = await town.pair()
    channel = await town.open(alice, bob, 50)
    await town.pay(alice, channel, 7 * ICP)
    before = await channels(alice)
    lookout = Lookout(alice)
    if watched:
        await lookout.start()
        await lookout.until(lambda said: "watch.channels_changed" in said)
    assert await alice.stop() == 0
    assert (alice.dir / f"{STORE_NAME}-wal").stat().st_size == 0
    await lookout.kill()

    again = await moved(alice, tmp_path, KEYSTORE_NAME, FILE_NAME, STORE_NAME).start()
    assert await channels(again) == before
    await town.pay(again, channel, 3 * ICP)
    assert await again.stop() == 0


async def test_a_node_that_ran_does_not_begin_again_without_its_store(town: Town, tmp_path: Path) -> None:
    alice = await town.node("alice", icp=0)
    assert await alice.stop() == 0
    files = (KEYSTORE_NAME, FILE_NAME, BACKUP_NAME, MARK_NAME)
    again = moved(alice, tmp_path, *files)
    with pytest.raises(ProcessFailed) as failed:
        await again.start()
    said = str(failed.value)
    assert f"{again.dir / STORE_NAME} is missing" in said
    assert "perund restore" in said
    assert "--begin-empty" in said
    assert not (again.dir / STORE_NAME).exists()

    await again.start("--begin-empty")
    assert await again.stop() == 0
    ran = await perund("run", "--dir", str(again.dir), "--begin-empty", PERUND_PASSPHRASE=PASSPHRASE)
    assert ran.code != 0
    assert "without --begin-empty" in ran.err
    await again.start()
    assert await again.stop() == 0
