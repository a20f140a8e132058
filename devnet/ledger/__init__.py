"""The ICP ledger of the devnet: accounts, transfers, a chain of blocks."""

from __future__ import annotations

from devnet.ledger.accounts import account_identifier
from devnet.ledger.binding import LedgerModule
from devnet.ledger.ledger import TRANSFER_FEE_E8S, IcpLedger

__all__ = ["TRANSFER_FEE_E8S", "IcpLedger", "LedgerModule", "account_identifier"]
