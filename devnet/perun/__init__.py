"""The Perun canister: the contract that holds the money of payment channels."""

from __future__ import annotations

from devnet.perun.binding import PerunModule
from devnet.perun.canister import PerunCanister
from devnet.perun.local_ledger import LocalLedger

__all__ = ["LocalLedger", "PerunCanister", "PerunModule"]
