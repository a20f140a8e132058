"""What a network keeps with its state directory, and what happens when that is of no use."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from devnet.canister import Call
from devnet.network import LocalNetwork
from devnet.replica.errors import PortInUse, StateUnusable
from devnet.replica.parts import PART_BYTES, changed_parts
from devnet.server import run_network, serve
from tests.unit.replica.certificate_check import hash_of_map
from tests.unit.replica.client import Client, Ed25519Key
from tests.unit.replica.conftest import NAMES
from tests.unit.replica.counter import COUNTER, Counter, from_nat64, nat64


@asynccontextmanager
async def network_in(directory: Path, session: aiohttp.ClientSession, key: Any = None) -> AsyncIterator[Client]:
    counter = Counter()
    network = LocalNetwork.of({COUNTER: counter}, counter.mint, NAMES, directory)
    try:
        async with serve(network, "127.0.0.1", 0) as info:
            yield Client(session, info["url"], key or Ed25519Key())
    finally:
        await network.replica.close()


async def test_a_restart_keeps_key_state_time_and_outcomes(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    key = Ed25519Key()
    async with network_in(tmp_path / "devnet", session, key) as alice:
        root_key = await alice.root_key()
        content = alice.content("call", method_name="add", arg=nat64(5))
        trapped = alice.content("call", method_name="trap")
        await alice.send(content)
        await alice.send(trapped)
        await alice.admin("mint", account="2vxsx-fae", e8s=9)
        await alice.admin("advance", seconds=120)
        before_ns = (await alice.read_state([b"time"])).time_ns
    async with network_in(tmp_path / "devnet", session, key) as alice:
        assert await alice.root_key() == root_key
        assert await alice.count() == 5
        assert (await alice.read_state([b"time"])).time_ns > before_ns
        status = [b"request_status", hash_of_map(content)]
        assert (await alice.read_state(status)).value(*status, b"reply") == nat64(5)
        status = [b"request_status", hash_of_map(trapped)]
        assert (await alice.read_state(status)).value(*status, b"error_code") == b"IC0503"
        # The same request again is answered, not run.
        certificate = await alice.certificate_of(await alice.send(content))
        assert certificate.value(b"request_status", hash_of_map(content), b"reply") == nat64(5)
        assert await alice.count() == 5
        assert (await alice.admin("mint", account="2vxsx-fae", e8s=9)) == (200, {"block": 1})


async def test_without_a_directory_each_network_has_its_own_key(session: aiohttp.ClientSession) -> None:
    keys = set()
    for _ in range(2):
        network = LocalNetwork.of({}, Counter().mint, NAMES)
        keys.add(network.replica.root_key.public_der)
        await network.replica.close()
    assert len(keys) == 2


async def test_what_was_certified_survives_sigkill(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    program = f"""
import asyncio
from pathlib import Path
from devnet.canister import Call
from devnet.network import LocalNetwork
from devnet.replica.parts import PART_BYTES, changed_parts
from devnet.server import run_network
from tests.unit.replica.counter import COUNTER, Counter

async def main():
    counter = Counter()
    network = LocalNetwork.of({{COUNTER: counter}}, counter.mint, {NAMES!r}, Path({str(tmp_path)!r}))
    ready = lambda info: print("READY", info["url"], flush=True)
    await run_network(network, "127.0.0.1", 0, ready, asyncio.Event())

