"""The ledger of the same network, called as one canister calls another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from devnet.canister import Trap
from devnet.ledger.accounts import MINTING_ACCOUNT, account_identifier
from devnet.ledger.blocks import Block, Transfer
from devnet.ledger.ledger import (
    BadFee,
    IcpLedger,
    InsufficientFunds,
    TransferRequest,
    TxCreatedInFuture,
    TxDuplicate,
    TxTooOld,
)
from devnet.perun.ledger_port import LedgerBlock, LedgerTerms, LedgerUnreachable, Outgoing, Payment, Refused

__all__ = ["LocalLedger"]

_SCANNED_AT_ONCE: Final = 2_000


class LocalLedger:
    """Calls `ledger` as the canister `caller` (raw principal) at the network's time `now_ns()`.

    A call between canisters takes a round there and a round back, in which others run.
    """

    def __init__(self, ledger: IcpLedger, caller: bytes, now_ns: Callable[[], int]) -> None:
        self._ledger = ledger
        self._caller = caller
        self._account = account_identifier(caller)
        self._now_ns = now_ns

    async def terms(self) -> LedgerTerms:
        """Ask for the fee (`icrc1_fee`), the minting account and the length of the chain."""
        await asyncio.sleep(0)
        terms = LedgerTerms(self._ledger.fee_e8s, MINTING_ACCOUNT, self._ledger.chain_length)
        await asyncio.sleep(0)
        return terms

    async def transfer(self, outgoing: Outgoing) -> int | Refused:
        """Return the block of a transfer, also if an earlier identical request made it."""
        request = TransferRequest(
            to=outgoing.to,
            amount=outgoing.e8s,
            fee=outgoing.fee_e8s,
            memo=outgoing.memo,
            created_at_time=outgoing.created_at_ns,
        )
        await asyncio.sleep(0)
        try:
            answer = self._ledger.transfer(self._caller, request, self._now_ns())
        except Trap as exc:
            raise LedgerUnreachable(f"the ledger trapped: {exc}") from exc
        await asyncio.sleep(0)
        match answer:
            case int():
                return answer
            case TxDuplicate():
                return answer.duplicate_of
            case BadFee():
                return Refused.BAD_FEE
            case TxTooOld():
                return Refused.TOO_OLD
            case TxCreatedInFuture():
                return Refused.CREATED_IN_FUTURE
            case InsufficientFunds():
                return Refused.INSUFFICIENT_FUNDS

    async def query_block(self, index: int) -> LedgerBlock | None:
        """Return a block, None if the ledger does not have it (yet)."""
        await asyncio.sleep(0)
        block = self._ledger.block(index)
        await asyncio.sleep(0)
        if block is None:
            return None
        operation = block.transaction.operation
        if not isinstance(operation, Transfer):
            return LedgerBlock(None)
        return LedgerBlock(
            Payment(
                from_=operation.from_,
                to=operation.to,
                e8s=operation.amount,
                memo=block.transaction.memo,
                icrc1_memo=block.transaction.icrc1_memo,
            )
        )

    async def find_transfer(self, outgoing: Outgoing, from_block: int) -> int | None:
        """Return the block of a transfer: it was not sent before the chain had `from_block` blocks."""
        end = self._ledger.chain_length
        while end > from_block:
            await asyncio.sleep(0)
            start = max(from_block, end - _SCANNED_AT_ONCE)
            blocks = self._ledger.blocks(start, end - start)
            for index, block in zip(range(end - 1, start - 1, -1), reversed(blocks), strict=True):
                if self._is_block_of(outgoing, block):
                    return index
            end = start
        return None

    def _is_block_of(self, outgoing: Outgoing, block: Block) -> bool:
        transaction = block.transaction
        return transaction.operation == Transfer(self._account, outgoing.to, outgoing.e8s, outgoing.fee_e8s) and (
            (transaction.memo, transaction.created_at_time, transaction.deduplicated)
            == (outgoing.memo, outgoing.created_at_ns, True)
        )
