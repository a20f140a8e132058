"""A canister that pays out like the published one: holdings in full, the ledger's fee out of everybody's pool."""

from __future__ import annotations

import hashlib
from typing import Final

from devnet.ledger import IcpLedger
from devnet.ledger.accounts import account_identifier
from devnet.ledger.binding import LedgerModule
from devnet.network import ICP_LEDGER_ID, PERUN_CANISTER_ID, LocalNetwork
from devnet.perun import LocalLedger, PerunCanister, PerunModule
from devnet.perun.examination import examine_withdrawal
from devnet.perun.interface import Error, WithdrawalRequest
from devnet.perun.ledger_port import Outgoing, Refused
from devnet.perun.phases import Settled
from devnet.replica.clock import ChainClock
from devnet.replica.principals import to_text

__all__ = ["DEFAULT_FEE_E8S", "PublishedModule", "published_network"]

DEFAULT_FEE_E8S: Final = 10_000
"""A constant of the published code, whatever the ledger takes: `ic_ledger_types::DEFAULT_FEE`."""


class PublishedCanister(PerunCanister):
    """`withdraw` as the published code has it, and no log of disputes."""

    async def withdraw(self, request: WithdrawalRequest, signature: bytes, now_ns: int) -> int | Error:
        refused = examine_withdrawal(request, signature)
        if refused is not None:
            return refused
        funding = request.funding
        self._settle_if_due(funding.channel, now_ns)
        channel = self._channels.get(funding.channel)
        if not isinstance(channel, Settled):
            return Error.NOT_FINALIZED
        held = channel.holdings(funding.participant)
        outgoing = Outgoing(account_identifier(request.receiver), held, DEFAULT_FEE_E8S, 0, now_ns)
        answer = await self._ledger.transfer(outgoing)
        if isinstance(answer, Refused):
            return Error.LEDGER_ERROR
        self._channels[funding.channel] = channel.without(funding.participant)
        return answer


class PublishedModule(PerunModule):
    """Its interface does not have the additions."""

    def __init__(self, canister: PublishedCanister) -> None:
        super().__init__(canister)
        kept = self.candid.split("\n")
        start = next(place for place, line in enumerate(kept) if line.strip().startswith("disputes_since"))
        end = next(place for place in range(start, len(kept)) if kept[place].rstrip().endswith(";"))
        self.candid = "\n".join(kept[:start] + kept[end + 1 :])
        self.module_hash = hashlib.sha256(b"published").digest()


def published_network() -> LocalNetwork:
    """Return a network with this canister instead of the devnet's own."""
    clock, ledger = ChainClock(), LedgerModule(IcpLedger())
    line = LocalLedger(ledger.ledger, PERUN_CANISTER_ID, clock.now_ns)
    perun = PublishedModule(PublishedCanister(PERUN_CANISTER_ID, ICP_LEDGER_ID, line))
    return LocalNetwork.of(
        {ICP_LEDGER_ID: ledger, PERUN_CANISTER_ID: perun},
        ledger.mint,
        {"perun_canister": to_text(PERUN_CANISTER_ID), "icp_ledger": to_text(ICP_LEDGER_ID)},
        None,
        clock,
    )
