"""The local network: which canisters it has, and where. The one place where ids are given out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devnet.canister import CanisterModule
from devnet.replica.admin import Mint
from devnet.replica.principals import from_text
from devnet.replica.replica import Replica
from devnet.replica.storage import Savings

__all__ = ["ICP_LEDGER_ID", "PERUN_CANISTER_ID", "LocalNetwork"]

ICP_LEDGER_ID: Final = from_text("ryjl3-tyaaa-aaaaa-aaaba-cai")
"""The ledger has the id of the real one: agents look for it there."""
PERUN_CANISTER_ID: Final = from_text("bkyz2-fmaaa-aaaaa-qaaaq-cai")


@dataclass(frozen=True)
class LocalNetwork:
    """Canisters behind a replica. `names`: the canisters that clients are told about, as text by purpose."""

    replica: Replica
    mint: Mint
    names: Mapping[str, str]

    @classmethod
    def create(cls, state_dir: Path | None = None) -> LocalNetwork:
        """Return the network with ledger and Perun canister, new or as `state_dir` has it.

        Call it inside the event loop that runs it. Raises `StateUnusable`.
        """
        raise NotImplementedError

    @classmethod
    def of(
        cls,
        canisters: Mapping[bytes, CanisterModule],
        mint: Mint,
        names: Mapping[str, str],
        state_dir: Path | None = None,
    ) -> LocalNetwork:
        """Return a network of these canisters, new or as `state_dir` has it. Raises `StateUnusable`."""
        savings = None if state_dir is None else Savings.open(state_dir, canisters)
        return cls(Replica(canisters, savings), mint, names)
