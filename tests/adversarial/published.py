"""A canister with the known defects of the published one, as far as a payout or a deposit can meet them."""

from __future__ import annotations

import hashlib
from typing import Final

from devnet.canister import Trap
from devnet.ledger import IcpLedger
from devnet.ledger.accounts import account_identifier
from devnet.ledger.binding import LedgerModule
from devnet.network import ICP_LEDGER_ID, PERUN_CANISTER_ID, LocalNetwork
from devnet.perun import LocalLedger, PerunCanister, PerunModule
from devnet.perun.examination import examine_withdrawal
from devnet.perun.interface import Error, FullySignedState, Funding, Params, WithdrawalRequest
from devnet.perun.ledger_port import LedgerPort, Outgoing, Refused
from devnet.perun.phases import Credit, Settled, Unregistered
from devnet.replica.clock import ChainClock
from devnet.replica.principals import to_text

__all__ = ["DEFAULT_FEE_E8S", "PublishedCanister", "PublishedModule", "published_network"]

DEFAULT_FEE_E8S: Final = 10_000
"""A constant of the published code, whatever the ledger takes: `ic_ledger_types::DEFAULT_FEE`."""


class PublishedCanister(PerunCanister):
    """`withdraw`, the lock and the test methods as the published code has them, and no log of disputes.

    `besieged`: somebody's notification waits for the ledger whenever a payout does; `asked`: the amount of each payout
    that the ledger was asked for; `blind`: it is made for another ledger than deposits go to.
    """

    def __init__(self, own_principal: bytes, ledger_principal: bytes, ledger: LedgerPort) -> None:
        super().__init__(own_principal, ledger_principal, ledger)
        self.besieged = False
        self.asked: list[int] = []
        self.blind = False
        self._locked = False

    def _lock(self) -> None:
        """Take the lock of everything. Two at once: the Wasm has no threads that could wait, so it traps."""
        if self._locked:
            raise Trap("rwlock locked for writing")

    async def transaction_notification(self, block: int, now_ns: int) -> int | Error:
        """Holds the lock until the ledger has answered."""
        self._lock()
        self._locked = True
        try:
            return Error.FAILED_TO_QUERY if self.blind else await super().transaction_notification(block, now_ns)
        finally:
            self._locked = False

    def deposit(self, funding: Funding, now_ns: int) -> Error | None:
        self._lock()
        answer = super().deposit(funding, now_ns)
        return None if answer is Error.INSUFFICIENT_FUNDING else answer

    def deposit_mocked(self, funding: Funding, e8s: int) -> None:
        """Credit anything to anybody: it is there for tests, and open to all."""
        before = self._channels.get(funding.channel, Unregistered())
        self._channels[funding.channel] = before.credited(Credit(funding.participant, e8s))

    def dispute(self, params: Params, signed: FullySignedState, now_ns: int) -> Error | None:
        self._lock()
        return super().dispute(params, signed, now_ns)

    def conclude(self, params: Params, signed: FullySignedState, now_ns: int) -> Error | None:
        self._lock()
        return super().conclude(params, signed, now_ns)

    async def withdraw(self, request: WithdrawalRequest, signature: bytes, now_ns: int) -> int | Error:
        """Takes the holdings off, then pays them in full, then gives them back if the ledger refuses: if it can."""
        self._lock()
        refused = examine_withdrawal(request, signature)
        if refused is not None:
            return refused
        funding = request.funding
        self._settle_if_due(funding.channel, now_ns)
        channel = self._channels.get(funding.channel)
        if not isinstance(channel, Settled):
            return Error.NOT_FINALIZED
        held = channel.holdings(funding.participant)
        self._channels[funding.channel] = channel.without(funding.participant)
        self.asked.append(held)
        now_ns += len(self.asked)  # it gives no time, so that no two of its transfers are one
        outgoing = Outgoing(account_identifier(request.receiver), held, DEFAULT_FEE_E8S, 0, now_ns)
        self._locked = self.besieged
        try:
            answer = await self._ledger.transfer(outgoing)
            if isinstance(answer, Refused):
                self._lock()  # and if this traps, the holdings are gone
                settled = self._channels[funding.channel]
                self._channels[funding.channel] = settled.credited(Credit(funding.participant, held))
                return Error.LEDGER_ERROR
        finally:
            self._locked = False
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
        change_fee=ledger.change_fee,
    )
