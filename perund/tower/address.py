"""Where a watchtower is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

__all__ = ["TowerAddress"]


@dataclass(frozen=True, slots=True)
class TowerAddress:
    """A tower's node key (33 bytes), host and port."""

    node_id: bytes
    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the parts of `NODEID@host:port`, whose form the configuration has checked."""
        node_id, _, place = text.partition("@")
        host, _, port = place.rpartition(":")
        return cls(bytes.fromhex(node_id), host.strip("[]"), int(port))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.node_id.hex()}@{host}:{self.port}"
