"""Addresses, as far as places are counted by them."""

from __future__ import annotations

import ipaddress

__all__ = ["origin_of"]


def origin_of(host: str) -> str:
    """Return the address that places are counted by: of IPv6 the network of 64 bits, which one household has whole."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, 64), strict=False))
