"""Where a node is reached: host and port, with the one set of bounds that everything here keeps.

The command lines, the control interface, the configuration, the store, the backup file and who dials all read and
write an address through this module: what one of them takes, none of the others refuses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final, Self

from protocol.errors import CallerMistake

__all__ = [
    "ADDRESS_FORM",
    "MAX_ADDRESS",
    "MAX_ANNOUNCED",
    "MAX_ANNOUNCED_HOST",
    "MAX_NODE_ADDRESS",
    "MAX_PORT",
    "MOST_PROVEN",
    "NODE_ID_PATTERN",
    "Address",
    "BadAddress",
    "NodeAddress",
    "announced_address",
]

MAX_HOST: Final = 255
"""Characters of a host, with the dots; RFC 1035 has 255 bytes for a name on the wire."""
MAX_PORT: Final = 65_535
MAX_ADDRESS: Final = MAX_HOST + len("[]:65535")
MAX_NODE_ADDRESS: Final = 66 + len("@") + MAX_ADDRESS
MAX_ANNOUNCED: Final = 8
"""Addresses that a node says of itself."""
MOST_PROVEN: Final = 4
"""Addresses of a peer that are remembered because it proved to be there: the newest."""
MAX_ANNOUNCED_HOST: Final = 253
"""Characters of each of their hosts, all ASCII: a name as it is looked up, without the dot at its end."""
ADDRESS_FORM: Final = "host:port, an IPv6 address in brackets ([::1]:9735), the port 1 to 65535"
NODE_ID_PATTERN: Final = "0[23][0-9a-f]{64}"

_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_SCOPE: Final = re.compile(r"[A-Za-z0-9_.~-]{1,15}")
_DIGITS: Final = re.compile(r"[0-9]{1,5}")
_NODE_ID: Final = re.compile(NODE_ID_PATTERN)


class BadAddress(CallerMistake):
    """A text, a row or a value that is no address. The message has the text and says what an address is."""

    def __init__(self, message: str) -> None:
        super().__init__("bad_peer", message)


@dataclass(frozen=True, slots=True)
class Address:
    """Where somebody can be dialed. `port`: 1 to 65535. Raises `BadAddress` for what cannot be one.

    >>> str(Address.of("[::1]:09735"))
    '[::1]:9735'
    """

    host: str
    port: int

    def __post_init__(self) -> None:
        _check(self.host, self.port, lowest=1)

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the parts of `host:port`. Raises `BadAddress`."""
        return cls(*_parts(text))

    @classmethod
    def to_listen_on(cls, text: str) -> tuple[str, int]:
        """Return host and port to listen on, where port 0 lets the system choose. Raises `BadAddress`."""
        host, port = _parts(text)
        _check(host, port, lowest=0)
        return host, port

    @staticmethod
    def shown(host: str, port: int) -> str:
        """Return the text of a host and a port as the system reports them: what `of` reads, for every real address."""
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def __str__(self) -> str:
        return self.shown(self.host, self.port)


def announced_address(host: str, port: int) -> Address:
    """Return an address that a node says of itself: it has the same meaning everywhere, and one form.

    Raises `BadAddress`, also for a name that is not as it is looked up, and a scope, which only its machine knows.
    """
    address = Address(host, port)
    if not host.isascii() or len(host) > MAX_ANNOUNCED_HOST or "%" in host:
        raise BadAddress(
            f"{_short(host)} cannot be announced: write a name as it is looked up (xn--…, at most "
            f"{MAX_ANNOUNCED_HOST} characters), or an IP address without a scope"
        )
    return address


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """A node id (33 bytes) and where the node is: `NODEID@host:port`. Raises `BadAddress` for what cannot be one."""

    node_id: bytes
    host: str
    port: int

    def __post_init__(self) -> None:
        if type(self.node_id) is not bytes or _NODE_ID.fullmatch(self.node_id.hex()) is None:
            raise BadAddress(f"{_short(self.node_id)} is not a node id: a node id has 33 bytes, the first 2 or 3")
        _check(self.host, self.port, lowest=1)

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the parts of `NODEID@host:port`. Raises `BadAddress`."""
        node_id, _, place = text.partition("@")
        if _NODE_ID.fullmatch(node_id) is None:
            raise BadAddress(f"{_short(text)} is not NODEID@host:port: the node id has 66 hex digits")
        return cls(bytes.fromhex(node_id), *_parts(place))

    @property
    def place(self) -> Address:
        """Where it is."""
        return Address(self.host, self.port)

    def __str__(self) -> str:
        return f"{self.node_id.hex()}@{self.place}"


def _short(text: object) -> str:
    shown = ascii(text)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _parts(text: str) -> tuple[str, int]:
    host, _, digits = text.rpartition(":")
    if _DIGITS.fullmatch(digits) is None:
        raise BadAddress(f"{_short(text)} is not an address: write {ADDRESS_FORM}")
    if host.startswith("[") and host.endswith("]") and ":" in host:
        return host[1:-1], int(digits)
    if ":" in host or "[" in host or "]" in host:
        raise BadAddress(f"{_short(text)} is not an address: write {ADDRESS_FORM}")
    return host, int(digits)


def _check(host: object, port: object, lowest: int) -> None:
    # A row of a store may hold anything: a text where a number belongs, too.
    if type(port) is not int or not lowest <= port <= MAX_PORT:
        raise BadAddress(f"{_short(port)} is not a port: a port is {lowest} to {MAX_PORT}")
    if type(host) is not str or not 1 <= len(host) <= MAX_HOST or not (_is_ip_6(host) or _is_name(host)):
        raise BadAddress(f"{_short(host)} is not a host: write a name, an IPv4 address or an IPv6 address")


def _is_ip_6(host: str) -> bool:
    address, percent, scope = host.partition("%")
    if ":" not in address or (percent and _SCOPE.fullmatch(scope) is None):
        return False
    try:
        IPv6Address(address)
    except ValueError:
        return False
    return True


def _is_name(host: str) -> bool:
    """Whether it is a host name or an IPv4 address. Names in other scripts count in the form that is looked up."""
    try:
        labels = host.removesuffix(".").encode("idna").decode("ascii").split(".")
    except UnicodeError:
        return False
    return all(_LABEL.fullmatch(label) for label in labels)
