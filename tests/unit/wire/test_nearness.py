"""What others announce leads nowhere that is nearer to this machine than they are."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.unit.wire.scene import LOCAL, Scene, scene
from wire.address import Address
from wire.errors import PeerUnreachable
from wire.nearness import Nearness, addresses_within, nearness_of


@pytest.fixture
async def at() -> AsyncIterator[Scene]:
    async with scene() as made:
        yield made


@pytest.mark.parametrize(
    ("nearness", "hosts"),
    [
        (Nearness.PUBLIC, ["9.9.9.9", "2606:4700::1111", "::ffff:9.9.9.9"]),
        (
            Nearness.PRIVATE,
            [
                "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "fe80::1%eth0", "fc00::1",
                "::ffff:10.0.0.1", "192.0.2.1", "0.1.2.3", "240.0.0.1",
            ],
        ),
        (Nearness.LOOPBACK, ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]),
        (None, ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "a.example", "127.1", "2130706433", ""]),
    ],
)  # fmt: skip
def test_how_near_an_address_is(nearness: Nearness | None, hosts: list[str]) -> None:
    assert {nearness_of(host) for host in hosts} == {nearness}


@pytest.mark.parametrize("host", ["localhost", LOCAL, "127.1", "0x7f000001"])
async def test_a_name_is_looked_up_before_it_is_believed(host: str) -> None:
    assert LOCAL in await addresses_within(host, 1, Nearness.LOOPBACK) or host == "localhost"
    for nearest in (Nearness.PUBLIC, Nearness.PRIVATE):
        with pytest.raises(OSError, match="nearer to this machine"):
            await addresses_within(host, 1, nearest)


@pytest.mark.parametrize("host", ["localhost", LOCAL, "127.1"])
async def test_nobody_far_away_makes_a_node_dial_its_own_machine(at: Scene, host: str) -> None:
    alice, bob = await at.node(), await at.node()
    port, came = await at.silent()
    for nearest in (Nearness.PUBLIC, Nearness.PRIVATE):
        with pytest.raises(PeerUnreachable, match="nearer to this machine"):
            await alice.network.dial(bob.id, host, port, nearest)
        with pytest.raises(PeerUnreachable, match="nearer to this machine"):
            await alice.network.prove(bob.id, Address(host, port), nearest)
    assert not came.is_set()
    await alice.network.prove(bob.id, Address(LOCAL, bob.port), Nearness.LOOPBACK)
    session = await alice.network.dial(bob.id, LOCAL, bob.port, Nearness.LOOPBACK)
    assert session.nearness is Nearness.LOOPBACK
    assert session.dialed_at == Address(LOCAL, bob.port)


async def test_a_name_of_two_addresses_is_tried_at_both(at: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a machine with IPv6 that the network between does not carry."""
    alice, bob = await at.node(), await at.node()
    loop = asyncio.get_running_loop()
    real, name = loop.getaddrinfo, "bob.example"

    async def looked_up(host: Any, port: Any, **hints: Any) -> Any:
        if host != name:
            return await real(host, port, **hints)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in ("127.0.0.2", LOCAL)]

    monkeypatch.setattr(loop, "getaddrinfo", looked_up)
    await alice.network.prove(bob.id, Address(name, bob.port), Nearness.LOOPBACK)
    session = await alice.network.dial(bob.id, name, bob.port, Nearness.LOOPBACK)
    assert session.dialed_at == Address(name, bob.port)
