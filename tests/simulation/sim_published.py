"""The contract of towns without a log of disputes: it pays in full, and the fee comes out of the pool."""

from __future__ import annotations

from devnet.ledger.accounts import account_identifier
from devnet.perun.canister import PerunCanister
from devnet.perun.examination import examine_withdrawal
from devnet.perun.interface import Error, WithdrawalRequest
from devnet.perun.ledger_port import LedgerUnreachable, Outgoing, Refused
from devnet.perun.phases import Credit, Settled

__all__ = ["PublishedContract"]

FEE_E8S = 10_000


class PublishedContract(PerunCanister):
    """`refused`: how often the ledger refused a payout, which the real one may lose. `fees_e8s`: paid by the pool."""

    refused = 0
    fees_e8s = 0

    async def withdraw(self, request: WithdrawalRequest, signature: bytes, now_ns: int) -> int | Error:
        error = examine_withdrawal(request, signature)
        if error is not None:
            return error
        funding = request.funding
        self._settle_if_due(funding.channel, now_ns)
        channel = self._channels.get(funding.channel)
        if not isinstance(channel, Settled):
            return Error.NOT_FINALIZED
        held = channel.holdings(funding.participant)
        self._channels[funding.channel] = channel.without(funding.participant)
        at_ns = self._payouts.next_created_at(now_ns)
        try:
            answer = await self._ledger.transfer(
                Outgoing(account_identifier(request.receiver), held, FEE_E8S, 0, at_ns)
            )
        except LedgerUnreachable:
            answer = Refused.INSUFFICIENT_FUNDS
        if isinstance(answer, Refused):
            self.refused += 1
            settled = self._channels[funding.channel]
            self._channels[funding.channel] = settled.credited(Credit(funding.participant, held))
            return Error.LEDGER_ERROR
        self.fees_e8s += FEE_E8S
        return answer
