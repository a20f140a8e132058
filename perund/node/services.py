"""What the parts of the node share: made once, by the composition root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from chain.agent import Agent
from chain.ledger import IcpLedger
from chain.perun import PerunCanister
from perund.config import Config
from perund.keys import Keys
from perund.node.chain_time import ChainTime
from perund.node.ledger_watch import LedgerWatch
from perund.node.payment_ids import PaymentIds
from perund.node.transfers import Transfers
from perund.recovery.backup import BackupFile
from perund.store.store import Store
from perund.watching.alarms import Alarms
from watcher.watch import Watcher
from wire.network import PeerNetwork

__all__ = ["Services"]


@dataclass
class Services:
    """The parts, with the facts that all need. Accounts are 32 bytes, principals raw bytes."""

    data_dir: Path
    config: Config
    keys: Keys
    store: Store
    agent: Agent
    perun: PerunCanister
    ledger: IcpLedger
    time: ChainTime
    transfers: Transfers
    payment_ids: PaymentIds
    root_key: bytes
    network_hash: bytes
    perun_principal: bytes
    ledger_principal: bytes
    wallet_principal: bytes
    wallet_principal_text: str
    wallet_account: bytes
    canister_account: bytes
    reason_not_to_open: Callable[[], str | None]
    watcher: Watcher
    network: PeerNetwork
    backup: BackupFile
    listening: str | None = None
    """host:port that peers dial, once we listen."""
    ledger_watch: LedgerWatch | None = None
    """What is read now and then of the ledger; None where nothing is."""
    alarms: Alarms = field(default_factory=Alarms)
