"""The units for systemd, as systemd itself reads them where there is one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNITS = sorted((Path(__file__).parents[3] / "contrib" / "systemd").glob("*.service"))


def test_there_is_one_for_each_daemon() -> None:
    assert [unit.name for unit in UNITS] == ["perund-watch.service", "perund-watchtower.service", "perund.service"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_it(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/usr/bin/perund", str(Path(sys.executable).with_name("perund"))))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
