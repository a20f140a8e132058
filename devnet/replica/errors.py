"""What can go wrong in the replica: one tree, one class for each reaction.

* `DevnetError`
    * `RequestRefused`: the client's request is at fault. It carries the HTTP status and the body that agents parse.
    * `PortInUse`: the address is taken. The operator picks another.
    * `CannotListen`: it is none of this machine, or no address at all.
    * `StateUnusable`: the state directory cannot be read, is held by another process, or cannot be written.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["CannotListen", "DevnetError", "PortInUse", "RequestRefused", "StateUnusable"]


class DevnetError(Exception):
    """Base of every error that the devnet raises on purpose."""


class RequestRefused(DevnetError):
    """A request that the replica does not accept. `status`: the HTTP status; the message is the body."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class PortInUse(DevnetError):
    """Somebody else listens where the devnet should."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"port {port} on {host} is in use; stop what listens there (another devnet?), "
            "or choose another port (0 takes any free one)"
        )
        self.host = host
        self.port = port


class CannotListen(DevnetError):
    """The devnet cannot listen there, whatever else runs."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        shown = ascii(host if len(host) <= 80 else f"{host[:77]}...")
        super().__init__(
            f"the devnet cannot listen on port {port} of {shown} ({reason[:200]}); give a host that is an address of "
            "this machine, such as 127.0.0.1 or ::1, and a port above 1023"
        )


class StateUnusable(DevnetError):
    """The state directory is of no use as it is. The message says why and what to do."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"the devnet's state in {path} is unusable: {reason}")
        self.path = path
