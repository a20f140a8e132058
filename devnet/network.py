"""The local network: which canisters it has, and where. The one place where ids are given out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devnet.canister import CanisterModule
from devnet.ledger.binding import LedgerModule
from devnet.ledger.ledger import IcpLedger
from devnet.perun import LocalLedger, PerunCanister, PerunModule
from devnet.replica.admin import Mint
from devnet.replica.clock import ChainClock
from devnet.replica.principals import from_text, to_text
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
        clock = ChainClock()
        ledger = IcpLedger()
        ledger_module = LedgerModule(ledger)
        perun = PerunCanister(PERUN_CANISTER_ID, ICP_LEDGER_ID, LocalLedger(ledger, PERUN_CANISTER_ID, clock.now_ns))
        return cls.of(
            {ICP_LEDGER_ID: ledger_module, PERUN_CANISTER_ID: PerunModule(perun)},
            ledger_module.mint,
            {"perun_canister": to_text(PERUN_CANISTER_ID), "icp_ledger": to_text(ICP_LEDGER_ID)},
            state_dir,
            clock,
        )

    @classmethod
    def of(
        cls,
        canisters: Mapping[bytes, CanisterModule],
        mint: Mint,
        names: Mapping[str, str],
        state_dir: Path | None = None,
        clock: ChainClock | None = None,
    ) -> LocalNetwork:
        """Return a network of these canisters, new or as `state_dir` has it. Raises `StateUnusable`.

        `clock`: the one that canisters know already, None for a new one.
        """
        clock = clock or ChainClock()
        savings = None if state_dir is None else Savings.open(state_dir, canisters, clock)
        return cls(Replica(canisters, clock, savings), mint, names)
