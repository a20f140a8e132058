"""How near an IP address is to this machine. What others announce must not lead us to where only we can go.

Whoever tells a node where to dial could have it knock at the doors of its own machine or its own network. So a peer
is believed only about addresses that are no nearer than the one from which it talks to us.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import Final, TypeVar

from wire.address import Address

__all__ = ["Nearness", "addresses_within", "connect_within", "is_ip", "nearness_of"]

T = TypeVar("T")

MOST_OF_A_NAME: Final = 2
"""Addresses that one announced name stands for: one of each family is usual, a hundred would be a hundred dials."""


class Nearness(IntEnum):
    """From far to near. In stores: do not renumber."""

    PUBLIC = 0
    PRIVATE = 1
    """Of a network that is not the Internet: RFC 1918, unique local, link local, shared."""
    LOOPBACK = 2


def is_ip(host: str) -> bool:
    """Whether it is an IP address, and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def nearness_of(host: str) -> Nearness | None:
    """Return how near an IP address is, or None for what is none, or nobody's to listen at: multicast and the like.

    >>> nearness_of("9.9.9.9"), nearness_of("192.168.1.2"), nearness_of("::1"), nearness_of("0.0.0.0")
    (<Nearness.PUBLIC: 0>, <Nearness.PRIVATE: 1>, <Nearness.LOOPBACK: 2>, None)
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if address.is_loopback:
        return Nearness.LOOPBACK
    if address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255":
        return None
    return Nearness.PUBLIC if address.is_global else Nearness.PRIVATE


async def addresses_within(host: str, port: int, nearest: Nearness) -> list[str]:
    """Return the IP addresses that a host stands for and that are no nearer than this: one at least, a few at most.

    Raises `OSError` when a name cannot be looked up, or stands for nearer ones only.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    hosts = dict.fromkeys(str(entry[4][0]) for entry in found)
    near = ((one, nearness_of(one)) for one in hosts)
    allowed = [one for one, nearness in near if nearness is not None and nearness <= nearest]
    if not allowed:
        raise OSError(f"a peer told the address {host}, and it is nearer to this machine than the peer was")
    return allowed[:MOST_OF_A_NAME]


async def connect_within(place: Address, nearest: Nearness | None, connect: Callable[[str], Awaitable[T]]) -> T:
    """Return what `connect` makes of the first host that takes the connection. `nearest`: None for any.

    Raises what the last one raised; `OSError` as `addresses_within`.
    """
    if nearest is None:
        return await connect(place.host)
    *first, last = await addresses_within(place.host, place.port, nearest)
    for host in first:
        with contextlib.suppress(OSError):
            return await connect(host)
    return await connect(last)
