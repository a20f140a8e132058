"""The log is no part of the program: whoever logs never waits and never fails, and what is lost is counted."""

import os
import subprocess
import sys
import time

import pytest

from perund.log_sink import MOST_BYTES, LogSink


@pytest.fixture
def pipe() -> tuple[int, int]:
    """Its ends stay open: a sink writes for as long as its process lives, and a number would get another file."""
    return os.pipe()


def read_until(descriptor: int, end: bytes) -> str:
    data = b""
    while end not in data:
        data += os.read(descriptor, 65_536)
    return data.decode()


def test_lines_come_in_order(pipe: tuple[int, int]) -> None:
    sink = LogSink(pipe[1])
    for number in range(100):
        sink.write(f"line {number}\n")
    assert sink.flush_within(10)
    assert os.read(pipe[0], 65_536).decode().splitlines() == [f"line {number}" for number in range(100)]
    assert (sink.lost, sink.problem()) == (0, None)


def test_nobody_waits_for_a_reader_that_does_not_read_and_what_is_too_much_is_counted(pipe: tuple[int, int]) -> None:
    sink = LogSink(pipe[1])
    line = "x" * 999 + "\n"
    began = time.monotonic()
    for _ in range(5_000):
        sink.write(line)
    assert time.monotonic() - began < 1
    assert not sink.flush_within(0.05), "an end does not wait for it either"
    assert 5_000 - MOST_BYTES // 1_000 - 200 < sink.lost <= 5_000 - MOST_BYTES // 1_000
    lost = sink.lost
    text = read_until(pipe[0], b"log.lost")
    assert text.count(line) == 5_000 - lost, "what was kept comes whole"
    assert sink.flush_within(10)


@pytest.mark.parametrize("non_blocking", [False, True])
def test_a_pipe_that_does_not_wait_is_waited_for(pipe: tuple[int, int], *, non_blocking: bool) -> None:
    os.set_blocking(pipe[1], not non_blocking)
    sink = LogSink(pipe[1])
    for _ in range(500):
        sink.write("x" * 999 + "\n")
    sink.write("the end\n")
    assert read_until(pipe[0], b"the end\n").count("x" * 999) == 500
    assert sink.lost == 0


def test_a_closed_pipe_loses_lines_and_says_so_when_somebody_reads_again(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.close(reader)
    sink = LogSink(writer)
    sink.write("one\n")
    assert sink.flush_within(10)
    sink.write("two\n")
    assert sink.flush_within(10)
    assert (sink.lost, sink.problem()) == (2, "Broken pipe")
    again, other = os.pipe()
    os.dup2(other, writer)
    os.close(other)
    sink.write("three\n")
    assert read_until(again, b"three\n").splitlines() == ["log.lost lines=2 why=Broken pipe", "three"]
    assert sink.problem() is None
    os.close(again)


def test_a_full_disk_loses_lines_and_tears_none_of_those_after(tmp_path: object) -> None:
    """What the limit of a file's size cuts off is a torn line, as on a full disk; then there is room again."""
    script = (
        "import os, resource, sys\n"
        "from perund.log_sink import LogSink\n"
        "file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))\n"
        "sink = LogSink(file)\n"
        "sink.write('first\\n'); sink.flush_within(10)\n"
        "sink.write('second\\n'); sink.flush_within(10)\n"
        "assert sink.lost == 1 and sink.problem() == 'File too large', (sink.lost, sink.problem())\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
        "sink.write('third\\n'); sink.flush_within(10)\n"
    )
    path = f"{tmp_path}/log"
    subprocess.run([sys.executable, "-c", script, path], check=True)
    with open(path) as file:  # noqa: PTH123
        assert file.read().splitlines() == ["first", "seco", "log.lost lines=1 why=File too large", "third"]


SAYS = (
    "import sys, warnings, logging, structlog\n"
    "from perund.log_sink import take_standard_error\n"
    "from perund.logs import configure_logs, set_log_level\n"
    "log = structlog.get_logger()\n"
    "take_standard_error(); configure_logs('info', 'json')\n"
    "log.info('by.structlog'); logging.getLogger('x').error('by logging'); warnings.warn('by warnings')\n"
    "log.debug('not.yet'); set_log_level('debug'); log.debug('by.debug')\n"
    "set_log_level('error'); log.warning('no.more')\n"
    "raise ValueError('by a traceback')\n"
)


def test_all_that_a_process_says_comes_also_at_its_end() -> None:
    done = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    for what in ("by.structlog", "by logging", "by warnings", "by.debug", "by a traceback"):
        assert what in done.stderr
    assert "not.yet" not in done.stderr
    assert "no.more" not in done.stderr


@pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&-", "2> >(sleep 9)"])
def test_nothing_of_that_changes_how_a_process_ends(stderr: str) -> None:
    began = time.monotonic()
    script = SAYS.replace("raise", "log.error('x' * 900_000)\nraise")
    done = subprocess.run(["bash", "-c", f'"$0" -c "$1" {stderr}', sys.executable, script], check=False)
    assert done.returncode == 1
    assert time.monotonic() - began < 6
