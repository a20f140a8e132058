"""The local network: which canisters it has, and where. The one place where ids are given out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devnet.canister import CanisterModule
from devnet.ledger.binding import LedgerModule
from devnet.ledger.ledger import IcpLedger
from devnet.perun import LocalLedger, PerunCanister, PerunModule
from devnet.replica.admin import ChangeFee, Mint
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
    """Canisters behind a replica.

    `names`: the canisters that clients are told about, as text by purpose; `copy`: returns canisters that are as
    those of the network are at that moment, to be queried only; `change_fee`: changes what the ledger takes.
    """

    replica: Replica
    mint: Mint
    names: Mapping[str, str]
    copy: Callable[[], Mapping[bytes, CanisterModule]] | None = None
    change_fee: ChangeFee | None = None

    @classmethod
    def create(cls, state_dir: Path | None = None, clock: ChainClock | None = None) -> LocalNetwork:
        """Return the network with ledger and Perun canister, new or as `state_dir` has it.

        `clock`: None for the machine's time. Call it inside the event loop that runs it. Raises `StateUnusable`.
        """
        clock = clock or ChainClock()
        ledger, perun = _canisters(clock)
        return cls.of(
            {ICP_LEDGER_ID: ledger, PERUN_CANISTER_ID: perun},
            ledger.mint,
            {"perun_canister": to_text(PERUN_CANISTER_ID), "icp_ledger": to_text(ICP_LEDGER_ID)},
            state_dir,
            clock,
            lambda: _copied(ledger, perun, clock),
            ledger.change_fee,
        )

    @classmethod
    def of(
        cls,
        canisters: Mapping[bytes, CanisterModule],
        mint: Mint,
        names: Mapping[str, str],
        state_dir: Path | None = None,
        clock: ChainClock | None = None,
        copy: Callable[[], Mapping[bytes, CanisterModule]] | None = None,
        change_fee: ChangeFee | None = None,
    ) -> LocalNetwork:
        """Return a network of these canisters, new or as `state_dir` has it. Raises `StateUnusable`.

        `clock`: the one that canisters know already, None for a new one; `copy`, `change_fee`: as the fields.
        """
        clock = clock or ChainClock()
        savings = None if state_dir is None else Savings.open(state_dir, canisters, clock)
        return cls(Replica(canisters, clock, savings), mint, names, copy, change_fee)


def _canisters(clock: ChainClock) -> tuple[LedgerModule, PerunModule]:
    ledger = IcpLedger()
    perun = PerunCanister(PERUN_CANISTER_ID, ICP_LEDGER_ID, LocalLedger(ledger, PERUN_CANISTER_ID, clock.now_ns))
    return LedgerModule(ledger), PerunModule(perun)


def _copied(ledger: LedgerModule, perun: PerunModule, clock: ChainClock) -> Mapping[bytes, CanisterModule]:
    old_ledger, old_perun = _canisters(clock)
    old_ledger.load(ledger.save())
    old_perun.load(perun.save())
    return {ICP_LEDGER_ID: old_ledger, PERUN_CANISTER_ID: old_perun}
