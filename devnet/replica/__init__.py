"""A replica of the Internet Computer for tests and demos: the HTTP interface, with real signatures.

It is written from the Interface Specification, apart from the client's code on purpose: requests, hashes and
certificates are encoded a second time here, so that client and devnet cannot be wrong in the same way.

It leaves out what a payment channel does not need: WebAssembly (canisters are Python modules with fixed ids),
cycles, consensus between nodes, other subnets.
"""

from __future__ import annotations

from devnet.replica.errors import DevnetError, PortInUse, RequestRefused, StateUnusable
from devnet.replica.replica import Replica
from devnet.replica.storage import Savings

__all__ = ["DevnetError", "PortInUse", "Replica", "RequestRefused", "Savings", "StateUnusable"]