asyncio.run(main())
"""
    root = Path(__file__).parents[3]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        stdout=asyncio.subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None
    url = ""
    while not url:
        line = (await process.stdout.readline()).decode().split()
        assert line, "the devnet ended before it was ready"
        url = line[1] if line[0] == "READY" else ""
    alice = Client(session, url, Ed25519Key())
    root_key = await alice.root_key()
    certified = 0

    async def keep_adding() -> None:
        nonlocal certified
        while True:
            certified = max(certified, from_nat64(await alice.call("add", nat64(1))))

    adding = [asyncio.create_task(keep_adding()) for _ in range(4)]
    while certified < 20:
        await asyncio.wait(adding, timeout=0.01)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await asyncio.gather(*adding, return_exceptions=True)
    async with network_in(tmp_path, session) as bob:
        assert await bob.root_key() == root_key
        assert certified <= await bob.count() <= certified + len(adding)


async def test_a_saved_state_never_has_a_call_in_the_middle(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    counter = Counter()
    network = LocalNetwork.of({COUNTER: counter}, counter.mint, NAMES, tmp_path)
    async with serve(network, "127.0.0.1", 0) as info:
        alice = Client(session, info["url"], Ed25519Key())
        slow = asyncio.create_task(alice.call("add_slowly", nat64(10)))
        await counter.waiting.wait()
        quick = asyncio.create_task(alice.call("add", nat64(1)))
        done, _ = await asyncio.wait({quick}, timeout=0.05)
        assert not done  # its certificate waits until it can be saved
        counter.release.set()
        assert from_nat64(await slow) == 11
        assert from_nat64(await quick) == 1
    await network.replica.close()


async def test_two_networks_cannot_share_a_directory(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    async with network_in(tmp_path, session):
        with pytest.raises(StateUnusable, match="another devnet runs on it"):
            LocalNetwork.of({}, Counter().mint, NAMES, tmp_path)


async def test_a_directory_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "devnet.sqlite").write_bytes(b"this is not a database" * 1000)
    with pytest.raises(StateUnusable, match="move it away"):
        LocalNetwork.of({}, Counter().mint, NAMES, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StateUnusable):
        LocalNetwork.of({}, Counter().mint, NAMES, tmp_path / "file" / "below")


async def test_the_directory_is_private(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    async with network_in(tmp_path / "devnet", session):
        assert stat.S_IMODE((tmp_path / "devnet" / "devnet.sqlite").stat().st_mode) == 0o600


async def test_a_failed_write_is_shown_to_nobody_and_stops_the_network(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    counter = Counter()
    network = LocalNetwork.of({COUNTER: counter}, counter.mint, NAMES, tmp_path)
    ready: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(run_network(network, "127.0.0.1", 0, ready.set_result, asyncio.Event()))
    alice = Client(session, (await ready)["url"], Ed25519Key())
    assert network.replica._savings is not None
    network.replica._savings._connection.execute("PRAGMA query_only = ON")
    answer = await alice.send(alice.content("call", method_name="add", arg=nat64(1)))
    assert (answer.status, answer.text.startswith("Replica is unhealthy: ")) == (503, True)
    with pytest.raises(StateUnusable, match="a write failed"):
        await running


async def test_a_port_in_use_is_told(session: aiohttp.ClientSession) -> None:
    first, second = (LocalNetwork.of({}, Counter().mint, NAMES) for _ in range(2))
    async with serve(first, "127.0.0.1", 0) as info:
        port = int(info["url"].rsplit(":", 1)[1])
        with pytest.raises(PortInUse, match=rf"port {port} on 127.0.0.1 is in use"):
            await run_network(second, "127.0.0.1", port, lambda _: None, asyncio.Event())
    await first.replica.close()


async def test_stop_ends_it_at_once_though_clients_are_connected(session: aiohttp.ClientSession) -> None:
    counter = Counter()
    network = LocalNetwork.of({COUNTER: counter}, counter.mint, NAMES)
    stop = asyncio.Event()
    ready: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(run_network(network, "127.0.0.1", 0, ready.set_result, stop))
    alice = Client(session, (await ready)["url"], Ed25519Key())
    stuck = asyncio.create_task(alice.call("add_slowly", nat64(1)))
    await counter.waiting.wait()
    stop.set()
    await asyncio.wait_for(running, 5)
    with pytest.raises(aiohttp.ClientError):
        await stuck


class ForeignCounter(Counter):
    """A later version that does not understand what the earlier one saved, or cannot save."""

    def load(self, saved: bytes) -> None:
        raise KeyError("balance")

    def save(self) -> bytes:
        raise TypeError("not serializable")


async def test_a_canister_that_cannot_read_what_was_saved_is_told(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    async with network_in(tmp_path, session) as alice:
        await alice.call("add", nat64(1))
    for _ in range(2):  # the directory is let go of, too
        with pytest.raises(StateUnusable, match="bkyz2-fmaaa-aaaaa-qaaaq-cai cannot read what it saved"):
            LocalNetwork.of({COUNTER: ForeignCounter()}, Counter().mint, NAMES, tmp_path)
    async with network_in(tmp_path, session) as alice:
        assert await alice.count() == 1


async def test_a_canister_that_cannot_be_saved_stops_the_network(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    network = LocalNetwork.of({COUNTER: ForeignCounter()}, Counter().mint, NAMES, tmp_path)
    ready: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(run_network(network, "127.0.0.1", 0, ready.set_result, asyncio.Event()))
    alice = Client(session, (await ready)["url"], Ed25519Key())
    answer = await alice.send(alice.content("call", method_name="add", arg=nat64(1)))
    assert answer.status == 500
    with pytest.raises(TypeError, match="not serializable"):
        await running


class Growing(Counter):
    """Saves as many bytes as its total says, all different in their place."""

    def save(self) -> bytes:
        return b"".join(number.to_bytes(4, "big") for number in range(self.total))

    def load(self, saved: bytes) -> None:
        self.total = len(saved) // 4
        assert saved == self.save()


async def test_a_large_state_grows_and_shrinks_in_parts(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    for total in (10_000, 10_001, 40_960, 3, 0, 20_000):
        canister = Growing()
        network = LocalNetwork.of({COUNTER: canister}, canister.mint, NAMES, tmp_path)
        async with serve(network, "127.0.0.1", 0) as info:
            alice = Client(session, info["url"], Ed25519Key())
            canister.total = total
            assert from_nat64(await alice.call("add", nat64(0))) == total
        await network.replica.close()
        reloaded = Growing()
        await LocalNetwork.of({COUNTER: reloaded}, reloaded.mint, NAMES, tmp_path).replica.close()
        assert reloaded.total == total


def test_only_the_end_of_a_growing_state_is_written() -> None:
    before = os.urandom(5 * PART_BYTES + 100)
    assert changed_parts(before, before) == []
    assert [number for number, _ in changed_parts(before, before + b"more")] == [5]
    assert [number for number, _ in changed_parts(b"", before)] == [0, 1, 2, 3, 4, 5]
    assert changed_parts(before, before[:PART_BYTES]) == []


class HalfWay(Counter):
    """Its slow call changes something before it awaits and takes it back after."""

    async def execute(self, method: str, arg: bytes, call: Call) -> bytes:
        if method != "add_slowly":
            return await super().execute(method, arg, call)
        self.total += 1000
        self.waiting.set()
        await self.release.wait()
        self.total -= 1000
        return nat64(self.total)


async def test_a_call_that_is_cut_off_is_not_saved_half_done(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    canister = HalfWay()
    network = LocalNetwork.of({COUNTER: canister}, canister.mint, NAMES, tmp_path)
    stop = asyncio.Event()
    ready: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(run_network(network, "127.0.0.1", 0, ready.set_result, stop))
    alice = Client(session, (await ready)["url"], Ed25519Key())
    await alice.call("add", nat64(5))
    calls = [asyncio.create_task(alice.call("add_slowly", nat64(0)))]
    await canister.waiting.wait()
    calls.append(asyncio.create_task(alice.call("add", nat64(1))))  # its round waits for the slow one
    await alice.query("get")
    stop.set()
    await asyncio.wait_for(running, 10)
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(outcome, aiohttp.ClientError)
    async with network_in(tmp_path, session) as alice:
        assert await alice.count() == 5
