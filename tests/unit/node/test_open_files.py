"""Descriptors: a flood of connections must not take the last one."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog

from perund.open_files import OutOfFiles, raise_open_files
from wire.limits import Limits


@pytest.fixture
def restored() -> Iterator[int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_limit_of_open_files_is_raised_to_what_the_limits_allow(restored: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, restored))
    raise_open_files(Limits(connections=10, handshakes=20, farewells=5, dials=5))
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 10 + 40 + 5 + 5 + 256


def test_a_limit_that_is_high_enough_is_left_alone(restored: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, restored))
    raise_open_files(Limits(connections=10, handshakes=20, farewells=5, dials=5))
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 512


@pytest.mark.parametrize("hard", [1024, 512, 128])
def test_where_the_hard_limit_is_low_connections_give_way(hard: int) -> None:
    """In a process of its own: a hard limit does not come back."""
    script = (
        "import resource, sys\n"
        "from perund.open_files import raise_open_files\n"
        "from wire.limits import Limits\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard}))\n"
        "fits = raise_open_files(Limits(connections=200))\n"
        "print(fits.connections + 2 * fits.handshakes + fits.farewells + fits.dials, fits.connections)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    taken, connections = map(int, done.stdout.split()[-2:])
    assert taken <= hard - min(256, hard // 2), "what is left is for the store, the backup and the chain"
    assert connections == {1024: 200, 512: 128, 128: 32}[hard]
    assert "node.few_open_files" in done.stdout + done.stderr


async def test_connections_that_cannot_be_accepted_are_one_line_a_minute() -> None:
    failures = OutOfFiles(asyncio.get_running_loop())
    with structlog.testing.capture_logs() as lines:
        for _ in range(10_000):
            assert failures.took({"message": "socket.accept() out of system resource", "exception": OSError(24, "x")})
        assert not failures.took({"message": "Task exception was never retrieved"})
    assert [line["event"] for line in lines] == ["node.out_of_files"]


def test_what_asyncio_says_of_a_failed_accept_is_known() -> None:
    """A real socket, and not one descriptor left: two seconds of it are one line, and then somebody is accepted."""
    script = (
        "import asyncio, os, socket, structlog\n"
        "from perund.open_files import OutOfFiles\n"
        "async def main():\n"
        "    loop = asyncio.get_running_loop()\n"
        "    failures, came, others = OutOfFiles(loop), asyncio.Event(), []\n"
        "    loop.set_exception_handler(lambda loop, context: failures.took(context) or others.append(context))\n"
        "    server = await asyncio.start_server(lambda reader, writer: came.set(), '127.0.0.1', 0, backlog=16)\n"
        "    client = socket.create_connection(server.sockets[0].getsockname())\n"
        "    held = []\n"
        "    try:\n"
        "        while True: held.append(os.dup(0))\n"
        "    except OSError: pass\n"
        "    await asyncio.sleep(2.2)\n"
        "    assert not came.is_set()\n"
        "    for descriptor in held: os.close(descriptor)\n"
        "    await asyncio.wait_for(came.wait(), 10)\n"
        "    print(failures._failed, len(others))\n"
        "with structlog.testing.capture_logs() as lines:\n"
        "    asyncio.run(main())\n"
        "print([line['event'] for line in lines])\n"
    )
    command = f'ulimit -n 128; exec "{sys.executable}" -c "$0"'
    done = subprocess.run(["bash", "-c", command, script], capture_output=True, text=True, check=True)
    counts, events = done.stdout.splitlines()
    assert events == "['node.out_of_files']"
    failed, others = map(int, counts.split())
    assert failed > 0
    assert others == 0
