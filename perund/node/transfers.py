"""Transfers on the ICP ledger that happen once: deposits and plain sends.

The intent is durable before the ledger is asked, and every repetition asks for the same transfer, which the
ledger knows by its `created_at_time`: `TxDuplicate` is success. An error proves something only about the
request that it answers; an intent is void when every request for it is proven to have failed, or when they have
all expired and the ledger's blocks do not show it. Source: DESIGN, section 5.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from chain.errors import CallExpired, CallRejected, ChainError
from chain.ledger import (
    BadFee,
    Block,
    IcpLedger,
    InsufficientFunds,
    Transfer,
    TransferArgs,
    TxCreatedInFuture,
    TxDuplicate,
    TxTooOld,
)
from perund.node.chain_time import ChainTime
from perund.node.ledger_scan import find_block
from perund.node.patience import ANSWER_S, answered
from perund.store.jobs import book_cost, insert_transfer, transfer_asked, transfer_ended, transfer_refused
from perund.store.rows import TransferIntent
from perund.store.store import Store
from perund.store.writer import Statement
from protocol.effects import EventRecord, Record
from protocol.errors import PerundError
from protocol.funding import IntentStatus
from protocol.types import Nanos

__all__ = ["FeeTooHigh", "Transfers", "WalletTooLow"]

log = structlog.get_logger()

ASK_AGAIN_NS: Final = 23 * 3600 * 1_000_000_000
"""The ledger remembers a transfer for 24 hours; after that asking again could pay twice."""


class WalletTooLow(PerundError):
    """The wallet holds less than a transfer and its fee need."""


class FeeTooHigh(PerundError):
    """The ledger wants a higher fee than the configuration allows."""


@dataclass(slots=True)
class _Turn:
    """Who drives one transfer, one after the other."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class Transfers:
    """Makes transfers from the wallet's default account."""

    def __init__(self, store: Store, ledger: IcpLedger, account: bytes, time: ChainTime, max_fee_e8s: int) -> None:
        """`account`: the wallet's account identifier, 32 bytes."""
        self._store = store
        self._ledger = ledger
        self.account = account
        self._time = time
        self.max_fee_e8s = max_fee_e8s
        self._next = store.read.highest("transfer") + 1
        self._driving: dict[int, _Turn] = {}
        self._last_created_ns = Nanos(0)

    async def fee(self) -> int:
        """Return the ledger's fee in e8s, certified. Raises `FeeTooHigh`, `ChainError`."""
        fee = (await self._ledger.fee()).value
        too_high = self.too_high(fee)
        if too_high:
            raise FeeTooHigh(too_high)
        return fee

    def too_high(self, fee_e8s: int) -> str:
        """Return why no such fee is paid, or nothing when it is."""
        if fee_e8s <= self.max_fee_e8s:
            return ""
        return (
            f"the ledger asks a fee of {fee_e8s} e8s, more than fees.max_fee_e8s = {self.max_fee_e8s}; "
            "raise it in perund.toml if that is right"
        )

    async def plan(
        self,
        receiver: bytes,
        amount_e8s: int,
        memo: int,
        channel_number: int | None,
        records: Sequence[Record | Statement] = (),
        *,
        number: int | None = None,
        asked: Callable[[int], None] | None = None,
    ) -> TransferIntent:
        """Make a new intent durable, with records of the caller, and return it. Nothing is paid yet.

        `asked`: told which unit of work of the store that is. Raises `WalletTooLow`, `FeeTooHigh`, `ChainError`.
        """
        async with answered(2 * ANSWER_S):
            fee = await self.fee()
            balance = (await self._ledger.balance(self.account)).value
            length = (await self._ledger.chain_length()).value
        if balance < amount_e8s + fee:
            raise WalletTooLow(
                f"the wallet holds {balance} e8s; {amount_e8s} e8s and a fee of {fee} e8s are needed: "
                f"send ICP to {self.account.hex()}"
            )
        intent = TransferIntent(
            number=self.reserve_number() if number is None else number,
            channel_number=channel_number,
            receiver=receiver,
            amount_e8s=amount_e8s,
            fee_e8s=fee,
            memo=memo,
            created_at_ns=self._creation_time(),
            status=IntentStatus.OPEN,
            block=None,
            last_expiry_ns=Nanos(0),
            unproven=0,
            from_block=length,
        )
        await self._store.write([insert_transfer(intent), *records], asked)
        return intent

    def _creation_time(self) -> Nanos:
        """Return chain time, later than before: equal transfers of one moment would be one to the ledger."""
        self._last_created_ns = Nanos(max(self._time.chain_ns(), self._last_created_ns + 1))
        return self._last_created_ns

    def reserve_number(self) -> int:
        """Return a row number for a new intent."""
        self._next += 1
        return self._next - 1

    async def drive(self, number: int, *, may_ask: Callable[[], bool] = lambda: True) -> TransferIntent:
        """Ask the ledger once (again), and return the intent as it is then known.

        `may_ask`: asked at the last moment before a request leaves, since what allowed it may have ended meanwhile.
        If not, nothing more is asked for: what became of the requests that were sent is found out.
        """
        async with self._turn(number):
            intent = self._store.read.transfer(number)
            assert intent is not None
            if intent.status is not IntentStatus.OPEN:
                return intent
            await self._time.ensure()
            if may_ask() and self._time.chain_ns() - intent.created_at_ns < ASK_AGAIN_NS:
                await self._ask(intent, may_ask)
                intent = self._store.read.transfer(number) or intent
            if intent.status is IntentStatus.OPEN and intent.unproven == 0:
                await self._end(intent, IntentStatus.VOID, None)
            elif intent.status is IntentStatus.OPEN and self._time.chain_ns() > intent.last_expiry_ns:
                await self._search(intent)
            return self._store.read.transfer(number) or intent

    @asynccontextmanager
    async def _turn(self, number: int) -> AsyncIterator[None]:
        turn = self._driving.setdefault(number, _Turn())
        turn.waiting += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                del self._driving[number]

    async def _ask(self, intent: TransferIntent, may_ask: Callable[[], bool]) -> None:
        call = self._ledger.sign_transfer(
            TransferArgs(
                to=intent.receiver,
                amount_e8s=intent.amount_e8s,
                fee_e8s=intent.fee_e8s,
                memo=intent.memo,
                created_at_time_ns=intent.created_at_ns,
            )
        )
        # Durable before it is sent: after a crash we know until when this request may still be executed.
        await self._store.write([transfer_asked(intent.number, call.ingress_expiry_ns)])
        facts = {"transfer": intent.number, "amount_e8s": intent.amount_e8s}
        # Drives of one transfer follow each other, so what was known before this request is known still.
        refused = transfer_refused(intent.number, intent.last_expiry_ns)
        if not may_ask():
            await self._store.write([refused])
            return
        try:
            answer = (await self._ledger.submit_transfer(call)).value
        except CallExpired:
            await self._store.write([refused])
            return
        except CallRejected as error:
            # A trap or a throttling ledger proves nothing about an earlier request of the same intent.
            log.warning("transfer.rejected", **facts, error=str(error))
            return
        except ChainError as error:
            log.warning("transfer.unknown", **facts, error=str(error))
            return
        match answer:
            case int():
                await self._end(intent, IntentStatus.PAID, answer)
            case TxDuplicate():
                await self._end(intent, IntentStatus.PAID, answer.of)
            case BadFee() | InsufficientFunds() | TxTooOld() | TxCreatedInFuture():
                log.warning("transfer.refused", **facts, answer=str(answer))
                await self._store.write([refused])

    async def _search(self, intent: TransferIntent) -> None:
        """Let the ledger's blocks decide: every request has expired."""

        def is_it(block: Block) -> bool:
            operation = block.operation
            return (
                isinstance(operation, Transfer)
                and (operation.from_, operation.to) == (self.account, intent.receiver)
                and (operation.amount_e8s, block.memo) == (intent.amount_e8s, intent.memo)
                and block.created_at_time_ns == intent.created_at_ns
                and block.index not in self._store.blocks
            )

        block, tip_ns = await find_block(self._ledger, intent.from_block, is_it)
        if block is not None:
            await self._end(intent, IntentStatus.PAID, block.index)
        elif tip_ns > intent.last_expiry_ns:
            await self._end(intent, IntentStatus.VOID, None)

    async def found(self, number: int, block: int, event: EventRecord) -> None:
        """Write down that a transfer whose end was not known, or held void, was paid in a block of the ledger."""
        async with self._turn(number):
            intent = self._store.read.transfer(number)
            assert intent is not None
            if block not in self._store.blocks:
                await self._end(intent, IntentStatus.PAID, block, event)

    async def _end(
        self, intent: TransferIntent, status: IntentStatus, block: int | None, *more: Record | Statement
    ) -> None:
        if block is not None and block in self._store.blocks:
            # The ledger names a block that is another transfer's: this one added nothing to it.
            log.warning("transfer.booked_already", transfer=intent.number, block=block)
            status, block = IntentStatus.VOID, None
        records = [transfer_ended(intent.number, status, block), *more]
        if block is None:
            await self._store.write(records)
        else:
            what = "deposit fee" if intent.channel_number is not None else "transfer fee"
            records.append(book_cost(intent.channel_number, what, intent.fee_e8s))
            with self._store.blocks.taken(block):
                await self._store.write(records)
        ended = replace(intent, status=status, block=block)
        log.info("transfer.ended", transfer=ended.number, status=status.value, block=block, amount_e8s=ended.amount_e8s)
